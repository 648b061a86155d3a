#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# quant-acts.bats - what quant-acts promises on its man page, one test per promise

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	"$PYTHON" "$ROOT/tests/mkmodel.py" tiny dtype=BF16
	for i in 3 5 7 11; do
		awk -v m="$i" 'BEGIN {
			for (t = 0; t < 16; t++) printf "%d ", (t * m + m) % 32
			print "" }'
	done > ids.txt
	calib-pack -q --ids ids.txt > calib.qp
	record-acts -q -c calib.qp -S absmax,minmax,samples --kv tiny > acts.qp
	record-acts -q --stats=none tiny > plain.qp
}

setup() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
}

runs() {	# runs FILE: the run records, without their payload
	qp-dump --head "$1" | grep '^run '
}

@test "quant-acts: every weight and every other record passes byte for byte" {
	quant-acts -q -p w4a4kv4 --probs=8 --resid=8 acts.qp > "$out/q.qp"
	qp-dump "$out/q.qp" | sed '1,/^file/d' | grep -v '^run \|^end' > "$out/got"
	qp-dump acts.qp | sed '1,/^file/d' | grep -v '^end' > "$out/want"
	cmp "$out/want" "$out/got"
	qp-check "$out/q.qp"
}

@test "quant-acts: records stand at the front of their block, one a place" {
	quant-acts -q -p w4a4kv4 --probs=8 --resid=8 plain.qp > "$out/q.qp"
	qp-dump --head "$out/q.qp" | grep -A 9 '^block index=1' | cut -d ' ' -f 2 > "$out/got"
	printf '%s\n' index=1 layers.1.{attn.in,attn.mid,mlp.in,mlp.mid,attn.k,attn.v} \
		layers.1.{attn.p,attn.resid,mlp.resid} > "$out/want"
	diff "$out/want" "$out/got"
	[ "$(runs "$out/q.qp" | grep -c must=true)" = "$(runs "$out/q.qp" | wc -l)" ]
}

@test "quant-acts: --edges and --skip choose places" {
	quant-acts -q -e attn.in,mlp.mid --skip=layers.0,layers.1.mlp.mid plain.qp > "$out/q.qp"
	[ "$(runs "$out/q.qp" | cut -d ' ' -f 2)" = layers.1.attn.in ]
	refuses 65 '--skip: .*attn.nose' quant-acts --skip=attn.nose plain.qp
	refuses 64 '--edges: ' quant-acts -e attn.nose plain.qp
	refuses 64 '--edges: none' quant-acts -e none plain.qp
}

@test "quant-acts: a second one goes on where the first put nothing" {
	quant-acts -q -b 8 -e attn.in plain.qp | quant-acts -q -b 4 -e mlp.in > "$out/q.qp"
	[ "$(runs "$out/q.qp" | grep -c bits=4)" = 2 ]
	quant-acts -q -b 8 -e attn.in plain.qp > "$out/q.qp"
	refuses 65 'layers.0.attn.in: has a quantizer' quant-acts "$out/q.qp" "$out/r.qp"
	[ ! -e "$out/r.qp" ]
}

@test "quant-acts: qp-forward's logits are those of quantized inputs (numpy)" {
	local o
	for o in "-b 8" "-b 4 --asym" "-b 5 -g 8" "-b 4 --rule=awq --asym" "--format=e4m3" \
		"-b 6 --per=tensor" "-b 3 --clip=0.8" "--static --per=tensor" \
		"-b 4 --static -g 8 --asym" "-e none --kv=4" "-e none --kv=3 --kv-raw" \
		"-e none --kv=2 --kv-window=3" "-e none --kv=4 --kv-static" "-e none --kv=e4m3" \
		"-e none --kv=e4m3 --kv-static --kv-clip=0.9" "-e none --probs=4" "-e none --resid=6" \
		"-p w4a8 --clamp=4" "-p w4a8 --clamp=4 --compat" "--clamp=8" "-g 8 --asym --clamp=4" \
		"-p w4a8 --clamp=4 --clamp-by=bits" "--static --per=tensor --clamp=2"; do
		quant-acts -q $o acts.qp > "$out/q.qp"
		qp-forward -q --ids ids.txt "$out/q.qp" > "$out/logits.qp"
		PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1 \
			"$PYTHON" "$ROOT/tests/actquant.py" "$out/q.qp" ids.txt "$out/logits.qp" ||
			{ echo "options: $o"; return 1; }
	done
}

