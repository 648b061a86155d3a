#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# qp-alloc.bats - what qp-alloc promises on its man page, one test per promise
#
# That the choice is the best of all combinations is tests/unit/alloc.c.

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	"$PYTHON" "$ROOT/tests/mkmodel.py" tiny hidden=32 ffn=48 heads=4 kv=2
	for i in 3 5 7 11 13 17 19 23; do
		awk -v m="$i" 'BEGIN {
			for (t = 0; t < 16; t++) printf "%d ", (t * m + m + t * t) % 32
			print "" }'
	done > ids.txt
	calib-pack -q --ids ids.txt > calib.qp
	record-acts -q -c calib.qp tiny > acts.qp
}

setup() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
	export PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1
}

@test "qp-alloc: the plan keeps the budget, and rtn and gptq make that size of it" {
	local b p
	for b in 3.9 4.6 6; do
		qp-alloc -q --budget=$b -g 16 acts.qp > "$out/plan"
		for p in rtn gptq; do
			$p -q -g 16 --plan="$out/plan" acts.qp > "$out/q.qp"
			qp-ls --json "$out/q.qp" | "$PYTHON" -c '
import json, sys
got, budget = json.load(sys.stdin)["bits_per_weight"], float(sys.argv[1])
assert budget - 0.15 < got <= budget + 1e-9, got' $b
		done
	done
}

@test "qp-alloc: --bytes is the same budget in bytes" {
	# 2 x (32 x 32 x 2 + 16 x 32 x 2 + 3 x 48 x 32) weights
	qp-alloc -q --budget=4.5 -g 16 acts.qp > "$out/a"
	qp-alloc -q --bytes=$((2 * (3072 + 4608) * 45 / 80)) -g 16 acts.qp > "$out/b"
	cmp "$out/a" "$out/b"
}

@test "qp-alloc: errors and energies in the table are the definition's (numpy)" {
	qp-alloc -q --table --by=rtn -g 16 acts.qp > "$out/table"
	for b in 2 3 4 5 6 8; do
		rtn -q -b $b -g 16 --keep-stats acts.qp > "$out/$b.qp"
		gptq -q -b $b -g 16 acts.qp > "$out/g$b.qp"
		gptq -q --sweeps=0 --range=minmax -b $b -g 16 acts.qp > "$out/p$b.qp"
	done
	qp-alloc -q --table --by=gptq -g 16 acts.qp > "$out/gtable"
	qp-alloc -q --table -g 16 acts.qp > "$out/ptable"
	qp-alloc -q --table --by=plain -g 16 acts.qp | cmp "$out/ptable"
	"$PYTHON" - acts.qp "$out" <<-'END'
	import sys
	import numpy as np
	from qpstream import Stream
	from methods import edge_of, energy
	was = Stream(sys.argv[1])
	for table, prefix in (("table", ""), ("gtable", "g"), ("ptable", "p")):
	    lines = [l.rstrip("\n").split("\t") for l in open(f"{sys.argv[2]}/{table}")]
	    assert lines[0] == "linear rows cols energy 2 3 4 5 6 8".split()
	    assert len(lines) == 15
	    runs = {b: Stream(f"{sys.argv[2]}/{prefix}{b}.qp") for b in (2, 3, 4, 5, 6, 8)}
	    for name, rows, cols, p, *errors in lines[1:]:
	        n = f"model.{name}.weight"
	        w, h = was.tensor(n).astype("f8"), was.hessian(edge_of(n))
	        want = energy(w, h)
	        if prefix:
	            h = h + 0.2 * np.diag(np.diag(h))
	        assert was.tensor(n).shape == (int(rows), int(cols))
	        assert abs(float(p) / want - 1) < 1e-4
	        for b, x in zip((2, 3, 4, 5, 6, 8), errors):
	            assert abs(float(x) / energy(runs[b].tensor(n) - w, h) - 1) < 1e-3
	END
}

