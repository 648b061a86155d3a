#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# families.bats - every model family runs through every program unchanged, and computes what
# transformers does

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	for m in $(shipped) $(beside); do
		"$PYTHON" "$ROOT/tests/golden.py" inputs "$m" > "$(basename "$m").ids"
		calibration "$m" > "$(basename "$m").calib"
	done
	"$PYTHON" "$ROOT/tests/moe.py" "$MODEL" moe
}

setup() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
	export PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1
}

# Those in the tree, always tested: Llama, OPT, Qwen2-MoE, ViT.
shipped() {
	printf '%s\n' "$DATA"/{llama-headdim-bias,opt-post-proj,qwen2-moe-sparse-step,vit}
}

# Those beside the checkout, of Llama, Mistral, OPT, Qwen2, Qwen2-MoE and Qwen3.
beside() {
	local m
	for m in "$SHARED"/families/*; do
		[ ! -e "$m/golden.safetensors" ] || [ -e "$DATA/${m##*/}" ] || echo "$m"
	done
}

each_shipped() {	# each_shipped FUNCTION: of a model's path and name
	local m
	for m in $(shipped); do
		"$1" "$m" "${m##*/}"
	done
}

each_beside() {		# each_beside FUNCTION
	local m
	need_shared families/{llama-gqa,llama3-rope,mistral-window,opt-pre,qwen2,qwen2-moe,qwen3}
	for m in $(beside); do
		"$1" "$m" "${m##*/}"
	done
}

# The set that golden.safetensors was made from: windows of ids, or images.
calibration() {
	if grep -q '"model_type": *"vit"' "$1/config.json"; then
		calib-pack -q --images -m "$1" -n 4 --sampling=sequential "$1/golden.safetensors"
	else
		calib-pack -q --ids "$(basename "$1").ids"
	fi
}

acts() {	# acts MODEL NAME: statistics of it, once
	[ -s "$2.acts" ] || record-acts -q -c "$2.calib" --stats=all "$1" > "$2.acts"
}

agrees() {	# agrees MODEL NAME
	qp-forward -q --hidden -c "$2.calib" "$1" > out.qp
	"$PYTHON" "$ROOT/tests/golden.py" compare "$1" out.qp
}

@test "families: logits and hidden states agree with transformers to 2e-5" {
	each_shipped agrees
}

@test "families: those beside the checkout too: logits and hidden states agree with transformers to 2e-5" {
	each_beside agrees
}

smooths() {	# smooths MODEL NAME
	acts "$1" "$2"
	qp-forward -q -c "$2.calib" "$1" > was.qp
	smooth -a 0.6 "$2.acts" > s.qp
	run -1 qp-cmp -q "$2.acts" s.qp
	qp-forward -q -c "$2.calib" s.qp > is.qp
	qp-cmp --rel=1e-5 was.qp is.qp
}

@test "families: smooth leaves what the model computes on every legal edge" {
	each_shipped smooths
}

@test "families: those beside the checkout too: smooth leaves what the model computes on every legal edge" {
	each_beside smooths
}

@test "families: smooth refuses edges that a family cannot have a map on" {
	acts "$DATA/opt-post-proj" opt-post-proj
	refuses 65 'attn.in: no diagonal map can be put on this edge of this opt model' \
		smooth --edges=attn.in opt-post-proj.acts
	acts "$DATA/vit" vit
	refuses 65 'mlp.mid: no diagonal map' smooth --edges=mlp.mid vit.acts
	smooth -q --edges=attn.in,attn.mid,mlp.in vit.acts > s.qp
	smooth -q --edges=attn.mid,mlp.mid opt-post-proj.acts > s.qp
}

keeps_8_bits() {	# keeps_8_bits MODEL NAME
	acts "$1" "$2"
	rtn -q -b 8 -g -1 "$2.acts" > q.qp
	qp-forward -q -c "$2.calib" "$1" > was.qp
	qp-forward -q -c "$2.calib" q.qp > is.qp
	"$PYTHON" "$ROOT/tests/golden.py" deviation was.qp is.qp 0.05
}

