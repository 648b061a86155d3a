#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# llama2c.bats - llama2.c's .bin files as models, and their tokenizers beside them

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
	need_python numpy
}

# A small model m and its files m.bin and m1.bin, of the legacy version and version 1.
small() {	# small [KEY=VALUE...]
	rm -rf m
	"$PYTHON" "$ROOT/tests/mkmodel.py" m "$@"
	"$PYTHON" "$ROOT/tests/mkllama2c.py" m m.bin 0
	"$PYTHON" "$ROOT/tests/mkllama2c.py" m m1.bin 1
}

refused() {	# refused FILE REGEX
	refuses 65 "$1: $2" record-acts -q --stats=none -o out.qp "$1"
	[ -z "$(find . -name 'out.qp*' -o -name '.out.qp*')" ] || { ls -A; return 1; }
}

# The I-th number of the legacy header becomes VALUE.
number() {	# number FILE I VALUE
	"$PYTHON" -c '
import struct, sys
b = bytearray(open(sys.argv[1], "rb").read())
struct.pack_into("<i", b, 4 * int(sys.argv[2]), int(sys.argv[3]))
open(sys.argv[1], "wb").write(b)' "$@"
}

@test "llama2c: both versions are the model that they were made of, tied or not" {
	for options in "tied=1" "tied=0" "tied=0 hidden=12 ffn=20 heads=3 kv=3 layers=3" \
		"hidden=128 ffn=96 heads=4 kv=1"; do
		small $options
		qp-cmp m m.bin
		qp-cmp m m1.bin
		record-acts -q --stats=none m.bin > a.qp
		record-acts -q --stats=none m1.bin | cmp a.qp -
		qp-check a.qp
	done
}

@test "llama2c: the published file is the model in Hugging Face's form, to the bit" {
	need_shared models/stories260K models/stories260K-hf
	for f in stories260K.bin checkpoint_v1.bin; do
		qp-cmp "$SHARED/models/stories260K-hf" "$SHARED/models/stories260K/$f"
		echo 1 403 407 261 378 432 | qp-forward -q "$SHARED/models/stories260K/$f" > a.qp
		echo 1 403 407 261 378 432 | qp-forward -q "$SHARED/models/stories260K-hf" > b.qp
		qp-cmp a.qp b.qp
	done
}

@test "llama2c: what llama.cpp made of it gives the same tokens and nearly its perplexity" {
	need_shared models/stories260K
	m=$SHARED/models/stories260K/stories260K.bin
	g=$DATA/stories260K/stories260K-Q4_0.gguf
	head -c 5000 "$EVAL" > text
	qp-tok -m "$m" < text > a
	qp-tok -m "$g" < text | cmp a -
	qp-tok -m "$m" --decode < a > back
	eval-ppl -q -c 256 "$m" < text > p
	eval-ppl -q -c 256 "$g" < text >> p
	awk '{ p[NR] = $2 } END { exit !(p[1] > 2 && p[1] < p[2] && p[2] < 1.2 * p[1]) }' p ||
		{ cat p; return 1; }
}

@test "llama2c: the tokenizer beside it, tokenizer.bin or tokN.bin, travels with the model" {
	small vocab=512
	printf 'Once upon a time, there was a little girl named Lily.' > text
	want=$(qp-tok -m "$DATA/stories260K/stories260K-Q4_0.gguf" < text)
	refuses 65 'm\.bin: carries no tokenizer' qp-tok -m m.bin text
	cp "$DATA/stories260K/tok512.bin" .
	[ "$(qp-tok -m m.bin < text)" = "$want" ]
	mv tok512.bin tokenizer.bin
	[ "$(qp-tok -m m1.bin < text)" = "$want" ]
	record-acts -q --stats=none m.bin > a.qp
	rm tokenizer.bin m.bin
	[ "$(qp-tok -m a.qp < text)" = "$want" ]
	eval-ppl -q -c 64 a.qp < "$EVAL" | grep -q '^ppl '
}

@test "llama2c: a tokenizer of another size is refused" {
	small vocab=511
	cp "$DATA/stories260K/tok512.bin" tokenizer.bin
	refuses 65 'tokenizer\.bin: [0-9]* bytes after the model.s 511 tokens' qp-tok -m m.bin "$EVAL"
	small vocab=513
	refuses 65 'tokenizer\.bin: ends after 512 of the model.s 513 tokens' qp-tok -m m.bin "$EVAL"
	small vocab=512
	for n in 0 3 4 11 12 100 3000 6226; do
		head -c $n "$DATA/stories260K/tok512.bin" > tokenizer.bin
		refuses 65 'tokenizer\.bin: ' qp-tok -m m.bin "$EVAL"
	done
	"$PYTHON" -c '
b = bytearray(open("'"$DATA"'/stories260K/tok512.bin", "rb").read())
b[8:12] = b"\xff\xff\xff\xff"
open("tokenizer.bin", "wb").write(b)'
	refuses 65 'tokenizer\.bin: token 0: a text of 4294967295 bytes' qp-tok -m m.bin "$EVAL"
}

@test "llama2c: a size that its header does not make is refused" {
	small
	head -c -1 m.bin > a.bin
	refused a.bin 'has [0-9]* bytes, its header makes it [0-9]*'
	{ cat m.bin; echo; } > a.bin
	refused a.bin 'has [0-9]* bytes, its header makes it [0-9]*'
	cp m.bin a.bin
	number a.bin 2 3
	refused a.bin 'has [0-9]* bytes, its header makes it [0-9]*'
	head -c 100 m1.bin > a.bin
	refused a.bin '100 bytes end inside the header'
}

@test "llama2c: numbers that make no model are refused, and no version but 0 and 1" {
	small
	cp m.bin a.bin
	number a.bin 4 3
	refused a.bin 'num_key_value_heads: 3 does not divide'
	cp m.bin a.bin
	number a.bin 3 5
	refused a.bin 'hidden_size: 16 is not a multiple'
	cp m1.bin a.bin
	number a.bin 2 -16
	refused a.bin 'hidden_size: '
	cp m1.bin a.bin
	number a.bin 4 16777215
	refused a.bin 'num_hidden_layers: '
	for i in 2 3 4 7; do
		cp m1.bin a.bin
		number a.bin $i 16777215
		refused a.bin ''
	done
	cp m1.bin a.bin
	number a.bin 1 2
	refused a.bin 'llama2\.c version 2 is not supported'
}

@test "llama2c: every prefix is refused" {
	small hidden=8 ffn=8 heads=2 kv=1 layers=1 vocab=8
	for f in m.bin m1.bin; do
		size=$(wc -c < $f)
		for ((n = 0; n < size; n += n < 300 ? 5 : 97)); do
			head -c "$n" $f > a.bin
			st=0
			record-acts -q --stats=none a.bin > out 2> err || st=$?
			[ "$st" -eq 65 ] || { echo "$n of $size bytes: exit $st"; cat err; return 1; }
		done
	done
}

@test "llama2c: a value that is not finite is named" {
	small tied=1 layers=1
	number m.bin 27 2139095040
	refuses 65 'model\.embed_tokens\.weight: value at row 1 column 4 is inf' \
		record-acts -q --stats=none m.bin
}
