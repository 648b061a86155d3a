#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# rotate.bats - what rotate promises on its man page, one test per promise

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	seq -s ' ' 5 3 380 > ids.txt
	calib-pack -q -m "$MODEL" -n 8 -s 128 "$CALIB" > calib.qp
	record-acts -q -c calib.qp --stats=all --kv "$MODEL" > acts.qp
	record-acts -q --stats=none "$MODEL" > plain.qp
}

setup() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
	export PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1
}

same_function() {	# same_function STREAM IDS OPTION...
	local stream=$1 ids=$2
	shift 2
	rotate -q "$@" "$stream" > "$out/turned.qp"
	[ "$*" = "-r r3" ] || run -1 qp-cmp -q "$stream" "$out/turned.qp"
	qp-forward -q -i "$ids" "$stream" > "$out/was.qp"
	qp-forward -q -i "$ids" "$out/turned.qp" > "$out/is.qp"
	qp-cmp --rel=1e-4 "$out/was.qp" "$out/is.qp"
}

@test "rotate: the shipped model computes what it did, with every matrix" {
	local o
	for o in --matrix=hadamard --matrix=random-hadamard --matrix=orthogonal --seed=7 \
		--block=32 --rotations=r1 --rotations=r2; do
		same_function plain.qp ids.txt "$o"
	done
}

@test "rotate: in float64 nothing changes (1e-9), and weights are that, rounded once (numpy)" {
	"$PYTHON" "$ROOT/tests/turned.py" matrices 128 16 | qp-make > r1r2.qp
	rotate -q --matrix=r1r2.qp plain.qp > turned.qp
	"$PYTHON" "$ROOT/tests/turned.py" check "$MODEL" turned.qp r1r2.qp
}

