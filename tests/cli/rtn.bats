#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# rtn.bats - what rtn promises on its man page, one test per promise

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	"$PYTHON" "$ROOT/tests/mkmodel.py" tiny dtype=BF16
	for i in 3 5 7 11; do
		awk -v m="$i" 'BEGIN {
			for (t = 0; t < 16; t++) printf "%d ", (t * m + m) % 32
			print "" }'
	done > ids.txt
	calib-pack -q --ids ids.txt > calib.qp
	record-acts -q -c calib.qp tiny > acts.qp
	record-acts -q --stats=none tiny > plain.qp
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

@test "rtn: every processor's instructions find the same ranges" {
	local o set
	for o in --range=hmse "--range=hmse --asym -g 16" "--range=mse -g -1" "--range=mse -g 0"; do
		rtn -q -b 3 -g 8 $o acts.qp > "$out/best.qp"
		for set in plain avx2 avx512; do
			QP_CPU=$set rtn -q -b 3 -g 8 $o acts.qp > "$out/$set.qp" ||
				{ [[ $set != plain ]] && continue; }
			qp-cmp -q "$out/best.qp" "$out/$set.qp"
		done
		rtn -q -b 3 -g 8 ${o#* } --range=minmax acts.qp > "$out/full.qp"
		run -1 qp-cmp -q "$out/best.qp" "$out/full.qp"
	done
}

@test "rtn: codes, scales, zeros and weights are the definition's (numpy)" {
	local o
	for o in "-b 4 -g 16" "-b 3 -g 8 --asym" "-b 2 -g -1" "-b 8 -g 0 --asym" "-b 5 -g 0" \
		"-b 4 -g 4 --asym --scale-dtype=f32" "-b 6 -g 16 --scale-dtype=bf16"; do
		rtn -q $o --keep-ref plain.qp > "$out/r.qp"
		"$PYTHON" "$ROOT/tests/methods.py" rtn plain.qp "$out/r.qp" $o
	done
}

@test "rtn: with a Hessian in the stream the note's error is the output's" {
	rtn -q -b 4 -g 16 --keep-ref --keep-stats acts.qp > "$out/r.qp"
	"$PYTHON" "$ROOT/tests/methods.py" rtn acts.qp "$out/r.qp" -b 4 -g 16
	rtn -q -g 16 acts.qp > "$out/r.qp"
	qp-dump "$out/r.qp" > "$out/r.txt"
	run -1 grep 'stat="hessian"' "$out/r.txt"
	grep -q 'stat="absmax"' "$out/r.txt"
}

@test "rtn: a model directory is as good as its stream" {
	rtn -q -g 16 tiny > "$out/a.qp"
	rtn -q -g 16 plain.qp > "$out/b.qp"
	qp-cmp -q "$out/a.qp" "$out/b.qp"
}

@test "rtn: of a linear come codes, scale, zero, weight, reference, in this order" {
	local l
	rtn -q -g 16 --asym --keep-ref plain.qp | qp-dump --head > "$out/r.txt"
	for l in q k v o; do
		grep "layers.1.self_attn.${l}_proj.weight role" "$out/r.txt" | cut -d ' ' -f 3 |
			tr '\n' ' ' > "$out/l"
		[ "$(cat "$out/l")" = 'role=codes role=scale role=zero role=weight role=ref ' ]
	done
}

@test "rtn: --codes leaves the weights out, and nothing else is another" {
	local o f
	for f in plain acts; do
		for o in "-b 4 -g 16" "-b 3 -g 8 --asym" "-b 4 -g 2" "-b 8 -g -1 --asym" "-b 5 -g 0" \
			"-b 4 -g 4 --scale-dtype=f32" "-b 4 -g 8 --range=mse" "--format=e4m3"; do
			rtn -q $o $f.qp | qp-dump > "$out/all.txt"
			rtn -q $o --codes $f.qp | qp-dump > "$out/codes.txt"
			grep -q 'proj\.weight role=weight' "$out/all.txt"
			run -1 grep 'proj\.weight role=weight' "$out/codes.txt"
			rtn -q $o $f.qp | pack-int8 -q > "$out/all.qp"
			rtn -q $o --codes $f.qp | pack-int8 -q > "$out/codes.qp"
			qp-cmp -q "$out/all.qp" "$out/codes.qp"
			cmp <(qp-dump "$out/all.qp" | grep '^note') <(qp-dump "$out/codes.qp" | grep '^note')
		done
	done
	rtn -q -g 16 --codes plain.qp > "$out/best.qp"
	for o in plain avx2 avx512; do
		QP_CPU=$o rtn -q -g 16 --codes plain.qp > "$out/set.qp" || { [[ $o != plain ]] && continue; }
		cmp <(qp-dump "$out/best.qp" | grep '^note') <(qp-dump "$out/set.qp" | grep '^note')
		qp-cmp -q "$out/best.qp" "$out/set.qp"
	done
	rtn -q -g 16 --codes --keep-ref plain.qp | qp-dump --head > "$out/ref.txt"
	[ "$(grep -c ' role=ref' "$out/ref.txt")" -eq 14 ]
}

@test "rtn: an embedding too large to be kept passes in pieces, and what is in it is looked at" {
	"$PYTHON" "$ROOT/tests/mkmodel.py" "$out/wide" dtype=BF16 hidden=64 vocab=140000
	rtn -q --codes -g 16 "$out/wide" > "$out/a.qp"
	rtn -q -z -g 16 --codes "$out/wide" > "$out/b.qp"
	qp-check -q "$out/a.qp"
	qp-cmp -q "$out/a.qp" "$out/b.qp"
	"$PYTHON" - "$out/wide/model.safetensors" <<-'END'
	import json, struct, sys
	with open(sys.argv[1], "r+b") as f:
	    n = struct.unpack("<Q", f.read(8))[0]
	    at = json.loads(f.read(n))["model.embed_tokens.weight"]["data_offsets"][0]
	    f.seek(8 + n + at + 2 * (131080 * 64 + 7))
	    f.write(b"\xc0\x7f")
	END
	refuses 65 'model\.embed_tokens\.weight: value at row 131080 column 7 is .*not finite' \
		rtn --codes -g 16 "$out/wide"
}

@test "rtn: embeddings, head and norms stay as they are" {
	rtn -q -g 16 plain.qp > "$out/r.qp"
	qp-dump plain.qp | grep -A 1 -E '^tensor.*(norm|embed|lm_head)' > "$out/want"
	qp-dump "$out/r.qp" | grep -A 1 -E '^tensor.*(norm|embed|lm_head)' > "$out/got"
	cmp "$out/want" "$out/got"
	grep -q BF16 "$out/got"
}

@test "rtn: --skip passes linears untouched, with a note" {
	rtn -q -g 16 --skip='down_proj|layers\.1\..*q_proj' --skip=gate plain.qp > "$out/r.qp"
	"$PYTHON" - plain.qp "$out/r.qp" <<-'END'
	import sys
	from qpstream import Stream
	was, now = Stream(sys.argv[1]), Stream(sys.argv[2])
	skipped = now.notes("skipped")
	assert len(skipped) == 5 and len(now.names("codes")) == 9
	for n, h in skipped.items():
	    assert h["by"] == "rtn" and now.head(n, "weight") == was.head(n, "weight")
	    assert (now.tensor(n) == was.tensor(n)).all() and now.head(n, "codes") is None
	END
}

@test "rtn: a --skip that matches nothing is said" {
	run --separate-stderr -0 rtn -g 16 --skip=lm_head -o "$out/r.qp" plain.qp
	[[ $stderr == 'rtn: --skip=lm_head matches no linear' ]]
}

@test "rtn: what is quantized already is refused by name, unless it is skipped" {
	rtn -q -g 16 --skip=down plain.qp > "$out/a.qp"
	refuses 65 'layers\.0\.self_attn\.q_proj: is quantized already; --skip passes it on' \
		rtn -g 16 "$out/a.qp"
	rtn -q -b 8 -g -1 --skip='attn|gate|up' "$out/a.qp" > "$out/b.qp"
	[ "$(qp-dump "$out/b.qp" | grep -c 'role=codes.* bits=8')" -eq 2 ]
	[ "$(qp-dump "$out/b.qp" | grep -c 'role=codes.* bits=4')" -eq 12 ]
}

@test "rtn: a group size that does not divide is refused with those that do, before any output" {
	what='groups of 100 do not divide 16 columns; sizes that do in every linear: 1, 2, 4, 8'
	refuses 65 "layers\.0\.self_attn\.q_proj: $what" rtn -g 100 plain.qp -o "$out/r.qp"
	[ ! -e "$out/r.qp" ]
	refuses 65 'layers\.0\.self_attn\.q_proj: groups of 32' rtn -g 32 plain.qp
	rtn -q -g 32 --skip='attn|gate|up' plain.qp | qp-check
}

@test "rtn: a scale that F16 cannot hold is an error that says what to do" {
	qp-dump plain.qp | awk '/q_proj.weight role=weight/ { f = 1; print; next } f && !done {
		sub(/[-0-9x.a-fp+]+/, "0x1p+40"); done = 1 } { print }' | qp-make > "$out/big.qp"
	what='the scale of row 0, group 0 does not fit F16; try --scale-dtype=f32'
	refuses 65 "layers\.0\.self_attn\.q_proj: $what" rtn -g 16 "$out/big.qp"
	rtn -q -g 16 --scale-dtype=f32 "$out/big.qp" | qp-check
}

