#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# qwt-fit.bats - what qwt-fit promises on its man page, one test per promise

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	"$PYTHON" "$ROOT/tests/mkmodel.py" tiny dtype=BF16
	for i in {1..40}; do
		awk -v m="$i" 'BEGIN { srand(m)
			for (t = 0; t < 32; t++) printf "%d ", int(32 * rand())
			print "" }'
	done > ids.txt
	calib-pack -q --ids ids.txt > calib.qp
	record-acts -q -c calib.qp --stats=none tiny > plain.qp
	rtn -q -b 3 -g -1 --keep-ref plain.qp | quant-acts -q -b 6 --asym --rule=awq > q.qp
	qwt-fit --per=block -q q.qp > fit.qp
}

setup() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
	export PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1
}

hidden() {	# hidden FILE OUT: the states of all blocks
	qp-forward -q -c calib.qp --hidden --no-logits "$1" > "$2"
}

# The error of the last block's output, relative.
error_of() {	# error_of FILE
	hidden tiny "$out/want.qp"
	hidden "$1" "$out/got.qp"
	"$PYTHON" - "$out/want.qp" "$out/got.qp" <<-'END'
		import sys
		import numpy as np
		from qpstream import Stream
		a, b = (Stream(p) for p in sys.argv[1:])
		e = n = 0
		for name in a.names(None):
		    if name.startswith("hidden.") and name.endswith(".2"):
		        x, y = a.tensor(name, None), b.tensor(name, None)
		        e, n = e + ((x - y) ** 2).sum(), n + (x ** 2).sum()
		assert n > 0
		print("%.6f" % (e / n))
	END
}

less() {	# less A B: numbers
	awk -v a="$1" -v b="$2" 'BEGIN { print a, b; exit !(a < b) }'
}

@test "qwt-fit: the first block's W and b are least squares (numpy), R^2 as noted" {
	hidden tiny "$out/ref.qp"
	hidden q.qp "$out/q.qp"
	qwt-fit --per=block -q --dtype=f32 --ridge=0 --holdout=0.25 q.qp > "$out/fit.qp"
	"$PYTHON" - "$out/ref.qp" "$out/q.qp" "$out/fit.qp" <<-'END'
		import sys
		import numpy as np
		from qpstream import Stream
		ref, q, fit = (Stream(p) for p in sys.argv[1:])
		rows = lambda s, l: np.concatenate([s.tensor(f"hidden.{i}.{l}", None)
		                                    for i in range(40)]).astype(np.float64)
		x, e = rows(q, 0), rows(ref, 1) - rows(q, 1)
		n = 30 * 32
		a = np.hstack([x, np.ones((len(x), 1))])
		# a token counts 1 / mean square of the reference's output
		v = 1 / (rows(ref, 1) ** 2).mean(1, keepdims=True)
		sol = np.linalg.lstsq(v[:n] ** .5 * a[:n], v[:n] ** .5 * e[:n], rcond=None)[0]
		w, b = fit.tensor("layers.0.out.weight", "comp"), fit.tensor("layers.0.out.bias", "comp")
		off = max(abs(w - sol[:-1].T).max(), abs(b - sol[-1]).max()) / abs(sol).max()
		left, held = e[n:] - a[n:] @ sol, e[n:]
		judged = held - (v[n:] * held).sum(0) / v[n:].sum()
		r2 = 1 - (v[n:] * left ** 2).sum() / (v[n:] * judged ** 2).sum()
		note = fit.notes("compensation")["layers.0.out"]
		print(off, r2, note)
		assert off < 1e-4 and abs(r2 - note["r2"]) < 1e-4 and note["taken"]
		# what is left of the fitted part is orthogonal to x and to 1
		left = e[:n] - x[:n] @ w.T - b
		assert abs(a[:n].T @ (v[:n] * left)).max() < 1e-4 * abs(a[:n].T @ (v[:n] * e[:n])).max()
	END
}

@test "qwt-fit: the compensated model is nearer to the reference" {
	less "$(error_of fit.qp)" "$(error_of q.qp)"
}

