#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# plot-errors.bats - what plot-errors promises on its man page, one test per promise

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	"$PYTHON" "$ROOT/tests/mkmodel.py" tiny
	rtn -q -b 3 -g 16 tiny > three.qp
	rtn -q -b 4 -g 16 tiny > four.qp
}

setup() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
}

@test "plot-errors: the script holds every layer's error of both streams" {
	plot-errors --script three.qp four.qp > "$out/script"
	[ "$(grep -c '^"layers\.[01]\..*_proj" 0\.' "$out/script")" -eq 28 ]
	qp-dump three.qp | sed -n 's/^note model.layers.1.mlp.down_proj.weight.* w_rel_err=\([^ ]*\).*/\1/p' > "$out/want"
	awk '/^"layers.1.mlp.down_proj"/ { print $2; exit }' "$out/script" > "$out/got"
	paste "$out/want" "$out/got" | awk '{ exit !(NF == 2 && ($1 / $2 - 1) ^ 2 < 1e-14) }'
	grep -q '^plot .*"first", .*"second"$' "$out/script"
	[ "$(plot-errors --script < four.qp | grep -c '^"layers')" -eq 14 ]
}

@test "plot-errors: the numbers are those of qp-ls --errors --tsv, under a Hessian and without" {
	local f
	record-acts -q -n 4 -s 64 "$MODEL" 2> /dev/null | gptq -q -b 3 > "$out/h.qp"
	for f in "$out/h.qp" three.qp; do
		qp-ls --errors --tsv "$f" |
			awk -F '\t' 'NR > 1 { sub(/^model\./, "", $1); sub(/\.weight$/, "", $1)
				print "\"" $1 "\"", $4 }' > "$out/want"
		[ "$(wc -l < "$out/want")" -eq 14 ]
		plot-errors --script "$f" | sed -n '/^\$e0/,/^EOD/p' | sed '1d;$d' | diff "$out/want" -
	done
}

@test "plot-errors: SVG and PNG pictures" {
	command -v gnuplot > /dev/null || skip "no gnuplot"
	plot-errors --title='3 "bits"' three.qp four.qp > "$out/e.svg"
	grep -q '</svg>' "$out/e.svg"
	grep -q 'layers.1.mlp.down_proj' "$out/e.svg"
	plot-errors --png four.qp > "$out/e.png"
	[ "$(head -c 4 "$out/e.png" | tail -c 3)" = PNG ]
}

@test "plot-errors: without gnuplot it exits 69 and says what to install" {
	mkdir "$out/empty"
	refuses 69 'gnuplot: .*gnuplot-nox' env PATH="$out/empty" "$(command -v plot-errors)" four.qp
	[ -z "$output" ]
}

@test "plot-errors: streams without errors, or of other layers, are refused" {
	record-acts -q --stats=none tiny > "$out/plain.qp"
	refuses 65 '.*plain.qp: no layer errors' plot-errors --script "$out/plain.qp"
	rtn -q -g 16 --skip=mlp tiny > "$out/less.qp"
	refuses 65 '.*less.qp: has errors of other layers' plot-errors --script four.qp "$out/less.qp"
	rtn -q -g 16 --skip=q_proj tiny > "$out/one.qp"		# as many, but others
	rtn -q -g 16 --skip=k_proj tiny > "$out/other.qp"
	refuses 65 '.*other.qp: has errors of other layers' \
		plot-errors --script "$out/one.qp" "$out/other.qp"
}

@test "plot-errors: every truncation of the input is refused" {
	refuses_every_prefix four.qp plot-errors --script
}
