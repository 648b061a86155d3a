#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# gptq.bats - what gptq promises on its man page, one test per promise
#
# That its codes are those of a slow solver is tests/unit/gptq.c.

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	"$PYTHON" "$ROOT/tests/mkmodel.py" tiny hidden=32 ffn=48 heads=4 kv=2 dtype=BF16
	for i in 3 5 7 11 13 17 19 23; do
		awk -v m="$i" 'BEGIN {
			for (t = 0; t < 16; t++) printf "%d ", (t * m + m + t * t) % 32
			print "" }'
	done > ids.txt
	calib-pack -q --ids ids.txt > calib.qp
	record-acts -q -c calib.qp tiny > acts.qp
	record-acts -q -c calib.qp --stats=none tiny > plain.qp
}

setup() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
	export PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1
}

# A record of a type that nobody knows, at the start of every block.
with_flux() {
	qp-dump "$1" | awk '{ print } /^block index=/ { print "flux some.thing n=3" }' | qp-make
}

@test "gptq: codes, scales, zeros and weights belong together, the note's error is the output's" {
	local o
	for o in "-b 4 -g 16" "-b 3 -g 8 --asym" "-b 2 -g -1 --act-order" "-b 8 -g 0 --asym" \
		"-b 4 -g 4 --asym --static-groups --scale-dtype=f32" \
		"-b 3 -g 16 --mse --scale-dtype=bf16" "-b 3 -g 16 --range=hmse --sweeps=2" \
		"-b 2 -g 8 --asym --range=hmse --sweeps=3 --refit-scales" \
		"-b 3 -g 0 --sweeps=1 --refit-scales --act-order"; do
		gptq -q $o --keep-ref --keep-stats acts.qp > "$out/g.qp"
		"$PYTHON" "$ROOT/tests/methods.py" gptq acts.qp "$out/g.qp" $o
	done
}

@test "gptq: the output's error is below that of rounding to nearest" {
	gptq -q -b 3 -g 16 acts.qp > "$out/g.qp"
	rtn -q -b 3 -g 16 acts.qp > "$out/r.qp"
	"$PYTHON" - "$out/g.qp" "$out/r.qp" <<-'END'
	import sys, numpy as np
	from qpstream import Stream
	g, r = Stream(sys.argv[1]).notes(), Stream(sys.argv[2]).notes()
	ratio = np.array([g[n]["rel_err"] / r[n]["rel_err"] for n in g])
	assert np.median(ratio) < 0.85 and ratio.max() < 1.05, ratio
	END
}

rel_err() {	# rel_err STREAM: the sum over all layers
	"$PYTHON" -c 'import sys
from qpstream import Stream
print(sum(n["rel_err"] for n in Stream(sys.argv[1]).notes().values()))' "$1"
}

@test "gptq: --sweeps lowers the output's error, more of them more, --refit-scales with them too" {
	local last=1000 now o
	for o in --sweeps=0 --sweeps=1 --sweeps=4 "--sweeps=4 --refit-scales"; do
		gptq -q -b 3 -g 16 $o acts.qp > "$out/g.qp"
		now=$(rel_err "$out/g.qp")
		awk -v a="$last" -v b="$now" 'BEGIN { exit !(b < a) }'
		last=$now
	done
	gptq -q -b 3 -g 16 --sweeps=2 -j 1 acts.qp > "$out/1.qp"
	gptq -q -b 3 -g 16 --sweeps=2 -j 3 acts.qp > "$out/3.qp"
	cmp "$out/1.qp" "$out/3.qp"
}