@test "qp-alloc: no other plan of that size has a smaller sum of costs (brute force)" {
	local skip='layers.1|gate_proj|q_proj|k_proj' alike b
	qp-alloc -q --table -g 16 --skip="$skip" acts.qp > "$out/table"
	for alike in "" --alike; do
		qp-alloc -q --budget=4.2 -g 16 $alike --skip="$skip" acts.qp > "$out/plan"
		"$PYTHON" - "$out/plan" "$out/table" $alike <<-'END'
		import sys, itertools
		plan = {l.split("\t")[0]: int(l.split("\t")[1]) for l in open(sys.argv[1]) if l[0] != "#"}
		rows = [l.split("\t") for l in open(sys.argv[2])][1:]
		widths = (2, 3, 4, 5, 6, 8)
		counts = {"v_proj": .5, "up_proj": 1, "o_proj": .75, "down_proj": 1.5}
		def c(name):
		    return 1 if len(sys.argv) > 3 else counts[name.split(".")[-1]]
		assert len(rows) == 4 == len(plan)
		best = None
		for pick in itertools.product(range(6), repeat=len(rows)):
		    size = sum(int(r[1]) * int(r[2]) * (widths[p] + 1) for r, p in zip(rows, pick))
		    cost = sum(c(r[0]) * float(r[4 + p]) / float(r[3]) for r, p in zip(rows, pick))
		    if size <= 4.2 * sum(int(r[1]) * int(r[2]) for r in rows) and (
		        not best or cost < best[0]):
		        best = cost, [widths[p] for p in pick]
		assert [plan[f"model.{r[0]}.weight"] for r in rows] == best[1], (plan, best)
		END
	done
	for b in 3.3 3.6 4.4 4.8 5.3; do
		qp-alloc -q --budget=$b -g 16 acts.qp > "$out/plan"
		qp-alloc -q --budget=$b -g 16 --alike acts.qp | cmp -s "$out/plan" || return 0
	done
	false	# it makes no difference
}

@test "qp-alloc: --for=vllm: 4 and 8 bits, q k v alike, gate and up alike" {
	qp-alloc -q --budget=6 -g -1 --for=vllm acts.qp > "$out/plan"
	"$PYTHON" - "$out/plan" <<-'END'
	import sys
	plan = {l.split("\t")[0]: l.split("\t")[1] for l in open(sys.argv[1]) if l[0] != "#"}
	assert set(plan.values()) == {"4", "8"} and len(plan) == 14
	for l in range(2):
	    a, m = f"model.layers.{l}.self_attn.", f"model.layers.{l}.mlp."
	    assert len({plan[a + x + "_proj.weight"] for x in "qkv"}) == 1
	    assert plan[m + "gate_proj.weight"] == plan[m + "up_proj.weight"]
	END
	qp-alloc -q --budget=6 -g -1 --fuse --widths=4,8 acts.qp > "$out/fuse"
	cmp "$out/plan" "$out/fuse"
	refuses 64 '--group-size: .* 32, 64, 128' qp-alloc --budget=6 -g 16 --for=vllm acts.qp
}

@test "qp-alloc: --for=llama.cpp: to-gguf holds the plan as Q4_0, Q5_0 and Q8_0; others are refused" {
	local g
	"$PYTHON" "$ROOT/tests/mkmodel.py" "$out/m" hidden=64 ffn=96 heads=4 kv=2
	calib-pack -q --ids ids.txt > "$out/c.qp"
	record-acts -q -c "$out/c.qp" "$out/m" > "$out/a.qp"
	for g in 32 -1; do
		qp-alloc -q --budget=5.7 -g $g --for=llama.cpp "$out/a.qp" > "$out/plan"
		grep -v '^#' "$out/plan" | cut -f 2 | sort -u > "$out/bits"
		[ "$(wc -l < "$out/bits")" -ge 2 ]
		run ! grep -vx '[458]' "$out/bits"
		gptq -q -g $g --plan="$out/plan" "$out/a.qp" | pack-int8 -q |
			to-gguf -q --no-vocab - "$out/m$g.gguf"
	done
	refuses 64 '--group-size: .* 32 or a multiple' \
		qp-alloc --budget=5 -g 16 --for=llama.cpp acts.qp
	refuses 64 '--widths: .* 4, 5 and 8 bits' \
		qp-alloc --budget=5 -g 32 --for=llama.cpp --widths=3,4 acts.qp
	refuses 64 '--asym: ' qp-alloc --budget=5 -g 32 --for=llama.cpp --asym acts.qp
	refuses 65 '--for: .* 32 columns .*--skip' \
		qp-alloc --budget=5 -g -1 --for=llama.cpp acts.qp
	qp-alloc -q --budget=6 -g -1 --for=llama.cpp --skip=down acts.qp > "$out/plan"
}

