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
	run -1 cmp -s got shorter
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
	run -1 grep -qw 2 got
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

# ---- SentencePiece, merges, Unigram ----------------------------------------------------

# Ids that the library which made a tokenizer gives for the texts in tests/data/tokenizers.
makers() {	# makers TOKENIZER IDS
	qp-tok -0 -m "$DATA/tokenizers/$1" "$DATA/tokenizers/texts" | diff "$DATA/tokenizers/$2" -
}

@test "qp-tok: a SentencePiece BPE gives what sentencepiece gives" {
	makers bpe.model bpe.ids
}

@test "qp-tok: a SentencePiece Unigram gives what sentencepiece gives" {
	makers unigram.model unigram.ids
}

@test "qp-tok: a tokenizer.json of model Unigram gives what tokenizers gives" {
	makers unigram.json unigram-json.ids
}

@test "qp-tok: vocab.json and merges.txt give what tokenizers gives" {
	makers merges merges.ids
}

@test "qp-tok: texts come back from all of them" {
	head -c 5000 "$EVAL" > text
	for t in bpe.model unigram.json merges; do
		qp-tok --no-special -m "$DATA/tokenizers/$t" text > ids
		qp-tok --no-special -d -m "$DATA/tokenizers/$t" ids | head -c -1 | cmp - text
	done
	# unigram.model makes one space of a line end and the spaces beside it: once that is done
	# nothing changes any more.
	qp-tok --no-special -m "$DATA/tokenizers/unigram.model" text |
		qp-tok --no-special -d -m "$DATA/tokenizers/unigram.model" | head -c -1 > once
	qp-tok --no-special -m "$DATA/tokenizers/unigram.model" once |
		qp-tok --no-special -d -m "$DATA/tokenizers/unigram.model" | head -c -1 | cmp - once
}

@test "qp-tok: control symbols and <unk> in a text are special tokens, user-defined ones symbols" {
	printf 'a<s>b[ud]</s><unk>' | qp-tok --no-special -m "$DATA/tokenizers/bpe.model" > got
	[ "$(tr ' ' '\n' < got | grep -cxE '[012]')" -eq 3 ]
	[ "$(tr ' ' '\n' < got | grep -cx 3)" -eq 1 ]
	printf 'a[ud]' | qp-tok --no-special -m "$DATA/tokenizers/bpe.model" |
		qp-tok -d --no-special -m "$DATA/tokenizers/bpe.model" | grep -qx 'a\[ud\]'
}

model_dir() {	# model_dir TOKENIZER-FILE NAME: a model directory m with that tokenizer alone
	mkdir m
	cp "$MODEL"/config.json "$MODEL"/model.safetensors m
	cp "$1" "m/$2"
}

@test "qp-tok: of several files tokenizer.json is taken, else tokenizer.model, else merges" {
	cp -r "$DATA/tokenizers/merges" d
	cp "$DATA/tokenizers/unigram.model" d/tokenizer.model
	cp "$DATA/tokenizers/unigram.json" d/tokenizer.json
	t=$DATA/tokenizers/texts
	qp-tok -0 -m d "$t" | diff "$DATA/tokenizers/unigram-json.ids" -
	rm d/tokenizer.json
	sed -i 's/GPT2Tokenizer/LlamaTokenizer/; s/"bos_token"/"x"/; s/"add_bos_token": true/"y": 1/' \
		d/tokenizer_config.json
	sed -i 's/"pad_token"/"z"/' d/tokenizer_config.json
	qp-tok -0 -m d "$t" | diff "$DATA/tokenizers/unigram.ids" -
	rm d/tokenizer.model
	refuses 65 "d/tokenizer_config.json: tokenizer_class 'LlamaTokenizer' is not supported" \
		qp-tok -m d < /dev/null
	cp "$DATA/tokenizers/merges/tokenizer_config.json" d
	qp-tok -0 -m d "$t" | diff "$DATA/tokenizers/merges.ids" -
	rm d/vocab.json
	refuses 65 'd: has merges.txt but not vocab.json' qp-tok -m d < /dev/null
	rm d/merges.txt
	refuses 66 'd: carries no tokenizer.json' qp-tok -m d < /dev/null
}

