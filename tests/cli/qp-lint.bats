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
	to-gptq -q --v2 --dtype=f16 asym.qp asym
	sed -i 's/gptq_v2/gptq/g' asym/*config.json
	to-ct -q sym.qp ct
	to-ct -q asym.qp asym-ct
	rtn -q -b 8 -g -1 tiny | to-ct -q --activations=dynamic-token - w8a8
	to-gguf -q --no-vocab sym.qp q.gguf
	rtn -q -g 32 "$MODEL" | to-gguf -q - vocab.gguf
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
	qp-lint ct
	qp-lint asym-ct
	qp-lint w8a8
	qp-lint q.gguf
	qp-lint vocab.gguf
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

@test "qp-lint: transforms that to-ct writes are no linears; of queries and keys vLLM obeys none" {
	record-acts -q -S none tiny | rotate -q -r r4 | rtn -q -g 32 | to-ct -q - "$out/r4"
	grep -q transform_config "$out/r4/config.json"
	qp-lint --for=vllm,transformers "$out/r4"
	record-acts -q -S none tiny | rotate -q -r r3 | rtn -q -g 32 | to-ct -q - "$out/r3"
	run -1 qp-lint --for=vllm "$out/r3"
	[[ $output == *"R3_16: turns at q_attn, which is not obeyed"* ]]
	run -1 grep -v 'which is not obeyed' <<< "$output"
	qp-lint --for=transformers "$out/r3"
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
		sglang fused 'gate_proj: has another scheme than up_proj'
	# Of one size, but asymmetric; of other blocks
	fails ct 'import copy; g = q["config_groups"]
g["other"] = copy.deepcopy(g["group_0"]); g["other"]["weights"]["symmetric"] = False
g["other"]["targets"] = ["re:.*[kv]_proj"]; g["group_0"]["targets"] = ["re:.*([qo]|up|gate|down)_proj"]' \
		sglang fused 'q_proj: has another scheme than k_proj'
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
	fails gptq "$P"'
for x in four: t[p + "mlp.experts.0.up_proj." + x] = t[p + "mlp.up_proj." + x]
for x in four: t[p + "mlp.experts.1.up_proj." + x] = t[p + "mlp.down_proj." + x]' \
		vllm experts 'experts\.1\.up_proj: has another scheme than expert 0'
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
	fails gptq 'c["num_attention_heads"], c["num_key_value_heads"] = 6, 3' \
		vllm tp '3 heads of keys and values are neither' --tp=2
	rtn -q --format=e4m3 --block=16x32 tiny | to-ct -q - "$out/f8"
	qp-lint --for=vllm,sglang --tp=2 "$out/f8"
	run -1 qp-lint --for=vllm --tp=4 "$out/f8"
	[[ $output == *"o_proj: 64 columns on 4 ranks are no whole blocks of 32"* ]]
	[[ $output == *"k_proj: 32 rows on 4 ranks are no whole blocks of 16"* ]]
}

@test "qp-lint: ignore" {
	fails awq 'q["modules_to_not_convert"] = ["no.such.module"]' vllm ignore "'no.such.module' matches no module"
}

@test "qp-lint: what others wrote for a loader is fine there" {
	local shared=${QP_SHARED:-$ROOT/../shared/data}/interop
	[ -d "$shared" ] || skip "no shared data"
	for d in "$shared"/ct-* "$shared"/st-f16 "$shared"/st-sharded*; do
		run -0 qp-lint --for=transformers "$d"
	done
	for d in "$shared"/ct-*; do
		rm -rf "$out/d"
		cp -r "$d" "$out/d"
		rm "$out/d/golden.safetensors"
		qp-lint --for=vllm,sglang "$out/d"
	done
	for d in "$shared"/gguf-*/*.gguf; do qp-lint "$d"; done
}

@test "qp-lint: stray" {
	fails plain 'import shutil; shutil.copy(path, d + "/other.safetensors")' \
		vllm stray 'other.safetensors: is read too'
	qp-lint --for=transformers,llama.cpp "$out/d"
}

@test "qp-lint: names" {
	fails plain "$P"'t.pop(p + "mlp.up_proj.weight")' vllm names 'layers\.0\.mlp\.up_proj\.weight: is missing'
	fails gptq "$P"'[t.pop(p + "mlp.up_proj." + x) for x in four]' transformers names 'up_proj\.weight: is missing'
}