@test "gptq: --target=full moves weights by what both models' inputs ask, as far as it holds" {
	local l n
	{
		echo "# quantpipe plan 1"
		for n in self_attn.{q,k,v,o}_proj mlp.{gate,up,down}_proj; do
			printf 'model.layers.0.%s.weight\t2\t8\n' "$n"
			printf 'model.layers.1.%s.weight\t8\t4\n' "$n"
		done
	} > "$out/plan"
	gptq -q --sequential --target=full --shrink=0 --plan="$out/plan" --scale-dtype=f32 \
		plain.qp > "$out/g.qp"
	"$PYTHON" "$ROOT/tests/target.py" tiny ids.txt "$out/g.qp"
	gptq -q --sequential --target=full -b 3 -g 8 -j 1 plain.qp > "$out/1.qp"
	gptq -q --sequential --target=full -b 3 -g 8 -j 3 --spill="$out" plain.qp > "$out/3.qp"
	cmp "$out/1.qp" "$out/3.qp"
	gptq -q --sequential --target=self -b 3 -g 8 plain.qp | codes > "$out/self"
	gptq -q --sequential -b 3 -g 8 plain.qp | codes > "$out/none"
	cmp "$out/self" "$out/none"
	# A linear in front of which nothing was quantized has no other target.
	gptq -q --sequential --target=full -b 3 -g 8 --skip='layers.1|o_proj|mlp' plain.qp |
		codes > "$out/full"
	gptq -q --sequential -b 3 -g 8 --skip='layers.1|o_proj|mlp' plain.qp |
		codes > "$out/none"
	cmp "$out/full" "$out/none"
}

@test "gptq: where the options lose, the plain solution is kept, and the note says so" {
	# In one layer of this model ranges shrunk to inputs taken for uncorrelated cost more.
	local lost=layers.1.self_attn.o_proj.weight
	gptq -q -b 6 -g 4 --sweeps=0 --shrink=0 acts.qp > "$out/g.qp"
	gptq -q -b 6 -g 4 --plain acts.qp > "$out/p.qp"
	"$PYTHON" - "$out/g.qp" "$out/p.qp" "$lost" <<-'END'
	import sys
	from qpstream import Stream
	g, p = Stream(sys.argv[1]).notes(), Stream(sys.argv[2]).notes()
	kept = {k: n["kept"] for k, n in g.items()}
	assert [k for k in kept if kept[k] == "plain"] == ["model." + sys.argv[3]], kept
	for k, n in g.items():
	    assert n["rel_err"] <= p[k]["rel_err"], k
	    assert "kept" not in p[k] and n["rows_judged"] > 0 and n["tokens_aside"] == 0, n
	    if kept[k] == "plain":
	        assert n["err_plain"] < n["err_options"] and n["rel_err"] == p[k]["rel_err"], n
	END
	qp-dump "$out/g.qp" | grep -A1 -F "$lost role=codes" > "$out/g"
	qp-dump "$out/p.qp" | grep -A1 -F "$lost role=codes" > "$out/p"
	[ -s "$out/g" ]
	cmp "$out/g" "$out/p"
	qp-ls --errors "$out/g.qp" | grep -F "$lost" | grep ' plain$'
	qp-ls --errors --tsv "$out/g.qp" | cut -f 1,14 | grep "$lost	plain"
}

@test "gptq: --sequential judges its options by windows that neither candidate was fitted to" {
	local lost=layers.1.self_attn.o_proj.weight
	gptq -q -b 3 -g 4 --range=mse --sweeps=0 --shrink=0 --sequential plain.qp > "$out/g.qp"
	"$PYTHON" - "$out/g.qp" "model.$lost" <<-'END'
	import sys
	from qpstream import Stream
	g = Stream(sys.argv[1]).notes()
	assert all(n["tokens_aside"] == 16 for n in g.values()) # the last of 8 windows
	n = g[sys.argv[2]]
	assert n["kept"] == "plain" and n["err_plain"] < n["err_options"], n
	# What is solved at last has seen them: its error is another.
	assert n["rel_err"] != n["err_plain"], n
	END
	head -1 ids.txt | calib-pack -q --ids - > "$out/one.qp"
	record-acts -q --stats=none -c "$out/one.qp" tiny > "$out/one"
	gptq -q -b 3 -g 4 --sequential "$out/one" > "$out/1.qp"
	[ "$(qp-dump "$out/1.qp" | grep -c 'tokens_aside=0')" -eq 14 ]
}