@test "qp-tok: a stream carries whatever files describe the tokenizer" {
	t=$DATA/tokenizers/texts
	model_dir "$DATA/tokenizers/bpe.model" tokenizer.model
	record-acts -q --stats=none m > m.qp
	qp-tok -0 -m m.qp "$t" | diff "$DATA/tokenizers/bpe.ids" -
	rtn -q -b 4 m.qp | pack-int4 -q > packed.qp
	rm m.qp m/tokenizer.model
	qp-tok -0 -m packed.qp "$t" | diff "$DATA/tokenizers/bpe.ids" -
	cp "$DATA"/tokenizers/merges/* m
	record-acts -q --stats=none m > m.qp
	qp-tok -0 -m - "$t" < m.qp | diff "$DATA/tokenizers/merges.ids" -
	eval-ppl -w 1 -c 64 m < "$EVAL" > dir
	eval-ppl -w 1 -c 64 m.qp -t "$EVAL" | diff dir -
	record-acts -q -n 1 -s 64 m > m.qp
	qp-tok -0 -m m.qp "$t" | diff "$DATA/tokenizers/merges.ids" -
}

@test "qp-tok: what tokenizer_config.json says beside a model is done" {
	mkdir d
	cp "$DATA/tokenizers/bpe.model" d/tokenizer.model
	printf 'a b' > t
	plain=$(qp-tok --no-special -m d t)
	[ "$(qp-tok -m d t)" = "1 $plain" ]
	echo '{"add_bos_token":false}' > d/tokenizer_config.json
	[ "$(qp-tok -m d t)" = "$plain" ]
	echo '{"add_eos_token":true,"bos_token":null}' > d/tokenizer_config.json
	[ "$(qp-tok -m d t)" = "$plain 2" ]
	echo '{"bos_token":{"content":"[ud]"}}' > d/tokenizer_config.json
	[ "$(qp-tok -m d t)" = "3 $plain" ]
	# An added token, by either file; text after it begins with a mark unless legacy is false.
	echo '{"added_tokens_decoder":{"560":{"content":"<x>","rstrip":true,"special":true}}}' \
		> d/tokenizer_config.json
	mark=$(printf 'b' | qp-tok --no-special -m d)
	[ "$(printf 'a b<x>  b' | qp-tok --no-special -m d)" = "$plain 560 $mark" ]
	rm d/tokenizer_config.json
	echo '{"<x>":560}' > d/added_tokens.json
	[ "$(printf 'a b<x>b' | qp-tok --no-special -m d)" = "$plain 560 $mark" ]
	echo '{"legacy":false}' > d/tokenizer_config.json
	[ "$(printf 'a b<x>b' | qp-tok --no-special -m d)" != "$plain 560 $mark" ]
	[ "$(printf 'a b<x>b' | qp-tok --no-special -m d | qp-tok -d -m d)" = 'a b<x>b' ]
	# Named tokens without an id get the next one.
	echo '{"pad_token":"<p>"}' > d/special_tokens_map.json
	[ "$(printf 'a b<x><p>' | qp-tok --no-special -m d)" = "$plain 560 561" ]
}

@test "qp-tok: settings beside a model that are not supported are refused by name" {
	mkdir d
	cp "$DATA/tokenizers/bpe.model" d/tokenizer.model
	for s in '"do_lower_case":true|do_lower_case is not supported' \
		'"split_special_tokens":true|split_special_tokens is not supported' \
		'"sp_model_kwargs":{"nbest_size":-1}|sp_model_kwargs is not supported' \
		'"tokenizer_class":"T5Tokenizer"|tokenizer_class .T5Tokenizer. is not supported' \
		'"add_bos_token":1|add_bos_token is not true or false' \
		'"bos_token":7|bos_token is neither a string nor an object' \
		'"added_tokens_decoder":{"x":"y"}|added_tokens_decoder: .x. is not an id'; do
		echo "{${s%%|*}}" > d/tokenizer_config.json
		refuses 65 "d/tokenizer_config.json: ${s#*|}" qp-tok -m d < /dev/null
	done
	echo '{' > d/tokenizer_config.json
	refuses 65 'd/tokenizer_config.json: not JSON' qp-tok -m d < /dev/null
	cp "$DATA"/tokenizers/merges/* d
	rm d/tokenizer.model
	sed -i 's/"tokenizer_class"/"add_eos_token": true, &/' d/tokenizer_config.json
	refuses 65 'd/tokenizer_config.json: add_eos_token is not supported for GPT2Tokenizer' \
		qp-tok -m d < /dev/null
}

@test "qp-tok: a merges file that is wrong is refused by line" {
	mkdir d
	echo '{"a":0,"b":1,"ab":2,"abab":3,"":4}' > d/vocab.json
	bad() {	# bad LINE REGEX MERGES
		printf "$3" > d/merges.txt
		refuses 65 "d/merges.txt: line $1: $2" qp-tok -m d < /dev/null
	}
	printf '#version: 0.2\na b\nab ab\n' > d/merges.txt
	[ "$(printf abab | qp-tok -m d)" = 3 ]
	bad 2 "'c' is not in the vocabulary" '#version: 0.2\na c\n'
	bad 1 "merge 0: 'ba' is not in the vocabulary" 'b a\n'
	# A cycle: a token out of itself, or one that is used before it is made.
	bad 2 "not two tokens between a blank: 'ab '" 'a b\nab \n'
	bad 1 "'ab' is made by no line before" 'ab ab\na b\n'
	bad 3 "'a b' is there twice" 'a b\nab ab\na b\n'
	bad 1 "not two tokens" 'a\n'
	bad 1 "not two tokens" 'a b ab\n'
	printf 'a b\n\xff b\n' > d/merges.txt
	refuses 65 'd/merges.txt: not UTF-8' qp-tok -m d < /dev/null
	echo '["a"]' > d/vocab.json
	refuses 65 'd/vocab.json: not an object' qp-tok -m d < /dev/null
	echo '{"a":0,"b":"x"}' > d/vocab.json
	refuses 65 "d/vocab.json: the id of 'b' is not a number" qp-tok -m d < /dev/null
}

sp() {	# sp ARG...: a model by spmodel.py
	"$PYTHON" "$ROOT/tests/spmodel.py" t.model model_type=2 "$@"
}

@test "qp-tok: a SentencePiece model of which something is not supported is refused by name" {
	sp a:-1 b:-2 ab:-3
	[ "$(printf ab | qp-tok -m t.model)" = '1 0 5' ]
	unsupported() {	# unsupported REGEX ARG...
		local regex=$1
		shift
		sp a:-1 b:-2 ab:-3 "$@"
		refuses 65 "t.model: $regex" qp-tok -m t.model < /dev/null
	}
	unsupported 'model_type WORD is not supported' model_type=3
	unsupported 'model_type CHAR is not supported' model_type=4
	unsupported 'model_type is not known' model_type=7
	unsupported 'treat_whitespace_as_suffix is not supported' suffix=1
	unsupported 'escape_whitespaces = false is not supported' escape=0
	unsupported 'denormalizer_spec is not supported' denormal=0x00
	unsupported 'normalizer_spec: field 9 is not known' normalizer9=1
	unsupported 'field 9 is not known' model9=1
	unsupported "token 'aa' can be merged but is UNUSED" aa:-4:5
	unsupported "token 'xa' holds a character that is no token" xa:-4
	unsupported 'piece 6: type 7 is not known' x:0:7
	sp a:-1 zqz:-1:5
	[ "$(printf azqz | qp-tok --no-special -m t.model)" = '0 3 0' ]
}

@test "qp-tok: a SentencePiece model that is damaged is refused" {
	damaged() {	# damaged REGEX ARG...
		local regex=$1
		shift
		sp "$@"
		refuses 65 "t.model: $regex" qp-tok -m t.model < /dev/null
	}
	damaged 'no piece of type UNKNOWN' drop=0 a:-1
	damaged 'more than one piece of type UNKNOWN' a:-1:2
	damaged "token 'a' is given twice" a:-1 a:-2
	damaged 'piece 3 is empty' :-1
	damaged 'piece 3 is not UTF-8' "$(printf '\xff'):-1"
	damaged 'piece 3 is too long' "$(head -c 2000 /dev/zero | tr '\0' a):-1"
	damaged 'piece 3 has a score that is not finite' a:nan
	damaged 'pieces of type BYTE without byte_fallback' bytes=256
	damaged 'byte_fallback with 255 pieces of type BYTE, not 256' bytes=255 byte_fallback=1
	damaged 'the table of rules is damaged' a:-1 charsmap=0x0400000041
	# Lengths that lie: of a piece, and of a text in it.
	printf '\x0a\x7f\x0a\x01a' > t.model
	refuses 65 't.model: a length goes beyond the end' qp-tok -m t.model < /dev/null
	printf '\x0a\x03\x0a\x05a' > t.model
	refuses 65 't.model: a length goes beyond the end' qp-tok -m t.model < /dev/null
	printf '\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x0a' > t.model
	cp t.model m && mkdir d && mv m d/tokenizer.model
	refuses 65 'd/tokenizer.model: a length goes beyond' qp-tok -m d < /dev/null
	for n in 3000 8000; do
		head -c "$n" "$DATA/tokenizers/bpe.model" > t.model
		refuses 65 't.model: ' qp-tok -m t.model < /dev/null
	done
}

@test "qp-tok: a tokenizer with more ids than the model has rows is refused where they meet" {
	model_dir "$MODEL/tokenizer.json" tokenizer.json
	sed -i 's/"added_tokens": *\[/&{"id":2048,"content":"<more>","special":true},/' \
		m/tokenizer.json
	[ "$(printf '<more>' | qp-tok --no-special -m m)" = 2048 ]
	refuses 65 "tokenizer: has ids up to 2048, but the model's vocabulary is 2048" \
		eval-ppl m -t "$EVAL"
	refuses 65 "tokenizer: has ids up to 2048" record-acts -q m
}

@test "qp-tok: time is linear in the text, whatever the text" {
	not_with_sanitizers "they make it many times slower"
	head -c 1000000 /dev/zero | tr '\0' a > letters
	head -c 1000000 /dev/zero | tr '\0' ' ' > spaces
	head -c 740000 /dev/urandom | base64 -w 0 | tr -d '+/=0-9\n' > word
	head -c 330000 /dev/zero | sed 's/\x00/日/g' > unknown
	for t in "$MODEL" "$DATA"/tokenizers/{bpe.model,unigram.model,unigram.json,merges}; do
		for text in letters spaces word unknown; do
			timeout 20 qp-tok -m "$t" "$text" > ids || { echo "$t $text"; return 1; }
		done
	done
}

# The texts of llama.cpp's tests, each against the ids that are kept with them.
vectors() {	# vectors VECTORS TOKENIZER [FOLDER]
	local from=${3:-$SHARED/tokenizers}
	need_shared "tokenizers/vectors/ggml-vocab-$1.gguf.inp"
	[ -e "$from/$2" ] || need_shared "tokenizers/$2"
	"$PYTHON" -c '
import sys
text = open(sys.argv[1], newline="", encoding="utf-8").read()
end = "\n__ggml_vocab_test__\n"
sys.stdout.buffer.write("\0".join(text.split(end)).encode())' \
		"$SHARED/tokenizers/vectors/ggml-vocab-$1.gguf.inp" > texts
	sed 's/^ *//; s/ *$//' "$SHARED/tokenizers/vectors/ggml-vocab-$1.gguf.out" > want
	qp-tok -0 --no-special -m "$from/$2" < texts > got
	[ "$(wc -l < got)" -ge 45 ]
	diff want got
}