@test "families: 8 bits a row change logits by less than 5 % of their deviation" {
	each_shipped keeps_8_bits
}

@test "families: those beside the checkout too: 8 bits a row change logits by less than 5 % of their deviation" {
	each_beside keeps_8_bits
}

beats_rtn() {	# beats_rtn MODEL NAME
	acts "$1" "$2"
	rtn -q -b 4 -g -1 "$2.acts" > rtn.qp
	gptq -q -b 4 -g -1 --min-tokens=0 "$2.acts" > gptq.qp
	"$PYTHON" "$ROOT/tests/golden.py" errors gptq.qp rtn.qp
}

@test "families: at 4 bits GPTQ's error is below round to nearest's in every layer" {
	each_shipped beats_rtn
}

@test "families: those beside the checkout too: at 4 bits GPTQ's error is below round to nearest's in every layer" {
	each_beside beats_rtn
}

packs() {	# packs MODEL NAME
	acts "$1" "$2"
	gptq -q -b 4 -g -1 --min-tokens=0 --sequential "$2.acts" > q.qp
	pack-int4 -q q.qp > p.qp
	qp-forward -q -c "$2.calib" q.qp > was.qp
	qp-forward -q -c "$2.calib" p.qp > is.qp
	qp-cmp was.qp is.qp
}

@test "families: packed codes compute what unpacked ones do; --sequential runs everywhere" {
	each_shipped packs
}

@test "families: those beside the checkout too: packed codes compute what unpacked ones do; --sequential runs everywhere" {
	each_beside packs
}

searches() {	# searches MODEL NAME: every map found leaves the function, no edge is worse
	local o
	acts "$1" "$2"
	qp-forward -q -c "$2.calib" "$1" > was.qp
	for o in "--search=w -b 3" "--search=w --duo --asym" "--search=wa --act-bits=4" "--search=wa --duo"; do
		smooth -q $o -g -1 "$2.acts" > s.qp
		run -1 qp-cmp -q "$2.acts" s.qp
		qp-forward -q -c "$2.calib" s.qp > is.qp
		qp-cmp -q --rel=1e-5 was.qp is.qp
		record-acts -q --stats=all - again.qp < s.qp
		qp-cmp -q --role=stat --rel=1e-4 s.qp again.qp
	done
	"$PYTHON" - s.qp <<-'END'
	import sys
	from qpstream import Stream
	s = Stream(sys.argv[1])
	notes = s.notes("search").values()
	assert len(notes) >= 2 and all(n["after"] <= n["before"] and n["act_bits"] == 8 for n in notes)
	assert any(n["moved"] for n in notes)
	END
}

@test "families: searched scales leave what the model computes; statistics follow" {
	each_shipped searches
}

@test "families: those beside the checkout too: searched scales leave what the model computes" {
	each_beside searches
}

plans() {	# plans MODEL NAME: qp-alloc | gptq --plan: each linear has the plan's bits
	local o
	acts "$1" "$2"
	smooth -q --search=w -g -1 "$2.acts" | clip -q -b 3 -g -1 > c.qp
	qp-dump c.qp | grep -c 'kind="clip"' > clipped
	for o in "--budget=4.6" "--budget=4.6 --fuse" "--budget=7 --for=vllm" "--budget=4.6 --by=rtn"; do
		qp-alloc -q $o -g -1 c.qp > plan
		gptq -q -g -1 --min-tokens=0 --plan=plan c.qp > q.qp
		grep -v '^#' plan | cut -f 1,2 | sort > want
		qp-ls --errors --tsv q.qp | tail -n +2 | cut -f 1,5 | sort | diff want -
		[ "$(cut -f 2 want | sort -u | wc -l)" -ge 2 ]
		[ "$(wc -l < want)" -ge "$(cat clipped)" ]	# clip passes over queries and keys
		qp-forward -q -c "$2.calib" q.qp > is.qp
	done
}

@test "families: search, clip, a plan and gptq compose; each linear gets the plan's bits" {
	each_shipped plans
}

@test "families: those beside the checkout too: search, clip, a plan and gptq compose" {
	each_beside plans
}