@test "quant-acts: static ranges want statistics and say which program makes them" {
	refuses 65 'layers.0.attn.in: no absmax .*record-acts -S absmax -' \
		quant-acts --static --per=tensor plain.qp
	refuses 65 'layers.0.attn.in: no min and max .*record-acts -S minmax -' \
		quant-acts --static --per=tensor --asym plain.qp
	record-acts -q -c calib.qp -S absmax tiny > "$out/a.qp"
	refuses 65 'layers.0.attn.in: no samples .*record-acts -S absmax,minmax,samples -' \
		quant-acts --static --per=tensor --clip=mse "$out/a.qp"
	refuses 64 '--static: ' quant-acts --static acts.qp
	refuses 64 '--clip: ' quant-acts --clip=mse acts.qp
}

@test "quant-acts: --kv-static: a range a head, of e4m3 one for all; wants its statistics" {
	quant-acts -q -e none --kv=8 --kv-static acts.qp > "$out/q.qp"
	[ "$(runs "$out/q.qp" | grep -c 'attn\.[kv] .*shape=\[2,2\] .*per="group" .*range="static"')" = 4 ]
	quant-acts -q -e none --kv=e4m3 --kv-static acts.qp > "$out/q.qp"
	[ "$(runs "$out/q.qp" | grep -c 'attn\.[kv] .*shape=\[1,2\] .*per="tensor" .*range="static"')" = 4 ]
	refuses 65 'layers.0.attn.k: no min .*record-acts --kv -' quant-acts --kv=8 --kv-static plain.qp
	refuses 64 '--kv-static: goes with --kv' quant-acts --kv-static acts.qp
	refuses 64 '--kv-clip: goes with --kv' quant-acts --kv-clip=0.5 acts.qp
	local o
	for o in --bits=3 --sym --asym --rule=awq --clip=0.5 --per=tensor -g16 --format=e4m3; do
		refuses 64 '--edges: none; what else is said' quant-acts --edges=none --kv=4 $o acts.qp
	done
	refuses 64 '--edges: none; what else is said' \
		quant-acts --edges=none --static --per=tensor --kv=4 acts.qp
	quant-acts -q -p w4a4kv4 --edges=none acts.qp | qp-dump --head > "$out/kv.txt"
	[ "$(grep -c '^run .*attn.[kv] ' "$out/kv.txt")" -eq "$(grep -c '^run ' "$out/kv.txt")" ]
	refuses 64 '--kv-static: .*--kv-raw' quant-acts --kv=8 --kv-static --kv-raw acts.qp
	refuses 64 '--kv: expected 2 to 8 or e4m3' quant-acts --kv=e5m2 acts.qp
	refuses 64 '--kv: expected 2 to 8 or e4m3' quant-acts --kv=9 acts.qp
	# A statistic that is damaged, or that is nothing
	qp-dump acts.qp | sed '/attn\.v .*stat="max"/{n;s/[^ ]*0x[^ ]*/nan/}' | qp-make > "$out/n.qp"
	refuses 65 'layers.0.attn.v: max is not finite' quant-acts --kv=8 --kv-static "$out/n.qp"
	qp-dump acts.qp | awk '/^[a-z]/ { zero = /^tensor layers.1.attn.v / }
		zero && /^ / { gsub(/[^ ]+/, "0x0p+0") } { print }' | qp-make > "$out/z.qp"
	refuses 65 'layers.1.attn.v: .*always 0' quant-acts --kv=8 --kv-static "$out/z.qp"
}

@test "quant-acts: a range of no width is refused" {
	qp-dump acts.qp | awk '
		/^[a-z]/ { zero = /^tensor layers.0.mlp.mid .*stat="(absmax|min|max)"/ }
		zero && /^ / { gsub(/[^ ]+/, "0x0p+0") } { print }' | qp-make > "$out/z.qp"
	refuses 65 'layers.0.mlp.mid: .*always 0' quant-acts --static --per=tensor "$out/z.qp"
}