@test "qp-tok: Llama 2 tokenizes llama.cpp's test texts as llama.cpp does" {
	vectors llama-spm llama2/tokenizer.json
	vectors llama-spm llama2/tokenizer.model
}

@test "qp-tok: Llama 3 tokenizes llama.cpp's test texts as llama.cpp does" {
	vectors llama-bpe llama3/tokenizer.json
}

@test "qp-tok: Qwen 2.5 tokenizes llama.cpp's test texts as llama.cpp does" {
	vectors qwen2 qwen2_5/tokenizer.json
}

@test "qp-tok: GPT-2 tokenizes llama.cpp's test texts as llama.cpp does" {
	vectors gpt-2 gpt2/tokenizer.json
}

# OPT's two files, under the names that they have beside a model, and its configuration.
opt() {
	need_shared tokenizers/opt/gpt2-vocab.json
	mkdir opt
	ln -s "$SHARED/tokenizers/opt/gpt2-vocab.json" opt/vocab.json
	ln -s "$SHARED/tokenizers/opt/gpt2-merges.txt" opt/merges.txt
	cp "$DATA/tokenizers/merges/tokenizer_config.json" opt
}

@test "qp-tok: OPT's merges tokenize llama.cpp's test texts as its RoBERTa does" {
	opt
	vectors roberta-bpe opt .
	[ "$(printf 'Hello world' | qp-tok -m opt)" = '2 31414 232' ]
}

