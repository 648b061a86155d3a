#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# qp-tok.bats - what qp-tok promises on its man page, one test per promise

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
	text='Once upon a time, there was a little boy named Tim. Tim loved to play with his red'
	text+=' ball in the park. One day, he saw a big dog.'
	ids='1 80 147 201 282 215 286 704 905 887 461 609 586 872 615 97 614 604 10'
}

# Ids of another implementation, as numbers on a line.
sha256_of_ids() {
	"$PYTHON" -c '
import hashlib, struct, sys
v = [int(x) for x in sys.stdin.read().split()]
print(hashlib.sha256(struct.pack("<%di" % len(v), *v)).hexdigest())'
}

@test "qp-tok: a sentence has the ids that transformers gives it" {
	printf %s "$text" | qp-tok -m "$MODEL" > got
	echo "$ids" | diff - got
	printf %s "$text" > file
	qp-tok -m "$MODEL/tokenizer.json" file | diff got -
}

@test "qp-tok: a story book has the ids that transformers gives it" {
	cat "$EVAL" "$CALIB" | qp-tok -m "$MODEL" | tr ' ' '\n' > all
	# Windows 33 to 96 of 512: the calibration set that other quantizers were given.
	sed -n "$((33 * 512 + 1)),$((97 * 512))p" all | sha256_of_ids > got
	echo c3233cec4bd04df20aae46e552efa8ddd38f81dcbbf0d59db623ac6a288195b4 | diff - got
	qp-tok -m "$MODEL" "$EVAL" | wc -w | grep -qx ' *16970'
}

@test "qp-tok: the tokenizer of a stream is that of the model it was made of" {
	record-acts -q --stats=none "$MODEL" > model.qp
	printf %s "$text" > file
	qp-tok -m model.qp file | diff <(echo "$ids") -
	qp-tok -m - file < model.qp | diff <(echo "$ids") -
	printf '1 2\n' | calib-pack -q --ids > no.qp
	refuses 65 '.*carries no tokenizer.json' qp-tok -m no.qp file
}

@test "qp-tok: the whole input is one text, its line ends included" {
	printf 'a b\nc d\n' | qp-tok -m "$MODEL" > got
	[ "$(wc -l < got)" -eq 1 ]
	printf 'a b\nc d' | qp-tok -m "$MODEL" > shorter
	! cmp -s got shorter
	printf 'a b\nc d\n' | qp-tok --no-special -m "$MODEL" | qp-tok --no-special -d -m "$MODEL" \
		> back
	printf 'a b\nc d\n\n' | cmp - back
}

@test "qp-tok: an empty text is the special tokens alone, or an empty line" {
	qp-tok -m "$MODEL" < /dev/null > got
	printf '1\n' | cmp - got
	qp-tok --no-special -m "$MODEL" < /dev/null > got
	printf '\n' | cmp - got
	qp-tok -0 -m "$MODEL" < /dev/null > got
	[ ! -s got ]
	qp-tok -d -m "$MODEL" < /dev/null > got
	[ ! -s got ]
}

@test "qp-tok: -0 takes texts that end with NUL, the last may lack it" {
	printf 'a b\0\0 c\nd' | qp-tok -0 -m "$MODEL" > got
	[ "$(wc -l < got)" -eq 3 ]
	printf 'a b\0\0 c\nd\0' | qp-tok -0 -m "$MODEL" | diff got -
	printf 'a b' | qp-tok -m "$MODEL" > one
	sed -n 1p got | diff one -
	sed -n 2p got | diff <(echo 1) -
	printf ' c\nd' | qp-tok -m "$MODEL" > one
	sed -n 3p got | diff one -
}

@test "qp-tok: there and back again gives every byte" {
	head -c 20000 "$EVAL" > stories
	printf 'one\0 two\n\0\0  three  \n\n\0' | cat - stories <(printf '\0') > texts
	qp-tok -0 --no-special -m "$MODEL" < texts > lines
	[ "$(wc -l < lines)" -eq 5 ]
	qp-tok -0 --no-special -d -m "$MODEL" < lines | cmp texts -
}