@test "quant-acts: --clip=mse has no more error over the samples than the whole range" {
	quant-acts -q -b 3 --static --per=tensor acts.qp > "$out/a.qp"
	quant-acts -q -b 3 --static --per=tensor --clip=mse acts.qp > "$out/b.qp"
	PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1 "$PYTHON" "$ROOT/tests/actquant.py" \
		--squares acts.qp "$out/b.qp" "$out/a.qp"
}

@test "quant-acts: smooth behind static ranges is refused, behind dynamic ones it is not" {
	quant-acts -q --static --per=tensor acts.qp > "$out/a.qp"
	refuses 65 'layers.0.attn.in: .*put smooth before quant-acts' smooth "$out/a.qp"
	quant-acts -q acts.qp | smooth -q > "$out/b.qp"
	record-acts -q -c calib.qp -S absmax,hessian tiny | tee "$out/h.qp" |
		quant-acts -q --static --per=tensor > "$out/a.qp"
	refuses 65 'layers.0.attn.in: .*put smooth before quant-acts' smooth --search=w -g -1 "$out/a.qp"
	quant-acts -q "$out/h.qp" | smooth -q --search=w -g -1 > "$out/b.qp"
}

@test "quant-acts: a run record that nobody knows is refused by what runs the model" {
	local change
	quant-acts -q plain.qp > "$out/q.qp"
	for change in 's/^run .*kind="act-quant"/&\n/;s/\n/ taste=3/' \
		's/kind="act-quant"/kind="sing"/' 's/per="token"/per="moon"/'; do
		qp-dump "$out/q.qp" | sed "$change" | qp-make > "$out/r.qp"
		refuses 76 'layers.0.attn.in: ' qp-forward --ids ids.txt "$out/r.qp"
		refuses 76 'layers.0.attn.in: ' record-acts -c calib.qp "$out/r.qp"
		refuses 76 'layers.0.attn.in: ' qwt-fit -c calib.qp "$out/r.qp"
		refuses 76 'layers.0.attn.in: ' rotate -q -r r4 "$out/r.qp"
		record-acts -q -c calib.qp -S absmax tiny | quant-acts -q | qp-dump | sed "$change" |
			qp-make > "$out/r.qp"
		refuses 76 'layers.0.attn.in: ' smooth "$out/r.qp"
	done
	record-acts -q --stats=none "$MODEL" | quant-acts -q | qp-dump |
		sed 's/kind="act-quant"/kind="sing"/' | qp-make > "$out/r.qp"
	refuses 76 'layers.0.attn.in: ' eval-ppl -c 64 -w 1 -t "$EVAL" "$out/r.qp"
	printf '%s\n' '{"query": "One day", "choices": [" a", " b"], "gold": 0}' > "$out/task.jsonl"
	refuses 76 'layers.0.attn.in: ' eval-tasks -t "$out/task.jsonl" "$out/r.qp"
}

@test "quant-acts: a key of another type, out of range or of another grid is refused" {
	local change
	quant-acts -q -p w4a4kv4 plain.qp > "$out/q.qp"
	qp-dump "$out/q.qp" | grep -q '^run .* clip=0'
	for change in 's/ clip=[0-9.]*/ clip="x"/' 's/ clip=[0-9.]*/ clip=true/' \
		's/ clip=[0-9.]*/ clip=1.5/' 's/ kind=/ recent="5"&/' 's/ kind=/ recent=0&/' \
		's/ per="[a-z]*"/& recent=2.5/' 's/ format="int"/ format="e4m3"/' \
		's/ sym=[a-z]*/ sym=1/' 's/ bits=4/ bits="4"/' 's/ rule="[a-z]*"/ rule=3/' \
		's/ per="token"/& group=8/' 's/ per="token"/ per=1/'; do
		qp-dump "$out/q.qp" | sed "/^run/$change" | qp-make > "$out/r.qp"
		refuses 65 'layers.0.attn.[a-z]*: ' qp-forward --ids ids.txt "$out/r.qp"
	done
}