@test "qp-tok: Qwen 2.5 and GPT-2 as vocab.json and merges.txt are what their tokenizer.json is" {
	for t in 'qwen2_5 qwen2 Qwen2Tokenizer' 'gpt2 gpt-2 GPT2Tokenizer'; do
		set -- $t
		need_shared "tokenizers/$1/tokenizer.json"
		rm -rf d
		mkdir d
		"$PYTHON" - "$SHARED/tokenizers/$1/tokenizer.json" <<-'END'
			import json, sys
			m = json.load(open(sys.argv[1], encoding="utf-8"))["model"]
			json.dump(m["vocab"], open("d/vocab.json", "w"))
			with open("d/merges.txt", "w", encoding="utf-8") as f:
			    for p in m["merges"]:
			        print(p if isinstance(p, str) else " ".join(p), file=f)
		END
		echo "{\"tokenizer_class\":\"$3\"}" > d/tokenizer_config.json
		vectors "$2" d .
		rm d/tokenizer_config.json
		[ "$1" != qwen2_5 ] || echo '{"model_type":"qwen2_moe"}' > d/config.json
		vectors "$2" d .
	done
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

# What the papers' tables are computed from: WikiText-2's test rows joined by empty lines.  The
# counts for OPT and Llama 2 are those of published logs (140 windows of 2048; 341,469 tokens).
@test "qp-tok: WikiText-2 as GPTQ joins it has the known number of tokens" {
	need_shared text/wiki.test.raw
	opt
	"$PYTHON" -c '
import sys
lines = open(sys.argv[1], encoding="utf-8", newline="").read().split("\n")[:-1]
print("\n\n".join(x + "\n" if x.strip() else "" for x in lines), end="")' \
		"$SHARED/text/wiki.test.raw" > joined
	[ "$(qp-tok -m opt joined | wc -w)" -eq 287645 ]
	need_shared tokenizers/llama2/tokenizer.model
	for t in tokenizer.model tokenizer.json; do
		[ "$(qp-tok -m "$SHARED/tokenizers/llama2/$t" joined | wc -w)" -eq 341469 ]
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

@test "qp-tok: a part with a name as long as a page is refused with the file's name" {
	cd "$BATS_TEST_TMPDIR"
	printf '{"version":"1.0","added_tokens":[],"normalizer":{"type":"%0500d"},
		"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}' 0 > long.json
	refuses 65 'long\.json: normalizer: normalizer type .00000.* is not supported' \
		qp-tok -m long.json <<< a
}
