#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tasks.sh [BUILD] - how fast eval-tasks scores, beside the forward's own rate, as TSV
#
# Row, what, measured, ratio, aim.  A random model of eight blocks as in one of 135 million weights
# scores 95 questions with four answers each, of which question and answers are words of
# tests/data; beside it eval-ppl takes about as many tokens in windows of 512, through blocks and
# head.  Rates are tokens that go through the model a second, whole programs, medians of five
# interleaved runs.
set -eu
cd "$(dirname "$0")/../.."
BUILD=${1:-${BUILD:-build}}
PYTHON=${PYTHON:-/usr/bin/python3}
PATH=$BUILD/bin:$BUILD/bench/tools:$PATH
model=tests/data/TinyStories-656K text=tests/data/tinystories-eval.txt
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

"$PYTHON" tests/mkmodel.py "$tmp/m" hidden=576 ffn=1536 heads=9 kv=3 layers=8 vocab=2048 \
	tokenizer="$model" dtype=BF16
# Forty words and four times six, again and again.
tr -s ' \n"\\' ' ' < "$text" | tr ' ' '\n' | grep . | awk '
	function text(n, sep,   s) {
		for (s = ""; n-- > 0; i++) s = s (s == "" ? "" : " ") w[i]
		return "\"" s "\"" sep
	}
	{ w[NR] = $0 }
	END {
		for (k = i = 1; k <= 95; k++)
			print "{\"query\": " text(40, ", ") "\"choices\": [" text(6, ", ") \
				text(6, ", ") text(6, ", ") text(6, "]") ", \"gold\": 0}"
	}' > "$tmp/tasks.jsonl"

for i in 1 2 3 4 5; do
	measure "$tmp/ppl" eval-ppl -q --json -c 512 -w 16 -t "$text" "$tmp/m" > "$tmp/ppl.json"
	measure "$tmp/tasks" eval-tasks -q --json -t "$tmp/tasks.jsonl" "$tmp/m" > "$tmp/tasks.json"
done

median() { awk '{ print $1 }' "$1" | sort -g | awk '{ v[NR] = $1 }
	END { print v[int((NR + 1) / 2)] }'; }
key() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" "$2"; }

awk -v tp="$(median "$tmp/ppl")" -v tt="$(median "$tmp/tasks")" -v n=8192 \
	-v rows="$(key tokens "$tmp/tasks.json")" \
	-v req="$(key requests "$tmp/tasks.json")" 'BEGIN {
	printf "tasks\teval-tasks, tokens/s / those of eval-ppl, 8 blocks of 135M shapes\t" \
		"%.0f /s\t%.3f\t>= 0.7\n", rows / tt, rows / tt / (n / tp)
	printf "tasks\t  answers scored (%d questions of 4, contexts once)\t%.1f /s\t\t\n",
		req / 4, req / tt
}'