@test "families: threads do not change what experts compute" {
	local m=$DATA/qwen2-moe-sparse-step
	record-acts -q -j 1 -c qwen2-moe-sparse-step.calib --stats=all "$m" > one.qp
	record-acts -q -j 2 -c qwen2-moe-sparse-step.calib --stats=all "$m" > two.qp
	cmp one.qp two.qp
}

@test "experts: a model cut into experts has the dense model's perplexity" {
	run -0 eval-ppl -q -c 512 -w 8 -t "$EVAL" moe
	local moe=${output%% +/-*}
	run -0 eval-ppl -q -c 512 -w 8 -t "$EVAL" "$MODEL"
	[ "$moe" = "${output%% +/-*}" ]
}

@test "experts: it goes through the main job, and loses as little as the dense one" {
	calib-pack -q -m moe -n 8 -s 256 "$CALIB" > "$out/calib.qp"
	record-acts -q -c "$out/calib.qp" moe | smooth -q -a 0.5 | gptq -q -b 4 -g -1 |
		pack-int4 -q > "$out/q.qp"
	eval-ppl -q -c 512 -w 8 -t "$EVAL" --max=52 "$out/q.qp"
}

kl() {	# kl STREAM: mean divergence from the model moe
	[ -s moe.base ] || eval-ppl -q -c 512 -w 8 -t "$EVAL" --save-logits=moe.base moe > /dev/null
	eval-ppl -q --json -c 512 -w 8 -t "$EVAL" --kl=moe.base "$1" | sed 's/.*"kl": *\([0-9.e-]*\).*/\1/'
}

@test "experts: searched scales and a plan work on a trained mixture; the plan beats 4 bits everywhere" {
	calib-pack -q -m moe -n 8 -s 256 "$CALIB" > "$out/calib.qp"
	record-acts -q -c "$out/calib.qp" --stats=all moe > moe.acts
	smooth -q --search=wa -g -1 moe.acts > "$out/s.qp"
	[ "$(kl "$out/s.qp" | awk '{ print ($1 < 1e-4) }')" -eq 1 ]
	gptq -q -b 4 -g -1 moe.acts > "$out/four.qp"
	qp-ls --json "$out/four.qp" | sed -n 's/.*"bits_per_weight":\([0-9.]*\).*/\1/p' > "$out/bits"
	qp-alloc -q --budget="$(cat "$out/bits")" -g -1 moe.acts > "$out/plan"
	gptq -q -g -1 --plan="$out/plan" moe.acts > "$out/plan.qp"
	echo "$(kl "$out/four.qp") $(kl "$out/plan.qp")" > "$out/kls"
	cat "$out/kls"
	awk '{ exit !($2 < 0.92 * $1) }' "$out/kls"
}

@test "experts: qp-alloc counts the experts of a layer by their tokens, together as one linear" {
	local skip='layers.[023]|self_attn|shared|up_proj|down_proj'
	echo 1 2 3 4 | calib-pack -q --ids > "$out/calib.qp"	# 4, 1, 3, 2 and 2 tokens an expert
	record-acts -q -c "$out/calib.qp" "$DATA/qwen2-moe-sparse-step" > "$out/acts.qp"
	qp-alloc -q --by=rtn --budget=4.8 -g -1 --skip="$skip" "$out/acts.qp" > "$out/plan"
	qp-alloc -q --by=rtn --table -g -1 --skip="$skip" "$out/acts.qp" > "$out/table"
	"$PYTHON" - "$out/plan" "$out/table" <<-'END'
	import sys, itertools
	plan = {l.split("\t")[0]: int(l.split("\t")[1]) for l in open(sys.argv[1]) if l[0] != "#"}
	rows = [l.split("\t") for l in open(sys.argv[2])][1:]
	widths = (2, 3, 4, 5, 6, 8)
	assert len(rows) == 5 == len(plan)
	n = [int(r[1]) * int(r[2]) for r in rows]
	def costs(pooled):
	    best = None
	    for pick in itertools.product(range(6), repeat=5):
	        size = sum(x * widths[p] + 16 * int(r[1]) for x, r, p in zip(n, rows, pick))
	        cost = sum(float(r[4 + p]) / (1 if pooled else float(r[3])) for r, p in zip(rows, pick))
	        if size <= 4.8 * sum(n) and (not best or cost < best[0]):
	            best = cost, [widths[p] for p in pick]
	    return best[1]
	assert [plan[f"model.{r[0]}.weight"] for r in rows] == costs(True) != costs(False), (
	    plan, costs(True), costs(False))
	END
}