@test "qp-tok: special tokens are shown when decoding, unless --no-special" {
	echo "$ids 2" > line
	qp-tok -d -m "$MODEL" line > got
	grep -q '^<|start_story|>' got
	grep -q '<|end_story|>$' got
	qp-tok --no-special -d -m "$MODEL" line > got
	printf '%s\n' "$text" | cmp - got
}

@test "qp-tok: a special token in the text is that token" {
	printf 'The end. <|end_story|>' | qp-tok --no-special -m "$MODEL" > got
	[ "$(awk '{ print $NF }' got)" -eq 2 ]
	# Its normalized form begins with the mark of a space, so here it is text: as in transformers.
	printf 'The end.<|end_story|>' | qp-tok --no-special -m "$MODEL" > got
	! grep -qw 2 got
}

@test "qp-tok: unknown characters in a row become one <unk>" {
	printf 'a\xe6\x97\xa5\xe6\x9c\xac\xf0\x9f\x98\x80z' | qp-tok --no-special -m "$MODEL" > got
	[ "$(tr ' ' '\n' < got | grep -cx 0)" -eq 1 ]
}

@test "qp-tok: a file with most stages gives what tokenizers gives" {
	printf 'The  ab<s> 12-\xc3\xa9</s>\nth ' > text
	qp-tok -m "$DATA/tokenizer-stages.json" text > got
	echo "1 18 9 19 1 9 11 12 13 15 0 0 0 0 20 16" | diff - got
	qp-tok -d -m "$DATA/tokenizer-stages.json" got > back
	printf '<s> the ab<s> 12-\xc3\xa9<unk><unk><unk><unk>\nth\n' | diff - back
}

@test "qp-tok: text that is not UTF-8 is refused with the offset of the byte" {
	printf 'abc\xff' > bad
	refuses 65 'text: not UTF-8: byte 0xff at offset 3' qp-tok -m "$MODEL" bad
	printf 'good\0ab\xc3' > bad
	refuses 65 'text 2: not UTF-8: byte 0xc3 at offset 2' qp-tok -0 -m "$MODEL" bad
	head -c 100000 "$CALIB" > bad
	printf '\xe2\x82' >> bad
	refuses 65 'text: not UTF-8: byte 0xe2 at offset 100000' qp-tok -m "$MODEL" bad
	[ -z "$output" ]
}

@test "qp-tok: lines that are not ids, and ids that do not exist, are refused by line" {
	printf '1 2\n3 x\n' > bad
	refuses 65 'line 2: token ids are decimal numbers' qp-tok -d -m "$MODEL" bad
	printf '1 2\n3 2048\n' > bad
	refuses 65 'line 2: 2048 at position 1 is not in the vocabulary' qp-tok -d -m "$MODEL" bad
	printf '99999999999\n' > bad
	refuses 65 'line 1: an id beyond' qp-tok -d -m "$MODEL" bad
}

@test "qp-tok: a tokenizer that is not supported is refused by name" {
	echo '{"version":"1.0","model":{"type":"WordPiece","vocab":{}}}' > t.json
	refuses 65 "t.json: model: model type 'WordPiece' is not supported" qp-tok -m t.json < /dev/null
	sed 's/"type": *"ByteFallback"/"type": "CTC"/' "$MODEL/tokenizer.json" > t.json
	refuses 65 "t.json: decoder: decoder type 'CTC' is not supported" qp-tok -m t.json < /dev/null
	printf '{"two\\nlines":1}' > t.json
	refuses 65 "t.json: key 'two.lines' is not known" qp-tok -m t.json < /dev/null
	[ "${#stderr_lines[@]}" -eq 1 ]
	head -c 5000 "$MODEL/tokenizer.json" > t.json
	refuses 65 't.json: not JSON' qp-tok -m t.json < /dev/null
	: > t.json
	refuses 65 't.json: ' qp-tok -m t.json < /dev/null
}

