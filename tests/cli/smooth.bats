#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# smooth.bats - what smooth promises on its man page, one test per promise

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	"$PYTHON" "$ROOT/tests/mkmodel.py" tiny
	for i in 3 5 7 11; do
		awk -v m="$i" 'BEGIN {
			for (t = 0; t < 16; t++) printf "%d ", (t * m + m) % 32
			print "" }'
	done > ids.txt
	calib-pack -q --ids ids.txt > calib.qp
	record-acts -q -c calib.qp --stats=all --kv tiny > acts.qp
	calib-pack -q -m "$MODEL" -n 8 -s 128 "$CALIB" > stories.qp
	record-acts -q -c stories.qp "$MODEL" > stories-acts.qp
}

setup() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
	export PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1
}

same_function() {	# same_function MODEL IDS ACTS OPTION...
	local model=$1 ids=$2 acts=$3
	shift 3
	[ -s "$model.logits" ] || qp-forward -q -i "$ids" "$acts" > "$out/was.qp"
	smooth "$@" "$acts" > "$out/smooth.qp"
	run -1 qp-cmp -q "$acts" "$out/smooth.qp"
	qp-forward -q -i "$ids" "$out/smooth.qp" > "$out/is.qp"
	qp-cmp --rel=1e-5 "$out/was.qp" "$out/is.qp"
}

# A record of a type that nobody knows, at the start of every block.
with_flux() {
	qp-dump "$1" | awk '{ print } /^block index=/ { print "flux some.thing n=3" }' | qp-make
}

@test "smooth: the model computes what it did, at every alpha, on every edge" {
	local a
	for a in 0 0.3 0.5 0.85 1; do
		same_function tiny ids.txt acts.qp -a "$a"
		same_function tiny ids.txt acts.qp -a "$a" --edges=all
	done
	same_function tiny ids.txt acts.qp --edges=attn.mid
	same_function tiny ids.txt acts.qp --edges=mlp.mid
}

@test "smooth: the shipped model computes what it did" {
	seq -s ' ' 5 3 380 > ids1.txt
	same_function "$MODEL" ids1.txt stories-acts.qp -a 0.5
	same_function "$MODEL" ids1.txt stories-acts.qp -a 0.8 --edges=all
}

@test "smooth: models with biases, grouped heads and untied heads compute what they did" {
	local m
	for m in "$DATA/llama-headdim-bias" "$SHARED"/families/llama*; do
		[ -e "$m/model.safetensors" ] || continue	# further ones, where they are
		head -n 2 ids.txt > fam-ids.txt
		calib-pack -q --ids ids.txt > fam-calib.qp
		record-acts -q -c fam-calib.qp "$m" > fam.qp
		same_function "$m" fam-ids.txt fam.qp -a 0.6 --edges=all
	done
}

@test "smooth: s, weights, norms and statistics are the published formula's (numpy)" {
	smooth -a 0.7 --edges=all acts.qp > "$out/s.qp"
	"$PYTHON" "$ROOT/tests/methods.py" smooth acts.qp "$out/s.qp" 0.7
}

@test "smooth: alpha 1 makes the activation maxima 1, alpha 0 the weights' column maxima" {
	smooth -a 1 acts.qp > "$out/one.qp"
	smooth -a 0 --edges=attn.in,mlp.in acts.qp > "$out/zero.qp"	# mlp.mid scales up again
	"$PYTHON" - "$out/one.qp" "$out/zero.qp" <<-'END'
	import sys, numpy as np
	from qpstream import Stream
	one, zero = Stream(sys.argv[1]), Stream(sys.argv[2])
	for l in range(2):
	    for e in ("attn.in", "mlp.in"):
	        assert np.abs(one.tensor(f"layers.{l}.{e}", "stat", "absmax") - 1).max() < 1e-6
	    w = [np.abs(zero.tensor(f"model.layers.{l}.mlp.{n}_proj.weight")).max(0)
	         for n in ("gate", "up")]
	    assert np.abs(np.max(w, axis=0) - 1).max() < 1e-6
	END
}

@test "smooth: statistics follow: recording again gives what is in the stream" {
	smooth -a 0.6 --edges=all acts.qp > "$out/s.qp"
	record-acts -q --stats=all --kv - "$out/again.qp" < "$out/s.qp"
	qp-cmp --role=stat --rel=1e-5 "$out/s.qp" "$out/again.qp"
	run -1 qp-cmp -q --role=stat --rel=1e-2 acts.qp "$out/again.qp"
}

@test "smooth: only the edges asked for are touched" {
	smooth --edges=mlp.in acts.qp > "$out/s.qp"
	local other='^tensor.*(self_attn|mlp.down|input_layernorm|attn\.|mlp\.mid|embed)'
	qp-dump acts.qp | grep -A 1 -E "$other" > "$out/want"
	qp-dump "$out/s.qp" | grep -A 1 -E "$other" > "$out/got"
	cmp "$out/want" "$out/got"
	smooth acts.qp > "$out/default.qp"
	smooth --edges=attn.in,attn.mid,mlp.in,mlp.mid acts.qp > "$out/named.qp"
	qp-cmp -q "$out/default.qp" "$out/named.qp"
}

