#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# quarot-w4a4kv4.sh MODEL CALIB OUT - weights, activations and KV cache of 4 bits (QuaRot)
#
# MODEL is anything that record-acts reads; CALIB a text, or a set that calib-pack made (*.qp); OUT
# the packed stream.  SEED (0) is that of the rotations.
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

# R3 has its place behind rotary positions; R1 none where norms stand behind attention and MLP.
rotations=r1,r2,r3,r4
config=$(qp-ls --json "$model" | sed -n 's/^ "config"://p')
case $config in
*'"rope_type":"none"'*)
	rotations=r1,r2,r4
	echo "quarot-w4a4kv4.sh: no rotary positions: without R3" >&2 ;;
esac
case $config in
*'"post_norm":true'*)
	rotations=${rotations#r1,}
	echo "quarot-w4a4kv4.sh: norms behind attention and MLP: without R1" >&2 ;;
esac

# R1 and R2 go into the weights; R3 (queries and keys, for the cache) and R4 (the input of down)
# are left to run time.  GPTQ runs with activations as they are, as published: quant-acts comes
# behind it.  Clipping ratios 0.9 (activations) and 0.95 (cache) are the preset's.
# Hessians are recorded behind the rotations, for not all can follow those of layer norms.
record-acts --stats=none -c "$calib" "$model" |
	rotate --rotations=$rotations --seed="${SEED:-0}" |
	record-acts --stats=hessian - |
	gptq -b 4 -g -1 --sym --mse |
	quant-acts --preset=w4a4kv4 |
	pack-int4 --float=bf16 -o "$out"