@test "qp-tok: command lines and files that do not work" {
	refuses 64 '--model: needed' qp-tok
	refuses 64 '--model: and the text cannot both be standard input' qp-tok -m -
	refuses 64 "unexpected operand 'b'" qp-tok -m "$MODEL" a b
	refuses 66 'nowhere: carries no tokenizer.json' sh -c 'mkdir -p nowhere; qp-tok -m nowhere < /dev/null'
	refuses 66 'no-such-file: ' qp-tok -m no-such-file
	refuses 66 'no-such-text: ' qp-tok -m "$MODEL" no-such-text
}

@test "qp-tok: a full disk is an error, a closed pipe ends it quietly" {
	refuses 74 '.*No space left' sh -c 'qp-tok -m "$1" "$2" > /dev/full' - "$MODEL" "$EVAL"
	dies_quietly_in_a_closed_pipe qp-tok -m "$MODEL" "$EVAL"
}

@test "qp-tok: a long text in one piece takes no more than its share" {
	# One piece for the whole text; a quadratic merge would take hours.
	cat "$EVAL" "$CALIB" "$EVAL" "$CALIB" "$EVAL" "$CALIB" > long
	timeout 60 qp-tok -m "$MODEL" long > got
	[ "$(wc -w < got)" -gt 140000 ]
}

# The texts of llama.cpp's tests, each against the ids that are kept with them.
vectors() {	# vectors VECTORS TOKENIZER
	need_shared "tokenizers/vectors/ggml-vocab-$1.gguf.inp" "tokenizers/$2/tokenizer.json"
	"$PYTHON" -c '
import sys
text = open(sys.argv[1], newline="", encoding="utf-8").read()
end = "\n__ggml_vocab_test__\n"
sys.stdout.buffer.write("\0".join(text.split(end)).encode())' \
		"$SHARED/tokenizers/vectors/ggml-vocab-$1.gguf.inp" > texts
	sed 's/^ *//; s/ *$//' "$SHARED/tokenizers/vectors/ggml-vocab-$1.gguf.out" > want
	qp-tok -0 --no-special -m "$SHARED/tokenizers/$2/tokenizer.json" < texts > got
	[ "$(wc -l < got)" -ge 45 ]
	diff want got
}

@test "qp-tok: Llama 2 tokenizes llama.cpp's test texts as llama.cpp does" {
	vectors llama-spm llama2
}

@test "qp-tok: Llama 3 tokenizes llama.cpp's test texts as llama.cpp does" {
	vectors llama-bpe llama3
}

@test "qp-tok: Qwen 2.5 tokenizes llama.cpp's test texts as llama.cpp does" {
	vectors qwen2 qwen2_5
}

@test "qp-tok: GPT-2 tokenizes llama.cpp's test texts as llama.cpp does" {
	vectors gpt-2 gpt2
}

@test "qp-tok: large tokenizers give a whole text back" {
	for t in llama2 llama3 qwen2_5 gpt2 mistral; do
		need_shared "tokenizers/$t/tokenizer.json" text/wiki.test.raw
		qp-tok --no-special -m "$SHARED/tokenizers/$t/tokenizer.json" \
			"$SHARED/text/wiki.test.raw" > ids
		qp-tok --no-special -d -m "$SHARED/tokenizers/$t/tokenizer.json" ids | head -c -1 |
			cmp - "$SHARED/text/wiki.test.raw" || { echo "$t"; return 1; }
	done
}

# llama.cpp's perplexity program, "655 chunks, n_ctx=512" of wiki.test.raw for Llama 2 and 564 for
# Llama 3.
@test "qp-tok: wiki.test.raw has the known number of windows" {
	for t in 'llama2 655' 'llama3 564'; do
		need_shared "tokenizers/${t% *}/tokenizer.json" text/wiki.test.raw
		qp-tok -m "$SHARED/tokenizers/${t% *}/tokenizer.json" "$SHARED/text/wiki.test.raw" |
			wc -w > n
		[ "$(($(cat n) / 512))" -eq "${t#* }" ] || { cat n; return 1; }
	done
}
