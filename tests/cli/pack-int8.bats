#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# pack-int8.bats - what pack-int8 promises on its man page, and --float of both packers

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	record-acts -q --stats=none "$MODEL" > plain.qp
	rtn -q -b 8 -g -1 plain.qp > rtn8.qp
	rtn -q -b 4 -g -1 plain.qp > rtn4.qp
}

setup() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	export PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1
}

same_ppl() {	# same_ppl A B: to the last digit
	eval-ppl -q --json -c 256 --windows 2 "$1" < "$EVAL" > a.json
	eval-ppl -q --json -c 256 --windows 2 "$2" < "$EVAL" > b.json
	cmp a.json b.json
}

@test "pack-int8: codes of 5 to 8 bits stay bytes, the weights they stand for are dropped" {
	for b in 5 6 7 8; do
		rtn -q -b "$b" -g -1 plain.qp > r.qp
		pack-int8 -q r.qp > p.qp
		same_ppl r.qp p.qp
		"$PYTHON" - r.qp p.qp <<-'END'
			import sys
			from qpstream import Stream
			r, p = Stream(sys.argv[1]), Stream(sys.argv[2])
			assert p.names("codes") == r.names("codes") and len(p.names("codes")) == 14
			assert not set(p.names("codes")) & set(p.names("weight"))
			for n in p.names("codes"):
			    assert (r.tensor(n, "codes") == p.tensor(n, "codes")).all()
		END
	done
}

@test "pack-int8: codes of 2 to 4 bits are packed as pack-int4 does" {
	pack-int8 -q rtn4.qp > eight.qp
	pack-int4 -q rtn4.qp > four.qp
	qp-cmp eight.qp four.qp
	[ "$(qp-dump eight.qp | grep -c 'dtype=U4')" -eq 14 ]
}

@test "pack-int4: codes of 8 bits are refused, pack-int8 named" {
	refuses 65 "model.layers.0.*: codes of 8 bits; pack-int4 packs those of 2, 3 and 4, pack-int8" \
		pack-int4 rtn8.qp
}

@test "pack-int8: a code beyond its bits is refused by name, and a stream without codes" {
	rtn -q -b 5 -g -1 plain.qp | qp-dump > r.txt
	awk '/role="?codes/ && !done { print; getline; sub(/[0-9]+/, "32"); done = 1 } { print }' r.txt |
		qp-make > bad.qp
	refuses 65 "model.layers.0.self_attn.q_proj.weight: code 0 does not fit 5 bits" pack-int8 bad.qp
	refuses 65 "no codes in the stream" pack-int8 plain.qp
}

@test "pack: --float rounds what stays float, half to even, embedding, norms and all" {
	smooth --help > /dev/null
	rotate -q plain.qp | rtn -q -b 4 -g -1 -o turned.qp
	for t in bf16 f16 f32; do
		pack-int4 -q --float=$t turned.qp > p.qp
		"$PYTHON" - turned.qp p.qp $t <<-'END'
			import sys
			import numpy as np
			from qpstream import Stream
			r, p, t = Stream(sys.argv[1]), Stream(sys.argv[2]), sys.argv[3]
			want = [n for n in r.names() if n not in r.names("codes")]
			assert p.names() == want and "lm_head.weight" in want
			for n in want:
			    x, y = r.tensor(n), p.tensor(n)
			    assert p.head(n, "weight")["dtype"] == t.upper()
			    if t == "f16":
			        x = x.astype("<f2")
			    elif t == "bf16":
			        b = np.ascontiguousarray(x, "<f4").view("<u4").astype("u8")
			        b = (b + 0x7fff + (b >> 16 & 1)) >> 16 << 16
			        x = b.astype("<u4").view("<f4")
			    assert (x == y).all(), n
		END
	done
	refuses 64 "--float" pack-int4 --float=int8 turned.qp
}

@test "pack: a value beyond the range of f16 is refused by name" {
	qp-dump plain.qp | awk '/^tensor model.norm.weight/ { print; getline; sub(/[^ ]+/, "1e6") } { print }' |
		qp-make | rtn -q -b 4 -g -1 > big.qp
	refuses 65 "model.norm.weight: a value is beyond the range of F16" pack-int4 --float=f16 big.qp
}

@test "pack-int8: truncated streams are refused, a closed pipe is quiet" {
	head -c 60000 rtn8.qp > short.qp
	refuses 65 ".*" pack-int8 short.qp
	refuses_a_cut_pipe rtn8.qp 400000 pack-int8 -q
	dies_quietly_in_a_closed_pipe pack-int8 -q rtn8.qp
}