@test "gptq: --target=full refuses what it cannot do" {
	refuses 64 '--target=full: needs --sequential' gptq -q --target=full acts.qp
	head -1 ids.txt | calib-pack -q --ids - > "$out/one.qp"
	record-acts -q --stats=none -c "$out/one.qp" tiny > "$out/one"
	refuses 65 'calib: --target=full sets windows aside' \
		gptq -q -g 16 --sequential --target=full "$out/one"
}

@test "gptq, rtn: --range=hmse weighs errors by the inputs; rtn without a Hessian says so" {
	gptq -q -b 3 -g -1 --range=hmse acts.qp > "$out/h.qp"
	gptq -q -b 3 -g -1 --range=minmax acts.qp > "$out/m.qp"
	awk -v a="$(rel_err "$out/h.qp")" -v b="$(rel_err "$out/m.qp")" 'BEGIN { exit !(a < b) }'
	gptq -q -b 3 -g 16 --mse acts.qp | codes > "$out/mse"
	gptq -q -b 3 -g 16 --range=mse acts.qp | codes > "$out/range"
	cmp "$out/mse" "$out/range"
	rtn -q -b 3 -g -1 --range=hmse acts.qp > "$out/h.qp"
	rtn -q -b 3 -g -1 acts.qp > "$out/m.qp"
	awk -v a="$(rel_err "$out/h.qp")" -v b="$(rel_err "$out/m.qp")" 'BEGIN { exit !(a < b) }'
	refuses 65 'layers.0.self_attn.q_proj: no hessian for --range=hmse' \
		rtn -q -b 3 --range=hmse -g 16 tiny
	refuses 64 '--range' gptq --range=best acts.qp
	refuses 65 'layers.0.self_attn.q_proj: is quantized already' gptq -q -g 16 --sweeps=1 "$out/h.qp"
}

@test "gptq, rtn: --grid: codes on super-blocks are the weights, gptq's error is far below rtn's" {
	local g o
	"$PYTHON" "$ROOT/tests/mkmodel.py" "$out/k" hidden=256 ffn=512 heads=4 kv=2 layers=1
	record-acts -q -c calib.qp "$out/k" > "$out/acts.qp"
	for g in q4_K q6_K; do
		for o in "" --static-groups --act-order --plain; do
			gptq -q --grid=$g $o "$out/acts.qp" > "$out/g.qp"
			rtn -q --grid=$g --range=hmse "$out/acts.qp" > "$out/r.qp"
			"$PYTHON" - "$out/g.qp" "$out/r.qp" "$out/acts.qp" $g <<-'END'
			import sys
			import numpy as np
			from ggufread import values
			from qpstream import Stream
			g, r, a = (Stream(p) for p in sys.argv[1:4])
			down = "model.layers.0.mlp.down_proj.weight"
			for s in g, r:
			    for n in s.names("codes"):
			        h = s.head(n, "codes")
			        assert (h["grid"], h["bits"]) == (sys.argv[4], int(sys.argv[4][1]))
			        assert (values(s, n) == s.tensor(n)).all(), n
			        assert s.tensor(n, "codes").max() >> h["bits"] == 0
			h, w = a.hessian("layers.0.mlp.mid"), a.tensor(down).astype("f8")
			err = [np.einsum("nk,kl,nl", d, h, d) for d in (w - s.tensor(down) for s in (g, r))]
			assert err[0] < 0.7 * err[1], err
			note = g.notes()[down]
			assert note["grid"] == sys.argv[4] and note["group"] in (16, 32)
			assert abs(note["rel_err"] * np.einsum("nk,kl,nl", w, h, w) / err[0] - 1) < 1e-3
			END
		done
	done
}

