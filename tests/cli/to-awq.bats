#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# to-awq.bats - what to-awq promises on its man page, one test per promise

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	"$PYTHON" "$ROOT/tests/mkmodel.py" tiny hidden=64 ffn=96 heads=4 kv=2 dtype=BF16
	rtn -q -g 32 --asym tiny > asym.qp
	seq -s ' ' 1 20 > ids.txt
}

setup() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
	export PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1
}

holds() {	# holds STREAM DIR: every linear is there, bit for bit
	"$PYTHON" - "$@" <<-'END'
	import sys
	from checkpoint import Directory
	from ggufread import values
	from int32 import linear
	from qpstream import Stream
	s, d = Stream(sys.argv[1]), Directory(sys.argv[2])
	assert s.names("codes")
	for n in s.names("codes"):
	    assert (linear(d, n[:-len(".weight")]) == values(s, n)).all(), n
	END
}

same_logits() {	# same_logits MODEL MODEL
	qp-forward -q -i ids.txt "$1" > "$out/x.qp"
	qp-forward -q -i ids.txt "$2" > "$out/y.qp"
	qp-cmp "$out/x.qp" "$out/y.qp"
}

@test "to-awq: codes of up to 4 bits, symmetric or not, bit for bit" {
	local b o
	for b in 2 3 4; do
		for o in --sym --asym; do
			rtn -q -b "$b" -g 32 $o tiny > "$out/s.qp"
			to-awq -q --force "$out/s.qp" "$out/d"
			holds "$out/s.qp" "$out/d"
			same_logits "$out/s.qp" "$out/d"
		done
	done
	pack-int4 asym.qp | to-awq -q --force - "$out/d"
	holds asym.qp "$out/d"
}

@test "to-awq: zeros of 0 and 15 fit" {
	qp-dump asym.qp | awk '/^tensor/ { f = /role=zero/ }
		f && /^ / { sub(/[0-9]+ +[0-9]+/, "0 15"); f = 0 } { print }' | qp-make |
		pack-int4 > "$out/z.qp"
	to-awq -q "$out/z.qp" "$out/d"
	holds "$out/z.qp" "$out/d"
	same_logits "$out/z.qp" "$out/d"
}

@test "to-awq: columns 0 to 7 with codes 0 to 7 are the word 0x75316420" {
	qp-dump asym.qp | awk '/^tensor/ { f = /role=codes/; i = 0 }
		f && /^ / { for (k = 1; k <= NF; k++) {
				if (i % 64 == 0 && i < 8 * 64) $k = i / 64
				i++
			    }
			    $0 = " " $0 } { print }' | qp-make | pack-int4 > "$out/s.qp"
	to-awq -q "$out/s.qp" "$out/d"
	"$PYTHON" -c '
import sys
from checkpoint import Directory
d = Directory(sys.argv[1])
w = d.tensors["model.layers.0.self_attn.q_proj.qweight"][1].view("<u4")
assert w[0, 0] == 0x75316420, hex(w[0, 0])' "$out/d"
}

@test "to-awq: config.json says what it is, and which linears are none of it" {
	rtn -q -g 32 --asym --skip=down_proj tiny > "$out/s.qp"
	to-awq -q "$out/s.qp" "$out/d"
	"$PYTHON" -c '
import json, sys
q = json.load(open(sys.argv[1] + "/config.json"))["quantization_config"]
assert q == {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True,
             "version": "gemm", "modules_to_not_convert":
             ["model.layers.%d.mlp.down_proj" % i for i in range(2)]}, q' "$out/d"
	same_logits "$out/s.qp" "$out/d"
}

@test "to-awq: what the layout cannot hold is refused with the option that helps" {
	rtn -q -b 8 -g 32 tiny > "$out/s.qp"
	refuses 65 '.*q_proj\.weight: codes of 8 bits: AWQ has 4: gptq -b 4, or to-gptq' \
		to-awq -q "$out/s.qp" "$out/d"
	refuses 65 'no codes in the stream; put rtn or gptq before to-awq' to-awq -q tiny "$out/d"
	[ ! -e "$out/d" ]
}

@test "to-awq: a bit that the disk turns over is noticed, wherever it is" {
	not_with_sanitizers "the shim must be loaded before the sanitizer's runtime"
	notices_every_flip "$out/d" to-awq -q asym.qp "$out/d"
	pack-int4 -q asym.qp > "$out/p.qp"
	notices_every_flip "$out/d" to-awq -q "$out/p.qp" "$out/d"
}

@test "to-awq: what is there is not touched without --force; a cut stream leaves nothing" {
	mkdir "$out/o" "$out/o/d"
	refuses 73 ".*/d: " to-awq -q asym.qp "$out/o/d"
	rmdir "$out/o/d"
	head -c 30000 asym.qp > "$out/cut.qp"
	run -65 to-awq -q "$out/cut.qp" "$out/o/d"
	[ -z "$(ls -A "$out/o")" ]
}

@test "to-awq: a directory of auto-round gives its loader's logits" {
	local d=$SHARED/interop/ar-awq-w4-g32-asym
	need_shared interop
	"$PYTHON" "$ROOT/tests/golden.py" inputs "$d" > "$out/ids"
	qp-forward -q -i "$out/ids" "$d" > "$out/f.qp"
	"$PYTHON" "$ROOT/tests/golden.py" places "$d" "$out/f.qp"
}
