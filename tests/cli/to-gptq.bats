#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# to-gptq.bats - what to-gptq promises on its man page, one test per promise
#
# tests/int32.py reads the directories: it was written from the layout's description alone.

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	"$PYTHON" "$ROOT/tests/mkmodel.py" tiny hidden=64 ffn=96 heads=4 kv=2 dtype=BF16
	rtn -q -g 32 tiny > sym.qp
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
	    assert n not in d.tensors
	END
}

same_logits() {	# same_logits MODEL MODEL
	qp-forward -q -i ids.txt "$1" > "$out/x.qp"
	qp-forward -q -i ids.txt "$2" > "$out/y.qp"
	qp-cmp "$out/x.qp" "$out/y.qp"
}

@test "to-gptq: codes of 2, 3, 4 and 8 bits, bit for bit, and the reader's logits are the stream's" {
	local b
	for b in 2 3 4 8; do
		rtn -q -b "$b" -g 32 tiny > "$out/s.qp"
		to-gptq -q --force "$out/s.qp" "$out/d"
		holds "$out/s.qp" "$out/d"
		same_logits "$out/s.qp" "$out/d"
	done
}

@test "to-gptq: a row or a tensor as one group, and packed codes" {
	local g
	for g in -1 0; do
		rtn -q -g "$g" tiny > "$out/s.qp"
		to-gptq -q --force "$out/s.qp" "$out/d"
		holds "$out/s.qp" "$out/d"
	done
	pack-int4 sym.qp | to-gptq -q --force - "$out/d"
	holds sym.qp "$out/d"
}

@test "to-gptq: symmetric zeros of 4 bits are 0x77777777, of v2 0x88888888" {
	to-gptq -q sym.qp "$out/1"
	to-gptq -q --v2 sym.qp "$out/2"
	holds sym.qp "$out/1"
	holds sym.qp "$out/2"
	"$PYTHON" -c '
import sys
from checkpoint import Directory
for path, want in (sys.argv[1], 0x77777777), (sys.argv[2], 0x88888888):
    d = Directory(path)
    z = [t[1].view("<u4") for n, t in d.tensors.items() if n.endswith(".qzeros")]
    assert len(z) == 14 and all((x == want).all() for x in z)' "$out/1" "$out/2"
}

@test "to-gptq: config.json and quantize_config.json say the same, and the rest stays" {
	to-gptq -q sym.qp "$out/d"
	"$PYTHON" - tiny "$out/d" <<-'END'
	import json, sys
	was, now = (json.load(open(d + "/config.json")) for d in sys.argv[1:])
	q = now.pop("quantization_config")
	assert was == now
	assert q == json.load(open(sys.argv[2] + "/quantize_config.json"))
	assert (q["bits"], q["group_size"], q["sym"], q["desc_act"]) == (4, 32, True, False)
	assert q["quant_method"] == "gptq" and q["checkpoint_format"] == "gptq"
	END
}

@test "to-gptq: linears without codes stay weights, and dynamic names them" {
	rtn -q -g 32 --skip=down_proj tiny > "$out/s.qp"
	to-gptq -q "$out/s.qp" "$out/d"
	"$PYTHON" - "$out/d" <<-'END'
	import re, sys
	from checkpoint import Directory
	d = Directory(sys.argv[1])
	keys = list(d.config["quantization_config"]["dynamic"])
	assert len(keys) == 2 and all(k.startswith("-:") for k in keys)
	for n in d.tensors:
	    hit = any(re.match(k[2:], n.rsplit(".", 1)[0]) for k in keys)
	    assert hit == n.endswith("down_proj.weight"), n
	END
	same_logits "$out/s.qp" "$out/d"
}

@test "to-gptq: a zero of 0 is refused in v1 by its place, and fits v2" {
	qp-dump asym.qp | awk '/^tensor/ { f = /role=zero/ } f && /^ / { sub(/[0-9]+/, "0"); f = 0 }
		{ print }' | qp-make | pack-int4 > "$out/z.qp"
	refuses 65 '.*q_proj\.weight: zero 0 \(row 0 group 0\) cannot be said in GPTQ v1.*--sym, --v2, or to-awq' \
		to-gptq -q "$out/z.qp" "$out/d"
	[ ! -e "$out/d" ]
	to-gptq -q --v2 "$out/z.qp" "$out/d"
	holds "$out/z.qp" "$out/d"
	same_logits "$out/z.qp" "$out/d"
}