@test "gptq: --grid with --plan has both grids; what it cannot do is refused" {
	"$PYTHON" "$ROOT/tests/mkmodel.py" "$out/k" hidden=256 ffn=512 heads=4 kv=2 layers=1
	printf '# quantpipe plan 1\nmodel.layers.0.mlp.down_proj.weight\t6\n' > "$out/plan"
	rtn -q --grid=q4_K --plan="$out/plan" "$out/k" > "$out/g.qp"
	[ "$(qp-dump "$out/g.qp" | grep -c 'role=codes.*grid="q6_K"')" = 1 ]
	[ "$(qp-dump "$out/g.qp" | grep -c 'role=codes.*grid="q4_K"')" = 6 ]
	sed -i 's/6$/5/' "$out/plan"
	refuses 65 'layers\.0\.mlp\.down_proj: --plan: 5 bits, and --grid has 4' \
		rtn -q --grid=q4_K --plan="$out/plan" "$out/k"
	refuses 65 'layers\.0\.self_attn\.q_proj: 32 columns are no whole super-blocks of 256' \
		gptq -q --grid=q4_K acts.qp
	for o in -b4 -g32 --sym --asym --scale-dtype=f16; do
		refuses 64 '--[a-z-]*: contradicts --grid=q6_K' rtn --grid=q6_K $o "$out/k"
	done
	refuses 64 '--refit-scales: contradicts --grid' gptq --grid=q6_K --refit-scales acts.qp
	refuses 64 '--grid: expected uniform, q4_K or q6_K' rtn --grid=q5_K "$out/k"
}

@test "gptq: perplexity of the shipped model at 4 and 3 bits is below that of rounding" {
	calib-pack -q -m "$MODEL" -n 32 -s 256 --sampling=sequential "$CALIB" > "$out/c.qp"
	record-acts -q -c "$out/c.qp" "$MODEL" > "$out/a.qp"
	for b in 3 4; do
		gptq -q -b "$b" "$out/a.qp" | eval-ppl -q --json -c 512 -t "$EVAL" - > "$out/g"
		rtn -q -b "$b" "$MODEL" | eval-ppl -q --json -c 512 -t "$EVAL" - > "$out/r"
		"$PYTHON" -c 'import json, sys
g, r = (json.load(open(p))["ppl"] for p in sys.argv[1:])
assert g < r, (g, r)' "$out/g" "$out/r"
	done
}

@test "gptq: Hessians that were used are dropped, other statistics stay" {
	gptq -q -g 16 acts.qp > "$out/g.qp"
	qp-dump "$out/g.qp" > "$out/g.txt"
	run -1 grep 'stat="hessian"' "$out/g.txt"
	[ "$(grep -c 'stat="absmax"' "$out/g.txt")" -eq 8 ]
	gptq -q -g 16 --skip='mlp' acts.qp > "$out/g.qp"
	[ "$(qp-dump "$out/g.qp" | grep -c 'stat="hessian"')" -eq 4 ]
}

codes() {	# codes [STREAM]: its codes as text
	qp-dump "$@" | grep -A 1 'role=codes'
}

# Every edge in turn: fresh Hessians, then the linears that read it, all others passed over.
chain() {	# chain PATTERN EDGE...: what --sequential --skip=PATTERN does, into $out/chain
	local pattern=$1 l m n edge skip cur=plain.qp
	shift
	for l in 0 1; do
		for edge; do
			skip="--skip=$pattern"
			for m in 0 1; do
				for n in q_proj k_proj v_proj o_proj gate_proj up_proj down_proj; do
					[ "$m" = "$l" ] && [[ " $edge " == *" $n "* ]] ||
						skip+=" --skip=layers\.$m\..*$n"
				done
			done
			record-acts -q --stats=hessian - "$out/h.qp" < "$cur"
			gptq -q -b 3 -g 16 $skip "$out/h.qp" > "$out/next.qp"
			mv "$out/next.qp" "$out/cur.qp"
			cur=$out/cur.qp
		done
	done
	codes "$out/cur.qp" > "$out/chain"
}

@test "gptq: one linear after the other with fresh Hessians is what --sequential does at once" {
	chain nothing 'q_proj k_proj v_proj' o_proj 'gate_proj up_proj' down_proj
	gptq -q -b 3 -g 16 --sequential plain.qp | codes > "$out/got"
	cmp "$out/chain" "$out/got"
	gptq -q -b 3 -g 16 acts.qp | codes > "$out/plain"
	run -1 cmp -s "$out/got" "$out/plain"
}