@test "qwt-fit: ranks, diagonals, sublayers each help, and whole maps help most" {
	local whole none part o
	none=$(error_of q.qp) whole=$(error_of fit.qp)
	for o in "--rank=4" "--diagonal" "--per=sublayer" "--dtype=bf16" "--compat"; do
		qwt-fit --per=block -q $o q.qp > "$out/f.qp"
		part=$(error_of "$out/f.qp")
		less "$part" "$none" || { echo "$o"; return 1; }
		case $o in
		--rank=4 | --diagonal) less "$whole" "$part" || { echo "$o"; return 1; } ;;
		esac
	done
	qwt-fit --per=block -q --rank=16 --dtype=f32 q.qp > "$out/a.qp"
	qwt-fit --per=block -q --dtype=f32 q.qp > "$out/b.qp"
	hidden "$out/a.qp" "$out/ha.qp"
	hidden "$out/b.qp" "$out/hb.qp"
	qp-cmp -q --rel=1e-4 "$out/ha.qp" "$out/hb.qp"
}

@test "qwt-fit: --ref=MODEL is as good as --keep-ref" {
	rtn -q -b 3 -g -1 plain.qp | quant-acts -q -b 6 --asym --rule=awq > "$out/q.qp"
	qwt-fit --per=block -q -r tiny "$out/q.qp" > "$out/a.qp"
	hidden "$out/a.qp" "$out/ha.qp"
	hidden fit.qp "$out/hb.qp"
	qp-cmp -q --rel=1e-6 "$out/ha.qp" "$out/hb.qp"
	refuses 65 '.*no reference weight; .*--keep-ref, or give --ref' qwt-fit --per=block "$out/q.qp"
	"$PYTHON" "$ROOT/tests/mkmodel.py" "$out/other" hidden=32 dtype=BF16
	refuses 65 '--ref: is another model' qwt-fit --per=block -r "$out/other" "$out/q.qp"
}

@test "qwt-fit: behind rotations that run time completes, references are of turned inputs too" {
	rotate -q -r r2,r3,r4 plain.qp > "$out/r.qp"
	rtn -q -b 3 -g -1 --keep-ref "$out/r.qp" | quant-acts -q -b 6 --asym --rule=awq > "$out/q.qp"
	qwt-fit -q "$out/q.qp" > "$out/a.qp"
	qwt-fit -q -r "$out/r.qp" "$out/q.qp" > "$out/b.qp"
	hidden "$out/a.qp" "$out/ha.qp"
	hidden "$out/b.qp" "$out/hb.qp"
	qp-cmp -q --rel=1e-6 "$out/ha.qp" "$out/hb.qp"
	less "$(error_of "$out/a.qp")" "$(error_of "$out/q.qp")"
	rotate -q plain.qp | rtn -q -b 3 -g -1 > "$out/q.qp"
	refuses 65 '--ref: its embeddings are not those of the stream; of a rotated model' \
		qwt-fit -r tiny "$out/q.qp" "$out/f.qp"
	[ ! -e "$out/f.qp" ]
}