@test "quant-acts: record-acts - records what the linears read" {
	quant-acts -q -b 2 plain.qp > "$out/q.qp"
	record-acts -q -c calib.qp -S samples "$out/q.qp" > "$out/s.qp"
	PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1 \
		"$PYTHON" "$ROOT/tests/actquant.py" --levels "$out/s.qp" 4
}

@test "quant-acts: gptq --sequential obeys, pack-int4 carries" {
	record-acts -q -c calib.qp --stats=none tiny | quant-acts -q -p w4a8 |
		gptq -q -b 4 -g 16 --sequential > "$out/g.qp"
	pack-int4 -q "$out/g.qp" > "$out/p.qp"
	[ "$(runs "$out/p.qp")" = "$(runs "$out/g.qp")" ]
	[ "$(runs "$out/p.qp" | wc -l)" = 8 ]
	qp-forward -q --ids ids.txt "$out/g.qp" > "$out/a.qp"
	qp-forward -q --ids ids.txt "$out/p.qp" > "$out/b.qp"
	qp-cmp -q --rel=1e-5 "$out/a.qp" "$out/b.qp"
}

@test "quant-acts: every family passes, images too, and 8 bits cost little" {
	local f in
	echo "1 5 9 20 33 7 8 9 30 2 11" > "$out/few"
	for f in "$DATA/vit" "$DATA/opt-post-proj" "$DATA/qwen2-moe-sparse-step" \
		"$SHARED"/families/*/; do
		[ -f "$f/config.json" ] || continue
		in=(-i "$out/few")
		case $f in
		*/vit | */vit/)
			calib-pack -q --images -m "$f" -n 2 "$f/golden.safetensors" > "$out/c.qp"
			in=(-c "$out/c.qp") ;;
		esac
		record-acts -q --stats=none "$f" > "$out/p.qp"
		quant-acts -q -p w8a8 --kv=8 --probs=8 --resid=8 "$out/p.qp" > "$out/q.qp" ||
			{ echo "$f"; return 1; }
		[ "$(runs "$out/q.qp" | wc -l)" -ge 16 ]
		qp-forward -q "${in[@]}" "$out/p.qp" > "$out/a.qp"
		qp-forward -q "${in[@]}" "$out/q.qp" > "$out/b.qp"
		qp-cmp -q --rel=0.1 "$out/a.qp" "$out/b.qp" || { echo "$f"; return 1; }
		run -1 qp-cmp -q --rel=1e-5 "$out/a.qp" "$out/b.qp"
	done
}

@test "quant-acts: a statistic that is not finite is refused by name" {
	qp-dump acts.qp | awk '/^tensor layers.1.mlp.in .*stat="max"/ { n = NR + 1 }
		NR == n { sub(/ [^ ]+/, " nan") } 1' | qp-make > "$out/nan.qp"
	refuses 65 'layers.1.mlp.in.*not finite' quant-acts --static --per=tensor "$out/nan.qp" "$out/q.qp"
	[ ! -e "$out/q.qp" ]
}

@test "quant-acts: every proper prefix of a stream is refused" {
	refuses_every_prefix plain.qp quant-acts
}

@test "quant-acts: --compute=int multiplies integers, and comes to the same" {
	local o
	for o in "-b 8 -g -1" "-b 4 -g 8 --asym"; do
		rtn -q $o plain.qp | quant-acts -q -p w4a8 > "$out/q.qp"
		qp-forward -q --compute=fake --ids ids.txt "$out/q.qp" > "$out/a.qp"
		qp-forward -q --compute=int --ids ids.txt "$out/q.qp" > "$out/b.qp"
		qp-cmp -q --rel=1e-5 "$out/a.qp" "$out/b.qp"
		run -1 qp-cmp -q "$out/a.qp" "$out/b.qp"
		pack-int4 -q "$out/q.qp" 2> /dev/null > "$out/p.qp" || continue
		qp-forward -q --compute=int --ids ids.txt "$out/p.qp" > "$out/c.qp"
		qp-cmp -q "$out/b.qp" "$out/c.qp"
	done
	refuses 65 '--compute: int: there is no linear' qp-forward --compute=int --ids ids.txt plain.qp
}

