#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# plan.bats - rtn and gptq obey a plan of bits and groups, or refuse it

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
	# q_proj 3 bits, down 8 in groups of 8, the second gate 2; the rest as the options say
	printf '# quantpipe plan 1\n# by hand\n%s\t3\n%s\t8\t8\n%s\t2\n' \
		model.layers.0.self_attn.q_proj.weight model.layers.1.mlp.down_proj.weight \
		model.layers.1.mlp.gate_proj.weight > plan.tsv
}

setup() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
	export PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1
}

obeys() {	# obeys PROGRAM OPTION...: every linear is what a run with its bits and group gives
	local p=$1
	shift
	"$p" -q "$@" -b 4 -g 16 --plan=plan.tsv acts.qp > "$out/mixed.qp"
	"$p" -q "$@" -b 4 -g 16 acts.qp > "$out/4.qp"
	"$p" -q "$@" -b 3 -g 16 acts.qp > "$out/3.qp"
	"$p" -q "$@" -b 2 -g 16 acts.qp > "$out/2.qp"
	"$p" -q "$@" -b 8 -g 8 acts.qp > "$out/8.qp"
	"$PYTHON" - "$out" <<-'END'
	import sys
	from qpstream import Stream
	d = sys.argv[1]
	mixed, runs = Stream(d + "/mixed.qp"), {b: Stream(f"{d}/{b}.qp") for b in (2, 3, 4, 8)}
	plan = {l.split("\t")[0]: int(l.split("\t")[1]) for l in open("plan.tsv") if l[0] != "#"}
	seen = set()
	for n in mixed.names("codes"):
	    b = plan.get(n, 4)
	    seen.add(b)
	    for role in ("codes", "scale", "weight"):
	        assert (mixed.tensor(n, role) == runs[b].tensor(n, role)).all(), (n, role)
	    h, e = mixed.head(n, "codes"), mixed.notes()[n]
	    assert (h["bits"], h["group"]) == (b, 8 if b == 8 else 16), h
	    assert (e["bits"], e["group"]) == (b, 8 if b == 8 else 16), e
	    assert e["rel_err"] == runs[b].notes()[n]["rel_err"]
	assert seen == {2, 3, 4, 8}
	END
}

@test "plan: rtn gives each linear its bits and group" {
	obeys rtn
	obeys rtn --mse
}

@test "plan: gptq gives each linear its bits and group" {
	obeys gptq
	obeys gptq --act-order
}

@test "plan: gptq --sequential obeys it too" {
	gptq -q --sequential -b 4 -g 16 --plan=plan.tsv acts.qp > "$out/s.qp"
	[ "$(qp-dump "$out/s.qp" | grep -c 'role=codes.*bits=3')" -eq 1 ]
	[ "$(qp-dump "$out/s.qp" | grep -c 'role=codes.*bits=8.*group=8')" -eq 1 ]
}

@test "plan: pack-int4 takes 2, 3 and 4 bits side by side, and the model runs" {
	sed '/down_proj/d' plan.tsv > "$out/p.tsv"
	rtn -q -b 4 -g 16 --plan="$out/p.tsv" acts.qp | pack-int4 -q > "$out/packed.qp"
	qp-check "$out/packed.qp"
	qp-forward -q -i ids.txt "$out/packed.qp" > "$out/f.qp"
}

@test "plan: the provenance names no path" {
	rtn -q -g 16 --plan=plan.tsv acts.qp > "$out/r.qp"
	[[ $(qp-ls --provenance "$out/r.qp") == *'rtn --group-size=16 --plan="$PLAN"'* ]]
}

@test "plan: one for other shapes, or other linears, is refused" {
	sed '1a # shapes xxh64:0123456789abcdef' plan.tsv > "$out/p.tsv"
	refuses 65 '--plan: made for a model of other shapes' rtn -g 16 --plan="$out/p.tsv" acts.qp
	printf '# quantpipe plan 1\nmodel.layers.2.mlp.up_proj.weight\t4\n' > "$out/p.tsv"
	refuses 65 '--plan: model.layers.2.mlp.up_proj.weight is no linear' \
		gptq -g 16 --plan="$out/p.tsv" acts.qp
	printf '# quantpipe plan 1\nmodel.norm.weight\t4\n' > "$out/p.tsv"
	refuses 65 '--plan: model.norm.weight is no linear' gptq -g 16 --plan="$out/p.tsv" acts.qp
}

@test "plan: what is no plan is refused with its line" {
	local name=model.layers.0.mlp.up_proj.weight row want
	refuses 66 '.*/none' rtn -g 16 --plan="$out/none" acts.qp
	: > "$out/p"
	refuses 65 '.*/p: no plan: it is empty' rtn -g 16 --plan="$out/p" acts.qp
	echo "$name	4" > "$out/p"
	refuses 65 '.*/p: no plan: its first line' rtn -g 16 --plan="$out/p" acts.qp
	echo "# quantpipe plan 2" > "$out/p"
	refuses 76 '.*/p: plan 2: this version reads plan 1' rtn -g 16 --plan="$out/p" acts.qp
	for row in "$name 4" "$name	9" "$name	1" "$name	4x" "$name	" "	4" "$name	4	-2" \
		"$name	4	" "$name	4	16	1"; do
		printf '# quantpipe plan 1\n\n%s\n' "$row" > "$out/p"
		refuses 65 '.*/p: line 3: expected ' rtn -g 16 --plan="$out/p" acts.qp
	done
	printf '# quantpipe plan 1\n%s\t4\n%s\t4\n' "$name" "$name" > "$out/p"
	refuses 65 ".*/p: $name stands there twice" rtn -g 16 --plan="$out/p" acts.qp
	printf '# quantpipe plan 1\n' > "$out/p"
	refuses 65 '.*/p: a plan without a linear' rtn -g 16 --plan="$out/p" acts.qp
}

@test "plan: groups that do not divide, or differ on one edge, are refused by name" {
	printf '# quantpipe plan 1\nmodel.layers.1.mlp.down_proj.weight\t4\t32\n' > "$out/p"
	refuses 65 'layers.1.mlp.down_proj: groups of 32 do not divide 48' \
		rtn -g 16 --plan="$out/p" acts.qp
	printf '# quantpipe plan 1\nmodel.layers.1.mlp.up_proj.weight\t4\t8\n' > "$out/p"
	refuses 65 'layers.1.mlp.gate_proj: --plan: groups of 16 here and of 8 in .*up_proj' \
		gptq -g 16 --plan="$out/p" acts.qp
}
