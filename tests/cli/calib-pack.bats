#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# calib-pack.bats - what calib-pack promises on its man page, one test per promise

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
}

# The windows of a calibration set, a line each.
windows() {	# windows FILE
	qp-dump -n calib "$1" > dump.txt
	"$PYTHON" -c '
import re, sys
text = open("dump.txt").read()
head = [l for l in text.splitlines() if l.startswith("calib")][0]
n, s = map(int, re.search(r"shape=\[(\d+),(\d+)\]", head).groups())
at = text.index(head) + len(head)
v = text[at:].split("\n", 1)[1]
ids = [int(x) for x in re.sub(r"(?m)^[a-z].*$", "", v).split()]
assert len(ids) == n * s, (len(ids), n, s)
for i in range(n):
    print(*ids[i * s:(i + 1) * s])'
}

header() {	# header FILE: the record of the set, as text
	qp-dump --head "$1" | grep '^calib'
}

@test "calib-pack: sequential windows follow each other in the text, BOS at its start only" {
	calib-pack -q -m "$MODEL" -n 5 -s 32 --sampling=sequential "$EVAL" > c.qp
	qp-check c.qp
	qp-tok -m "$MODEL" "$EVAL" | tr ' ' '\n' | sed -n 1,160p | xargs -n 32 > want
	windows c.qp | diff want -
	[ "$(windows c.qp | tr ' ' '\n' | grep -cx 1)" -eq 1 ]
}

@test "calib-pack: random windows are stretches of the text" {
	calib-pack -q -m "$MODEL" -n 20 -s 50 < "$EVAL" > c.qp
	qp-tok -m "$MODEL" "$EVAL" > all
	windows c.qp > got
	[ "$(wc -l < got)" -eq 20 ]
	while read -r w; do
		grep -qF " $w " all || { echo "not in the text: $w"; return 1; }
	done < got
	[ "$(sort -u got | wc -l)" -ge 19 ]
}

@test "calib-pack: a seed means the same set, another seed another" {
	calib-pack -q -m "$MODEL" -n 4 -s 16 --seed=7 "$EVAL" > a.qp
	calib-pack -q -m "$MODEL" -n 4 -s 16 --seed=7 "$EVAL" > b.qp
	cmp a.qp b.qp
	calib-pack -q -m "$MODEL" -n 4 -s 16 --seed=8 "$EVAL" > b.qp
	windows a.qp > wa
	windows b.qp > wb
	run -1 cmp -s wa wb
	# xoshiro256** seeded by splitmix64(7): the starts are the same on every machine.
	"$PYTHON" - "$(qp-tok -m "$MODEL" "$EVAL" | wc -w)" > starts <<-'END'
	import sys
	M = (1 << 64) - 1
	def rotl(x, k): return (x << k | x >> 64 - k) & M
	state, s = 7, []
	for _ in range(4):
	    state = state + 0x9e3779b97f4a7c15 & M
	    z = (state ^ state >> 30) * 0xbf58476d1ce4e5b9 & M
	    z = (z ^ z >> 27) * 0x94d049bb133111eb & M
	    s.append(z ^ z >> 31)
	for _ in range(4):
	    x = rotl(s[1] * 5 & M, 7) * 9 & M
	    t = s[1] << 17 & M
	    s[2] ^= s[0]; s[3] ^= s[1]; s[1] ^= s[2]; s[0] ^= s[3]; s[2] ^= t; s[3] = rotl(s[3], 45)
	    print(x % (int(sys.argv[1]) - 16 + 1))
	END
	qp-tok -m "$MODEL" "$EVAL" | tr ' ' '\n' > all
	while read -r start; do
		sed -n "$((start + 1)),$((start + 16))p" all | xargs
	done < starts | diff - wa
}

@test "calib-pack: several files, and the documents of JSON lines, are one text" {
	printf 'First.' > 1.txt
	printf 'Second one, a little longer.' > 2.txt
	printf 'First.\n\nSecond one, a little longer.' > both.txt
	calib-pack -q -m "$MODEL" -n 1 -s 10 --sampling=sequential both.txt > want.qp
	calib-pack -q -m "$MODEL" -n 1 -s 10 --sampling=sequential 1.txt 2.txt > got.qp
	diff <(header want.qp) <(header got.qp)
	printf '{"t": "First.", "x": %s}\n\n{"t": "Second one, a little longer."}' \
		99999999999999999999 > both.jsonl
	calib-pack -q -m "$MODEL" -n 1 -s 10 --sampling=sequential --field=t both.jsonl > got.qp
	diff <(header want.qp) <(header got.qp)
}

