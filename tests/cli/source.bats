#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# source.bats - model directories as programs read them, good ones and bad ones

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
}

# A small model of 2 blocks in the folder m (or as mkmodel's options say).
small() {	# small [KEY=VALUE...]
	need_python numpy
	rm -rf m
	"$PYTHON" "$ROOT/tests/mkmodel.py" m "$@"
}

break_it() {
	"$PYTHON" "$ROOT/tests/breakmodel.py" m "$@"
}

# The model m is refused with a message like REGEX, and no output appears.
refused() {	# refused STATUS REGEX
	refuses "$1" "$2" record-acts -q --stats=none -o out.qp m
	[ -z "$(find . -name 'out.qp*' -o -name '.out.qp*')" ] || { ls -A; return 1; }
}

# Damage the small model in one way: it is refused.
faulty() {	# faulty REGEX FAULT...
	local regex=$1
	shift
	small
	break_it "$@"
	refused 65 "$regex"
}

@test "source: a directory becomes a stream that is whole" {
	record-acts -q --stats=none "$MODEL" > a.qp
	qp-check a.qp
}

@test "source: same directory, same bytes" {
	record-acts -q --stats=none "$MODEL" > a.qp
	record-acts -q --stats=none "$MODEL/" > b.qp
	cmp a.qp b.qp
}

@test "source: programs read a directory and its stream alike" {
	record-acts -q --stats=none "$MODEL" > a.qp
	qp-cmp "$MODEL" a.qp
}

@test "source: a stream, in a file or from a pipe, is a model for every program" {
	record-acts -q --stats=none "$MODEL" > a.qp
	head -c 2000 "$EVAL" > text
	seq -s ' ' 1 20 > ids
	for m in "$MODEL" a.qp -; do
		eval-ppl -q -c 64 -t text "$m" < a.qp >> ppl
		qp-forward -q -i ids "$m" < a.qp | qp-dump - | sed 1d | cksum >> logits
		qp-tok -m "$m" text < a.qp | cksum >> tokens
		calib-pack -q -n 2 -s 32 -m "$m" text < a.qp | cksum >> calib
		record-acts -q -n 2 -s 32 -S absmax "$m" < a.qp | qp-ls --json - |
			sed 's/.*"tensors"/"tensors"/' | cksum >> acts
	done
	for f in ppl logits tokens calib; do
		[ "$(wc -l < $f)" -eq 3 ]
		[ "$(sort -u $f | wc -l)" -eq 1 ] || { echo $f; cat $f; return 1; }
	done
	[ "$(sed -n '2,3p' acts | sort -u | wc -l)" -eq 1 ]
}

@test "source: tensors are byte for byte those of the checkpoint, in the order of the plan" {
	need_python msgpack
	for dtype in F32 BF16 F16; do
		small dtype=$dtype tied=0 layers=3
		record-acts -q --stats=none m > a.qp
		"$PYTHON" - <<-'END'
		import json, msgpack, struct
		raw = open("m/model.safetensors", "rb").read()
		n = struct.unpack("<Q", raw[:8])[0]
		want = json.loads(raw[8:8 + n])
		u = msgpack.Unpacker(open("a.qp", "rb"))
		order = []
		for r in u:
		    body = b"".join(next(u) for _ in range(r.get("chunks", 0)))
		    if r["t"] == "stream":
		        plan = r["plan"]
		    if r["t"] != "tensor":
		        continue
		    w = want[r["name"]]
		    begin, end = w["data_offsets"]
		    assert body == raw[8 + n + begin:8 + n + end], r["name"]
		    assert [r["dtype"], r["shape"]] == [w["dtype"], w["shape"]], r["name"]
		    assert r["role"] == "weight"
		    order.append([r["name"], r["dtype"], r["shape"]])
		assert len(order) == len(want) == 30
		assert order == plan
		END
	done
}

@test "source: config.json and the tokenizer's files travel whole, in a fixed order" {
	need_python msgpack
	cp -r "$MODEL" m
	chmod -R u+w m
	printf 'a b\n' > m/merges.txt
	: > m/chat_template.jinja
	record-acts -q --stats=none m > a.qp
	"$PYTHON" - <<-'END'
	import msgpack
	u = msgpack.Unpacker(open("a.qp", "rb"))
	names = []
	for r in u:
	    body = b"".join(next(u) for _ in range(r.get("chunks", 0)))
	    if r["t"] == "file":
	        names.append(r["name"])
	        assert body == open("m/" + r["name"], "rb").read(), r["name"]
	assert names == ["config.json", "generation_config.json", "tokenizer.json",
	                 "tokenizer_config.json", "special_tokens_map.json", "merges.txt",
	                 "chat_template.jinja"], names
	END
}

@test "source: one file or many shards, the same stream" {
	small layers=5
	record-acts -q --stats=none m > one.qp
	break_it split 4
	[ ! -e m/model.safetensors ]
	record-acts -q --stats=none m > many.qp
	cmp one.qp many.qp
}

