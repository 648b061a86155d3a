#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# ends.bats - the patch embedding as a linear with an edge: recorded, quantized, packed, run

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	calib-pack -q --images -m "$DATA/vit" -n 2 "$DATA/vit/golden.safetensors" > calib.qp
	record-acts -q -c calib.qp --stats=all "$DATA/vit" > acts.qp
}

setup() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
	export PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1
	patch=vit.embeddings.patch_embeddings.projection.weight
}

@test "ends: what the patch embedding reads has the statistics of its patches, by numpy" {
	"$PYTHON" - acts.qp calib.qp <<-'END'
		import sys
		import numpy as np
		from qpstream import Stream
		s, c = Stream(sys.argv[1]), Stream(sys.argv[2])
		h, data = next(r for r in c.records if r[0]["t"] == "calib")
		n, ch, size, _ = h["shape"]
		x = np.frombuffer(data, "<f4").reshape(h["shape"]).astype("f8")
		p = s.head("vit.embeddings.patch_embeddings.projection.weight", "weight")["shape"][2]
		k = size // p
		x = x.reshape(n, ch, k, p, k, p).transpose(0, 2, 4, 1, 3, 5).reshape(n * k * k, -1)
		e = "embed.patch.in"
		assert s.head(e, "stat", "hessian")["tokens"] == n * k * k
		for stat, want in ("absmax", abs(x).max(0)), ("absmean", abs(x).mean(0)), \
		        ("min", x.min(0)), ("max", x.max(0)):
		    assert np.allclose(s.tensor(e, "stat", stat), want, rtol=1e-6, atol=1e-7), stat
		assert np.allclose(s.hessian(e), x.T @ x, rtol=1e-5, atol=1e-5)
		rows = s.tensor(e, "stat", "samples").astype("f8")
		assert len(rows) == n * k * k and np.allclose(rows, x)
	END
}

@test "ends: it is passed over unless --ends is given" {
	local q
	for q in rtn gptq "gptq --sequential"; do
		$q -q -b 4 -g -1 acts.qp > q.qp
		qp-dump q.qp | grep "^tensor $patch" > lines
		[ "$(wc -l < lines)" -eq 1 ]
		grep role=weight lines
	done
}

@test "ends: rtn and gptq quantize it, gptq with the smaller error; packed it runs alike" {
	local q
	for q in rtn gptq "gptq --sequential" "gptq --plain"; do
		$q -q -b 4 -g -1 --ends acts.qp > "$out/q.qp"
		qp-check "$out/q.qp"
		qp-ls --errors "$out/q.qp" | awk -v p="$patch" '$1 == p { print $4 + 0 }' >> errors
		pack-int4 -q "$out/q.qp" > p.qp
		qp-check p.qp
		qp-dump p.qp | grep "^tensor $patch" > lines
		grep -q 'role=codes dtype=U4' lines
		[ "$(grep -c role=weight lines)" -eq 0 ]
		qp-forward -q -c calib.qp "$out/q.qp" > is.qp
		qp-forward -q -c calib.qp p.qp > packed.qp
		qp-cmp is.qp packed.qp
		qp-forward -q -c calib.qp acts.qp > was.qp
		run -1 qp-cmp -q was.qp is.qp
	done
	awk 'NR == 1 { rtn = $1 } NR > 1 && !($1 > 0 && $1 < rtn) { bad = 1 } END { exit bad || NR != 4 }' errors
}

@test "ends: the codes times their scales are the weight that runs" {
	rtn -q -b 8 -g -1 --ends acts.qp > q.qp
	"$PYTHON" - q.qp acts.qp "$patch" <<-'END'
		import sys
		import numpy as np
		from qpstream import Stream
		q, was, name = Stream(sys.argv[1]), Stream(sys.argv[2]), sys.argv[3]
		c, s = q.tensor(name, "codes").astype("f4"), q.tensor(name, "scale").astype("f4")
		w = q.tensor(name)
		assert (w.reshape(c.shape) == s * (c - 128)).all()
		old = was.tensor(name)
		assert w.shape == old.shape and abs(w - old).max() <= 0.51 * s.max()
	END
}

@test "ends: record-acts - replaces its statistics; none drops them" {
	record-acts -q -c calib.qp --stats=absmax - < acts.qp > again.qp
	[ "$(qp-dump again.qp | grep -c '^tensor embed.patch.in')" -eq 1 ]
	record-acts -q --stats=none - < acts.qp > none.qp
	[ "$(qp-dump none.qp | grep -c 'role=stat')" -eq 0 ]
	refuses 65 "embed.patch.in: no hessian" gptq -b 4 -g -1 --ends again.qp
	rtn -q -b 4 -g -1 --ends again.qp > q.qp
}

@test "ends: codes already, and groups that do not divide, are refused by name" {
	rtn -q -b 4 -g -1 --ends acts.qp > q.qp
	refuses 65 "vit.embeddings.patch_embeddings.projection: is quantized already" \
		rtn -b 4 -g -1 --ends q.qp
	refuses 65 "vit.embeddings.patch_embeddings.projection: groups of 128 do not divide 192 columns" \
		rtn -b 4 -g 128 --ends acts.qp
}

@test "ends: rotations go into it, its statistics stay" {
	rotate -q acts.qp > turned.qp
	"$PYTHON" - acts.qp turned.qp <<-'END'
		import sys
		from qpstream import Stream
		a, b = Stream(sys.argv[1]), Stream(sys.argv[2])
		assert (a.hessian("embed.patch.in") == b.hessian("embed.patch.in")).all()
	END
	rtn -q -b 8 -g -1 --ends turned.qp > q.qp
	qp-forward -q -c calib.qp acts.qp > was.qp
	qp-forward -q -c calib.qp q.qp > is.qp
	qp-cmp --rel=2e-2 was.qp is.qp
}

@test "ends: the trained classifier with all of it at 4 bits" {
	need_shared vision/cifar10-test-1000.bin vision/vit-cifar10-ashu-hf
	v=$SHARED/vision
	calib-pack -q --images -m "$v/vit-cifar10-ashu-hf" -n 64 "$v/cifar10-test-1000.bin" > cifar.qp
	record-acts -q -c cifar.qp "$v/vit-cifar10-ashu-hf" | gptq -q -b 4 -g -1 --ends > q.qp
	eval-tasks -q --json -i "$v/cifar10-test-1000.bin" q.qp > got
	"$PYTHON" -c 'import json
r = json.load(open("got"))["tasks"]["cifar10-test-1000"]
print(r["right"])
assert r["right"] >= 520, r'
}