@test "gptq: --sequential is the same chain where linears are passed over" {
	chain 'o_proj|gate' 'q_proj k_proj v_proj' up_proj down_proj
	gptq -q -b 3 -g 16 --sequential --skip='o_proj|gate' plain.qp | codes > "$out/got"
	cmp "$out/chain" "$out/got"
	chain 'k_proj|down' 'q_proj v_proj' o_proj 'gate_proj up_proj'
	gptq -q -b 3 -g 16 --sequential --skip='k_proj|down' plain.qp | codes > "$out/got"
	cmp "$out/chain" "$out/got"
}

@test "gptq: --sequential with --spill, with threads, with linears passed over" {
	gptq -q -g 16 --sequential -j 1 plain.qp > "$out/a.qp"
	mkdir "$out/spill"
	gptq -q -g 16 --sequential -j 3 --spill="$out/spill" plain.qp > "$out/b.qp"
	cmp "$out/a.qp" "$out/b.qp"
	[ -z "$(ls -A "$out/spill")" ]
	gptq -q -g 16 --sequential acts.qp > "$out/c.qp"
	qp-cmp -q --role=weight "$out/a.qp" "$out/c.qp"
	qp-dump "$out/c.qp" > "$out/c.txt"
	run -1 grep 'stat="hessian"' "$out/c.txt"
	gptq -q -g 16 --sequential --skip='o_proj|mlp' plain.qp > "$out/d.qp"
	[ "$(qp-dump "$out/d.qp" | grep -c 'role=codes')" -eq 6 ]
	gptq -q --sequential --skip=proj plain.qp > "$out/e.qp"
	qp-cmp -q plain.qp "$out/e.qp"
}

@test "gptq: without a Hessian, or without a calibration set, it says what to put before" {
	refuses 65 'layers\.0\.attn\.in: no hessian; put "record-acts - --stats=hessian" before' \
		gptq -g 16 plain.qp -o "$out/g.qp"
	[ ! -e "$out/g.qp" ]
	qp-dump plain.qp | awk '/^[a-z]/ { drop = /^calib/ } !drop' | qp-make > "$out/no.qp"
	refuses 65 'calib: no calibration set in the stream.*record-acts --calib' \
		gptq -g 16 --sequential "$out/no.qp"
	qp-dump plain.qp | awk '/^[a-z]/ { drop = /embed_tokens/ } !drop' | qp-make > "$out/no.qp"
	refuses 65 '.*embed_tokens' gptq -g 16 --sequential "$out/no.qp"
}

@test "gptq: --sequential refuses a calibration set of another model" {
	awk 'BEGIN { for (t = 0; t < 600; t++) printf "%d ", t % 32; print "" }' |
		calib-pack -q --ids > "$out/long.qp"
	record-acts -q --stats=none -c "$out/long.qp" tiny > "$out/in.qp"
	refuses 65 'model: 512 positions, but a sequence has 600 tokens' \
		gptq -g 16 --sequential "$out/in.qp"
	echo 1 2 32 | calib-pack -q --ids > "$out/other.qp"
	record-acts -q --stats=none -c "$out/other.qp" tiny > "$out/in.qp"
	refuses 65 'token ids: id 32 at position 2 is outside the vocabulary of 32' \
		gptq -g 16 --sequential "$out/in.qp"
}

@test "gptq: damping is raised where it must be, noted, and an error with --no-damp-auto" {
	echo 1 2 3 4 5 6 7 8 9 | calib-pack -q --ids > "$out/c.qp"
	record-acts -q -c "$out/c.qp" tiny > "$out/few.qp"
	gptq -q -g 16 --damp=0 --shrink=0 "$out/few.qp" > "$out/g.qp"
	"$PYTHON" - "$out/g.qp" <<-'END'
	import sys
	from qpstream import Stream
	for e in Stream(sys.argv[1]).notes().values():
	    assert e["damp_raised"] >= 1, e
	    assert abs(e["damp"] / 10 ** (e["damp_raised"] - 5) - 1) < 1e-9, e
	END
	what='H is not positive definite with damp 0 \(smallest pivot .* at [0-9]+\); try --damp=0.01'
	refuses 65 "layers\.0\.attn\.in: $what" \
		gptq -g 16 --damp=0 --shrink=0 --no-damp-auto "$out/few.qp"
	gptq -q -g 16 --no-damp-auto "$out/few.qp" | qp-check
}