@test "rotate: every family computes what it did" {
	local m n=0
	echo "1 5 9 20 33 7 8 9 30 2 11" > few.txt
	for m in "$DATA/llama-headdim-bias" "$DATA/qwen2-moe-sparse-step" \
		"$SHARED"/families/*; do
		case $m in *vit | *opt-post-proj) continue ;; esac
		[ -e "$m/model.safetensors" ] || continue	# further ones, where they are
		record-acts -q --stats=none "$m" > family.qp
		same_function family.qp few.txt
		same_function family.qp few.txt --matrix=orthogonal
		case $m in
		*opt*) refuses 65 "opt: R3 stands behind rotary positions" rotate -r r3 family.qp ;;
		*) same_function family.qp few.txt -r r3 ;;
		esac
		n=$((n + 1))
	done
	[ "$n" -ge 2 ]
}

@test "rotate: layer norms are kept: a classifier of images computes what it did" {
	record-acts -q --stats=none "$DATA/vit" > vit.qp
	for o in --matrix=random-hadamard --matrix=orthogonal; do
		rotate -q "$o" vit.qp > vit-turned.qp
		qp-check vit-turned.qp
		calib-pack -q --images -m "$DATA/vit" -n 2 "$DATA/vit/golden.safetensors" > images.qp
		qp-forward -q -c images.qp vit.qp > was.qp
		qp-forward -q -c images.qp vit-turned.qp > is.qp
		qp-cmp --rel=1e-4 was.qp is.qp
	done
}

@test "rotate: what is left to run time: records that qp-forward obeys, the model computes what it did" {
	same_function plain.qp ids.txt -r r1,r2,r3,r4
	same_function plain.qp ids.txt -r r4 --block=32
	qp-dump "$out/turned.qp" > dump.txt
	grep -E '^run layers.1.mlp.mid .*order=32' dump.txt
	[ "$(grep -c '^run .*hadamard' dump.txt)" -eq 2 ]
	same_function plain.qp ids.txt -r r3
	record-acts -q --stats=none "$DATA/qwen2-moe-sparse-step" > moe.qp
	echo "1 5 9 20 33 7 8 9 30 2 11" > few.txt
	same_function moe.qp few.txt -r r1,r2,r3,r4
}

@test "rotate: without the run records it is another model" {
	rotate -q -r r4 plain.qp | qp-dump | grep -v '^run' | qp-make > lost.qp
	qp-forward -q -i ids.txt plain.qp > was.qp
	qp-forward -q -i ids.txt lost.qp > is.qp
	run -1 qp-cmp -q --rel=1e-1 was.qp is.qp
}

@test "rotate: twice at run time, after a quantizer, without rotary positions are refused" {
	rotate -q -r r4 plain.qp > once.qp
	refuses 65 "layers.0.mlp.mid: is turned at run time already" rotate -r r4 once.qp
	record-acts -q --stats=none "$DATA/vit" > vit.qp
	refuses 65 "vit: R3 stands behind rotary positions, .*; leave r3 out of --rotations" \
		rotate -r r3 vit.qp
	rotate -q -r r4 acts.qp | record-acts -q -c calib.qp --stats=absmax - -o turned.qp
	refuses 65 "layers.0.mlp.mid: is turned at run time" smooth turned.qp
	rotate -q -r r4 acts.qp > r4.qp
	refuses 65 "layers.0.mlp.mid: is turned at run time" smooth --search=w r4.qp
	smooth -q --edges=attn.in,mlp.in turned.qp > smooth.qp
	qp-forward -q -i ids.txt plain.qp > was.qp
	qp-forward -q -i ids.txt smooth.qp > is.qp
	qp-cmp --rel=1e-4 was.qp is.qp
}

@test "rotate: norms that stand behind refuse R1, not R2" {
	record-acts -q --stats=none "$DATA/opt-post-proj" > opt.qp
	refuses 65 "opt: norms stand behind" rotate opt.qp
	echo "1 5 9 20 33 7 8 9 30 2 11" > few.txt
	same_function opt.qp few.txt --rotations=r2
}

@test "rotate: outliers are spread: the largest weight against the mean square falls" {
	rotate -q plain.qp > spread.qp
	for f in plain spread; do
		"$PYTHON" -c "
import sys
import numpy as np
from qpstream import Stream
s = Stream(sys.argv[1])
w = [s.tensor(n) for n in s.names() if 'down_proj' in n]
print(max((abs(x).max(1) / np.sqrt((x * x).mean(1))).mean() for x in w))" "$f.qp" > "$f.txt"
	done
	awk 'NR == FNR { was = $1; next } { exit !($1 < was) }' plain.txt spread.txt
}

@test "rotate: Hessians follow: those of the turned model are those that are recorded anew" {
	rotate -q -r r1,r2,r3,r4 acts.qp > turned.qp
	record-acts -q -c calib.qp --stats=all - < turned.qp > anew.qp
	"$PYTHON" - turned.qp anew.qp <<-'END'
		import sys
		from qpstream import Stream
		was, now = Stream(sys.argv[1]), Stream(sys.argv[2])
		edges = [h["name"] for h, _ in was.records if h.get("stat") == "hessian"]
		assert len(edges) == 8, edges
		for name in edges:
		    a, b = was.hessian(name), now.hessian(name)
		    off = abs(a - b).max() / abs(b).max()
		    assert off < 1e-4, (name, off)
	END
}

@test "rotate: maxima cannot follow: they are dropped, a note names them, smooth says what to do" {
	rotate -q acts.qp > turned.qp
	qp-dump turned.qp | grep -F 'statistics-dropped' > notes.txt
	grep -F 'absmax absmean' notes.txt
	run -0 qp-ls turned.qp
	refuses 65 "layers.0.attn.in: no activation maxima; put \"record-acts -\"" smooth turned.qp
}

@test "rotate: ranges of values go with r2, those of keys with r3, and only these" {
	local at
	has() { qp-dump --head turned.qp | grep -c "^tensor layers\\.[01]\\.attn\\.$1 .*role=stat" || true; }
	rotate -q --rotations=r1 acts.qp > turned.qp
	[ "$(has k) $(has v)" = "4 4" ]
	rotate -q --rotations=r2 acts.qp > turned.qp
	[ "$(has k) $(has v)" = "4 0" ]
	rotate -q --rotations=r3 acts.qp > turned.qp
	[ "$(has k) $(has v)" = "0 4" ]
	qp-dump --head turned.qp | grep -F 'note layers.1.attn.k kind="statistics-dropped"'
}

@test "rotate: Hessians that cannot follow are dropped, and a warning says so" {
	echo "1 5 9 20 33 7 8 9 30 2 11" > few.txt
	calib-pack -q --images -m "$DATA/vit" -n 2 "$DATA/vit/golden.safetensors" > images.qp
	record-acts -q -c images.qp --stats=hessian "$DATA/vit" > vit.qp
	rotate vit.qp > turned.qp 2> err
	grep -E 'rotate: the Hessians of [0-9]+ inputs were dropped: .*record-acts -' err
	n=$(sed 's/.*Hessians of \([0-9]*\).*/\1/' err)
	[ "$(qp-dump --head turned.qp | grep -c 'statistics-dropped.*hessian')" -eq "$n" ]
	rotate -q acts.qp > turned.qp 2> err
	[ ! -s err ]
	rotate acts.qp > turned.qp 2> err
	run -1 grep Hessians err
}

@test "rotate: a tied head becomes a tensor of its own, or with --keep-tied is refused" {
	rotate plain.qp > turned.qp 2> err
	grep -F "rotate: the head parts from the embedding" err
	qp-ls plain.qp > ls.txt
	run -1 grep -E '^tensor +lm_head.weight ' ls.txt
	qp-ls turned.qp > ls.txt
	grep -E '^tensor +lm_head.weight .*F32' ls.txt
	refuses 65 "head: is tied" rotate --keep-tied plain.qp
	rotate --keep-tied --rotations=r2 plain.qp > r2.qp
	qp-ls r2.qp > ls.txt
	run -1 grep -E '^tensor +lm_head.weight .*F32' ls.txt
}