@test "smooth: the default alpha is 0.5" {
	smooth acts.qp > "$out/a.qp"
	smooth -a 0.5 acts.qp > "$out/b.qp"
	qp-cmp -q "$out/a.qp" "$out/b.qp"
	smooth -a 0.51 acts.qp > "$out/b.qp"
	run -1 qp-cmp -q "$out/a.qp" "$out/b.qp"
}

@test "smooth: same input, same bytes; compressed, the same values" {
	smooth acts.qp > "$out/a.qp"
	smooth < acts.qp > "$out/b.qp"
	cmp "$out/a.qp" "$out/b.qp"
	smooth -z acts.qp > "$out/z.qp"
	qp-cmp -q "$out/a.qp" "$out/z.qp"
	smooth "$out/z.qp" | qp-check
}

@test "smooth: records it does not know pass byte for byte, in order" {
	local changed='^( |stream|tensor .*(layernorm|q_proj|k_proj|v_proj|gate|up_proj|role=stat))'
	with_flux acts.qp > "$out/in.qp"
	smooth "$out/in.qp" > "$out/s.qp"
	[ "$(qp-dump "$out/s.qp" | grep -c '^flux some.thing n=3$')" -eq 2 ]
	qp-dump "$out/in.qp" | grep -vE "$changed" | grep '^[a-z]' > "$out/want"
	qp-dump "$out/s.qp" | grep -vE "$changed" | grep '^[a-z]' > "$out/got"
	cmp "$out/want" "$out/got"
}

@test "smooth: the header gains one line of provenance: options, no paths" {
	smooth --alpha=0.25 --edges=all acts.qp > "$out/s.qp"
	"$PYTHON" - acts.qp "$out/s.qp" <<-'END'
	import sys
	from qpstream import Stream
	was, now = (Stream(p).records[0][0]["prov"] for p in sys.argv[1:3])
	assert now[:-1] == was
	assert now[-1]["program"] == "smooth"
	assert now[-1]["options"] == ["--alpha=0.25", "--edges=all"]
	END
}

@test "smooth: missing activation maxima are named, not passed over" {
	record-acts -q -c calib.qp --stats=hessian tiny > "$out/h.qp"
	refuses 65 'layers\.0\.attn\.in: no activation maxima; put "record-acts -" before smooth' \
		smooth "$out/h.qp"
	record-acts -q -c calib.qp --stats=minmax,absmean tiny > "$out/m.qp"
	refuses 65 'layers\.0\.mlp\.mid: no activation maxima' smooth --edges=mlp.mid "$out/m.qp"
}

@test "smooth: weights that are codes already are refused by name" {
	rtn -q -g 16 --keep-stats acts.qp > "$out/q.qp"
	refuses 65 'layers\.0\.self_attn\.q_proj: is quantized already' smooth "$out/q.qp"
	rtn -q -g 16 --skip='q_proj|k_proj|gate|up_proj|down|o_proj' acts.qp > "$out/q.qp"
	refuses 65 'layers\.0\.self_attn\.v_proj: is quantized already' smooth "$out/q.qp"
}

@test "smooth: NaN in a weight is located" {
	qp-dump acts.qp | awk '/v_proj.weight role=weight/ { f = 1; print; next } f && !done {
		sub(/[-0-9x.a-fp+]+/, "nan"); done = 1 } { print }' > "$out/nan.txt"
	qp-make "$out/nan.txt" > "$out/nan.qp"
	refuses 65 'model\.layers\.0\.self_attn\.v_proj\.weight: value at row 0 column 0' \
		smooth "$out/nan.qp"
}

@test "smooth: every truncation of the input is refused" {
	refuses_every_prefix acts.qp smooth
	refuses_a_cut_pipe acts.qp 5000 smooth
}

@test "smooth: bad command lines exit 64 and say what was expected" {
	refuses 64 '--alpha: expected a number from 0 to 1, got .1\.5' smooth -a 1.5 acts.qp
	refuses 64 '--alpha: expected a number' smooth -a x acts.qp
	refuses 64 '--edges: expected all, or some of' smooth --edges=attn acts.qp
	refuses 64 '--edges: ' smooth --edges= acts.qp
}

@test "smooth: -v says where the time went, and only then" {
	run --separate-stderr -0 smooth -o "$out/s.qp" acts.qp
	[ -z "$stderr" ]
	run --separate-stderr -0 smooth -v -o "$out/s.qp" acts.qp
	[[ $stderr =~ ^smooth:\ read\ .*\ s,\ compute ]]
}

