#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# gguf.sh - of to-gguf's files the package gguf makes our weights, llama.cpp our perplexity
#
# QP_LLAMACPP  llama.cpp's folder of programs (skipped without)
# SMOLLM2      SmolLM2-135M as a directory: a second model for llama.cpp
#
# Of weights in F32 and F16 perplexities must agree within 0.1 %.  Where linears are in blocks
# llama.cpp rounds what goes into them to 8 bits, and the difference is of that (about half a
# percent for Q4_0); the same file in F32, which llama-quantize makes of it, must agree again.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
n=0 bad=0

result() {	# result STATUS TEXT
	n=$((n + 1))
	if [ "$1" = 0 ]; then
		echo "ok $n - $2"
	else
		bad=$((bad + 1))
		echo "not ok $n - $2"
		sed 's/^/#   /' "$OUT/err"
	fi
}

values() {	# values WHAT [OPTION OF to-gguf], the stream in $OUT/s.qp
	what=$1 st=0
	shift
	{
		to-gguf -q --force --no-vocab "$@" "$OUT/s.qp" "$OUT/s.gguf" &&
			PYTHONPATH=$here/..${PYTHONPATH:+:$PYTHONPATH} "$PYTHON" \
				"$here/gguf_values.py" "$OUT/s.gguf" "$OUT/s.qp"
	} > "$OUT/said" 2> "$OUT/err" || st=1
	result $st "gguf.dequantize: $what: $(cat "$OUT/said")"
}

packages() {
	if ! "$PYTHON" -c 'import gguf, msgpack, numpy' 2> "$OUT/err"; then
		n=$((n + 1))
		echo "ok $n # skip no package gguf"
		return
	fi
	for m in "$here/../data/TinyStories-656K" "$QP_SHARED/families/qwen2" \
		"$QP_SHARED/families/qwen3"; do
		[ -e "$m/config.json" ] || continue
		name=$(basename "$m")
		record-acts -q --stats=none "$m" > "$OUT/s.qp"
		values "$name, as it is"
		[ "$name" != qwen2 ] || continue # rows of 56
		for o in "-b 4 -g 32" "-b 4 -g 32 --asym" "-b 5 -g 32" "-b 8 -g 32"; do
			# shellcheck disable=SC2086 # options are words
			rtn -q $o "$m" > "$OUT/s.qp"
			values "$name, rtn $o"
		done
	done
}

# llama-perplexity's figure; it is asked twice, as its last line may be lost.
theirs() {	# theirs FILE
	for _ in 1 2; do
		"$QP_LLAMACPP/llama-perplexity" -m "$1" -f "$OUT/text" -c 512 --chunks 4 -fa off \
			-ctk f32 -ctv f32 > "$OUT/err" 2>&1 || true
		got=$(sed -n 's/.*Final estimate: PPL = \([0-9.]*\).*/\1/p' "$OUT/err")
		[ -z "$got" ] || break
	done
	echo "${got:-none}"
}

compare() {	# compare WHAT FILE MODEL TOLERANCE: they are alike, but for that much
	a=$(theirs "$2")
	b=$(eval-ppl -q -d llama.cpp -c 512 -w 4 -t "$OUT/text" "$3" |
		sed 's/^[^0-9]*\([0-9.]*\).*/\1/')
	st=0
	awk -v a="$a" -v b="$b" -v t="$4" 'BEGIN {
		d = a / (b + 1e-9) - 1
		exit !(d <= t && d >= -t) }' || st=1
	result $st "llama-perplexity: $1: $a, eval-ppl $b"
}

floats() {	# floats MODEL
	for t in f32 f16; do
		to-gguf -q --force --dtype=$t "$1" "$OUT/e.gguf" 2> "$OUT/err"
		compare "$(basename "$1") in $t" "$OUT/e.gguf" "$OUT/e.gguf" 0.001
	done
	rm -f "$OUT/e.gguf"
}

blocks() {	# blocks MODEL
	rtn -q -b 4 -g 32 "$1" | pack-int4 > "$OUT/q.bin"
	to-gguf -q --force "$OUT/q.bin" "$OUT/q.gguf"
	compare "$(basename "$1") in Q4_0, activations in 8 bits" "$OUT/q.gguf" "$OUT/q.bin" 0.02
	"$QP_LLAMACPP/llama-quantize" --allow-requantize "$OUT/q.gguf" "$OUT/e.gguf" F32 \
		> "$OUT/err" 2>&1
	compare "  made F32 by llama-quantize" "$OUT/e.gguf" "$OUT/q.bin" 0.001
	rm -f "$OUT"/*.gguf "$OUT/q.bin"
}

grids() {	# grids MODEL CALIBRATION: rows of whole super-blocks on grids, the others in Q4_0
	for g in q4_K q6_K; do
		record-acts -q --stats=hessian -c "$2" "$1" |
			gptq -q --grid=$g --skip='(q|k|v|o|gate|up)_proj' |
			rtn -q -g 32 --skip=down_proj > "$OUT/g.qp"
		to-gguf -q --force "$OUT/g.qp" "$OUT/q.gguf"
		compare "$(basename "$1"), down_proj on $g, activations in 8 bits" "$OUT/q.gguf" \
			"$OUT/g.qp" 0.02
		"$QP_LLAMACPP/llama-quantize" --allow-requantize "$OUT/q.gguf" "$OUT/e.gguf" F32 \
			> "$OUT/err" 2>&1
		compare "  made F32 by llama-quantize" "$OUT/e.gguf" "$OUT/g.qp" 0.001
		rm -f "$OUT"/*.gguf "$OUT/g.qp"
	done
}

packages
if [ ! -x "${QP_LLAMACPP:-}/llama-perplexity" ]; then
	n=$((n + 1))
	echo "ok $n # skip no llama.cpp (QP_LLAMACPP)"
else
	head -c 20000 "$here/../data/tinystories-eval.txt" > "$OUT/text"
	floats "$here/../data/stories260K/stories260K-Q4_0.gguf"
	if [ -e "${SMOLLM2:-/nonexistent}/config.json" ]; then
		head -c 40000 "$here/../../man/calibration.txt" > "$OUT/text"
		floats "$SMOLLM2"
		blocks "$SMOLLM2"
		calib-pack -q -m "$SMOLLM2" -n 4 -s 512 "$here/../../man/calibration.txt" \
			> "$OUT/calib.qp"
		grids "$SMOLLM2" "$OUT/calib.qp"
	fi
fi
echo "1..$n"
[ $bad -eq 0 ]
