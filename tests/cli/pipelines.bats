#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# pipelines.bats - the recipes and the grid of experiments in pipelines/

setup() {
	load ../helpers
	not_with_sanitizers "recipes are programs that other files test; here they only take time"
	cd "$BATS_TEST_TMPDIR"
	export NSAMPLES=8 SEQLEN=256
	recipes=$ROOT/pipelines
}

ppl() {	# ppl STREAM
	eval-ppl -q --json --ctx=256 --windows=4 "$1" < "$EVAL" | sed 's/.*"ppl": *\([0-9.]*\).*/\1/'
}

@test "recipes: each takes MODEL CALIB OUT, a text or a set, and makes a packed stream that runs" {
	local r
	calib-pack -q -m "$MODEL" -n 8 -s 256 "$CALIB" -o calib.qp
	for r in smoothquant-w8a8 rotate-gptq-w4 quarot-w4a4kv4; do
		sh "$recipes/$r.sh" "$MODEL" "$CALIB" "$r.text.qp" 2> err || { cat err; false; }
		sh "$recipes/$r.sh" "$MODEL" calib.qp "$r.set.qp" 2> err
		cmp "$r.text.qp" "$r.set.qp"
		qp-check "$r.set.qp"
		ppl "$r.set.qp" > "$r.ppl"
	done
	ppl "$MODEL" > full.ppl
	awk 'FNR == 1 { p[FILENAME] = $1 } END {
		full = p["full.ppl"]
		exit !(p["smoothquant-w8a8.ppl"] < 1.02 * full && p["rotate-gptq-w4.ppl"] < 1.2 * full &&
		       p["quarot-w4a4kv4.ppl"] < 2.5 * full) }' *.ppl
}

@test "recipes: quarot leaves out rotations that a family has no place for, and says so" {
	local f said
	awk 'BEGIN { srand(3); for (i = 0; i < 16; i++) { for (t = 0; t < 32; t++)
		printf "%d ", int(300 * rand()); print "" } }' | calib-pack -q --ids > ids.qp
	calib-pack -q --images -m "$DATA/vit" -n 2 "$DATA/vit/golden.safetensors" > images.qp
	for f in "$MODEL" "$DATA/opt-post-proj" "$DATA/vit" "$SHARED/families/opt-pre"; do
		[ -e "$f" ] || continue
		case $f in
		*/vit) set -- images.qp "no rotary positions: without R3" ;;
		*opt-post*) set -- ids.qp "no rotary positions: without R3
quarot-w4a4kv4.sh: norms behind attention and MLP: without R1" ;;
		*opt*) set -- ids.qp "no rotary positions: without R3" ;;
		*) set -- ids.qp "" ;;
		esac
		sh "$recipes/quarot-w4a4kv4.sh" "$f" "$1" q.qp 2> err || { cat err; false; }
		said=$(grep '^quarot' err || true)
		[ "$said" = "${2:+quarot-w4a4kv4.sh: $2}" ] || { echo "$f: $said"; false; }
		qp-check q.qp
		qp-forward -q -c "$1" q.qp > logits.qp
		qp-dump --head q.qp > head
		[ -z "$2" ] || run -1 grep '^run.*attn.q .*hadamard' head
		grep -q '^run layers.0.mlp.mid .*hadamard' head
		grep -q '^run layers.0.attn.k .*bits=4' head
		sh "$recipes/rotate-gptq-w4.sh" "$f" "$1" q.qp 2> err || { cat err; false; }
		qp-forward -q -c "$1" q.qp > logits.qp
	done
}

@test "recipes: wrong arguments are 64, a model that is not there leaves no output" {
	local r
	for r in smoothquant-w8a8 rotate-gptq-w4 quarot-w4a4kv4; do
		run -64 sh "$recipes/$r.sh" one two
		[[ $output == "usage: $r.sh MODEL CALIB OUT" ]]
		run sh "$recipes/$r.sh" /no/such/model "$CALIB" out.qp
		[ "$status" -ne 0 ]
		[ ! -e out.qp ]
	done
}

