#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# clip.bats - what clip promises on its man page, one test per promise

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

@test "clip: weights and notes are those of the definition (numpy)" {
	local o
	for o in "-b 4 -g 16" "-b 3 -g 8 --asym" "-b 2 -g -1" "-b 3 -g 16 --n-grid=7 --max-shrink=0.9"; do
		clip -q $o acts.qp > "$out/c.qp"
		"$PYTHON" "$ROOT/tests/methods.py" clip acts.qp "$out/c.qp" $o
	done
}

@test "clip: --qk clips queries and keys, which are passed over otherwise" {
	clip -q -b 2 -g 16 acts.qp > "$out/c.qp"
	clip -q -b 2 -g 16 --qk acts.qp > "$out/qk.qp"
	"$PYTHON" - acts.qp "$out/c.qp" "$out/qk.qp" <<-'END'
	import sys
	from qpstream import Stream
	was, c, qk = map(Stream, sys.argv[1:])
	for n in was.names():
	    is_qk = "q_proj" in n or "k_proj" in n
	    if is_qk:
	        assert (c.tensor(n) == was.tensor(n)).all() and n not in c.notes("clip")
	        assert (qk.tensor(n) != was.tensor(n)).any() and n in qk.notes("clip")
	    elif n in c.notes("clip"):
	        assert (qk.tensor(n) == c.tensor(n)).all()
	assert len(c.notes("clip")) == 10 and len(qk.notes("clip")) == 14
	END
}

@test "clip: a range of 1 only leaves every weight" {
	clip -q -g 16 --max-shrink=0 acts.qp > "$out/c.qp"
	qp-cmp -q --role=weight acts.qp "$out/c.qp"
}

@test "clip: searched scales, clipping and gptq compose; at 2 bits rounding gains" {
	smooth --search=w -b 2 -g 16 acts.qp | clip -q -b 2 -g 16 | gptq -q -b 2 -g 16 |
		pack-int4 -q > "$out/q.qp"
	qp-check "$out/q.qp"
	[[ $(qp-ls --provenance "$out/q.qp") == *"| smooth --search=w"*"| clip "*"| gptq "* ]]
	qp-forward -q -i ids.txt "$out/q.qp" > "$out/f.qp"
	clip -q -b 2 -g 16 acts.qp > "$out/c.qp"
	"$PYTHON" - "$out/c.qp" <<-'END'
	import sys
	from qpstream import Stream
	notes = Stream(sys.argv[1]).notes("clip").values()
	assert sum(n["after"] for n in notes) < 0.95 * sum(n["before"] for n in notes)
	assert all(0 < n["clipped"] < 1 for n in notes)
	END
}

@test "clip: Hessians pass as they came; other records byte for byte" {
	clip -q -g 16 acts.qp > "$out/c.qp"
	qp-cmp -q --role=stat acts.qp "$out/c.qp"
	qp-dump acts.qp | grep -A 1 -E '^tensor.*(norm|embed|q_proj|k_proj)' > "$out/want"
	qp-dump "$out/c.qp" | grep -A 1 -E '^tensor.*(norm|embed|q_proj|k_proj)' > "$out/got"
	cmp "$out/want" "$out/got"
}

@test "clip: --skip passes linears over" {
	clip -q -b 2 -g 16 --skip=mlp acts.qp > "$out/c.qp"
	[ "$(qp-dump "$out/c.qp" | grep -c 'kind="clip"')" -eq 4 ]
	[ "$(qp-dump "$out/c.qp" | grep -c 'kind="skipped"')" -eq 6 ]
	run --separate-stderr -0 clip -g 16 --skip=nothing -o "$out/c.qp" acts.qp
	[[ $stderr == *"--skip=nothing matches no linear"* ]]
}

@test "clip: same input, same bytes, with any number of threads" {
	clip -q -j 1 -b 3 -g 16 acts.qp > "$out/a.qp"
	clip -q -j 3 -b 3 -g 16 < acts.qp > "$out/b.qp"
	cmp "$out/a.qp" "$out/b.qp"
}

@test "clip: no Hessian, codes, groups that do not divide: 65 and the name" {
	record-acts -q -c calib.qp --stats=absmax tiny > "$out/m.qp"
	refuses 65 'layers\.0\.attn\.in: no hessian; put "record-acts - --stats=hessian" before clip' \
		clip -g 16 "$out/m.qp"
	rtn -q -g 16 --keep-stats acts.qp > "$out/q.qp"
	refuses 65 'layers\.0\.self_attn\.v_proj: is quantized already' clip -g 16 "$out/q.qp"
	refuses 65 'layers\.0\.self_attn\.q_proj: groups of 24 do not divide 32' clip -g 24 acts.qp
}

@test "clip: every truncation of the input is refused" {
	refuses_every_prefix acts.qp clip -q -g 16
	refuses_a_cut_pipe acts.qp 5000 clip -q -g 16
}

@test "clip: bad command lines exit 64 and say what was expected" {
	refuses 64 '--group-size: clip has a range for each row' clip -g 0 acts.qp
	refuses 64 '--bits: expected' clip -b 9 acts.qp
	refuses 64 '--n-grid: expected' clip --n-grid=0 acts.qp
	refuses 64 '--max-shrink: expected' clip --max-shrink=1.5 acts.qp
	refuses 64 '--asym: contradicts --sym' clip --sym --asym acts.qp
}

@test "clip: peak memory is the formula of the man page" {
	not_with_sanitizers "memory is not what it would be"
	cd "$out"
	heavy_model
	clip -v -j 2 -g 64 acts.qp 2> err > /dev/null
	peak_is err $((4 * P + H + 9 * D * F + 4 * 64 * (64 + 2 * F) + 6144 * F + 3 * MiB))
}