@test "quant-acts: --compute=int multiplies f32 in a layer that is passed over" {
	rtn -q -b 8 -g -1 plain.qp | quant-acts -q -p w8a8 --skip=layers.0 > "$out/q.qp"
	qp-forward -q --compute=fake --ids ids.txt "$out/q.qp" > "$out/a.qp"
	qp-forward -q --compute=int --ids ids.txt "$out/q.qp" > "$out/b.qp"
	qp-cmp -q --rel=1e-5 "$out/a.qp" "$out/b.qp"
	run -1 qp-cmp -q "$out/a.qp" "$out/b.qp"
}

@test "quant-acts: --skip that leaves nothing is refused" {
	refuses 64 '--skip: .*nothing is left to quantize' \
		quant-acts --skip=attn.in,attn.mid,mlp.in,mlp.mid plain.qp
	quant-acts -q --kv=8 --skip=attn.in,attn.mid,mlp.in,mlp.mid plain.qp > "$out/q.qp"
}

@test "quant-acts: --clamp changes something, --compat something else; int comes to the same" {
	rtn -q -b 4 -g -1 --asym plain.qp > "$out/r.qp"
	quant-acts -q -p w4a8 "$out/r.qp" > "$out/q.qp"
	quant-acts -q -p w4a8 --clamp=4 "$out/r.qp" > "$out/c.qp"
	quant-acts -q --clamp=4 --compat -p w4a8 "$out/r.qp" > "$out/p.qp"
	for f in q c p; do
		qp-forward -q --ids ids.txt "$out/$f.qp" > "$out/$f.logits"
	done
	run -1 qp-cmp -q --rel=1e-5 "$out/q.logits" "$out/c.logits"
	run -1 qp-cmp -q --rel=1e-5 "$out/p.logits" "$out/c.logits"
	qp-forward -q --compute=int --ids ids.txt "$out/c.qp" > "$out/int.logits"
	qp-cmp -q --rel=1e-5 "$out/int.logits" "$out/c.logits"
	refuses 65 '--compute: int: there is no linear' qp-forward --compute=int --ids ids.txt "$out/p.qp"
}

@test "quant-acts: --clamp wants integers of 8 bits and groups that divide, and says which do" {
	refuses 65 'layers.0.attn.in: .*128 does not divide 16; these do: 16, 8, 4, 2$' \
		quant-acts -p w4a8 --clamp plain.qp
	refuses 65 'layers.0.mlp.mid: .*16 does not divide 8; these do: 8, 4, 2$' \
		quant-acts -e mlp.mid -g 8 --clamp=16 plain.qp
	refuses 65 'layers.0.attn.in: .*3 does not divide 16' quant-acts --clamp=3 plain.qp
	refuses 64 '--clamp: ' quant-acts -b 4 --clamp=8 plain.qp
	refuses 64 '--clamp: ' quant-acts -p fp8 --clamp=8 plain.qp
	refuses 64 '--clamp: ' quant-acts --clamp=2000 plain.qp
	refuses 64 '--compat: goes with --clamp' quant-acts --compat plain.qp
	refuses 64 '--clamp-by: goes with --clamp' quant-acts --clamp-by=bits plain.qp
	refuses 64 '--clamp-by: bits goes with --asym' quant-acts --clamp=8 --clamp-by=bits plain.qp
	refuses 64 '--clamp-by: bits goes with --asym and without --compat' \
		quant-acts -p w4a8 --clamp=8 --clamp-by=bits --compat plain.qp
}