@test "smooth: peak memory is the formula of the man page, in two shapes" {
	not_with_sanitizers "memory is not what it would be"
	cd "$out"
	heavy_model
	smooth -v acts.qp 2> err > /dev/null
	peak_is err $((4 * P + H + 5 * MiB))
	heavy_model 384 1024
	smooth -v acts.qp 2> err > /dev/null
	peak_is err $((4 * P + H + 5 * MiB))
}

# ---- search ----

@test "smooth: --search: the model computes what it did, weights and activations, duo or not" {
	same_function tiny ids.txt acts.qp --search=w -g 16
	same_function tiny ids.txt acts.qp --search=w -g 16 --duo --asym -b 3
	same_function tiny ids.txt acts.qp --search=wa -g 16 --act-bits=4
	same_function tiny ids.txt acts.qp --search=w -g -1 --edges=attn.mid --duo
	seq -s ' ' 5 3 380 > ids1.txt
	same_function "$MODEL" ids1.txt stories-acts.qp --search=w --duo
	local m=$DATA/llama-headdim-bias
	head -n 2 ids.txt > fam-ids.txt
	calib-pack -q --ids ids.txt > fam-calib.qp
	record-acts -q -c fam-calib.qp --stats=all "$m" > fam.qp
	same_function "$m" fam-ids.txt fam.qp --search=w -g -1 --duo
}

@test "smooth: --search: ratio, losses and scales are the definition's, by a plain search (numpy)" {
	local o
	for o in "--search=w -b 4 -g 16" "--search=w -b 3 -g 8 --duo --asym" \
		"--search=w -b 3 -g -1 --stat=absmax --n-grid=7" \
		"--search=w -b 3 -g 16 --stat=absmean --loss=samples" \
		"--search=wa -b 4 -g 16 --act-bits=4 --duo"; do
		smooth $o acts.qp > "$out/s.qp"
		"$PYTHON" "$ROOT/tests/methods.py" search acts.qp "$out/s.qp" $o
	done
}

@test "smooth: --search: no edge is worse than it came, some are better" {
	smooth --search=w -b 2 -g 16 --duo stories-acts.qp > "$out/s.qp"
	"$PYTHON" - "$out/s.qp" <<-'END'
	import sys
	from qpstream import Stream
	notes = Stream(sys.argv[1]).notes("search").values()
	assert len(notes) == 8 and all(n["after"] <= n["before"] for n in notes)
	assert sum(n["after"] < 0.98 * n["before"] for n in notes) >= 2, notes
	assert all(n["moved"] == ("ratio" in n) for n in notes)
	END
}

@test "smooth: --search: statistics follow, the same bytes with any number of threads" {
	smooth -j 1 --search=w -g 16 acts.qp > "$out/s.qp"
	smooth -j 3 --search=w -g 16 acts.qp > "$out/t.qp"
	cmp "$out/s.qp" "$out/t.qp"
	record-acts -q --stats=all --kv - "$out/again.qp" < "$out/s.qp"
	qp-cmp --role=stat --rel=1e-5 "$out/s.qp" "$out/again.qp"
}

@test "smooth: --search: what it needs and has not is named" {
	record-acts -q -c calib.qp --stats=absmax tiny > "$out/m.qp"
	refuses 65 'layers\.0\.attn\.in: no hessian; put "record-acts - --stats=hessian"' \
		smooth --search=w -g 16 "$out/m.qp"
	record-acts -q -c calib.qp tiny > "$out/h.qp"
	refuses 65 'layers\.0\.attn\.in: no samples' smooth --search=wa -g 16 "$out/h.qp"
	refuses 65 'layers\.0\.attn\.in: no absmean' smooth --search=w --stat=absmean -g 16 "$out/h.qp"
	refuses 65 'layers\.0\.self_attn\.q_proj: groups of 24 do not divide' \
		smooth --search=w -g 24 acts.qp
	rtn -q -g 16 --keep-stats acts.qp > "$out/q.qp"
	refuses 65 'layers\.0\.self_attn\.q_proj: is quantized already' \
		smooth --search=w -g 16 "$out/q.qp"
	refuses_a_cut_pipe acts.qp 5000 smooth --search=w -g 16
}

@test "smooth: --search: options that nothing would read exit 64" {
	local o
	for o in --duo --bits=4 -g8 --sym --asym --n-grid=3 --stat=rms --loss=samples --act-bits=8; do
		refuses 64 '--[a-z-]+: without --search nothing reads it' smooth $o acts.qp
	done
	refuses 64 '--alpha: contradicts --search' smooth --search=w -a 0.5 acts.qp
	refuses 64 '--act-bits: activations are rounded in --search=wa only' \
		smooth --search=w --act-bits=8 acts.qp
	refuses 64 '--loss: --search=wa needs samples' smooth --search=wa --loss=hessian acts.qp
	refuses 64 '--search: expected' smooth --search=a acts.qp
	refuses 64 '--asym: contradicts --sym' smooth --search=w --sym --asym acts.qp
}
