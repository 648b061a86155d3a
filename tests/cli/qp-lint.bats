#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# qp-lint.bats - what qp-lint promises on its man page; each rule has a copy broken on purpose

setup_file() {
	load ../helpers
	need_python numpy
	cd "$BATS_FILE_TMPDIR"
	"$PYTHON" "$ROOT/tests/mkmodel.py" tiny hidden=64 ffn=128 heads=4 kv=2
	rtn -q -g 32 tiny > sym.qp
	rtn -q -g 32 --asym tiny > asym.qp
	to-gptq -q sym.qp gptq
	to-awq -q asym.qp awq
	to-hf -q --max-shard=40K tiny shards
	to-hf -q tiny plain
}

setup() {
	load ../helpers
	need_python numpy
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
	export PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1
}

# Copy DIR and change it: PYTHON has config c, its quantization q, and tensors t = {name: (dtype,
# shape, bytes)} of the first file, meta, and dir d.
broken() {	# broken DIR PYTHON
	rm -rf "$out/d"
	cp -r "$1" "$out/d"
	"$PYTHON" - "$out/d" "$2" <<-'END'
	import glob, json, os, struct, sys
	d, code = sys.argv[1:]
	four = ("qweight", "qzeros", "scales", "g_idx")
	c = json.load(open(d + "/config.json"))
	q = c.get("quantization_config")
	path = sorted(glob.glob(d + "/*.safetensors"))[0]
	raw = open(path, "rb").read()
	n = struct.unpack("<Q", raw[:8])[0]
	head = json.loads(raw[8:8 + n])
	meta = head.pop("__metadata__")
	t = {k: (v["dtype"], v["shape"], raw[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]])
	     for k, v in head.items()}
	exec(code)
	json.dump(c, open(d + "/config.json", "w"))
	head, at = {"__metadata__": meta}, 0
	for k, v in t.items():
	    head[k] = {"dtype": v[0], "shape": v[1], "data_offsets": [at, at + len(v[2])]}
	    at += len(v[2])
	text = json.dumps(head).encode()
	open(path, "wb").write(struct.pack("<Q", len(text)) + text + b"".join(v[2] for v in t.values()))
	END
}

# The copy fails by that rule, and is fine without the change.
fails() {	# fails DIR PYTHON FOR RULE REGEX [OPTION...]
	broken "$1" pass
	qp-lint --for="$3" "${@:6}" "$out/d" || return 1
	broken "$1" "$2"
	run -1 qp-lint --for="$3" "${@:6}" "$out/d"
	grep -qE "^$4: .*$5" <<< "$output" || { echo "said: $output"; return 1; }
}

P='p = "model.layers.0."; '

@test "qp-lint: models of other people are fine, and what we write is" {
	qp-lint plain
	qp-lint shards
	qp-lint "$MODEL"
	qp-lint --for=vllm,sglang,transformers,llama.cpp gptq
	qp-lint --for=vllm,sglang,transformers awq
}

@test "qp-lint: config" {
	rm -rf "$out/d"
	mkdir "$out/d"
	refuses 66 '.*/d: is no model directory' qp-lint "$out/d"
	cp plain/model.safetensors "$out/d"
	run -1 qp-lint "$out/d"
	[[ $output == *"config: vllm,sglang,transformers,llama.cpp: config.json: is missing"* ]]
	fails plain 'c.pop("model_type")' vllm config 'has no model_type'
}

@test "qp-lint: format-pt" {
	fails plain 'meta = {}' transformers format-pt 'does not say format pt'
}

@test "qp-lint: index" {
	fails shards 'x = next(iter(t)); t[x + "_more"] = t[x]' vllm index 'is in .*, but not in the index'
	fails shards 't.pop(next(iter(t)))' vllm index 'is in the index, but in no file'
	fails shards 'os.remove(d + "/model.safetensors.index.json")' vllm index 'is missing, but there are'
}

@test "qp-lint: tied" {
	fails plain 'c["tie_word_embeddings"] = False' vllm tied 'lm_head: is missing'
}

@test "qp-lint: method" {
	fails gptq 'c.pop("quantization_config")' vllm method 'has no quantization_config'
}

@test "qp-lint: parts" {
	fails gptq "$P"'t.pop(p + "mlp.up_proj.qzeros")' vllm parts 'layers\.0\.mlp\.up_proj: has no qzeros'
	fails awq "$P"'t.pop(p + "mlp.up_proj.scales")' sglang parts 'layers\.0\.mlp\.up_proj: has no scales'
}

@test "qp-lint: g-idx" {
	fails gptq "$P"'t.pop(p + "mlp.up_proj.g_idx")' vllm g-idx 'up_proj: has no g_idx'
	qp-lint --for=sglang "$out/d"
}

@test "qp-lint: scale-dtype" {
	fails gptq "$P"'n = p + "mlp.up_proj.scales"; t[n] = ("F32", t[n][1], t[n][2] * 2)' \
		vllm scale-dtype 'scales of type F32'
}

@test "qp-lint: gptq-v2" {
	fails gptq 'q["checkpoint_format"] = "gptq_v2"' sglang gptq-v2 'every zero is off by one'
}