@test "to-gptq: what the layout cannot hold is refused with the option that helps" {
	rtn -q -b 5 -g 32 tiny > "$out/s.qp"
	refuses 65 '.*q_proj\.weight: codes of 5 bits: GPTQ has 2, 3, 4 and 8: gptq -b 4' \
		to-gptq -q "$out/s.qp" "$out/d"
	rtn -q -g 32 --scale-dtype=f32 tiny > "$out/s.qp"
	refuses 65 '.*q_proj\.weight: scale .* \(row 0 group 0\) is no number of F16.*--scale-dtype=f16' \
		to-gptq -q "$out/s.qp" "$out/d"
	"$PYTHON" "$ROOT/tests/mkmodel.py" "$out/odd" hidden=20 ffn=12 heads=5 kv=1
	rtn -q -g 4 "$out/odd" > "$out/s.qp"
	refuses 65 '.*q_proj\.weight: 20 rows of 20 columns do not fill words' \
		to-gptq -q "$out/s.qp" "$out/d"
	rtn -q -g 64 --skip=down tiny > "$out/a.qp"
	rtn -q -g 32 --skip='self_attn|gate|up' "$out/a.qp" > "$out/s.qp"
	refuses 65 '.*down_proj\.weight: has 4 bits, symmetric, group 32, not what .*|.*some linears have groups of 32, others one' \
		to-gptq -q "$out/s.qp" "$out/d"
	refuses 65 'no codes in the stream; put rtn or gptq before to-gptq' to-gptq -q tiny "$out/d"
	[ "$(ls -A "$out" | grep -c '^d')" -eq 0 ]
}

@test "to-gptq, to-awq: --requantize makes it fit, says for each what that costs, and the sum" {
	local o p
	"$PYTHON" "$ROOT/tests/mkmodel.py" "$out/k" hidden=256 ffn=512 heads=4 kv=2 layers=1
	for o in "-b 5 -g 32" "-b 4 -g 32 --scale-dtype=f32" "-b 4 -g 32 --asym" "--grid=q4_K" \
		"--grid=q6_K" "--format=e4m3"; do
		rtn -q $o "$out/k" > "$out/s.qp"
		for p in to-gptq to-awq; do
			$p --force --requantize "$out/s.qp" "$out/d" 2> "$out/err"
			qp-forward -q -i ids.txt "$out/d" > "$out/f.qp"
			"$PYTHON" - "$out/s.qp" "$out/d" "$out/err" $p <<-'END'
			import re, sys
			import numpy as np
			from checkpoint import Directory
			from int32 import linear
			from qpstream import Stream
			s, d, text = Stream(sys.argv[1]), Directory(sys.argv[2]), open(sys.argv[3]).read()
			said = dict(re.findall(r"^to-\w+: (\S+): made .*: relative error (\S+)$", text, re.M))
			e = n = 0
			for name in s.names("codes"):
			    w = s.tensor(name).astype("f8")
			    x = linear(d, name[:-len(".weight")]) - w
			    rel = np.sqrt((x * x).sum() / (w * w).sum())
			    assert abs(rel - float(said.get(name, 0))) <= 1e-2 * rel, (name, rel, said.get(name))
			    assert rel < 0.2, (name, rel)
			    e, n = e + (x * x).sum() * (rel > 0), n + (w * w).sum() * (rel > 0)
			m = re.search(r"(\d+) tensors are not what they were: relative error (\S+) in all", text)
			assert (int(m[1]) if m else 0) == len(said)
			assert not m or abs(np.sqrt(e / n) / float(m[2]) - 1) < 1e-2
			if "made" not in text:
			    assert sys.argv[4] == "to-gptq" or "asym" not in text
			END
		done
	done
	rtn -q -b 5 -g 32 "$out/k" > "$out/s.qp" # five bits fit eight
	to-gptq --force --requantize "$out/s.qp" "$out/d" 2> "$out/err"
	holds "$out/s.qp" "$out/d"
	[ "$(grep -c made "$out/err")" = 0 ]
}

@test "to-gptq: --requantize: what fills no words becomes a weight; a zero of 0 moves by one" {
	"$PYTHON" "$ROOT/tests/mkmodel.py" "$out/odd" hidden=64 ffn=44 heads=4 kv=2 layers=1
	rtn -q -g 4 "$out/odd" > "$out/s.qp"
	refuses 65 '.*gate_proj\.weight: 44 rows of 64 columns do not fill words' \
		to-gptq -q "$out/s.qp" "$out/d"
	to-gptq -q --requantize "$out/s.qp" "$out/d"
	[ -n "$(ls "$out/d")" ]
	same_logits "$out/s.qp" "$out/d"
	qp-dump asym.qp | awk '/^tensor/ { f = /role=zero/ } f && /^ / { sub(/[0-9]+/, "0"); f = 0 }
		{ print }' | qp-make | pack-int4 > "$out/z.qp"
	to-gptq --force --requantize "$out/z.qp" "$out/d" 2> "$out/err"
	grep -q 'q_proj.weight: made 4 bits, groups of 32, asymmetric: relative error 0.0' "$out/err"
}

