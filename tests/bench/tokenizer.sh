#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tokenizer.sh [BUILD] - how fast text becomes tokens, a row for each tokenizer, as TSV
#
# Row, what, MB/s of text on one core (median of five runs of qp-tok, without the time that reading
# the tokenizer takes), the same as a number, the aim, and the slowest of three texts that are made
# to be hard: a megabyte each of one letter, of spaces, of one word.  Texts and the large tokenizers
# are those of $QP_SHARED; without it only the small ones of tests/data are measured, on the text
# that is there.
set -eu
cd "$(dirname "$0")/../.."
BUILD=${1:-${BUILD:-build}}
SHARED=${QP_SHARED:-$PWD/../shared/data}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

if [ -e "$SHARED/text/wiki.test.raw" ]; then
	cat "$SHARED/text/wiki.test.raw" "$SHARED/text/wikitext2.train.excerpt.txt" \
		"$SHARED/text/tinyshakespeare.txt"
else
	for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
		cat tests/data/tinystories-eval.txt tests/data/tinystories-calib.txt
	done
fi > "$tmp/text"
head -c 1000000 /dev/zero | tr '\0' a > "$tmp/letters"
head -c 1000000 /dev/zero | tr '\0' ' ' > "$tmp/spaces"
head -c 900000 /dev/urandom | base64 -w 0 | tr -d '+/=0-9\n' | head -c 1000000 > "$tmp/word"

rate() {	# rate TOKENIZER TEXT RUNS: MB/s, the median
	size=$(wc -c < "$2")
	for i in $(seq "$3"); do
		"$BUILD/bin/qp-tok" -v -m "$1" "$2" 2>&1 > "$tmp/ids" |
			sed -n 's/.* bytes in \([0-9.]*\) s.*/\1/p'
	done | sort -n | awk -v size="$size" '
		{ v[NR] = $1 }
		END { t = v[int((NR + 1) / 2)]; print size / 1e6 / (t > 0.005 ? t : 0.005) }'
}

row() {	# row NAME TOKENIZER
	[ -e "$2" ] || return 0
	plain=$(rate "$2" "$tmp/text" 5)
	for t in letters spaces word; do
		rate "$2" "$tmp/$t" 1
	done | sort -n | head -n 1 > "$tmp/worst"
	printf 'tok\ttokenizer MB/s, %s\t%.1f MB/s\t%.1f\t>= 5\thard text %.1f MB/s\n' "$1" \
		"$plain" "$plain" "$(cat "$tmp/worst")"
}

row Llama-2 "$SHARED/tokenizers/llama2/tokenizer.json"
row 'Llama-2, tokenizer.model' "$SHARED/tokenizers/llama2/tokenizer.model"
row Llama-3 "$SHARED/tokenizers/llama3/tokenizer.json"
row Qwen2.5 "$SHARED/tokenizers/qwen2_5/tokenizer.json"
row GPT-2 "$SHARED/tokenizers/gpt2/tokenizer.json"
row Mistral "$SHARED/tokenizers/mistral/tokenizer.json"
if [ -e "$SHARED/tokenizers/opt/gpt2-vocab.json" ]; then
	mkdir "$tmp/opt"
	cp "$SHARED/tokenizers/opt/gpt2-vocab.json" "$tmp/opt/vocab.json"
	cp "$SHARED/tokenizers/opt/gpt2-merges.txt" "$tmp/opt/merges.txt"
	row 'OPT, merges.txt' "$tmp/opt"
fi
row 'TinyStories-656K' tests/data/TinyStories-656K
row 'SentencePiece Unigram of 400' tests/data/tokenizers/unigram.model
row 'Unigram of 556, tokenizer.json' tests/data/tokenizers/unigram.json