@test "gptq: fewer calibration tokens than columns: one warning, and the layers' notes say so" {
	local i few='layers had fewer calibration tokens than columns'
	for i in 1 2; do seq -s ' ' "$i" "$((i + 9))"; done | calib-pack -q --ids > "$out/c.qp"
	record-acts -q -c "$out/c.qp" tiny > "$out/few.qp"
	for i in '' --sequential; do
		gptq -g 16 $i "$out/few.qp" > "$out/g.qp" 2> "$out/err"
		"$PYTHON" - "$out/g.qp" > "$out/n" <<-'END'
		import sys
		from qpstream import Stream
		short = {k for k, e in Stream(sys.argv[1]).notes().items() if "tokens_short" in e}
		assert all(Stream(sys.argv[1]).notes()[k]["tokens_short"] == 20 for k in short)
		print(len(short))
		END
		[ "$(cat "$out/n")" -gt 0 ]
		[ "$(grep -c "^gptq: $(cat "$out/n") $few" "$out/err")" -eq 1 ]
		[ "$(qp-ls --errors "$out/g.qp" | grep -c 'e-[0-9]*t ')" -eq "$(cat "$out/n")" ]
		gptq -q -g 16 $i "$out/few.qp" 2>&1 > "$out/g.qp" | wc -c > "$out/n"
		[ "$(cat "$out/n")" -eq 0 ]
	done
	gptq -g 16 acts.qp 2>&1 > "$out/g.qp" | tee "$out/err"
	run ! grep -q 'fewer' "$out/err"
	qp-dump "$out/g.qp" > "$out/g.txt"
	run ! grep tokens_short "$out/g.txt"
}

@test "gptq: dead columns are counted and their weights become 0" {
	qp-dump acts.qp > "$out/acts.txt"
	"$PYTHON" - acts.qp > "$out/zero" <<-'END'
	import sys
	import numpy as np
	from qpstream import Stream
	H = Stream(sys.argv[1]).hessian("layers.1.mlp.in")
	H[:, 5] = H[5, :] = 0
	print(" ".join(float(x).hex() for x in H[np.triu_indices(32)]))
	END
	awk -v z="$out/zero" '/^tensor layers.1.mlp.in .*stat="hessian"/ {
		print; getline line < z; print " " line; drop = 1; next }
		/^[^ ]/ { drop = 0 } !drop' "$out/acts.txt" | qp-make > "$out/dead.qp"
	gptq -q -g 16 "$out/dead.qp" > "$out/g.qp"
	"$PYTHON" - "$out/g.qp" <<-'END'
	import sys
	from qpstream import Stream
	s = Stream(sys.argv[1])
	for n, e in s.notes().items():
	    dead = n.split(".")[2] == "1" and n.split(".")[4][0] in "gu"
	    assert e["dead"] == dead, e
	    assert not dead or (s.tensor(n)[:, 5] == 0).all()
	END
}

@test "gptq: NaN in a Hessian is located" {
	qp-dump acts.qp | awk '/layers.0.mlp.mid .*stat="hessian"/ { f = 1; print; next }
		f && !done { sub(/[-0-9x.a-fp+]+/, "nan"); done = 1 } { print }' | qp-make > "$out/nan.qp"
	refuses 65 'layers\.0\.mlp\.mid: .*not finite' gptq -g 16 "$out/nan.qp"
}

@test "gptq: a Hessian that is none is refused" {
	"$PYTHON" -c 'print(" ", *((-1.0 if i else 1.0).hex() for i in range(32 * 33 // 2)))' > "$out/bad"
	qp-dump acts.qp | awk -v z="$out/bad" '/^tensor layers.0.mlp.in .*stat="hessian"/ {
		print; getline line < z; print line; drop = 1; next }
		/^[^ ]/ { drop = 0 } !drop' | qp-make > "$out/neg.qp"
	refuses 65 'layers\.0\.mlp\.in: hessian: diagonal 1 is -1: not a sum of squares' \
		gptq -g 16 "$out/neg.qp"
}