@test "recipes: qwt-llm prints the five modes, and what groups need" {
	export SEQLEN=128 NSAMPLES=40 CLAMP=32 QWT="-q --per=sublayer" EVALOPT="-q -c 256 -w 4"
	sh "$recipes/qwt-llm.sh" "$MODEL" "$CALIB" "$EVAL" > table 2> err || { cat err; false; }
	cat table
	[ "$(cut -d ' ' -f 1 table | tr '\n' ' ')" = "base quant clamp quant+qwt clamp+qwt groups clamped " ]
	awk '{ p[$1] = $2 } END { exit !(p["base"] > 10 && p["base"] < p["quant"] &&
		p["clamp"] != p["quant"] && p["quant+qwt"] != p["quant"] &&
		p["clamp+qwt"] != p["quant+qwt"] && p["clamp+qwt"] < 1.5 * p["base"]) }' table
	grep -Eq '^groups +int4 [0-9.]+ %, int5-6 [0-9.]+ %, int7-8 [0-9.]+ %$' table
	grep -Eq '^clamped +[0-2] of 2 blocks' table
	run -64 sh "$recipes/qwt-llm.sh" one two
	[[ $output == "usage: qwt-llm.sh MODEL CALIB EVAL" ]]
	CLAMP=100 run sh "$recipes/qwt-llm.sh" "$MODEL" "$CALIB" "$EVAL"
	[ "$status" -eq 65 ] && [[ $output == *"these do: 128, 64"* ]]
}

grid() {
	make -s -f "$recipes/experiments.mk" OUT=exp MODELS="$MODEL/" CALIB="$CALIB" EVAL="$EVAL" \
		RECIPES="rtn gptq rotate-gptq" BITS="3 8" NSAMPLES=8 SEQLEN=256 \
		EVALFLAGS="--ctx=256 --windows=2" "$@"
}

@test "experiments: a grid becomes one table; recipes that are pipelines run whole" {
	grid -j2 table > out
	cmp out exp/table.tsv
	[ "$(wc -l < out)" -eq 8 ]
	[ "$(head -n 1 out)" = "$(printf 'model\trecipe\tbits\tbytes\tppl\tstderr')" ]
	awk -F '\t' 'NR > 1 { p[$2 "." $3] = $5; if (!($4 > 300000 && $5 > 10 && $6 > 0)) bad = 1 }
		END { exit bad || p["rtn.3"] <= p["gptq.3"] || p["gptq.3"] == p["rotate-gptq.3"] ||
			!(p["rtn.8"] < 1.02 * p["full.-"]) }' out
	qp-ls --provenance exp/TinyStories-656K/rotate-gptq.3.qp | grep 'rotate.*gptq --bits=3'
}

@test "experiments: statistics are recorded once, and a second run has nothing to do" {
	grid table > out
	touch -r exp/TinyStories-656K/acts.qp stamp
	rm exp/TinyStories-656K/gptq.3.qp exp/TinyStories-656K/gptq.3.json
	grid table > again
	cmp out again
	[ ! exp/TinyStories-656K/acts.qp -nt stamp ]
	run -0 grid -q table
}

@test "experiments: what a crash left goes on where it stopped; a failed step leaves no file" {
	mkdir -p bin
	printf '#!/bin/sh\ncase "$*" in *"-b 8"*) kill -9 $$ ;; esac\nexec %s "$@"\n' \
		"$(command -v gptq)" > bin/gptq
	chmod +x bin/gptq
	PATH=$PWD/bin:$PATH run grid -k table
	[ "$status" -ne 0 ]
	[ ! -e exp/TinyStories-656K/gptq.8.qp ] && [ ! -e exp/table.tsv ]
	[ -e exp/TinyStories-656K/gptq.3.json ]
	grid table > out
	[ "$(wc -l < out)" -eq 8 ]
}

