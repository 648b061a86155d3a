#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# pack-int4.bats - what pack-int4 promises on its man page, one test per promise

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	"$PYTHON" "$ROOT/tests/mkmodel.py" tiny hidden=20 ffn=12 heads=5 kv=1
	for i in 3 5 7 11; do
		awk -v m="$i" 'BEGIN {
			for (t = 0; t < 16; t++) printf "%d ", (t * m + m) % 32
			print "" }'
	done > ids.txt
	calib-pack -q --ids ids.txt > calib.qp
	record-acts -q -c calib.qp tiny > acts.qp
	rtn -q -g -1 --keep-ref --keep-stats acts.qp > rtn.qp
	pack-int4 rtn.qp > packed.qp
}

setup() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
	export PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1
}

# A record of a type that nobody knows, at the start of every block.
with_flux() {
	qp-dump "$1" | awk '{ print } /^block index=/ { print "flux some.thing n=3" }' | qp-make
}

@test "pack-int4: unpacked by numpy, codes, scales and zeros are what they were" {
	local b o
	for b in 2 3 4; do
		for o in --sym --asym; do
			rtn -q -b "$b" -g 4 "$o" acts.qp > "$out/r.qp"
			pack-int4 "$out/r.qp" > "$out/p.qp"
			"$PYTHON" - "$out/r.qp" "$out/p.qp" "$b" <<-'END'
			import sys
			from qpstream import Stream
			r, p, b = Stream(sys.argv[1]), Stream(sys.argv[2]), int(sys.argv[3])
			assert p.names("codes") == r.names("codes") and len(p.names("codes")) == 14
			for n in p.names("codes"):
			    h, was = p.head(n, "codes"), r.head(n, "codes")
			    rows, cols = h["shape"]
			    assert h["dtype"] == f"U{b}"
			    assert h["nbytes"] == rows * ((cols * b + 7) // 8)
			    assert all(h[k] == was[k] for k in ("bits", "group", "sym", "shape"))
			    for role in ("codes", "scale", "zero"):
			        x, y = r.tensor(n, role), p.tensor(n, role)
			        assert (x is None) == (y is None) and (x is None or (x == y).all())
			END
		done
	done
}

@test "pack-int4: weights of codes, references, statistics and calibration set are dropped" {
	qp-dump packed.qp > "$out/p.txt"
	run -1 grep -E '^tensor.*_proj.*role=(weight|ref)' "$out/p.txt"
	run -1 grep -E '^(calib|tensor.*role=stat)' "$out/p.txt"
	grep -qE '^note .*layer-error' "$out/p.txt"
}

@test "pack-int4: a note in its place tells which calibration set it was" {
	local set
	set=$(qp-dump --head calib.qp | grep -o 'fingerprint="xxh128:[0-9a-f]*"')
	qp-dump --head rtn.qp | cut -d ' ' -f 1 | sed 's/^calib$/note/' | head -n 8 > "$out/want"
	qp-dump --head packed.qp | cut -d ' ' -f 1 | head -n 8 | diff "$out/want" -
	qp-dump --head packed.qp | grep '^note calib' > "$out/note"
	[ "$(cat "$out/note")" = "note calib kind=\"calibration\" by=\"pack-int4\" nsamples=4 \
seqlen=16 $set sampling=\"ids\"" ]
}

@test "pack-int4: the note has the seed and tokenizer of a set that was drawn" {
	calib-pack -q -m "$MODEL" -n 2 -s 32 --seed=5 "$CALIB" > "$out/c.qp"
	record-acts -q -c "$out/c.qp" "$MODEL" | rtn -q | pack-int4 | qp-dump --head |
		grep '^note calib' > "$out/note"
	grep -q ' sampling="random" ' "$out/note"
	grep -q ' seed=5$' "$out/note"
	grep -qF " $(qp-dump --head "$out/c.qp" | grep -o 'tokenizer="[^"]*"') " "$out/note"
}

@test "pack-int4: everything else passes, configuration and tokenizer among it" {
	local changed='^( |stream|calib|note calib|tensor.*(_proj|stat))'
	qp-dump rtn.qp | grep -vE "$changed" | grep '^[a-z]' > "$out/want"
	qp-dump packed.qp | grep -vE "$changed" | grep '^[a-z]' > "$out/got"
	diff "$out/want" "$out/got"
	grep -q '^file config.json' "$out/got"
}

@test "pack-int4: linears that were passed over keep their weights" {
	rtn -q -g -1 --skip=down acts.qp | pack-int4 > "$out/p.qp"
	[ "$(qp-dump "$out/p.qp" | grep -c '^tensor.*down_proj.weight role=weight')" -eq 2 ]
	qp-forward -q -i ids.txt "$out/p.qp" > /dev/null
}

@test "pack-int4: the packed model computes exactly what the quantized stream does" {
	qp-forward -q -i ids.txt rtn.qp > "$out/a.qp"
	qp-forward -q -i ids.txt packed.qp > "$out/b.qp"
	qp-cmp "$out/a.qp" "$out/b.qp"
	weights_first rtn.qp | qp-forward -q -i ids.txt - | qp-cmp "$out/a.qp" -
	# Scales need not follow their codes: the linear is run when the block is there.
	qp-dump packed.qp | awk '/^[^ ]/ { s = /role=scale/ } s { held = held $0 "\n"; next }
		/^block-end/ { printf "%s", held; held = "" } 1' | qp-make > "$out/late.qp"
	qp-forward -q -i ids.txt "$out/late.qp" | qp-cmp "$out/a.qp" -
	record-acts -q -c calib.qp "$out/late.qp" | qp-cmp -r stat - \
		<(record-acts -q -c calib.qp packed.qp)
	rtn -q -b 3 -g 0 --asym acts.qp > "$out/r.qp"
	pack-int4 "$out/r.qp" > "$out/p.qp"
	qp-forward -q -i ids.txt "$out/r.qp" > "$out/a.qp"
	qp-forward -q -i ids.txt "$out/p.qp" > "$out/b.qp"
	qp-cmp "$out/a.qp" "$out/b.qp"
}

@test "pack-int4: the packed file alone gives the perplexity of the stream, digit by digit" {
	calib-pack -q -m "$MODEL" -n 4 -s 128 "$CALIB" > "$out/c.qp"
	record-acts -q -c "$out/c.qp" "$MODEL" | gptq -q > "$out/g.qp"
	pack-int4 "$out/g.qp" > "$out/p.qp"
	eval-ppl -q --json --ctx 128 --windows 4 "$out/g.qp" < "$EVAL" > "$out/a"
	eval-ppl -q --json --ctx 128 --windows 4 "$out/p.qp" < "$EVAL" > "$out/b"
	cmp "$out/a" "$out/b"
	grep -q ppl "$out/a"
}

@test "pack-int4: codes of 5 to 8 bits are refused by name" {
	local b
	for b in 5 8; do
		rtn -q -b "$b" -g -1 acts.qp > "$out/r.qp"
		refuses 65 ".*layers\.0\.self_attn\.q_proj\.weight: codes of $b bits; pack-int4 packs" \
			pack-int4 "$out/r.qp"
	done
}

@test "pack-int4: a code wider than its bits is located" {
	qp-dump rtn.qp | awk '/role=codes/ { f = 1; print; next } f && !done {
		sub(/^ *[0-9]+/, "  16"); done = 1 } { print }' | qp-make > "$out/bad.qp"
	refuses 65 '.*layers\.0\.self_attn\.q_proj\.weight: code at row 0 column 0 does not fit' \
		pack-int4 "$out/bad.qp"
}

@test "pack-int4: a stream without codes, or packed already, is refused" {
	refuses 65 'no codes in the stream; put rtn or gptq before pack-int4' \
		pack-int4 acts.qp -o "$out/p.qp"
	[ ! -e "$out/p.qp" ]
	refuses 65 '.*q_proj\.weight: its codes are packed already' pack-int4 packed.qp
}

@test "pack-int4: weights in front of their codes, as once written, are dropped just so" {
	weights_first rtn.qp > "$out/old.qp"
	[ "$(qp-dump --head "$out/old.qp" | grep -A 1 'q_proj.*role=weight' |
		grep -c 'role=codes')" -eq 2 ]
	pack-int4 "$out/old.qp" | cmp - packed.qp
}

@test "pack-int4: records it does not know pass byte for byte" {
	with_flux rtn.qp | pack-int4 > "$out/p.qp"
	[ "$(qp-dump "$out/p.qp" | grep -c '^flux some.thing n=3$')" -eq 2 ]
}

@test "pack-int4: same input, same bytes; -z gives the same values" {
	pack-int4 < rtn.qp > "$out/a.qp"
	cmp "$out/a.qp" packed.qp
	pack-int4 -z rtn.qp > "$out/z.qp"
	qp-dump "$out/z.qp" | grep -v '^stream' | sed 's/ enc="[^"]*"//' > "$out/z"
	qp-dump packed.qp | grep -v '^stream' > "$out/p"
	cmp "$out/z" "$out/p"
}

@test "pack-int4: every truncation of the input is refused" {
	refuses_every_prefix rtn.qp pack-int4
	refuses_a_cut_pipe rtn.qp 3000 pack-int4
}

@test "pack-int4: peak memory is the formula of the man page, in two shapes" {
	not_with_sanitizers "memory is not what it would be"
	need_python numpy
	local MiB=1048576 shape D F
	cd "$out"
	for shape in "512 12288" "1024 4096"; do
		read -r D F <<< "$shape"
		"$PYTHON" "$ROOT/tests/mkmodel.py" m hidden=$D ffn=$F heads=8 layers=1 dtype=BF16
		rtn -q -g 64 m | pack-int4 -v 2> err > /dev/null
		peak_is err $((D * F + 3 * MiB))
	done
	"$PYTHON" "$ROOT/tests/mkmodel.py" m hidden=768 ffn=2112 heads=8 layers=1 dtype=BF16
	rtn -q -g 64 m | weights_first | pack-int4 -v 2> err > /dev/null
	peak_is err $((5 * 768 * 2112 + 3 * MiB))
}