@test "quant-acts: a clamp that nobody knows, or that is half there, is refused" {
	quant-acts -q -p w4a8 --clamp=8 plain.qp > "$out/q.qp"
	local change want
	for change in 's/clamp_by="range"/clamp_by="moon"/ 76' 's/clamp_mid="ceil"/clamp_mid="moon"/ 76' \
		's/clamp=8// 65' 's/clamp=8/clamp="8"/ 65' 's/clamp_by="range"// 65' \
		's/clamp=8/clamp=6/ 65'; do
		want=${change##* }
		qp-dump "$out/q.qp" | sed "/^run/${change% *}" | qp-make > "$out/r.qp"
		refuses "$want" 'layers.0.attn.in: ' qp-forward --ids ids.txt "$out/r.qp"
		refuses "$want" 'layers.0.attn.in: ' record-acts -c calib.qp "$out/r.qp"
	done
}

@test "quant-acts: --clamp notes what the samples' groups need (numpy), qp-ls --clamp prints it" {
	local o
	for o in "--clamp=4" "--clamp=2 --clamp-by=bits"; do
		quant-acts -q -p w4a8 $o acts.qp > "$out/c.qp"
		qp-ls --clamp "$out/c.qp" > "$out/table"
		[ "$(wc -l < "$out/table")" -eq 11 ]
		[ "$(tail -n 1 "$out/table")" = "clamped: 8 of 8 inputs, in 2 of 2 blocks" ]
		grep -q '^mean of edges  *[0-9.]*  *[0-9.]*  *[0-9.]*  *[0-9.]*$' "$out/table"
		qp-ls --json "$out/c.qp" | grep -q '"kind":"clamp".*"int5_6":'
		[ "$o" = "--clamp=4" ] || continue
		PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1 \
			"$PYTHON" "$ROOT/tests/actquant.py" --shares acts.qp "$out/c.qp"
	done
	quant-acts -q -p w4a8 --clamp=4 plain.qp > "$out/c.qp"
	refuses 65 'no notes of clamps .*record-acts -S samples' qp-ls --clamp "$out/c.qp"
}

@test "quant-acts: record-acts - and gptq --sequential obey a clamp, pack-int4 carries it" {
	record-acts -q -c calib.qp --stats=none tiny | quant-acts -q -p w4a8 --clamp=4 > "$out/c.qp"
	record-acts -q -c calib.qp -S samples "$out/c.qp" > "$out/a.qp"
	quant-acts -q -p w4a8 plain.qp | record-acts -q -c calib.qp -S samples - > "$out/b.qp"
	run -1 qp-cmp -q --rel=1e-5 "$out/a.qp" "$out/b.qp"
	gptq -q -b 4 -g 16 --sequential "$out/c.qp" > "$out/g.qp"
	pack-int4 -q "$out/g.qp" > "$out/p.qp"
	[ "$(runs "$out/p.qp" | grep -c 'clamp=4 clamp_by="range" clamp_mid="ceil"')" = 8 ]
	qp-forward -q --ids ids.txt "$out/g.qp" > "$out/a.qp"
	qp-forward -q --ids ids.txt "$out/p.qp" > "$out/b.qp"
	qp-cmp -q --rel=1e-5 "$out/a.qp" "$out/b.qp"
}

@test "quant-acts: options that contradict each other are refused, groups that do not divide say which do" {
	refuses 64 '--asym: contradicts --sym' quant-acts --sym --asym plain.qp
	refuses 64 '--group-size: contradicts --per' quant-acts -g 8 --per=head plain.qp
	refuses 64 '--group-size: contradicts --per' quant-acts --per=token -g 8 plain.qp
	refuses 65 'layers.0.attn.in: groups of 7 do not divide 16 channels; sizes that do: 1, 2, 4, 8, 16' \
		quant-acts -g 7 plain.qp
	refuses 64 "--rule: no rule 'best'" quant-acts --rule=best plain.qp
}

@test "quant-acts: --rule stays whatever the order of --sym and --asym" {
	quant-acts -q --rule=awq --asym plain.qp | qp-dump --head > "$out/a"
	grep -q 'sym=false rule="awq"' "$out/a"
	quant-acts -q -p w8a8 --asym plain.qp | qp-dump --head | grep -q 'sym=false rule="gptq"'
}

@test "quant-acts: peak memory is the formula of the man page" {
	not_with_sanitizers "memory is not what it would be"
	cd "$out"
	heavy_model
	quant-acts -v acts.qp > q.qp 2> err
	peak_is err $((2 * P + H + 4 * (3 * D + F) + 3 * MiB))
	heavy_model 384 1024
	quant-acts -v acts.qp > q.qp 2> err
	peak_is err $((2 * P + H + 4 * (3 * D + F) + 3 * MiB))
}