@test "experts: the router and the shared expert's switch stay in float" {
	acts "$DATA/qwen2-moe-sparse-step" qwen2-moe-sparse-step
	rtn -q -b 4 -g -1 qwen2-moe-sparse-step.acts | pack-int4 -q | qp-ls - > list
	run -0 grep -E 'mlp\.(gate|shared_expert_gate)\.weight ' list
	[ ${#lines[@]} -eq 2 ]
	[[ $output != *codes* ]]
	[ "$(grep -c 'experts.*codes' list)" -eq 15 ]	# 5 experts, 3 linears
}

@test "experts: coverage is noted a layer, and qp-ls --experts prints it" {
	acts "$DATA/qwen2-moe-sparse-step" qwen2-moe-sparse-step
	run -0 qp-ls --experts qwen2-moe-sparse-step.acts
	[ ${#lines[@]} -eq 2 ]
	[[ ${lines[1]} =~ ^layers.1.mlp.experts\ +5\ +288\  ]]	# 96 tokens, 3 experts each
	read -ra f <<< "${lines[1]}"
	[ $((f[5] + f[6] + f[7] + f[8] + f[9])) -eq 288 ]
	for e in 0 1 2 3 4; do
		qp-ls --json qwen2-moe-sparse-step.acts | grep "experts.$e.in.*hessian" |
			grep -q "\"tokens\":${f[5 + e]}[,}]"
	done
	refuses 65 'no notes of experts' qp-ls --experts <(record-acts -q --stats=none "$MODEL")
}

@test "experts: --moe-all sends every token everywhere, for the statistics only" {
	local m=$DATA/qwen2-moe-sparse-step
	record-acts -q -c qwen2-moe-sparse-step.calib --moe-all "$m" > all.qp
	acts "$m" qwen2-moe-sparse-step
	[ "$(qp-ls --json all.qp | grep 'experts\..*hessian' | grep -c '"tokens":96[,}]')" -eq 10 ]
	diff <(qp-ls --experts all.qp) <(qp-ls --experts qwen2-moe-sparse-step.acts)
	# what later layers see has not changed
	qp-dump all.qp | grep '^tensor layers.3.mlp.mid.*absmax' > a
	qp-dump qwen2-moe-sparse-step.acts | grep '^tensor layers.3.mlp.mid.*absmax' > b
	[ -s a ]
	cmp a b
}

@test "experts: one with too few tokens stops gptq by name, or is rounded, or borrows" {
	local m=$DATA/qwen2-moe-sparse-step few
	acts "$m" qwen2-moe-sparse-step
	refuses 65 'layers.1.mlp.experts.[0-4].in: [0-9]+ tokens came here, fewer than' \
		gptq -g -1 --min-tokens=80 qwen2-moe-sparse-step.acts "$out/no.qp"
	[ ! -e "$out/no.qp" ]
	few=$(qp-ls --experts qwen2-moe-sparse-step.acts |
		awk 'NR > 1 { for (i = 6; i <= NF; i++) n += $i < 80; print n }')
	[ "$few" -gt 0 ]
	gptq -q -g -1 --min-tokens=80 --starved=rtn qwen2-moe-sparse-step.acts > q.qp
	[ "$(qp-ls --errors q.qp | grep -c 'tokens: rtn$')" -eq $((3 * few)) ]
	gptq -q -g -1 --min-tokens=80 --starved=borrow qwen2-moe-sparse-step.acts > b.qp
	[ "$(qp-ls --errors b.qp | grep -c 'tokens: borrow$')" -eq $((2 * few)) ]
	[ "$(qp-ls --errors b.qp | grep -c 'tokens: rtn$')" -eq "$few" ]
	gptq -q -g -1 --min-tokens=80 --starved=borrow --sequential qwen2-moe-sparse-step.acts > b.qp
	qp-ls --errors b.qp | grep -q 'tokens: borrow$'
	refuses 65 'layers.1.mlp.experts' gptq -g -1 --min-tokens=80 --sequential \
		qwen2-moe-sparse-step.acts "$out/no.qp"
}

@test "experts: tensors that do not go with config.json are named" {
	local m
	for change in 's/"num_experts": *5/"num_experts": 6/' 's/"num_experts": *5/"num_experts": 4/' \
		's/"moe_intermediate_size": *40/"moe_intermediate_size": 48/' \
		's/"mlp_only_layers": *\[[^]]*\]/"mlp_only_layers": []/' \
		's/"num_experts_per_tok": *3/"num_experts_per_tok": 9/'; do
		m=$out/m
		rm -rf "$m"
		cp -r "$DATA/qwen2-moe-sparse-step" "$m"
		tr -d '\n' < "$DATA/qwen2-moe-sparse-step/config.json" | sed "$change" > "$m/config.json"
		run -1 cmp -s <(tr -d '\n' < "$DATA/qwen2-moe-sparse-step/config.json") "$m/config.json"
		refuses 65 '(model\.layers\.[13]\.mlp|config.json: num_experts_per_tok)' \
			qp-forward -i qwen2-moe-sparse-step.ids "$m"
	done
}

@test "families: images do not go into a language model, nor ids or text into a ViT" {
	refuses 65 '.*image' record-acts -c vit.calib "$DATA/opt-post-proj"
	refuses 65 '.*image' record-acts -c opt-post-proj.calib "$DATA/vit"
	refuses 65 '.*takes images' qp-forward -i opt-post-proj.ids "$DATA/vit"
	refuses 65 '.*takes images' eval-ppl -t "$EVAL" "$DATA/vit"
}

@test "experts: peak memory is the formula of record-acts' man page" {
	not_with_sanitizers "memory is not what it would be"
	"$PYTHON" "$ROOT/tests/mkmodel.py" dense hidden=768 ffn=2112 heads=12 kv=6 vocab=9000 dtype=BF16
	"$PYTHON" "$ROOT/tests/moe.py" dense cut 4
	calib-pack -q --ids <(awk '{ srand(NR); for (t = 0; t < 256; t++) printf "%d ", rand() * 9000
		print "" }' <(seq 8)) > calib.qp
	record-acts -v -c calib.qp cut 2> peak > /dev/null
	peak_is peak "$("$PYTHON" -c '
D, f, s, E, T = 768, 528, 8, 4, 2048
P = 3 * D * D + 3 * E * D * f + 3 * D * s + E * D + 3 * D
K = [D, D, D, s] + [D, f] * E
n = [-(-k // 384) for k in K]
print(4 * T * D + 6 * P + sum(2 * k * (k + 1) for k in K) +
      sum(4 * m * (m + 1) * (-(-k // m)) ** 2 for k, m in zip(K, n)) +
      4 * 2048 * (2 * D + 2 * D + 2 * D + E) + (12 << 20))')"
}

@test "families: scales that no codes go with, and what is no activation, are refused by name" {
	rtn -q -g -1 "$DATA/opt-post-proj" | qp-dump - |
		awk '/^[a-z]/ { s = /role=codes/ } !s' | qp-make - > "$out/scales.qp"
	refuses 65 'model.decoder.layers.0.*: scale or zero without codes' rtn -g -1 "$out/scales.qp"
	refuses 65 'model.decoder.layers.0.*: scale or zero without codes' \
		qp-forward -i opt-post-proj.ids "$out/scales.qp"
	for value in '[]' '["relu"]' '"tanh"'; do
		rm -rf "$out/m"
		cp -r "$DATA/opt-post-proj" "$out/m"
		sed "s/\"activation_function\": *\"relu\"/\"activation_function\": $value/" \
			"$DATA/opt-post-proj/config.json" > "$out/m/config.json"
		refuses 65 'config.json: activation_function: ' qp-forward -i opt-post-proj.ids "$out/m"
	done
}