@test "qp-lint: architecture" {
	fails plain 'c.pop("architectures")' vllm architecture 'the class is not known'
	fails plain 'c["architectures"] = ["NoSuchForCausalLM"]' sglang architecture 'NoSuchForCausalLM is not in the table'
	fails plain 'c["architectures"] = ["OPTForCausalLM"]' llama.cpp architecture 'OPTForCausalLM is not read'
	run -0 qp-lint --for=vllm,sglang,transformers "$out/d"
}

@test "qp-lint: shapes" {
	fails gptq 'q["group_size"] = 64' sglang shapes 'qzeros is \[2, '
	fails awq "$P"'n = p + "mlp.up_proj.scales"; t[n] = ("F16", t[n][1][::-1], t[n][2])' \
		vllm shapes 'scales is \[128, 2\], not \[2, 128\]'
	fails gptq "$P"'n = p + "mlp.up_proj.g_idx"; t[n] = ("I32", [32], t[n][2][:128])' \
		llama.cpp shapes 'g_idx is \[32, 0\], not \[64, 0\]'
	fails awq 'q["group_size"] = 48' vllm shapes 'no whole groups of 48'
}

@test "qp-lint: gptq-zero" {
	fails asym "$P"'n = p + "mlp.up_proj.qzeros"; t[n] = ("I32", t[n][1], b"\xff" + t[n][2][1:])' \
		sglang gptq-zero 'up_proj: 2 zeros are stored as 15, which some loaders take for 0 and some for 16'
	qp-lint --for=transformers "$out/d"
}

@test "qp-lint: act-order" {
	fails gptq 'q["desc_act"] = True' vllm act-order 'q_proj: 64 rows of 64 columns with desc_act'
}

@test "qp-lint: gptq-f16" {
	fails asym 'c["torch_dtype"] = "bfloat16"' sglang gptq-f16 'in a model of bfloat16'
}

@test "qp-lint: damp" {
	fails gptq 'q["damp_percent"] = 1' transformers damp 'damp_percent 1 is not between'
}

@test "qp-lint: ct-keys" {
	local g='g = q["config_groups"]["group_0"]; w = g["weights"]; '
	fails ct "$g"'w["bits"] = 4' vllm ct-keys "weights has a key 'bits'"
	fails ct "$g"'w.pop("num_bits")' sglang ct-keys 'weights has no num_bits'
	fails ct "$g"'w["type"] = "integer"' transformers ct-keys "type 'integer'"
	fails ct "$g"'w["strategy"] = "row"' vllm ct-keys "strategy 'row'"
	fails ct "$g"'w["group_size"] = None' vllm ct-keys 'without a group_size'
	fails ct "$g"'g["targets"] = []' vllm ct-keys 'has no targets'
	fails ct "$g"'g["format"] = "packed"' vllm ct-keys "format 'packed' is not known"
	fails ct 'q["format"] = "packed"' vllm ct-keys "format 'packed' is not known"
	fails ct 'q["config_groups"] = {}' vllm ct-keys 'no config_groups'
}

@test "qp-lint: ct-scheme" {
	local g='g = q["config_groups"]["group_0"]; w = g["weights"]; '
	fails ct "$g"'w["num_bits"] = 2' sglang ct-scheme 'only 4 and 8 are read'
	fails asym-ct "$g"'w["num_bits"] = 2' vllm ct-scheme 'packed codes of 2 bits, asymmetric'
	fails ct "$g"'w["strategy"] = "tensor"' vllm ct-scheme 'only group and channel'
	fails w8a8 "$g"'g["input_activations"]["strategy"] = "tensor"' vllm ct-scheme 'dynamic input_activations by tensor: only by token'
	fails w8a8 "$g"'g["input_activations"]["dynamic"] = False' vllm ct-scheme 'static input_activations by token: only by tensor'
	fails w8a8 "$g"'w["symmetric"] = False' vllm ct-scheme 'asymmetric are not read'
}

@test "qp-lint: ct-cache" {
	local kv='q["kv_cache_scheme"] = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor", "dynamic": False}
for i in (0, 1):
    for x in "kv": t["model.layers.%d.self_attn.%s_scale" % (i, x)] = ("F32", [1], bytes(4))
'
	broken ct "$kv"
	qp-lint --for=vllm "$out/d"
	fails ct "$kv"'q["kv_cache_scheme"]["type"] = "int"' vllm ct-cache 'only 8-bit floats'
	fails ct "$kv"'q["kv_cache_scheme"]["dynamic"] = True' vllm ct-cache 'static'
	fails ct "$kv"'t.pop("model.layers.1.self_attn.v_scale")' vllm ct-cache 'layers\.1\.self_attn\.v_scale: is missing'
}