@test "calib-pack: documents gives windows inside documents that are long enough" {
	{
		printf '{"text": "Too short."}\n'
		printf '{"text": "%s"}\n' \
			'Once upon a time there was a little dog who loved to play in the park.' \
			'The sun was very big and the cat was happy to sleep under the tree.'
	} > docs.jsonl
	calib-pack -q -m "$MODEL" -n 40 -s 12 --sampling=documents --field=text docs.jsonl > c.qp
	windows c.qp > got
	sed 's/^{"text": "//; s/"}$//' docs.jsonl | tr '\n' '\0' | qp-tok -0 -m "$MODEL" > docs
	while read -r w; do
		grep -qE "(^| )$w( |\$)" docs || { echo "in no document: $w"; return 1; }
	done < got
	# Each document has its own BOS, and both long ones are drawn.
	[ "$(cut -d ' ' -f 1 got | grep -cx 1)" -gt 0 ]
	grep -qE "(^| )$(sed -n 2p docs | cut -d ' ' -f 3-8) " got
	grep -qE "(^| )$(sed -n 3p docs | cut -d ' ' -f 3-8) " got
	header c.qp | grep -q 'sampling="documents"'
}

@test "calib-pack: --ids takes a window from each line; their length is that of the set" {
	printf '1 2 3\n40 50 2047\n' > ids
	calib-pack -q --ids ids > c.qp
	header c.qp | grep -q 'dtype=I32 shape=\[2,3\]'
	windows c.qp | diff ids -
	calib-pack -q --ids < ids | cmp c.qp -
	qp-tok -m "$MODEL" "$EVAL" | tr ' ' '\n' | sed -n 1,96p | xargs -n 32 > ids
	calib-pack -q --ids -m "$MODEL" ids > given.qp
	calib-pack -q -m "$MODEL" -n 3 -s 32 --sampling=sequential "$EVAL" > drawn.qp
	[ "$(header given.qp | grep -o 'fingerprint="[^"]*"')" = \
		"$(header drawn.qp | grep -o 'fingerprint="[^"]*"')" ]
}

@test "calib-pack: a window has at most the model's positions, 2048 where there are more" {
	cat "$EVAL" "$EVAL" > text
	record-acts -q --stats=none -o model.qp "$MODEL"
	for m in "$MODEL" model.qp; do
		calib-pack -q -m "$m" -n 2 text > c.qp
		header c.qp | grep -q 'shape=\[2,512\]'
		refuses 65 '--seqlen: 513 tokens; the model has 512 positions' \
			calib-pack -m "$m" -s 513 text
	done
	calib-pack -q -m - -n 2 text < model.qp | qp-dump --head | grep -q 'shape=\[2,512\]'
	calib-pack -q -m "$MODEL/tokenizer.json" -n 2 text > c.qp
	header c.qp | grep -q 'shape=\[2,2048\]'
	seq -s ' ' 513 > ids
	refuses 65 'line 1: 513 ids; the model has 512 positions' calib-pack --ids -m "$MODEL" ids
}

@test "calib-pack: --ids wants the model's vocabulary, but no tokenizer" {
	mkdir m
	cp "$MODEL/config.json" m
	printf '1 2 2047\n' > ids
	calib-pack -q --ids -m m ids > c.qp
	windows c.qp | diff ids -
	printf '1 2 2048\n' > ids
	refuses 65 'line 1: 2048 is not in the vocabulary' calib-pack --ids -m m ids
	refuses 66 'm: carries no tokenizer' calib-pack -m m "$EVAL"
}

@test "calib-pack: the record names sampling, seed, tokens, tokenizer and fingerprint" {
	calib-pack -q -m "$MODEL" -n 2 -s 8 --seed=3 "$EVAL" > c.qp
	header c.qp > h
	grep -q 'shape=\[2,8\]' h
	grep -q 'sampling="random" seed=3 tokens=16970' h
	grep -qE 'fingerprint="xxh128:[0-9a-f]{32}"' h
	grep -qE 'tokenizer="xxh128:[0-9a-f]{32}"' h
	calib-pack -q -m "$MODEL/tokenizer.json" -n 2 -s 8 --seed=3 "$EVAL" | qp-dump --head |
		grep '^calib' | diff h -
	# The options, but no path, are in the provenance.
	qp-ls --provenance c.qp | grep -q 'calib-pack .*--nsamples=2 --seqlen=8 --seed=3'
	run -1 grep -qF "$DATA" c.qp
}

