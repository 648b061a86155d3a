#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# quarot-w4a4kv4.sh MODEL CALIB OUT - weights, activations and KV cache of 4 bits (QuaRot)
#
# MODEL is anything that record-acts reads, with rotary positions; CALIB a text, or a set that
# calib-pack made (*.qp); OUT the packed stream.  SEED (0) is that of the rotations.
set -eu
[ $# -eq 3 ] || { echo "usage: quarot-w4a4kv4.sh MODEL CALIB OUT" >&2; exit 64; }
model=$1 calib=$2 out=$3
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

case $calib in
*.qp) ;;
*)	calib-pack -m "$model" -n "${NSAMPLES:-128}" -s "${SEQLEN:-512}" "$calib" -o "$tmp/calib.qp"
	calib=$tmp/calib.qp ;;
esac

# R1 and R2 go into the weights; R3 (queries and keys, for the cache) and R4 (the input of down)
# are left to run time.  GPTQ runs with activations as they are, as published: quant-acts comes
# behind it.  Clipping ratios 0.9 (activations) and 0.95 (cache) are the preset's.
record-acts --stats=hessian -c "$calib" "$model" |
	rotate --rotations=r1,r2,r3,r4 --seed="${SEED:-0}" |
	gptq -b 4 -g -1 --sym --mse |
	quant-acts --preset=w4a4kv4 |
	pack-int4 --float=bf16 -o "$out"