@test "qp-lint: gptq" {
	fails gptq 'q["sym"] = False' vllm gptq 'asymmetric GPTQ is not read: to-awq'
	fails gptq 'q["bits"] = 3' vllm gptq 'only 4 and 8 are read'
	fails gptq 'q["group_size"] = 48' vllm gptq 'group_size 48'
	fails gptq 'q.pop("desc_act")' vllm gptq 'has no desc_act'
}

@test "qp-lint: awq" {
	fails awq 'q.pop("zero_point")' vllm awq 'has no zero_point'
	fails awq 'q["bits"] = 8' vllm awq 'other than 4 bits'
}

@test "qp-lint: convert" {
	run -1 qp-lint --for=llama.cpp awq
	[[ $output == "convert: llama.cpp: config.json: AWQ is not converted"* ]]
	fails gptq 'q["bits"] = 3' llama.cpp convert 'GPTQ of 3 bits'
}

@test "qp-lint: transform, of SGLang always, of vLLM beyond one rank" {
	local more='q["transform_config"] = {"config_groups": {"R4": {}}}'
	fails gptq "$more" sglang transform 'is not obeyed'
	fails gptq "$more" vllm transform 'one rank only' --tp=2
	qp-lint --for=vllm "$out/d"
}

@test "qp-lint: ct-bits" {
	fails plain 'c["quantization_config"] = {"quant_method": "compressed-tensors",
		"config_groups": {"g": {"weights": {"num_bits": 3}}}}' \
		vllm ct-bits 'codes of 3 bits are packed otherwise'
}

@test "qp-lint: fused" {
	fails gptq "$P"'n = p + "self_attn.k_proj."
[t.pop(n + x) for x in four]
t[n + "weight"] = ("F32", [32, 64], bytes(8192))' \
		vllm fused 'q_proj: is in codes, k_proj is a weight'
	fails gptq "$P"'n = p + "mlp.up_proj."
a, b = t[n + "scales"], t[n + "qzeros"]
t[n + "scales"] = (a[0], [1, 128], a[2][:256])
t[n + "qzeros"] = (b[0], [1, 16], b[2][:64])' \
		sglang fused 'gate_proj: has other bits or groups than up_proj'
}

@test "qp-lint: layers" {
	fails plain 't = {k: v for k, v in t.items() if ".layers.1." not in k}' \
		vllm layers 'layers\.1\.: has no tensors'
	fails gptq 'c["num_hidden_layers"] += 1' transformers layers 'has no tensors'
}

@test "qp-lint: embedding" {
	fails plain 'c["hidden_size"] = 32' vllm embedding 'embed_tokens\.weight: is .* x 64, .* x 32'
	fails gptq 'c["vocab_size"] += 1' llama.cpp embedding 'embed_tokens\.weight: is '
}

@test "qp-lint: a file that is cut short, or whose header lies, is told by any loader's name" {
	rm -rf "$out/d"
	cp -r gptq "$out/d"
	truncate -s -100 "$out"/d/*.safetensors
	run -1 qp-lint --for=vllm "$out/d"
	[[ $output == readable:*"outside the file"* ]]
}

@test "qp-lint: experts" {
	fails gptq "$P"'t[p + "mlp.experts.1.up_proj.weight"] = ("F32", [1], bytes(4))
for x in four: t[p + "mlp.experts.0.up_proj." + x] = ("I32", [1, 1], bytes(4))' \
		vllm experts 'experts\.1\.up_proj: is a weight, expert 0 is not'
}

@test "qp-lint: routers" {
	fails gptq "$P"'
for x in four: t[p + "mlp.gate." + x] = ("I32", [1, 1], bytes(4))' \
		vllm routers 'mlp\.gate: is in codes'
}

@test "qp-lint: tp" {
	fails gptq 'c["num_attention_heads"] = 3' vllm tp '3 heads are not shared out' --tp=2
	run -1 qp-lint --for=vllm --tp=4 gptq
	[[ $output == *"o_proj: 64 columns on 4 ranks are no whole groups of 32"* ]]
}

@test "qp-lint: ignore" {
	fails awq 'q["modules_to_not_convert"] = ["no.such.module"]' vllm ignore "'no.such.module' matches no module"
}

@test "qp-lint: every rule has a test here, a date and a source" {
	qp-lint --rules > "$out/rules"
	grep -oE '^[a-z][a-z0-9-]*' "$out/rules" | sort -u > "$out/names"
	[ "$(wc -l < "$out/names")" -ge 18 ]
	while read -r name; do
		grep -qE "^@test \"qp-lint: $name[\",]" "$BATS_TEST_FILENAME" || { echo "$name"; return 1; }
	done < "$out/names"
	[ "$(grep -cE '^    .*, 202[0-9]-[0-9][0-9]$' "$out/rules")" -eq "$(grep -c '^[a-z]' "$out/rules")" ]
}

@test "qp-lint: --for takes names that it knows; what is not there exits 66" {
	refuses 64 "--for: expected names .* got 'ollama'" qp-lint --for=ollama tiny
	refuses 66 '/no/such' qp-lint /no/such
}
