#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# rtn.bats - what rtn promises on its man page, one test per promise

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	"$PYTHON" "$ROOT/tests/mkmodel.py" tiny dtype=BF16
	for i in 3 5 7 11; do
		awk -v m="$i" 'BEGIN { for (t = 0; t < 16; t++) printf "%d ", (t * m + m) % 32; print "" }'
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

@test "rtn: codes, scales, zeros and weights are the definition's (numpy)" {
	local o
	for o in "-b 4 -g 16" "-b 3 -g 8 --asym" "-b 2 -g -1" "-b 8 -g 0 --asym" "-b 5 -g 0" \
		"-b 4 -g 4 --asym --scale-dtype=f32" "-b 6 -g 16 --scale-dtype=bf16"; do
		rtn -q $o --keep-ref plain.qp > "$out/r.qp"
		"$PYTHON" - plain.qp "$out/r.qp" $o <<-'END'
		import sys, numpy as np
		from qpstream import Stream
		was, now, args = Stream(sys.argv[1]), Stream(sys.argv[2]), sys.argv[3:]
		bits, g, asym = int(args[1]), int(args[3]), "--asym" in args
		kind = args[-1].split("=")[-1] if "scale" in args[-1] else "f16"
		def stored(s):
		    if kind == "f32": return s.astype("f4")
		    if kind == "f16": return s.astype("f4").astype("f2").astype("f4")
		    u = s.astype("f4").view("u4")
		    return ((u + 0x7fff + (u >> 16 & 1)) >> 16 << 16).astype("u4").view("f4")
		done = now.names("codes")
		assert len(done) == 14
		for n in done:
		    w, top = was.tensor(n).astype("f8"), 2 ** bits - 1
		    rows, cols = w.shape
		    v = w.reshape(1, 1, -1) if g == 0 else w.reshape(rows, 1, -1) if g < 0 else w.reshape(rows, -1, g)
		    lo, hi = np.minimum(v.min(2), 0), np.maximum(v.max(2), 0)
		    s = stored((hi - lo) / top if asym else np.maximum(hi, -lo) / (top / 2))
		    z = np.clip(np.rint(-lo.astype("f4") / s), 0, top) if asym else np.full(s.shape, 2 ** (bits - 1))
		    shift = (z - 2 ** (bits - 1)).astype("f4")[:, :, None]
		    q = np.rint(v.astype("f4") / s[:, :, None] + shift) + 2 ** (bits - 1)
		    assert (now.tensor(n, "scale").astype("f4") == s).all()
		    assert now.head(n, "scale")["dtype"] == kind.upper()
		    assert (now.tensor(n, "zero") == z).all() if asym else now.tensor(n, "zero") is None
		    c = now.tensor(n, "codes")
		    assert (c == np.clip(q, 0, top).reshape(rows, cols)).all()
		    d = c.reshape(v.shape) - z[:, :, None]
		    assert (now.tensor(n) == (s[:, :, None] * d).astype("f4").reshape(rows, cols)).all()
		    assert (now.tensor(n, "ref") == was.tensor(n)).all()
		    assert now.head(n, "ref")["dtype"] == "BF16"
		    h = now.head(n, "codes")
		    assert h["bits"] == bits and h["sym"] == (not asym) and h["group"] == (g if g > 0 else cols)
		    e = now.notes()[n]
		    assert e["by"] == "rtn" and e["bits"] == bits and e["group"] == g
		    want = ((w - now.tensor(n)) ** 2).sum() / (w ** 2).sum()
		    assert abs(e["w_rel_err"] / want - 1) < 1e-5 and "seconds" not in e
		END
	done
}

@test "rtn: with a Hessian in the stream the note's error is the output's" {
	rtn -q -g 16 --keep-ref --keep-stats acts.qp > "$out/r.qp"
	"$PYTHON" - "$out/r.qp" <<-'END'
	import sys, numpy as np
	from qpstream import Stream
	s = Stream(sys.argv[1])
	for n, e in s.notes().items():
	    l = n.split(".")[2]
	    edge = {"q": "attn.in", "k": "attn.in", "v": "attn.in", "o": "attn.mid", "g": "mlp.in",
	        "u": "mlp.in", "d": "mlp.mid"}[n.split(".")[4][0]]
	    H, w = s.hessian(f"layers.{l}.{edge}"), s.tensor(n, "ref").astype("f8")
	    d = w - s.tensor(n)
	    assert abs(e["rel_err"] / (np.trace(d @ H @ d.T) / np.trace(w @ H @ w.T)) - 1) < 1e-4
	END
	rtn -q -g 16 acts.qp > "$out/r.qp"
	! qp-dump "$out/r.qp" | grep 'stat="hessian"'
	qp-dump "$out/r.qp" | grep -q 'stat="absmax"'
}

@test "rtn: a model directory is as good as its stream" {
	rtn -q -g 16 tiny > "$out/a.qp"
	rtn -q -g 16 plain.qp > "$out/b.qp"
	qp-cmp -q "$out/a.qp" "$out/b.qp"
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
	refuses 65 'layers\.0\.self_attn\.q_proj: is quantized already; --skip passes it on' rtn -g 16 "$out/a.qp"
	rtn -q -b 8 -g -1 --skip='attn|gate|up' "$out/a.qp" > "$out/b.qp"
	[ "$(qp-dump "$out/b.qp" | grep -c 'role=codes.* bits=8')" -eq 2 ]
	[ "$(qp-dump "$out/b.qp" | grep -c 'role=codes.* bits=4')" -eq 12 ]
}

@test "rtn: a group size that does not divide is refused with those that do, before any output" {
	refuses 65 'layers\.0\.self_attn\.q_proj: groups of 100 do not divide 16 columns; sizes that do: 1, 2, 4, 8, 16' \
		rtn -g 100 plain.qp -o "$out/r.qp"
	[ ! -e "$out/r.qp" ]
	refuses 65 'layers\.0\.self_attn\.q_proj: groups of 32' rtn -g 32 plain.qp
	rtn -q -g 32 --skip='attn|gate|up' plain.qp | qp-check
}

@test "rtn: a scale that F16 cannot hold is an error that says what to do" {
	qp-dump plain.qp | awk '/q_proj.weight role=weight/ { f = 1; print; next } f && !done {
		sub(/[-0-9x.a-fp+]+/, "0x1p+40"); done = 1 } { print }' | qp-make > "$out/big.qp"
	refuses 65 'layers\.0\.self_attn\.q_proj: the scale of row 0, group 0 does not fit F16; try --scale-dtype=f32' \
		rtn -g 16 "$out/big.qp"
	rtn -q -g 16 --scale-dtype=f32 "$out/big.qp" | qp-check
}

@test "rtn: --mse and every other option change the result" {
	rtn -q -g 16 acts.qp > "$out/base.qp"
	for o in "-b 3" "-g 8" --asym --mse --scale-dtype=f32 --keep-ref --keep-stats --timing; do
		rtn -q -g 16 $o acts.qp > "$out/o.qp"
		qp-dump "$out/base.qp" | sed 1,/^file/d > "$out/a"
		qp-dump "$out/o.qp" | sed 1,/^file/d > "$out/b"
		! cmp -s "$out/a" "$out/b" || { echo "$o changes nothing"; return 1; }
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
	qp-dump plain.qp | awk '{ print } /^block index=/ { print "flux some.thing n=3" }' | qp-make |
		rtn -q -g 16 > "$out/r.qp"
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