@test "calib-pack: record-acts takes the set, and what is known of it" {
	calib-pack -q -m "$MODEL" -n 2 -s 16 "$EVAL" > c.qp
	record-acts -q -c c.qp "$MODEL" > acts.qp
	diff <(header c.qp | grep -o 'shape.*') <(header acts.qp | grep -o 'shape.*')
	qp-dump --head acts.qp | grep 'role=stat' | grep -o 'tokens=[0-9]*' | sort -u |
		grep -qx tokens=32
}

@test "calib-pack: --disjoint-from refuses a window that is in the evaluation text" {
	calib-pack -q -m "$MODEL" -n 8 -s 64 --disjoint-from="$EVAL" "$CALIB" > c.qp
	qp-check c.qp
	refuses 65 'calib: window 0, token [0-9]+: the 32 tokens from there .* token [0-9]+$' \
		calib-pack -q -m "$MODEL" -n 8 -s 64 --disjoint-from="$EVAL" -o no.qp "$EVAL"
	[ ! -e no.qp ]
	# Where exactly: token 500 of the text is the 21st of the second window.
	qp-tok -m "$MODEL" "$CALIB" | tr ' ' '\n' | sed -n '101,200p' | xargs -n 100 > ids
	{
		qp-tok -m "$MODEL" "$CALIB" | tr ' ' '\n' | sed -n '301,320p'
		qp-tok --no-special -m "$MODEL" "$EVAL" | tr ' ' '\n' | sed -n '501,540p'
		qp-tok -m "$MODEL" "$CALIB" | tr ' ' '\n' | sed -n '401,440p'
	} | xargs -n 100 >> ids
	refuses 65 'calib: window 1, token 20: .* from token 50[01]$' \
		calib-pack -q --ids -m "$MODEL" --disjoint-from="$EVAL" ids
}

@test "calib-pack: a text that is too short says how many tokens it has" {
	echo 'A short text.' > t
	n=$(qp-tok -m "$MODEL" t | wc -w | tr -d ' ')
	refuses 65 "text: $n tokens, less than one window of 512" calib-pack -m "$MODEL" t
	refuses 65 "text: $n tokens hold 1 windows of $n, not 2" \
		calib-pack -m "$MODEL" -n 2 -s "$n" --sampling=sequential t
	refuses 65 "text: none of its 2 documents has a window of $((n + 1)) tokens" \
		calib-pack -m "$MODEL" -n 2 -s "$((n + 1))" --sampling=documents t t
	calib-pack -q -m "$MODEL" -n 2 -s "$n" t > whole.qp
	[ "$(windows whole.qp | sort -u | wc -l)" -eq 1 ]
}

@test "calib-pack: an empty text is refused by its name" {
	: > empty
	refuses 65 'empty: no text' calib-pack -m "$MODEL" empty
	refuses 65 'standard input: no text' sh -c 'calib-pack -m "$1" < /dev/null' - "$MODEL"
	printf '\n  \n' > blank.jsonl
	refuses 65 'blank.jsonl: no text' calib-pack -m "$MODEL" --field=text blank.jsonl
	printf '{"text": ""}\n' > blank.jsonl
	refuses 65 'blank.jsonl: no text' \
		calib-pack -m "$MODEL" --field=text --sampling=documents blank.jsonl
	refuses 65 'empty: no text' calib-pack -m "$MODEL" -n 1 -s 8 --disjoint-from=empty "$EVAL"
}

@test "calib-pack: text that is not UTF-8 is refused with file, line and offset" {
	printf 'abc\xffdef' > bad
	refuses 65 'bad: not UTF-8: byte 0xff at offset 3' calib-pack -m "$MODEL" bad
	refuses 65 'bad: not UTF-8: byte 0xff at offset 3' calib-pack -m "$MODEL" "$EVAL" bad
	refuses 65 'standard input: not UTF-8' sh -c 'calib-pack -m "$1" < bad' - "$MODEL"
	printf '{"t": "ok"}\n{"t": "a\xff"}\n' > bad.jsonl
	refuses 65 'bad.jsonl: line 2: ' calib-pack -m "$MODEL" --field=t bad.jsonl
}