@test "source: a tied matrix stored as the head is the embedding" {
	need_shared models/TinyStories-656K-f32
	record-acts -q --stats=none "$SHARED/models/TinyStories-656K-f32" > a.qp
	qp-check a.qp
	qp-ls a.qp > list
	grep -q '^tensor *model.embed_tokens.weight *weight *F32 *2048x128 ' list
	grep -q '^alias *lm_head.weight *of model.embed_tokens.weight' list
}

@test "source: a tied model that is stored twice must agree with itself" {
	small vocab=2
	break_it add lm_head.weight
	refused 65 'lm_head\.weight: has shape \[2\], config.json makes it \[2, 16\]'
	small tied=0 vocab=2
	break_it config tie_word_embeddings true
	refused 65 'lm_head\.weight: is not model\.embed_tokens\.weight'
}

@test "source: rotary_emb.inv_freq of old converters is passed over" {
	small
	record-acts -q --stats=none m > a.qp
	break_it add model.layers.1.self_attn.rotary_emb.inv_freq
	record-acts -q --stats=none m | cmp a.qp -
}

@test "source: a missing tensor is named" {
	faulty 'model\.layers\.1\.mlp\.up_proj\.weight: is missing' \
		drop model.layers.1.mlp.up_proj.weight
	small tied=0
	break_it drop lm_head.weight
	refused 65 'lm_head\.weight: is missing .*tie_word_embeddings'
}

@test "source: an unknown tensor is named" {
	faulty 'model\.layers\.2\.mlp\.up_proj\.weight: is in model\.safetensors, but is no' \
		add model.layers.2.mlp.up_proj.weight
	faulty 'model\.layers\.0\.self_attn\.q_proj\.bias: .* as config\.json describes it' \
		add model.layers.0.self_attn.q_proj.bias
}

@test "source: a config that contradicts the tensors is refused by the first of them" {
	faulty 'model\.embed_tokens\.weight: has shape \[32, 16\], .* makes it \[33, 16\]' \
		config vocab_size 33
	faulty 'model\.layers\.1\..*: is in model\.safetensors, but is no tensor' \
		config num_hidden_layers 1
	faulty 'model\.layers\.2\..*: is missing' config num_hidden_layers 3
	faulty 'model\.layers\.0\.self_attn\.k_proj\.weight: has shape \[8, 16\], .* it \[4, 16\]' \
		config num_key_value_heads 1
	faulty 'model\.layers\.0\.self_attn\.q_proj\.bias: is missing' config attention_bias true
}

@test "source: a wrong shape or type is named, with both" {
	faulty 'model\.layers\.0\.mlp\.up_proj\.weight: has shape \[16, 32\], .* it \[32, 16\]' \
		shape model.layers.0.mlp.up_proj.weight 16,32
	faulty 'model\.norm\.weight: dtype I32 is not supported' dtype model.norm.weight I32
}

@test "source: lying offsets are refused by name" {
	faulty 'model\.safetensors: model\.norm\.weight: .* inside another' overlap
	faulty 'model\.safetensors: model\.norm\.weight: .* the tensor before it ends' hole
	faulty 'model\.safetensors: model\.norm\.weight: .* outside the file' outside
	faulty 'model\.safetensors: model\.norm\.weight: .* outside the file' truncated
	faulty 'model\.safetensors: model\.embed_tokens\.weight: .* hold [0-9]+ bytes' \
		offsets model.embed_tokens.weight 0 -4
	faulty 'model\.safetensors: model\.embed_tokens\.weight: .* 0 <= begin' \
		offsets model.embed_tokens.weight -64 -64
	faulty 'model\.safetensors: 3 bytes after the last tensor' trailing
	faulty 'model\.safetensors: .*duplicate.*model\.embed_tokens' duplicate
	faulty 'model\.safetensors: header of 1152921504606846976 bytes is too large' huge-header
	faulty 'model\.safetensors: header does not begin' no-header
}

@test "source: NaN and infinity in a weight are named by row and column" {
	faulty 'model\.layers\.1\.mlp\.down_proj\.weight: value at row 2 column 5 is nan' \
		value model.layers.1.mlp.down_proj.weight 69 nan
	faulty 'model\.embed_tokens\.weight: value at row 31 column 15 is -inf' \
		value model.embed_tokens.weight 511 -inf
	faulty 'model\.norm\.weight: value 15 is inf' value model.norm.weight 15 inf
	small dtype=BF16
	break_it value model.layers.0.self_attn.v_proj.weight 17 nan
	refused 65 'model\.layers\.0\.self_attn\.v_proj\.weight: value at row 1 column 1 is nan'
}