@test "to-gptq, to-awq: weights without codes that are rounded to the checkpoint's type are named" {
	qp-dump sym.qp | sed 's/\(norm\.weight role=weight dtype=\)BF16/\1F32/' |
		awk '/^tensor/ { f = /norm\.weight/ } f && /^ / { sub(/[^ ]+/, "0x1.3c0ca4p+0"); } { print }' |
		qp-make > "$out/n.qp"
	for p in to-gptq to-awq; do
		$p --force "$out/n.qp" "$out/d" 2> "$out/err"
		grep -qE "^$p: model.layers.0.input_layernorm.weight: rounded to BF16: relative error [0-9.e-]+$" "$out/err"
		[ "$(grep -c 'rounded to BF16' "$out/err")" = 5 ]
		grep -q "^$p: 5 tensors are not what they were: relative error" "$out/err"
		$p --force --dtype=f32 "$out/n.qp" "$out/d" 2> "$out/err"
		[ "$(grep -c rounded "$out/err")" = 0 ]
	done
}

@test "to-gptq: a bit that the disk turns over is noticed, wherever it is" {
	not_with_sanitizers "the shim must be loaded before the sanitizer's runtime"
	notices_every_flip "$out/d" to-gptq -q sym.qp "$out/d"
	pack-int4 -q sym.qp > "$out/p.qp"
	notices_every_flip "$out/d" to-gptq -q "$out/p.qp" "$out/d"
}

@test "to-gptq: what is there is not touched without --force" {
	mkdir "$out/d"
	refuses 73 ".*/d: " to-gptq -q sym.qp "$out/d"
	[ -z "$(ls -A "$out/d")" ]
	to-gptq -q --force sym.qp "$out/d"
	holds sym.qp "$out/d"
}

@test "to-gptq: a full disk leaves no directory, wherever it strikes" {
	local n at st step shim=${BUILD:-$ROOT/build}/shim/failwrite.so
	not_with_sanitizers "the shim must be loaded before the sanitizer's runtime"
	mkdir "$out/o"
	LD_PRELOAD=$shim FAIL_COUNT=$out/count to-gptq -q sym.qp "$out/o/d"
	holds sym.qp "$out/o/d" # short writes are no error
	rm -r "$out/o/d"
	n=$(cat "$out/count")
	step=$((n / 25 + 1))
	for ((at = 1; at <= n; at += step)); do
		st=0
		LD_PRELOAD=$shim FAIL_AT=$at to-gptq -q sym.qp "$out/o/d" 2> "$out/err" || st=$?
		[ "$st" -eq 74 ] || { echo "write $at of $n: exit $st"; cat "$out/err"; return 1; }
		[ -z "$(ls -A "$out/o")" ] || { echo "write $at: left"; ls -A "$out/o"; return 1; }
	done
}

@test "to-gptq: every truncation of the stream is refused" {
	to_gptq() { to-gptq -q - "$out/t"; }
	refuses_every_prefix sym.qp to_gptq
	[ ! -e "$out/t" ]
}

@test "to-gptq: directories of auto-round and gptqmodel give their loaders' logits" {
	local d
	need_shared interop
	for d in "$SHARED"/interop/{ar,gm}-gptq*; do
		"$PYTHON" "$ROOT/tests/golden.py" inputs "$d" > "$out/ids"
		qp-forward -q -i "$out/ids" "$d" > "$out/f.qp"
		"$PYTHON" "$ROOT/tests/golden.py" places "$d" "$out/f.qp"
	done
}

@test "to-gptq: a large linear that is cut or damaged is refused in one line, and nothing is left" {
	local n size
	"$PYTHON" "$ROOT/tests/mkmodel.py" "$out/m" hidden=1024 ffn=2048 heads=8 kv=8 layers=1 \
		dtype=BF16
	rtn -q -b 8 -g 128 "$out/m" > "$out/s.qp"
	mkdir "$out/o"
	to-gptq -q "$out/s.qp" "$out/o/d"
	to-gptq -q - "$out/o/p" < "$out/s.qp"
	diff -r "$out/o/d" "$out/o/p"
	rm -r "$out/o/d" "$out/o/p"
	size=$(wc -c < "$out/s.qp")
	for ((n = size / 20; n < size; n += size / 9)); do
		refuses 65 '.*stream ends here without an END record' \
			sh -c "head -c $n '$out/s.qp' | to-gptq - '$out/o/d'"
		[ "${#stderr_lines[@]}" -eq 1 ]
		flip "$out/s.qp" "$n" "$out/x.qp"
		refuses 65 '.*checksum of the payload differs: damaged' \
			to-gptq "$out/x.qp" "$out/o/d"
		[ "${#stderr_lines[@]}" -eq 1 ]
		[ -z "$(ls -A "$out/o")" ]
	done
}