@test "qwt-fit: no residual: R^2 is not defined, nothing is added, and the note says so" {
	qwt-fit --per=block plain.qp > "$out/f.qp" 2> "$out/err"
	grep -q '0 of 2 places compensated' "$out/err"
	qp-dump --head "$out/f.qp" > "$out/f.txt"
	[ "$(grep -c '^note .*taken=false.*reason="no residual' "$out/f.txt")" = 2 ]
	run -1 grep -E '^run|role=comp' "$out/f.txt"
}

@test "qwt-fit: --begin and --except leave blocks alone" {
	local o
	for o in --begin=1 --except=0 --except=0,0; do
		qwt-fit --per=block -q "$o" q.qp | qp-dump --head > "$out/f.txt"
		run -1 grep 'layers.0.out' "$out/f.txt"
		grep -q '^run layers.1.out ' "$out/f.txt"
	done
	refuses 64 '--except: ' qwt-fit --per=block --except=a q.qp
	refuses 65 '--except: this model has no block 7, its last is 1' qwt-fit --except=0,7 q.qp
	refuses 65 '--except: no block is left' qwt-fit --except=0,1 q.qp
	refuses 65 '--begin: no block is left' qwt-fit --begin=2 q.qp
	refuses 64 '--diagonal: ' qwt-fit --per=block --diagonal --rank=3 q.qp
	refuses 64 '--compat: has no ridge' qwt-fit --compat --ridge=5 q.qp
	refuses 64 '--compat: has no ridge' qwt-fit --compat --holdout=0.5 q.qp
	refuses 65 '--rank: ' qwt-fit --per=block --rank=300 q.qp
}

@test "qwt-fit: what is not compensated is not clamped either, and that is said; --keep-clamp" {
	record-acts -q -c calib.qp --stats=samples tiny | rtn -q -b 3 -g -1 --asym --keep-ref |
		quant-acts -q -p w4a8 --clamp=4 > "$out/c.qp"
	qwt-fit --per=block "$out/c.qp" > "$out/all.qp" 2> "$out/err"
	run -1 grep -q clamped "$out/err"
	[ "$(qp-ls --clamp "$out/all.qp" | tail -n 1)" = "clamped: 8 of 8 inputs, in 2 of 2 blocks" ]
	qwt-fit --per=block --except=0 "$out/c.qp" > "$out/f.qp" 2> "$out/err"
	grep -q 'qwt-fit: 1 of 2 clamped blocks stay clamped' "$out/err"
	qp-ls --clamp "$out/f.qp" > "$out/table"
	[ "$(tail -n 1 "$out/table")" = "clamped: 4 of 8 inputs, in 1 of 2 blocks" ]
	[ "$(grep -c '^layers.0.* 100.00  not clamped$' "$out/table")" = 4 ]
	qp-dump --head "$out/f.qp" > "$out/dump"
	grep -q '^note layers.0.out .*taken=false.*reason="left out" unclamped=true' "$out/dump"
	[ "$(grep -c '^run layers.0.*clamp' "$out/dump")" = 0 ]
	[ "$(grep -c '^run layers.1.*clamp=4 clamp_by="range"' "$out/dump")" = 4 ]
	# block 0 is then the one that was never clamped
	quant-acts -q -p w4a8 --clamp=4 --skip=layers.0 <(rtn -q -b 3 -g -1 --asym --keep-ref plain.qp) |
		quant-acts -q -p w4a8 --skip=layers.1 | qwt-fit --per=block -q --except=0 > "$out/g.qp"
	hidden "$out/f.qp" "$out/a.qp"
	hidden "$out/g.qp" "$out/b.qp"
	qp-cmp -q "$out/a.qp" "$out/b.qp"
	qwt-fit --per=block --except=0 --keep-clamp "$out/c.qp" > "$out/f.qp" 2> "$out/err"
	[ ! -s "$out/err" ]
	[ "$(qp-ls --clamp "$out/f.qp" | tail -n 1)" = "clamped: 8 of 8 inputs, in 2 of 2 blocks" ]
}

@test "qwt-fit: a map that windows held out reject falls back: no compensation, no clamp" {
	local o
	head -n 2 ids.txt | cut -d ' ' -f 1-9 > "$out/few.txt"	# 9 tokens for 16 channels
	calib-pack -q --ids "$out/few.txt" > "$out/few.qp"
	record-acts -q -c "$out/few.qp" --stats=none tiny | rtn -q -b 4 -g -1 --asym --keep-ref |
		quant-acts -q -p w4a8 --clamp=4 > "$out/c.qp"
	for o in block sublayer; do
		qwt-fit --per=block --ridge=0 --per=$o "$out/c.qp" > "$out/f.qp" 2> "$out/err"
		cat "$out/err"
		grep -q ' places compensated; notes of the others say why not' "$out/err"
		qp-dump --head "$out/f.qp" > "$out/dump"
		grep '^note .*taken=false' "$out/dump" | grep 'reason="R^2 is not above 0"' |
			grep -q unclamped=true
		# a place has a compensation and clamps, or neither
		awk '/^note .*compensation/ { n++; lost += /taken=false/; un += /unclamped=true/ }
			END { exit !(n > 0 && lost > 0 && un == lost) }' "$out/dump"
		qp-check "$out/f.qp"
	done
}

@test "qwt-fit: pack-int4 carries the compensation, and the packed model computes the same" {
	pack-int4 -q fit.qp > "$out/p.qp"
	hidden "$out/p.qp" "$out/a.qp"
	hidden fit.qp "$out/b.qp"
	qp-cmp -q --rel=1e-6 "$out/a.qp" "$out/b.qp"
}

@test "qwt-fit: the number of threads changes nothing" {
	qwt-fit --per=block -q -j 1 q.qp | qp-dump > "$out/a"
	qwt-fit --per=block -q -j 3 q.qp | qp-dump > "$out/b"
	cmp "$out/a" "$out/b"
}

@test "qwt-fit: every family passes, images too, and is no further from the reference" {
	local f c
	for f in "$DATA/vit" "$DATA/opt-post-proj" "$DATA/qwen2-moe-sparse-step" \
		"$SHARED"/families/*/; do
		[ -f "$f/config.json" ] || continue
		c=$out/c.qp
		case $f in
		*/vit | */vit/) calib-pack -q --images -m "$f" -n 2 "$f/golden.safetensors" > "$c" ;;
		*) calib-pack -q --ids ids.txt > "$c" ;;
		esac
		record-acts -q -c "$c" --stats=none "$f" | rtn -q -b 3 -g -1 --keep-ref |
			quant-acts -q -p w4a8 > "$out/w.qp"
		qwt-fit -q "$out/w.qp" > "$out/f.qp" || { echo "$f"; return 1; }
		qp-check "$out/f.qp"
		qp-dump --head "$out/f.qp" | grep -q '^note layers.0.mlp.resid .*compensation'
		qp-forward -q -c "$c" "$out/f.qp" > "$out/logits.qp" || { echo "$f"; return 1; }
		# what was taken has less error on the windows held out
		qp-dump --head "$out/f.qp" | awk '/^note .*taken=true/ { sub(/.*rel_err=/, "")
			if (!($1 + 0 < 1)) exit 1 }' || { echo "$f"; return 1; }
	done
}

