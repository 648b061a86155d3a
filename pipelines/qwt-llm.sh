#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# qwt-llm.sh MODEL CALIB EVAL - weights of 4 bits, activations of 8, clamped, compensated (QwT-LLM)
#
# Prints the perplexity of EVAL in five modes: base (as it is), quant (W4A8), clamp (and groups of
# activations that 6 bits hold cut to 4), and either with the compensation that qwt-fit finds on
# CALIB; the share of groups that need at most 4, 6 and 8 bits; how many blocks clamp+qwt clamps.
# MODEL is anything that record-acts reads; CALIB a text, or a set that calib-pack made (*.qp);
# EVAL a text.  CLAMP (128) channels are a group: a divisor of the model's widths.
# NSAMPLES (128) windows of SEQLEN (2048) tokens are fitted.  QWT, EVALOPT: options of qwt-fit and
# eval-ppl.
set -eu
[ $# -eq 3 ] || { echo "usage: qwt-llm.sh MODEL CALIB EVAL" >&2; exit 64; }
model=$1 calib=$2 eval=$3
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

case $calib in
*.qp) ;;
*)	calib-pack -m "$model" -n "${NSAMPLES:-128}" -s "${SEQLEN:-2048}" "$calib" > "$tmp/calib.qp"
	calib=$tmp/calib.qp ;;
esac

# Round to nearest, a scale a row; a grid a token.  The reference stays in the stream for qwt-fit,
# and samples of the inputs, of which the clamp's profile is made.
record-acts --stats=samples -c "$calib" "$model" > "$tmp/base"
rtn -b 4 --asym -g -1 --keep-ref "$tmp/base" > "$tmp/w4"
quant-acts --preset=w4a8 "$tmp/w4" > "$tmp/quant"
quant-acts --preset=w4a8 --clamp="${CLAMP:-128}" "$tmp/w4" > "$tmp/clamp"
rm "$tmp/w4"
# One map a block, as published (QWT=--per=sublayer: two); blocks that windows held out reject run
# unclamped.
for mode in quant clamp; do
	# shellcheck disable=SC2086 # several, perhaps
	qwt-fit --per=block ${QWT:-} "$tmp/$mode" > "$tmp/$mode+qwt"
done

for mode in base quant clamp quant+qwt clamp+qwt; do
	# shellcheck disable=SC2086
	eval-ppl --json ${EVALOPT:-} -t "$eval" "$tmp/$mode" > "$tmp/json"
	printf '%-10s %s\n' "$mode" "$(sed 's/.*"ppl": \([^,]*\),.*/\1/' "$tmp/json")"
done
qp-ls --clamp "$tmp/clamp" | awk '/^mean/ {
	printf "groups     int4 %s %%, int5-6 %s %%, int7-8 %s %%\n", $4, $5, $6 }'
qp-ls --clamp "$tmp/clamp+qwt" | awk '/^clamped/ {
	printf "clamped    %s of %s blocks with clamp+qwt\n", $7, $9 }'
