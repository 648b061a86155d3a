#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# smoothquant-w8a8.sh MODEL CALIB OUT - weights and activations of 8 bits (SmoothQuant)
#
# MODEL is anything that record-acts reads; CALIB a text, or a set that calib-pack made (*.qp);
# OUT the packed stream.  ALPHA (0.5) is how much of the outliers goes into the weights: 0.8 to 0.9
# for models whose activations are hard.  RULE=ct makes grids that to-ct(1) takes.
set -eu
[ $# -eq 3 ] || { echo "usage: smoothquant-w8a8.sh MODEL CALIB OUT" >&2; exit 64; }
model=$1 calib=$2 out=$3
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

case $calib in
*.qp) ;;
*)	calib-pack -m "$model" -n "${NSAMPLES:-128}" -s "${SEQLEN:-512}" "$calib" -o "$tmp/calib.qp"
	calib=$tmp/calib.qp ;;
esac

# Maxima are all that SmoothQuant wants: no Hessians, so the pass over the text is cheap.
# A scale a row of the weights, a scale a token of the activations.
record-acts --stats=absmax -c "$calib" "$model" |
	smooth -a "${ALPHA:-0.5}" --edges=attn.in,mlp.in |
	rtn -b 8 --sym -g -1 |
	quant-acts --preset=w8a8 ${RULE:+--rule="$RULE"} |
	pack-int8 --float=bf16 -o "$out"