@test "qwt-fit: attention and the MLP have a map each unless --per=block" {
	qwt-fit -q q.qp | qp-dump --head | sed -n 's/^run \(layers.*[dt]\) .*affine.*/\1/p' > "$out/got"
	printf 'layers.%s\n' 0.attn.resid 0.mlp.resid 1.attn.resid 1.mlp.resid | diff - "$out/got"
	qwt-fit -q --per=block q.qp | qp-dump --head | sed -n 's/^run \(l[^ ]*\) .*affine.*/\1/p' > "$out/got"
	printf 'layers.%s\n' 0.out 1.out | diff - "$out/got"
}

@test "qwt-fit: half of what is held out chooses the ridge and joins the fit, half judges (numpy)" {
	hidden tiny "$out/ref.qp"
	hidden q.qp "$out/q.qp"
	local n
	for n in 40 5; do	# of 5 windows one is held out: its first half chooses
		head -n $n ids.txt | calib-pack -q --ids > "$out/c.qp"
		qwt-fit --per=block -q --dtype=f32 -c "$out/c.qp" q.qp > "$out/fit.qp"
		"$PYTHON" - "$out/ref.qp" "$out/q.qp" "$out/fit.qp" $n <<-'END'
			import sys
			import numpy as np
			from qpstream import Stream
			ref, q, fit = (Stream(p) for p in sys.argv[1:4])
			n = int(sys.argv[4])
			rows = lambda s, l: np.concatenate([s.tensor(f"hidden.{i}.{l}", None)
			                                    for i in range(n)]).astype(np.float64)
			x, e = rows(q, 0), rows(ref, 1) - rows(q, 1)
			v = 1 / (rows(ref, 1) ** 2).mean(1, keepdims=True)
			held = -(-n // 5) * 32
			a, b = len(x) - held, len(x) - held // 2

			def solve(n, ridge):
			    mx, me = ((v[:n] * y[:n]).sum(0) / v[:n].sum() for y in (x, e))
			    g = (x[:n] - mx).T @ (v[:n] * (x[:n] - mx))
			    g += ridge * np.diag(np.diag(g))
			    w = np.linalg.solve(g, (x[:n] - mx).T @ (v[:n] * (e[:n] - me))).T
			    return w, me - w @ mx

			def left(map, rows):
			    return (v[rows] * (e[rows] - x[rows] @ map[0].T - map[1]) ** 2).sum()

			ridges = [1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100]
			errors = [left(solve(a, r), slice(a, b)) for r in ridges]
			best = int(np.argmin(errors))
			w, bias = map = solve(b, ridges[best])
			judged = e[b:] - (v[b:] * e[b:]).sum(0) / v[b:].sum()
			r2 = 1 - left(map, slice(b, None)) / (v[b:] * judged ** 2).sum()
			note = fit.notes("compensation")["layers.0.out"]
			print(n, ridges[best], r2, note)
			assert abs(note["ridge"] / ridges[best] - 1) < 1e-9
			assert abs(note["r2"] - r2) < 1e-4
			got = fit.tensor("layers.0.out.weight", "comp")
			assert abs(got - w).max() < 1e-4 * abs(w).max()
		END
	done
	noted() {	# noted KEY OPTION...: of block 0
		local key=$1
		shift
		qwt-fit -q --per=block --dtype=f32 "$@" q.qp | qp-dump --head |
			sed -n "s/^note layers.0.out .*compensation.* $key=\([^ ]*\).*/\1/p"
	}
	[ "$(noted ridge --holdout=0)" = 0.01 ]
	[ "$(noted ridge --ridge=0.25)" = 0.25 ]
}

@test "qwt-fit: a weight or a state that is not finite is refused by name" {
	qp-dump q.qp | awk '/^tensor .*layers.1.mlp.up_proj.weight role=ref/ { n = NR + 1 }
		NR == n { sub(/ [^ ]+/, " nan") } 1' | qp-make > "$out/nan.qp"
	refuses 65 '.*layers.1.mlp.up_proj.*not finite' qwt-fit "$out/nan.qp" "$out/f.qp"
	[ ! -e "$out/f.qp" ]
}

@test "qwt-fit: peak memory is the formula of the man page, in two shapes" {
	not_with_sanitizers "memory is not what it would be"
	local MiB=1048576 shape D F n P T o
	cd "$out"
	for shape in "384 1024 4" "192 2112 8"; do
		read -r D F n <<< "$shape"
		P=$((3 * D * D + 3 * D * F + 2 * D)) T=$((512 * n))
		"$PYTHON" "$ROOT/tests/mkmodel.py" m hidden=$D ffn=$F heads=12 kv=6 vocab=2000 dtype=BF16
		for ((o = 1; o <= n; o++)); do
			awk -v m="$o" 'BEGIN { for (t = 0; t < 512; t++) printf "%d ", (t * t * m + t) % 2000
				print "" }'
		done | calib-pack -q --ids > many.qp
		record-acts -q --stats=none -c many.qp m | rtn -q -g 64 --keep-ref > kept.qp
		rtn -q -g 64 m > bare.qp
		qwt-fit -v -j 2 kept.qp 2> kept > f.qp
		qwt-fit -v -j 2 --per=block --rank=16 kept.qp 2> rank > f.qp
		qwt-fit -v -j 2 --ref=m -c many.qp bare.qp 2> ref > f.qp
		for o in kept rank ref; do
			peak_is $o $((15 * P + 12 * T * D + 2048 * (16 * (D + F) + 12 * D) +
				48 * D * D + 6 * MiB))
		done
	done
}