@test "gptq: --skip passes linears untouched, with a note" {
	gptq -q -g 16 --skip='down_proj' --skip='layers\.1\..*attn' acts.qp > "$out/g.qp"
	[ "$(qp-dump "$out/g.qp" | grep -c '^note .*kind="skipped" by="gptq"')" -eq 6 ]
	[ "$(qp-dump "$out/g.qp" | grep -c 'role=codes')" -eq 8 ]
	qp-dump acts.qp | grep -A 1 'tensor.*down_proj' > "$out/want"
	qp-dump "$out/g.qp" | grep -A 1 'tensor.*down_proj' > "$out/got"
	cmp "$out/want" "$out/got"
	run --separate-stderr -0 gptq -g 16 --skip=lm_head -o "$out/g.qp" acts.qp
	[[ $stderr == 'gptq: --skip=lm_head matches no linear' ]]
}

@test "gptq: what is quantized already is refused by name, unless it is skipped" {
	gptq -q -g 16 --skip=down --keep-stats acts.qp > "$out/a.qp"
	refuses 65 'layers\.0\.self_attn\.q_proj: is quantized already' gptq -g 16 "$out/a.qp"
	gptq -q -g 16 acts.qp > "$out/n.qp"
	refuses 65 'layers\.0\.self_attn\.q_proj: is quantized already' gptq -g 16 "$out/n.qp"
	refuses 65 'layers\.0\.self_attn\.q_proj: is quantized already' \
		gptq -g 16 --sweeps=4 --refit-scales "$out/a.qp"
	refuses 64 '--skip: an empty expression' gptq --skip= acts.qp
	gptq -q -b 8 -g -1 --skip='attn|gate|up' "$out/a.qp" > "$out/b.qp"
	[ "$(qp-dump "$out/b.qp" | grep -c 'role=codes.* bits=8')" -eq 2 ]
}

@test "gptq: a group size that does not divide is refused with those that do, before any output" {
	calib-pack -q -m "$MODEL" -n 1 -s 64 "$CALIB" > "$out/c.qp"
	record-acts -q -c "$out/c.qp" "$MODEL" > "$out/m.qp"
	what='groups of 100 do not divide 128 columns; sizes that do in every linear: 1, 2, 4, 8, 16, '
	what+='32, 64, 128, -1 \(a row\), 0 \(the tensor\)'
	refuses 65 "layers\.0\.self_attn\.q_proj: $what" \
		gptq -g 100 "$out/m.qp" -o "$out/g.qp"
	[ ! -e "$out/g.qp" ]
}

@test "gptq: every option changes the result" {
	local o
	gptq -q -b 3 -g 16 acts.qp | qp-dump | sed 1,/^file/d > "$out/base"
	for o in "-b 2" "-g 8" --asym --mse --act-order --static-groups --damp=0.1 --shrink=1 \
		--sequential --scale-dtype=f32 --keep-ref --keep-stats --timing; do
		gptq -q -b 3 -g 16 $o acts.qp | qp-dump | sed 1,/^file/d > "$out/o"
		if cmp "$out/base" "$out/o"; then echo "$o changes nothing"; return 1; fi
	done
	gptq -q -b 3 -g 16 --sym acts.qp | qp-dump | sed 1,/^file/d | cmp - "$out/base"
	gptq -q -b 3 -g 16 --timing acts.qp | qp-dump | grep -q '^note.* seconds='
	# Where a block ends decides the order of sums only.
	gptq -q -b 3 -g 16 --block=8 acts.qp | qp-dump | grep -A 1 role=codes > "$out/o"
	grep -A 1 role=codes "$out/base" | cmp - "$out/o"
}

@test "gptq: same input, same bytes, with any number of threads" {
	for j in 1 2 3; do gptq -q -g 16 --asym --act-order -j "$j" acts.qp > "$out/$j.qp"; done
	cmp "$out/1.qp" "$out/2.qp"
	cmp "$out/1.qp" "$out/3.qp"
}

