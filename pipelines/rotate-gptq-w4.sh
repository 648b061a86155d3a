#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rotate-gptq-w4.sh MODEL CALIB OUT - weights of 4 bits, their outliers spread by rotations first
#
# MODEL is anything that record-acts reads; CALIB a text, or a set that calib-pack made (*.qp);
# OUT the packed stream.  BITS (4), GROUP (-1: a scale a row) and SEED (0) are the quantizer's and
# the rotation's.  R1 and R2 are folded into the weights: nothing is left to do at run time.
set -eu
[ $# -eq 3 ] || { echo "usage: rotate-gptq-w4.sh MODEL CALIB OUT" >&2; exit 64; }
model=$1 calib=$2 out=$3
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

case $calib in
*.qp) ;;
*)	calib-pack -m "$model" -n "${NSAMPLES:-128}" -s "${SEQLEN:-512}" "$calib" -o "$tmp/calib.qp"
	calib=$tmp/calib.qp ;;
esac

rotations=r1,r2
case $(qp-ls --json "$model" | sed -n 's/^ "config"://p') in
*'"post_norm":true'*)
	rotations=r2
	echo "rotate-gptq-w4.sh: norms behind attention and MLP: without R1" >&2 ;;
esac

# Hessians are recorded behind the rotations, for not all can follow those of layer norms.
record-acts --stats=none -c "$calib" "$model" |
	rotate --rotations=$rotations --seed="${SEED:-0}" |
	record-acts --stats=hessian - |
	gptq -b "${BITS:-4}" -g "${GROUP:--1}" |
	pack-int4 --float=bf16 -o "$out"