@test "experiments: killed as a whole, again and again, the grid ends at the same table" {
	local i pid
	grid table
	mv exp whole
	for i in 0.1 0.2 0.4; do
		setsid make -s -f "$recipes/experiments.mk" OUT=exp MODELS="$MODEL/" CALIB="$CALIB" \
			EVAL="$EVAL" RECIPES="rtn gptq rotate-gptq" BITS="3 8" NSAMPLES=8 SEQLEN=256 \
			EVALFLAGS="--ctx=256 --windows=2" -j2 table > /dev/null 2>&1 3>&- &
		pid=$!
		sleep "$i"
		kill -9 -- "-$pid" 2> err || true
		wait "$pid" 2> err || true
	done
	grid -j2 table
	diff whole/table.tsv exp/table.tsv
	for i in exp/*/*.qp; do cmp "$i" "whole${i#exp}"; done
}

@test "experiments: an unknown recipe and a missing variable are named" {
	run make -s -f "$recipes/experiments.mk" OUT=exp MODELS="$MODEL" CALIB="$CALIB" EVAL="$EVAL" \
		RECIPES=none BITS=4 table
	[ "$status" -ne 0 ]
	[[ $output == *"no RECIPE_none"* ]]
	run make -s -f "$recipes/experiments.mk" table
	[ "$status" -ne 0 ]
	[[ $output == *"names"* ]]
}

@test "experiments: the plot, as SVG and PNG" {
	command -v gnuplot > /dev/null || skip "gnuplot is not installed"
	grid all > out
	head -c 4 exp/plot.png | cmp - <(printf '\x89PNG')
	grep -q '<svg' exp/plot.svg
	grep -q 'TinyStories-656K gptq' exp/plot.svg
}

@test "sweep: a forward, many solves: a line a cell, with errors, perplexity and divergence" {
	calib-pack -q -m "$MODEL" -n 4 -s 64 "$CALIB" -o calib.qp
	make -s -f "$recipes/sweep.mk" MODEL="$MODEL" CALIB=calib.qp TEXT="$EVAL" OUT=sweep \
		BITS="3 4" OPTIONS="--plain default --act-order,--sweeps=1" CTX=64 WINDOWS=4 SEQUENTIAL=1
	cat sweep/table.tsv
	[ "$(head -n 1 sweep/table.tsv | tr '\t' ' ')" = "cell mean_rel_err perplexity kl seconds" ]
	[ "$(cut -f 1 sweep/table.tsv | tail -n +2 | sort | uniq | wc -l)" -eq 13 ]
	awk -F '\t' 'NR > 2 && !($2 > 0 && $3 > 1 && $4 > 0) { exit 1 }' sweep/table.tsv
	gptq -q -b 3 --plain sweep/acts.qp -o q.qp
	eval-ppl -q --json --ctx=64 --windows=4 --kl="$MODEL" -t "$EVAL" q.qp > json
	"$PYTHON" - <<-'END'
	import json
	j = json.load(open("json"))
	cell = {l.split("\t")[0]: l.rstrip("\n").split("\t")[1:] for l in open("sweep/table.tsv")}
	_, ppl, kl, _ = map(float, cell["b3.g128.--plain"])
	assert abs(ppl / j["ppl"] - 1) < 1e-6 and abs(kl / j["kl"] - 1) < 0.2, (ppl, kl, j)
	assert float(cell["full"][1]) < ppl and cell["b3.g128.default"] != cell["b4.g128.default"]
	assert cell["b3.g128.default"] != cell["b3.g128.default.sequential"]
	END
	# Nothing to do again; another set is recorded, another text only evaluated.
	sweep() {
		make -s -f "$recipes/sweep.mk" MODEL="$MODEL" OUT=sweep BITS=3 OPTIONS=default CTX=64 \
			WINDOWS=4 "$@"
	}
	sweep CALIB=calib.qp TEXT="$EVAL"
	cp sweep/b3.g128.default.errors was.errors
	cp sweep/table.tsv was.tsv
	sweep CALIB=calib.qp TEXT="$EVAL"
	cmp was.tsv sweep/table.tsv
	sweep CALIB=calib.qp TEXT="$CALIB"
	cmp was.errors sweep/b3.g128.default.errors
	run -1 cmp -s was.tsv sweep/table.tsv
	calib-pack -q -m "$MODEL" -n 2 -s 256 "$CALIB" -o other.qp
	sweep CALIB=other.qp TEXT="$EVAL"
	run -1 cmp -s was.errors sweep/b3.g128.default.errors
}