@test "rotate: a given matrix is used, one that is not orthogonal is refused with its deviation" {
	"$PYTHON" - <<-'END'
		import numpy as np
		q, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((128, 128)))
		for name, m in ("good", q), ("bad", q + 0.02 * np.eye(128)):
		    with open(name + ".txt", "w") as f:
		        f.write("stream v=[1,0] prov=[]\n")
		        f.write("tensor R1 role=weight dtype=F64 shape=[128,128]\n")
		        for row in m:
		            f.write(" " + " ".join(repr(float(v)) for v in row) + "\n")
		        f.write("end\n")
	END
	qp-make good.txt good.qp
	qp-make bad.txt bad.qp
	same_function plain.qp ids.txt --rotations=r1 --matrix=good.qp
	refuses 65 "R1: is not orthogonal: the largest element of R R' - I is 0.0[0-9]*" \
		rotate -r r1 --matrix=bad.qp plain.qp
	refuses 65 "good.qp: no tensor R2" rotate --matrix=good.qp plain.qp
	refuses 66 "none.qp" rotate --matrix=none.qp plain.qp
}

@test "rotate: sizes without a matrix, blocks that do not divide, weights that are codes are refused" {
	refuses 65 "--block: blocks of 48 do not divide 128 hidden channels; these do: 128, 64, 32" \
		rotate --block=48 plain.qp
	refuses 65 "mlp.mid: blocks of 256 do not divide 384 channels; these do: 384, 192, 128, 96" \
		rotate -r r4 --block=256 plain.qp
	"$PYTHON" "$ROOT/tests/mkmodel.py" odd hidden=66 heads=3 kv=3
	record-acts -q --stats=none odd > odd.qp
	refuses 65 "residual stream: no Hadamard matrix of order 66 is known here; --matrix=ortho" \
		rotate odd.qp
	rotate -q --matrix=orthogonal odd.qp > odd-turned.qp
	"$PYTHON" "$ROOT/tests/mkmodel.py" head hidden=28 heads=2 kv=2
	record-acts -q --stats=none head > head.qp
	refuses 65 "head: no Hadamard matrix of order 14" rotate -r r2 head.qp
	refuses 65 "head: no Hadamard matrix of order 14 is known here, for R3" rotate -r r3 head.qp
	rotate -q -r r2 --matrix=orthogonal head.qp > head-turned.qp
	record-acts -q --stats=none "$DATA/opt-post-proj" > opt.qp
	refuses 65 "opt: R3 stands behind rotary positions" rotate -r r3 opt.qp
	rtn -q -b 8 -g -1 plain.qp > codes.qp
	refuses 65 ".*is quantized already; put rotate before the quantizer" rotate codes.qp
	[ "$(wc -l <<< "$stderr")" -eq 1 ]
}

@test "rotate: options are checked" {
	refuses 64 "--rotations: expected some of r1,r2,r3,r4" rotate -r r5 plain.qp
	refuses 64 "--rotations: expected" rotate -r r1r2 plain.qp
	refuses 64 "--seed" rotate --seed=x plain.qp
	refuses 64 "--block" rotate --block=0 plain.qp
	refuses 64 "--block: is of r1 and r4" rotate -r r2,r3 --block=16 plain.qp
	refuses 64 "--matrix: is of r1 and r2" rotate -r r3 --matrix=orthogonal plain.qp
	refuses 64 "--seed: is of r1 and r2" rotate -r r3,r4 --seed=3 plain.qp
	refuses 64 "--seed: is of random" rotate --matrix=hadamard --seed=9 plain.qp
}

@test "rotate: the same bytes whatever the number of threads" {
	rotate -q -j 1 acts.qp > one.qp
	rotate -q -j 3 acts.qp > three.qp
	cmp one.qp three.qp
}

@test "rotate: what it does not touch passes through byte for byte; provenance has the options" {
	rotate -q -r none plain.qp > same.qp
	qp-cmp plain.qp same.qp
	rotate -q --seed=3 -r r1 plain.qp > turned.qp
	run -0 qp-ls --provenance turned.qp
	[[ $output == *"rotate --seed=3 --rotations=r1"* ]]
}

@test "rotate: gptq takes the Hessians that followed; the turned model quantizes" {
	rotate -q acts.qp > turned.qp
	gptq -q -b 4 -g -1 turned.qp > q.qp
	eval-ppl -q -c 512 --windows 4 --max 60 q.qp < "$EVAL"
}

@test "rotate: a truncated stream is refused, a cut pipe leaves no file" {
	head -c 60000 plain.qp > short.qp
	refuses 65 ".*" rotate short.qp
	refuses_a_cut_pipe plain.qp 400000 rotate -q
	dies_quietly_in_a_closed_pipe rotate -q plain.qp
}

@test "rotate: a full disk is an error" {
	[ -e /dev/full ] || skip "no /dev/full"
	refuses 74 ".*" sh -c 'rotate -q "$1" > /dev/full' sh plain.qp
}

@test "rotate: peak memory is the formula of the man page" {
	not_with_sanitizers "memory is not what it would be"
	cd "$BATS_TEST_TMPDIR"
	heavy_model
	rotate -v acts.qp > r.qp 2> err
	peak_is err $((4 * P + H + 8 * F * F + 6 * 9000 * D + 3 * MiB))
	heavy_model 384 1024
	rotate -v acts.qp > r.qp 2> err
	peak_is err $((4 * P + H + 8 * 9000 * D + 6 * 9000 * D + 3 * MiB))
}