@test "rtn: --mse and every other option change the result" {
	rtn -q -g 16 acts.qp > "$out/base.qp"
	for o in "-b 3" "-g 8" --asym --mse --scale-dtype=f32 --keep-ref --keep-stats --timing; do
		rtn -q -g 16 $o acts.qp > "$out/o.qp"
		qp-dump "$out/base.qp" | sed 1,/^file/d > "$out/a"
		qp-dump "$out/o.qp" | sed 1,/^file/d > "$out/b"
		if cmp "$out/a" "$out/b"; then echo "$o changes nothing"; return 1; fi
	done
	rtn -q -g 16 --timing plain.qp | qp-dump | grep -q 'seconds='
	rtn -q -g 16 --sym acts.qp > "$out/o.qp"
	qp-cmp -q "$out/base.qp" "$out/o.qp"
}

@test "rtn: same input, same bytes, with any number of threads" {
	for j in 1 2 3; do rtn -q -g 16 --asym --mse -j "$j" acts.qp > "$out/$j.qp"; done
	cmp "$out/1.qp" "$out/2.qp"
	cmp "$out/1.qp" "$out/3.qp"
}

@test "rtn: records it does not know pass byte for byte" {
	with_flux plain.qp | rtn -q -g 16 > "$out/r.qp"
	[ "$(qp-dump "$out/r.qp" | grep -c '^flux some.thing n=3$')" -eq 2 ]
}