@test "qp-lint: ct-parts" {
	local n="$P"'n = p + "mlp.up_proj."; g = q["config_groups"]["group_0"]; '
	fails ct "$n"'x = t[n + "weight_packed"]; t[n + "weight_packed"] = ("I32", [128, 4], x[2][:2048])' \
		vllm ct-parts 'weight_packed has 4 words a row, 2 groups of 32'
	fails asym-ct "$n"'t.pop(n + "weight_zero_point")' vllm ct-parts 'up_proj: has no weight_zero_point'
	fails asym-ct "$n"'x = t[n + "weight_zero_point"]; t[n + "weight_zero_point"] = ("I32", [2, 16], x[2])' \
		vllm ct-parts 'weight_zero_point is not I32 \[16, 2\]: zeros are packed down the rows'
	fails ct "$n"'g["weights"]["actorder"] = "group"' vllm ct-parts 'has no weight_g_idx'
	fails w8a8 "$n"'t[n + "weight"] = ("U8", *t[n + "weight"][1:])' vllm ct-parts 'weight of type U8, not I8'
	fails w8a8 "$n"'t[n + "weight_scale"] = (t[n + "weight_scale"][0], [1, 128], t[n + "weight_scale"][2])' \
		vllm ct-parts 'weight_scale is not \[128, 1\]'
	fails w8a8 "$n"'g["input_activations"].update(dynamic=False, strategy="tensor", symmetric=False)' \
		vllm ct-parts 'has no input_scale'
	[[ $output == *"has no input_zero_point"* ]]
}

@test "qp-lint: ct-cover" {
	fails ct 'q["ignore"].append("model.layers.0.mlp.up_proj")' vllm ct-cover 'up_proj: is in codes, but ignore names it'
	fails ct 'q["config_groups"]["group_0"]["targets"] = ["re:.*self_attn.*"]' sglang ct-cover \
		'mlp\.up_proj: is in codes, but no config group targets it'
	fails ct "$P"'n = p + "mlp.up_proj."
for x in ("packed", "scale", "shape"): t.pop(n + "weight_" + x)
t[n + "weight"] = ("F32", [128, 64], bytes(32768))' transformers ct-cover 'up_proj: is a weight, but a config group targets it'
}

# Copy FILE and patch it: PYTHON has b, a bytearray; info(name): where behind the name its rank is.
gguf_fails() {	# gguf_fails FILE PYTHON RULE REGEX
	qp-lint "$1" || return 1
	"$PYTHON" - "$1" "$out/x.gguf" "$2" <<-'END'
	import struct, sys
	b = bytearray(open(sys.argv[1], "rb").read())
	def info(name):
	    return b.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)
	exec(sys.argv[3])
	open(sys.argv[2], "wb").write(b)
	END
	run -1 qp-lint "$out/x.gguf"
	grep -qE "^$3: llama\.cpp: .*$4" <<< "$output" || { echo "said: $output"; return 1; }
}

@test "qp-lint: gguf" {
	gguf_fails q.gguf 'at = info(b"blk.0.attn_q.weight") + 4 + 16 + 4; b[at] ^= 32' gguf 'attn_q\.weight: '
	gguf_fails q.gguf 'b[4] = 99' gguf 'version'
	gguf_fails q.gguf 'at = info(b"blk.0.attn_q.weight"); b[at - 1] = 122' gguf 'missing|no tensor'
	gguf_fails q.gguf 'del b[-100:]' gguf ''
}

@test "qp-lint: gguf-version" {
	gguf_fails q.gguf 'at = info(b"general.quantization_version"); b[at - 1] = 109' gguf-version 'no general.quantization_version 2'
}

@test "qp-lint: gguf-vocab" {
	gguf_fails vocab.gguf 'at = info(b"tokenizer.ggml.tokens"); b[at - 1] = 122' gguf-vocab 'tokens: is missing'
}

@test "qp-lint: gguf-f32" {
	gguf_fails q.gguf 'at = info(b"blk.0.attn_norm.weight") + 4 + 8; b[at] = 26' gguf-f32 'attn_norm\.weight: is of type I32'
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