@test "gptq: records it does not know pass byte for byte, in order" {
	local kept='^(file|calib|tensor.*(norm|embed|lm_head)|flux|block|alias)'
	with_flux acts.qp > "$out/in.qp"
	for o in "" --sequential; do
		gptq -q -g 16 $o "$out/in.qp" > "$out/g.qp"
		[ "$(qp-dump "$out/g.qp" | grep -c '^flux some.thing n=3$')" -eq 2 ]
		qp-dump "$out/in.qp" | grep -E "$kept" > "$out/want"
		qp-dump "$out/g.qp" | grep -E "$kept" > "$out/got"
		cmp "$out/want" "$out/got"
	done
}

@test "gptq: provenance: options in long form, no threads, no paths" {
	gptq -q -b 3 -g 16 --sequential -j 1 --spill="$out" acts.qp > "$out/g.qp"
	"$PYTHON" - "$out/g.qp" <<-'END'
	import sys
	from qpstream import Stream
	p = Stream(sys.argv[1]).records[0][0]["prov"][-1]
	assert p["program"] == "gptq"
	assert p["options"] == ["--bits=3", "--group-size=16", "--sequential"], p
	assert p["backend"].startswith("cpu ")
	END
}

@test "gptq: every truncation of the input is refused" {
	refuses_every_prefix acts.qp gptq -g 16 -j 1
	refuses_a_cut_pipe acts.qp 30000 gptq -g 16
}

@test "gptq: bad and contradictory command lines exit 64 before anything is read" {
	refuses 64 '--shrink: expected a number from 0 to 10' gptq --shrink=11 /no/such/file
	refuses 64 '--bits: expected a whole number from 2 to 8' gptq -b 9 /no/such/file
	refuses 64 '--damp: expected a number from 0 to 1' gptq --damp=2 /no/such/file
	refuses 64 '--asym: contradicts --sym' gptq --asym --sym /no/such/file
	refuses 64 '--keep-stats: contradicts --sequential' \
		gptq --sequential --keep-stats /no/such/file
	refuses 64 '--spill: without --sequential' gptq --spill /no/such/file
	refuses 64 "--skip: '\\[': " gptq --skip='[' /no/such/file
	refuses 64 '--block: ' gptq --block=0 /no/such/file
}

@test "gptq: -v says where the time went" {
	run --separate-stderr -0 gptq -v -g 16 -o "$out/g.qp" acts.qp
	[[ $stderr =~ ^gptq:\ read\ .*factor\ .*solve ]]
}

@test "gptq: peak memory is the formula of the man page" {
	not_with_sanitizers "memory is not what it would be"
	cd "$out"
	heavy_model
	local solve=$((5 * P + 9 * D * F + 8 * F * F + 1024 * F + 5120 * F +
		512 * (F + 512) + 6 * MiB))
	gptq -v -j 2 -g 64 acts.qp 2> plain > /dev/null
	peak_is plain $((solve + H))
	gptq -v -j 2 -g 64 --keep-ref acts.qp 2> ref > /dev/null
	peak_is ref $((solve + H + 2 * P))
	# Behind what is quantized: a slice of 2048 of the 6144 tokens at a time.
	# The sum of the windows set aside, H without them and its factor stand beside.
	local T=$((12 * 512)) guard=$((8 * (D * D + F * F) + 8 * F * F + 4 * F * (F + 1)))
	for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
		awk -v m="$i" 'BEGIN { for (t = 0; t < 512; t++) printf "%d ", (t * t * m + t) % 9000
			print "" }'
	done | calib-pack -q --ids > many.qp
	record-acts -q --stats=none -c many.qp m > source.qp
	gptq -v -j 2 -g 64 --sequential source.qp 2> sequence > /dev/null
	peak_is sequence $((solve + 2 * F * (F + 1) + 8 * T * D + 4 * P + 8 * (D * D + F * F) +
		guard + 4 * 2048 * (2 * D + 2 * F)))
}