@test "qp-alloc: one line tells the size and the predicted losses, unless -q" {
	run --separate-stderr -0 qp-alloc --budget=5 -g 16 acts.qp
	[[ $stderr =~ ^qp-alloc:\ [45]\.[0-9]+\ bits\ a\ weight,\ predicted\ loss\ .*uniform,\ 4\ bits ]]
	run --separate-stderr -0 qp-alloc -q --budget=5 -g 16 acts.qp
	[ -z "$stderr" ]
	[ "${lines[0]}" = "# quantpipe plan 1" ]
}

@test "qp-alloc: a budget that cannot be met is refused with the least that can" {
	refuses 65 'the budget cannot be met: 3.0000 bits a weight, scales counted, or 5760 bytes' \
		qp-alloc --budget=2.9 -g 16 acts.qp
	refuses 65 'the budget cannot be met: 4.4667 bits' qp-alloc --for=vllm --budget=4 -g -1 acts.qp
	qp-alloc -q --bytes=5760 -g 16 acts.qp > "$out/plan"
	[ "$(grep -c '	2	16$' "$out/plan")" -eq 14 ]
	refuses 65 'the budget cannot' qp-alloc --bytes=5759 -g 16 acts.qp
}

@test "qp-alloc: the plan is for these shapes only" {
	qp-alloc -q --budget=5 -g 16 acts.qp > "$out/plan"
	"$PYTHON" "$ROOT/tests/mkmodel.py" "$out/other" hidden=32 ffn=64 heads=4 kv=2
	refuses 65 '--plan: made for a model of other shapes' \
		rtn -g 16 --plan="$out/plan" "$out/other"
}

@test "qp-alloc: no Hessian, codes, groups that do not divide: 65 and the name" {
	record-acts -q -c calib.qp --stats=absmax tiny > "$out/m.qp"
	refuses 65 'layers\.0\.attn\.in: no hessian; put "record-acts - --stats=hessian"' \
		qp-alloc --budget=5 -g 16 "$out/m.qp"
	rtn -q -g 16 --keep-stats acts.qp > "$out/q.qp"
	refuses 65 'layers\.0\.self_attn\.q_proj: is quantized already' \
		qp-alloc --budget=5 -g 16 "$out/q.qp"
	refuses 65 'layers\.0\.self_attn\.q_proj: groups of 24 do not divide' \
		qp-alloc --budget=5 -g 24 acts.qp
}

@test "qp-alloc: every truncation of the input is refused" {
	refuses_every_prefix acts.qp qp-alloc -q --budget=5 -g 16 --by=rtn
}

@test "qp-alloc: bad command lines exit 64 and say what was expected" {
	refuses 64 'one of --budget and --bytes' qp-alloc acts.qp
	refuses 64 'one of --budget and --bytes' qp-alloc --budget=4 --bytes=9 acts.qp
	refuses 64 '--widths: expected some of 2 to 8' qp-alloc --budget=4 --widths=4,16 acts.qp
	refuses 64 "--widths: vllm's kernels" qp-alloc --budget=4 --for=vllm --widths=3,4 acts.qp
	refuses 64 '--table: has no size' qp-alloc --table --budget=4 acts.qp
	refuses 64 '--table: has no size' qp-alloc --table --bytes=4 acts.qp
	refuses 64 '--table: .*--alike' qp-alloc --table --alike acts.qp
	refuses 64 '--table: .*--fuse' qp-alloc --table --fuse acts.qp
	refuses 64 '--act-order: ' qp-alloc --budget=4 --by=rtn --act-order acts.qp
	refuses 64 '--for: expected' qp-alloc --budget=4 --for=x acts.qp
}