@test "calib-pack: a bad JSON line is refused with its number" {
	printf '{"t": "ok"}\n{"t": "open\n' > bad
	refuses 65 'bad: line 2: not JSON' calib-pack -m "$MODEL" --field=t bad
	printf '{"t": "ok"}\n{"u": "other"}\n' > bad
	refuses 65 "bad: line 2: no field 't'" calib-pack -m "$MODEL" --field=t bad
	printf '{"t": "ok"}\n\n{"t": 5}\n' > bad
	refuses 65 "bad: line 3: no field 't' that is a string" \
		calib-pack -m "$MODEL" --field=t bad
	printf '["t"]\n' > bad
	refuses 65 'bad: line 1: not a JSON object' calib-pack -m "$MODEL" --field=t bad
}

@test "calib-pack: lines of ids that do not fit are refused with their number" {
	printf '1 2 3\n4 5\n' > ids
	refuses 65 'line 2: 2 ids; line 1 has 3' calib-pack --ids ids
	printf '1 2 3\n4 5 2048\n' > ids
	calib-pack -q --ids ids > free.qp
	refuses 65 'line 2: 2048 is not in the vocabulary' calib-pack --ids -m "$MODEL" ids
	printf '1 2 3\n4 -5 6\n' > ids
	refuses 65 'line 2: ' calib-pack --ids ids
	printf '1 2 3\n\n4 5 6\n' > ids
	refuses 65 'line 2: no token ids' calib-pack --ids ids
	refuses 65 'line 1: no token ids' sh -c 'calib-pack --ids < /dev/null'
}

@test "calib-pack: bad command lines exit 64 and say what was expected" {
	refuses 64 '--model: needed' calib-pack "$EVAL"
	refuses 64 '--model: needed' calib-pack --ids --disjoint-from="$EVAL" ids
	refuses 64 '--nsamples: expected a whole number' calib-pack -m "$MODEL" -n 0 "$EVAL"
	refuses 64 '--seqlen: expected a whole number' calib-pack -m "$MODEL" -s x "$EVAL"
	refuses 64 '--sampling: ' calib-pack -m "$MODEL" --sampling=some "$EVAL"
	refuses 64 '--ids: the windows are given' calib-pack --ids -n 5 ids
	refuses 64 '--ids: the windows are given' calib-pack --ids --seed=5 ids
	refuses 64 '--ids: the windows are given' calib-pack --ids --field=t ids
	refuses 64 "unexpected operand 'b'" calib-pack --ids a b
}

@test "calib-pack: files that are not there exit 66, and no output is left" {
	refuses 66 'no-text: ' calib-pack -m "$MODEL" -o c.qp no-text
	refuses 66 'no-model: ' calib-pack -m no-model -o c.qp "$EVAL"
	refuses 66 'no-eval: ' calib-pack -m "$MODEL" -n 1 -s 8 --disjoint-from=no-eval -o c.qp \
		"$EVAL"
	[ -z "$(ls -A | grep c.qp)" ]
	refuses 73 '.*' calib-pack -m "$MODEL" -n 1 -s 8 -o no/dir/c.qp "$EVAL"
}

@test "calib-pack: -o is renamed into place, -z compresses, a full disk is an error" {
	calib-pack -q -m "$MODEL" -n 16 -s 64 "$EVAL" > plain.qp
	calib-pack -q -m "$MODEL" -n 16 -s 64 -o c.qp "$EVAL"
	cmp plain.qp c.qp
	calib-pack -q -m "$MODEL" -n 16 -s 64 -z "$EVAL" > z.qp
	[ "$(wc -c < z.qp)" -lt "$(wc -c < plain.qp)" ]
	windows z.qp > got
	windows plain.qp | diff - got
	refuses 74 '.*No space left' sh -c 'calib-pack -m "$1" -n 1 -s 8 "$2" > /dev/full' - \
		"$MODEL" "$EVAL"
}

@test "calib-pack: every truncation of a set is refused by its reader" {
	printf '1 2 3\n' | calib-pack -q --ids > c.qp
	refuses_every_prefix c.qp qp-check
}