@test "rtn: every truncation of the input is refused" {
	refuses_every_prefix plain.qp rtn -g 16
	refuses_a_cut_pipe plain.qp 3000 rtn -g 16
}

@test "rtn: bad command lines exit 64 and say what was expected" {
	refuses 64 '--bits: expected a whole number from 2 to 8, got .9.' rtn -b 9 plain.qp
	refuses 64 '--bits: ' rtn -b 1 plain.qp
	refuses 64 '--group-size: ' rtn -g -2 plain.qp
	refuses 64 '--asym: contradicts --sym' rtn --sym --asym plain.qp
	refuses 64 "--skip: '\\(': " rtn --skip='(' plain.qp
	refuses 64 '--scale-dtype: expected f16, bf16 or f32' rtn --scale-dtype=f64 plain.qp
}

@test "rtn: peak memory is the formula of the man page, in two shapes" {
	not_with_sanitizers "memory is not what it would be"
	cd "$out"
	heavy_model
	record-acts -q --stats=none m > plain.qp
	rtn -v -j 2 -g 64 plain.qp 2> plain > /dev/null
	peak_is plain $((5 * P + D * F + 6 * MiB))
	rtn -v -j 2 -g 64 acts.qp 2> hessian > /dev/null
	peak_is hessian $((5 * P + D * F + 6 * MiB + H + 512 * (F + 512)))
	rtn -v -j 2 -g 64 --keep-ref plain.qp 2> ref > /dev/null
	peak_is ref $((5 * P + D * F + 6 * MiB + 2 * P))
	rtn -v -j 2 -g 64 m 2> folder > /dev/null
	peak_is folder $((5 * P + D * F + 6 * MiB))
	rtn -v -j 2 -g 64 --codes m 2> codes > /dev/null
	peak_is codes $((3 * P + D * F + 6 * MiB))
	heavy_model 384 1024
	record-acts -q --stats=none m > plain.qp
	rtn -v -j 2 -g 64 plain.qp 2> plain > /dev/null
	peak_is plain $((5 * P + D * F + 6 * MiB))
	rtn -v -j 2 -g 64 acts.qp 2> hessian > /dev/null
	peak_is hessian $((5 * P + D * F + 6 * MiB + H + 512 * (F + 512)))
}