@test "source: a shard that is not there is named" {
	small shards=3
	rm m/*2-of-00003.safetensors
	refused 66 '.*2-of-00003\.safetensors: cannot open: No such file'
}

@test "source: the index and the shards must agree, and stay in the directory" {
	small shards=2
	local first
	first=$(cd m && echo *1-of-00002.safetensors)
	break_it remap model.norm.weight "$first"
	refused 65 "model\.norm\.weight: is not in $first, where model\.safetensors\.index\.json"
	small shards=2
	break_it remap model.norm.weight ""
	refused 65 'model\.norm\.weight: is in .*2-of-00002\.safetensors but not in model'
	small shards=2
	break_it remap no.such.tensor "$first"
	refused 65 "no\.such\.tensor: is not in $first"
	small shards=2
	break_it remap model.norm.weight "../m/$first"
	refused 65 "model\.safetensors\.index\.json: .*: '\.\./m/.*not the name of a file"
	break_it remap model.norm.weight "$PWD/m/$first"
	refused 65 "model\.safetensors\.index\.json: .*: '/.*not the name of a file"
	echo '{' > m/model.safetensors.index.json
	refused 65 'model\.safetensors\.index\.json: not JSON'
}

@test "source: what config.json asks for and this build lacks is refused by key and value" {
	faulty "config\.json: model_type: 'mystery9' is not supported \(known: .*llama" \
		config model_type '"mystery9"'
	faulty "config\.json: hidden_act: 'gelu' is not supported" config hidden_act '"gelu"'
	faulty "config\.json: rope_scaling: rope_type 'yarn' is not supported" \
		config rope_scaling '{"rope_type":"yarn","factor":4}'
	faulty "config\.json: sliding_window: '4096' is not supported" config sliding_window 4096
	faulty "config\.json: quantization_config: .* \(quant_method 'hqq'\)" \
		config quantization_config '{"quant_method":"hqq"}'
	faulty 'config\.json: hidden_size: is missing' config hidden_size null
	faulty 'config\.json: num_key_value_heads: 3 does not divide' config num_key_value_heads 3
}

@test "source: no directory, no config.json, no weights: 66 and the path" {
	refuses 66 'nowhere: No such file' record-acts --stats=none nowhere
	mkdir m
	refused 66 'm/config\.json: cannot open'
	cp "$MODEL/config.json" m
	refused 66 'm: has neither model\.safetensors nor model\.safetensors\.index\.json'
	: > m/pytorch_model.bin
	refused 66 'm: .*pytorch_model\.bin is not read'
	mkdir m/model.safetensors
	refused 66 'm/model\.safetensors: is a directory'
}

@test "source: one safetensors file is not a model" {
	refuses 65 '.*model\.safetensors: is a part of a model: name the directory' \
		record-acts --stats=none "$MODEL/model.safetensors"
}

@test "source: a tokenizer comes from a directory, a tokenizer.json, or a stream, all alike" {
	record-acts -q --stats=none "$MODEL" > a.qp
	record-acts -q -z --stats=none "$MODEL" > z.qp
	(printf ' \n'; cat "$MODEL/tokenizer.json") > t.json
	local m
	qp-tok -m "$MODEL" "$EVAL" > want
	[ "$(wc -w < want)" -gt 1000 ]
	for m in "$MODEL/" "$MODEL/tokenizer.json" t.json a.qp z.qp; do
		qp-tok -m "$m" "$EVAL" | cmp want -
	done
	qp-tok -m - "$EVAL" < a.qp | cmp want -
}

@test "source: where there is no tokenizer, the place is named" {
	small
	record-acts -q --stats=none m > a.qp
	refuses 66 'm: carries no tokenizer\.json, tokenizer\.model or vocab\.json with' qp-tok -m m "$EVAL"
	refuses 65 'a\.qp: carries no tokenizer\.json' qp-tok -m a.qp "$EVAL"
	refuses 66 'nowhere: ' qp-tok -m nowhere "$EVAL"
	refuses 65 '.*not a quantpipe stream' qp-tok -m "$EVAL" "$EVAL"
}

@test "source: memory is bounded by the largest tensor, not by the model" {
	not_with_sanitizers "memory"
	local layers
	for layers in 2 40; do
		small hidden=256 heads=8 ffn=512 vocab=64 layers=$layers
		record-acts -v --stats=none m 2> err > /dev/null
		sed 's/.*peak \([0-9]*\).*/\1/' err > peak.$layers
	done
	[ "$(wc -c < m/model.safetensors)" -ge 80000000 ]
	[ "$(cat peak.40)" -le $(($(cat peak.2) + 2)) ] || { cat peak.*; return 1; }
}

@test "source: models that transformers wrote, as 4 and as 5 write config.json" {
	need_shared families/llama-gqa families/llama-headdim-bias families/llama3-rope
	local f
	for f in llama-gqa llama-headdim-bias llama3-rope; do
		record-acts -q --stats=none "$SHARED/families/$f" > a.qp
		qp-check a.qp
		qp-cmp "$SHARED/families/$f" a.qp
	done
}

@test "source: a family that is not supported is refused by name, never read by guess" {
	need_shared families
	local d type
	for d in "$SHARED"/families/*/; do
		type=$(sed -n 's/.*"model_type": "\(.*\)".*/\1/p' "$d/config.json")
		record-acts -q --stats=none "$d" > a.qp 2> err || {
			grep -q "config.json: .*'$type' is not supported (known: " err || {
				cat err
				return 1
			}
			continue
		}
		qp-check a.qp
	done
}