@test "rtn: --format=e4m3: scales, codes and weights are float8's, by rows, tensor and blocks (numpy)" {
	local o
	for o in "" "-g 0" "--block=8x12" "--block=1x4" "--block=128x128" "--scale-dtype=bf16"; do
		rtn -q --format=e4m3 $o --keep-ref plain.qp > "$out/r.qp"
		"$PYTHON" - "$out/r.qp" "$o" <<-'END'
		import sys
		import numpy as np
		from qpstream import Stream

		def value(c):           # OCP FP8, e4m3fn
		    e, m = c >> 3 & 15, c & 7
		    v = m * 2.0 ** -9 if e == 0 else (8 + m) * 2.0 ** (e - 10)
		    return -v if c & 128 else v

		def nearest(x):         # codes 0 ... 126 are in order; ties to the even one
		    v = np.array([value(c) for c in range(127)])
		    a = np.minimum(np.abs(x), 448)
		    hi = np.clip(np.searchsorted(v, a), 1, 126)
		    lo = hi - 1
		    up = (a - v[lo] > v[hi] - a) | ((a - v[lo] == v[hi] - a) & (hi % 2 == 0))
		    return np.where(up, hi, lo) + np.where(np.signbit(x), 128, 0)

		s, o = Stream(sys.argv[1]), sys.argv[2]
		bf16 = lambda x: ((x.view("u4") + 0x7fff + (x.view("u4") >> 16 & 1)) & 0xffff0000).view("f4")
		seen = 0
		for h, p in s.records:
		    if h.get("role") != "codes":
		        continue
		    n, k = h["shape"]
		    tall, wide = (n, k) if o == "-g 0" else (1, k)
		    if "block" in o:
		        tall, wide = map(int, o.split("=")[1].split("x"))
		    assert h["dtype"] == "F8_E4M3" and (h["bits"], h["group"]) == (8, wide), h
		    assert h.get("tall", 1) == (tall if "block" in o else 1)
		    w = s.tensor(h["name"], "ref").astype("f4")
		    scale = s.tensor(h["name"], "scale")
		    assert scale.shape == (-(-n // tall), -(-k // wide))
		    want = np.zeros(scale.shape, "f4")
		    for i in range(scale.shape[0]):
		        for j in range(scale.shape[1]):
		            b = w[i * tall:(i + 1) * tall, j * wide:(j + 1) * wide]
		            want[i, j] = np.float64(abs(b).max()) / 448
		    if "bf16" in o:
		        want = bf16(want)
		    assert (scale == want).all()
		    full = np.repeat(np.repeat(scale, tall, 0), wide, 1)[:n, :k]
		    code = np.frombuffer(p, "u1").reshape(n, k)
		    assert (code == nearest(w / full)).all(), h["name"]
		    q = full * np.vectorize(value)(code).astype("f4")
		    assert (q == s.tensor(h["name"])).all()
		    (note,) = [x for x, _ in s.records if x["t"] == "note" and x["name"] == h["name"]]
		    err = ((w - q).astype("f8") ** 2).sum() / (w.astype("f8") ** 2).sum()
		    assert abs(note["w_rel_err"] - err) < 1e-6 * err and note["bits"] == 8
		    seen += 1
		assert seen == 14
		END
	done
}

@test "rtn: --format=e4m3 weighs its error by the Hessian; other things of integers are refused" {
	rtn -q --format=e4m3 acts.qp > "$out/r.qp"
	qp-dump --head "$out/r.qp" > "$out/r.txt"
	[ "$(grep -c '^note .*kind="layer-error".* rel_err=' "$out/r.txt")" -eq 14 ]
	run -1 grep 'stat="hessian"' "$out/r.txt"
	rtn -q --format=e4m3 -j 1 acts.qp | cmp - "$out/r.qp"
	refuses 64 '--format: e4m3 has 8 bits' rtn --format=e4m3 -b 4 plain.qp
	refuses 64 '--format: e4m3 .*symmetric' rtn --format=e4m3 --asym plain.qp
	refuses 64 '--group-size: .*-1 or 0' rtn --format=e4m3 -g 16 plain.qp
	refuses 64 '--group-size: .*' rtn --format=e4m3 --block=8x8 -g 0 plain.qp
	refuses 64 '--range: ' rtn --format=e4m3 --mse plain.qp
	refuses 64 "--block: expected .*, got '8'" rtn --format=e4m3 --block=8 plain.qp
	refuses 64 "--block: expected .*, got '0x8'" rtn --format=e4m3 --block=0x8 plain.qp
	refuses 64 '--block: goes with --format=e4m3' rtn --block=8x8 plain.qp
}
