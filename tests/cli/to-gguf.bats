#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# to-gguf.bats - what to-gguf promises on its man page, one test per promise
#
# tests/ggufread.py reads the files: it was written from the format's description alone.

setup_file() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	"$PYTHON" "$ROOT/tests/mkmodel.py" tiny hidden=64 ffn=96 heads=4 kv=2 dtype=BF16
	rtn -q -g 32 tiny > sym.qp
	rtn -q -g 32 --asym tiny > asym.qp
	seq -s ' ' 1 20 > ids.txt
}

setup() {
	load ../helpers
	need_python numpy msgpack
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
	export PYTHONPATH=$ROOT/tests PYTHONDONTWRITEBYTECODE=1
}

# Every linear of STREAM is in FILE, bit for bit, and in blocks of one of the TYPES.
holds() {	# holds STREAM FILE TYPE...
	"$PYTHON" - "$@" <<-'END'
	import sys
	from ggufread import Gguf, linear, values
	from qpstream import Stream
	s, g = Stream(sys.argv[1]), Gguf(sys.argv[2])
	arch = g.kv["general.architecture"]
	assert s.names("codes")
	for n in s.names("codes"):
	    heads = g.kv[arch + ".attention.head_count" + ("_kv" if "k_proj" in n else "")]
	    w = linear(g, n, heads if arch == "llama" else None)
	    assert (w == values(s, n)).all(), n
	got = {t for n, t in g.types.items() if g.info[n][0][1] > 1}
	assert got == set(sys.argv[3:]), got
	END
}

same_logits() {	# same_logits MODEL MODEL
	qp-forward -q -i ids.txt "$1" > "$out/x.qp"
	qp-forward -q -i ids.txt "$2" > "$out/y.qp"
	qp-cmp "$out/x.qp" "$out/y.qp"
}

nothing_but() {	# nothing_but NAME...: in $out/d
	[ "$(ls -A "$out/d" | xargs)" = "$*" ] || { echo "there is: $(ls -A "$out/d")"; return 1; }
}

@test "to-gguf: symmetric codes are Q4_0, Q5_0 or Q8_0, bit for bit" {
	local b t
	for b in 2 3 4 5 6 8; do
		case $b in 2 | 3 | 4) t=Q4_0 ;; 5) t=Q5_0 ;; *) t=Q8_0 ;; esac
		rtn -q -b "$b" -g 32 tiny > "$out/s.qp"
		to-gguf -q --no-vocab --force "$out/s.qp" "$out/s.gguf"
		holds "$out/s.qp" "$out/s.gguf" $t
	done
}

@test "to-gguf: groups of many blocks, of a row and of the whole tensor fit as well" {
	local g
	for g in 64 -1 0; do
		rtn -q -g "$g" --skip=down_proj tiny > "$out/s.qp"
		to-gguf -q --no-vocab --force "$out/s.qp" "$out/s.gguf"
		holds "$out/s.qp" "$out/s.gguf" Q4_0
	done
}

@test "to-gguf: asymmetric codes take the smallest type that holds them exactly" {
	local b
	to-gguf -q --no-vocab asym.qp "$out/a.gguf"
	holds asym.qp "$out/a.gguf" Q5_0
	for b in 5 7; do
		rtn -q -b "$b" -g 32 --asym tiny > "$out/s.qp"
		to-gguf -q --no-vocab --force "$out/s.qp" "$out/s.gguf"
		holds "$out/s.qp" "$out/s.gguf" Q8_0
	done
}

# Scales that are powers of two have few enough digits for a minimum in F16.
powers_of_two() {
	qp-dump "$1" | awk '/^tensor/ { f = /role=scale/ } f && /^ / {
		for (i = 1; i <= NF; i++) $i = "0.015625"; $0 = " " $0 } { print }' | qp-make
}

@test "to-gguf: minima that are numbers of F16 make Q4_1 and Q5_1" {
	powers_of_two asym.qp > "$out/s.qp"
	to-gguf -q --no-vocab "$out/s.qp" "$out/s.gguf"
	holds "$out/s.qp" "$out/s.gguf" Q4_1
	rtn -q -b 5 -g 32 --asym tiny > "$out/five.qp"
	powers_of_two "$out/five.qp" > "$out/s.qp"
	to-gguf -q --no-vocab --force "$out/s.qp" "$out/s.gguf"
	holds "$out/s.qp" "$out/s.gguf" Q5_1
}

@test "to-gguf: codes on the grid of a K-quant are its blocks, bit for bit, packed or not" {
	local g o pack
	"$PYTHON" "$ROOT/tests/mkmodel.py" "$out/k" hidden=256 ffn=512 heads=4 kv=2 layers=1
	for g in q4_K q6_K; do
		case $g in q4_K) pack=pack-int4 ;; *) pack=pack-int8 ;; esac
		for o in minmax mse; do
			rtn -q --grid=$g --range=$o "$out/k" > "$out/s.qp"
			to-gguf -q --no-vocab --force "$out/s.qp" "$out/s.gguf"
			holds "$out/s.qp" "$out/s.gguf" "Q${g#q}"
		done
		$pack -q "$out/s.qp" > "$out/p.qp"
		qp-check -q "$out/p.qp"
		to-gguf -q --no-vocab --force "$out/p.qp" "$out/p.gguf"
		cmp "$out/s.gguf" "$out/p.gguf"
		same_logits "$out/p.qp" "$out/p.gguf"
		refuses 65 ".*q_proj\.weight: codes on the grid $g fit no Q8_0: --type=auto, or --requantize" \
			to-gguf -q --no-vocab --type=q8_0 "$out/s.qp" "$out/x.gguf"
		for o in to-gptq to-awq to-ct; do
			refuses 65 ".*q_proj\.weight: codes on the grid $g" $o "$out/s.qp" "$out/x"
		done
	done
	to-gguf --no-vocab --type=q8_0 --requantize "$out/s.qp" "$out/x.gguf" 2>&1 |
		grep -q 'q_proj.weight: quantized anew as Q8_0: relative error 0.00'
	refuses 65 '.*q_proj\.weight: its codes are not on the grid of Q4_K: gptq --grid=q4_K.*--requantize' \
		to-gguf -q --no-vocab --type=q4_K sym.qp "$out/y.gguf"
}

@test "to-gguf: --requantize onto the grid of a K-quant is what rtn --grid makes of the weights" {
	local g
	"$PYTHON" "$ROOT/tests/mkmodel.py" "$out/k" hidden=256 ffn=512 heads=4 kv=2 layers=1
	rtn -q -b 4 -g 64 "$out/k" > "$out/s.qp"
	to-hf -q --dequantize --dtype=f32 "$out/s.qp" "$out/d"
	for g in q4_K q6_K; do
		to-gguf --no-vocab --requantize --type=$g --force "$out/s.qp" "$out/r.gguf" 2> "$out/err"
		[ "$(grep -cE "_proj\.weight: quantized anew as Q${g#q}: relative error 0\.0[0-9.e-]+$" "$out/err")" -eq 7 ]
		grep -q '^to-gguf: 7 tensors are not what they were: relative error 0.0' "$out/err"
		rtn -q --grid=$g --range=mse "$out/d" > "$out/g.qp"
		to-gguf -q --no-vocab --force "$out/g.qp" "$out/g.gguf"
		cmp "$out/r.gguf" "$out/g.gguf"
	done
	# one K-quant from another, and packed
	rtn -q --grid=q6_K "$out/k" > "$out/s.qp"
	to-gguf --no-vocab --requantize --type=q4_K "$out/s.qp" "$out/a.gguf" 2>&1 |
		grep -q 'q_proj.weight: quantized anew as Q4_K: relative error 0.0'
	pack-int8 "$out/s.qp" | to-gguf -q --no-vocab --requantize --type=q4_K - "$out/b.gguf"
	cmp "$out/a.gguf" "$out/b.gguf"
}

@test "to-gguf: codes of e4m3 are refused, and --requantize quantizes what they stand for anew" {
	local o
	for o in "" --group-size=0 --block=16x8; do
		rtn -q --format=e4m3 $o tiny > "$out/s.qp"
		refuses 65 '.*q_proj\.weight: codes of type F8_E4M3, which GGUF has not: to-ct, or --requantize' \
			to-gguf -q --no-vocab "$out/s.qp" "$out/y.gguf"
		to-gguf --no-vocab --requantize --force "$out/s.qp" "$out/x.gguf" 2> "$out/err"
		[ "$(grep -cE 'quantized anew as Q8_0: relative error 0\.00[0-9]+$' "$out/err")" -eq 14 ]
	done
}

@test "to-gguf: --requantize of rows that are no whole super-blocks takes what llama.cpp takes" {
	rtn -q -b 4 -g 16 --asym tiny > "$out/s.qp"
	to-gguf --no-vocab --requantize --type=q4_K "$out/s.qp" "$out/x.gguf" 2>&1 |
		grep -q 'q_proj.weight: quantized anew as Q5_0: relative error 0.0'
	to-gguf --no-vocab --requantize --type=q6_K --force "$out/s.qp" "$out/x.gguf" 2>&1 |
		grep -q 'q_proj.weight: quantized anew as Q8_0: relative error 0.0'
}

@test "to-gguf: packed codes are the same file" {
	pack-int4 sym.qp | to-gguf -q --no-vocab - "$out/p.gguf"
	to-gguf -q --no-vocab sym.qp "$out/s.gguf"
	cmp "$out/p.gguf" "$out/s.gguf"
}

@test "to-gguf: same input, same bytes, however many threads" {
	to-gguf -q --no-vocab -j 1 asym.qp "$out/1.gguf"
	to-gguf -q --no-vocab -j 5 asym.qp "$out/5.gguf"
	cmp "$out/1.gguf" "$out/5.gguf"
}

@test "to-gguf: --type chooses, and refuses what that type cannot hold" {
	to-gguf -q --no-vocab --type=q8_0 sym.qp "$out/s.gguf"
	holds sym.qp "$out/s.gguf" Q8_0
	refuses 65 'model\.layers\.0\.self_attn\.q_proj\.weight: asymmetric codes: the minimum .* is no number of F16, as Q4_1 has it' \
		to-gguf -q --no-vocab --type=q4_1 asym.qp "$out/a.gguf"
	refuses 65 '.*q_proj\.weight: asymmetric codes of 4 bits reach from -[0-9]+ to [0-9]+ around their zero, beyond Q4_0' \
		to-gguf -q --no-vocab --type=q4_0 asym.qp "$out/a.gguf"
	[ ! -e "$out/a.gguf" ]
}

@test "to-gguf: what no type holds is refused with the option that helps" {
	rtn -q -g 16 --asym tiny > "$out/s.qp"
	refuses 65 '.*q_proj\.weight: asymmetric codes of group 16 need Q4_1 groups of 32: gptq -g 32' \
		to-gguf -q --no-vocab "$out/s.qp" "$out/s.gguf"
	rtn -q -g 32 --scale-dtype=f32 tiny > "$out/s.qp"
	refuses 65 '.*q_proj\.weight: scale [0-9.e-]* \(row 0 group 0\) is no number of F16.*--scale-dtype=f16' \
		to-gguf -q --no-vocab "$out/s.qp" "$out/s.gguf"
	rtn -q -b 8 -g 32 --asym tiny > "$out/s.qp"
	refuses 65 '.*q_proj\.weight: asymmetric codes of 8 bits reach .* beyond Q8_0: gptq --sym' \
		to-gguf -q --no-vocab "$out/s.qp" "$out/s.gguf"
	"$PYTHON" "$ROOT/tests/mkmodel.py" "$out/odd" hidden=64 ffn=44 heads=4 kv=2
	rtn -q -g 4 "$out/odd" > "$out/s.qp"
	rtn -q -g -1 --skip='self_attn|gate|up' "$out/odd" > "$out/s.qp"
	refuses 65 '.*down_proj\.weight: rows of 44 columns are no whole blocks of 32' \
		to-gguf -q --no-vocab "$out/s.qp" "$out/s.gguf"
	[ ! -e "$out/s.gguf" ]
}

@test "to-gguf: --requantize rounds it and says how much that costs" {
	rtn -q -g 32 --scale-dtype=f32 tiny > "$out/s.qp"
	to-gguf --no-vocab --requantize "$out/s.qp" "$out/s.gguf" 2> "$out/err"
	[ "$(grep -cE '^to-gguf: model\.layers\.[01]\..*: scales rounded as Q4_0: relative error [0-9.e-]+$' "$out/err")" -eq 14 ]
	rtn -q -g 16 --asym tiny > "$out/s.qp"
	to-gguf --no-vocab --requantize --force "$out/s.qp" "$out/s.gguf" 2> "$out/err"
	[ "$(grep -c ': quantized anew as Q4_1: relative error' "$out/err")" -eq 14 ]
	# The figure is that of numpy.
	"$PYTHON" - "$out/s.qp" "$out/s.gguf" "$out/err" <<-'END'
	import re, sys
	import numpy as np
	from ggufread import Gguf, linear, values
	from qpstream import Stream
	s, g = Stream(sys.argv[1]), Gguf(sys.argv[2])
	said = dict(re.findall(r"to-gguf: (\S+): .* error (\S+)", open(sys.argv[3]).read()))
	assert len(said) == 14
	for n, e in said.items():
	    w, v = values(s, n).astype("f8"), linear(g, n, 2 if "k_proj" in n else 4).astype("f8")
	    is_ = np.sqrt(((w - v) ** 2).sum() / (w ** 2).sum())
	    assert 0 < is_ < 0.1 and abs(float(e) - is_) < 0.01 * is_, (n, e, is_)
	END
}

@test "to-gguf: weights without codes keep their type or get --dtype; norms are F32" {
	to-gguf -q --no-vocab tiny "$out/k.gguf"
	to-gguf -q --no-vocab --dtype=f32 tiny "$out/f.gguf"
	"$PYTHON" - "$out/k.gguf" "$out/f.gguf" <<-'END'
	import sys
	from ggufread import Gguf
	k, f = Gguf(sys.argv[1]), Gguf(sys.argv[2])
	for n, t in k.types.items():
	    assert t == ("F32" if "norm" in n else "BF16") and f.types[n] == "F32", n
	    assert (k.tensor(n) == f.tensor(n)).all()
	END
	same_logits tiny "$out/k.gguf"
	same_logits tiny "$out/f.gguf"
}

@test "to-gguf: rounding to --dtype is said, a value too large for it refused" {
	to-gguf --no-vocab --dtype=f32 tiny "$out/h.gguf" 2> "$out/err"
	run -1 grep rounded "$out/err"
	smooth -q <(record-acts -q -c <(calib-pack -q --ids ids.txt) tiny) |
		to-gguf --no-vocab --dtype=bf16 - "$out/s.gguf" 2> "$out/err"
	grep -qE '^to-gguf: model\.layers\.0\..*: rounded to BF16: relative error 0\.00' "$out/err"
	"$PYTHON" "$ROOT/tests/mkmodel.py" "$out/f32" hidden=64 ffn=96 heads=4 kv=2
	record-acts -q --stats=none "$out/f32" | qp-dump |
		awk '/^tensor model.layers.1.mlp.up_proj/ { f = 1; print; next }
			f { sub(/[^ ]+/, "1e30"); f = 0 } { print }' | qp-make > "$out/big.qp"
	refuses 65 'model\.layers\.1\.mlp\.up_proj\.weight: row 0 has a value too large for F16: --dtype=bf16 or f32' \
		to-gguf -q --no-vocab --dtype=f16 "$out/big.qp" "$out/b.gguf"
}

@test "to-gguf: the file computes what the stream computes" {
	local m
	for m in sym asym; do
		to-gguf -q --no-vocab "$m.qp" "$out/$m.gguf"
		same_logits "$m.qp" "$out/$m.gguf"
	done
}

@test "to-gguf: every architecture that GGUF has keeps its logits" {
	local f
	need_shared families
	for f in llama-gqa llama-headdim-bias llama3-rope qwen2 qwen2-moe qwen3; do
		to-gguf -q --no-vocab --force "$SHARED/families/$f" "$out/f.gguf"
		same_logits "$SHARED/families/$f" "$out/f.gguf"
	done
}

# A random Qwen2-MoE whose rows are whole blocks.
moe_model() {	# moe_model DIR [TIED]
	mkdir -p "$1"
	"$PYTHON" - "$@" <<-'END'
	import json, sys
	import numpy as np
	from mkmodel import write_safetensors
	d, tied = sys.argv[1], len(sys.argv) > 2
	json.dump({"model_type": "qwen2_moe", "architectures": ["Qwen2MoeForCausalLM"],
	           "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
	           "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 32,
	           "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64,
	           "num_experts": 3, "num_experts_per_tok": 2, "norm_topk_prob": False,
	           "decoder_sparse_step": 1, "mlp_only_layers": [], "hidden_act": "silu",
	           "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
	           "tie_word_embeddings": tied}, open(d + "/config.json", "w"))
	rng, t = np.random.default_rng(1), []
	def add(name, *shape):
	    t.append((name + (".weight" if len(shape) > 1 or "norm" in name else ".bias"), shape,
	              rng.normal(0.0, 0.1, shape).astype("f4") + ("norm" in name)))
	add("model.embed_tokens", 32, 64)
	for i in range(2):
	    p = f"model.layers.{i}."
	    for n, rows in ("q", 64), ("k", 32), ("v", 32):
	        add(p + f"self_attn.{n}_proj", rows, 64)
	        add(p + f"self_attn.{n}_proj", rows)
	    add(p + "self_attn.o_proj", 64, 64)
	    add(p + "input_layernorm", 64)
	    add(p + "post_attention_layernorm", 64)
	    add(p + "mlp.gate", 3, 64)
	    add(p + "mlp.shared_expert_gate", 1, 64)
	    for e, f in [(f"experts.{k}", 32) for k in range(3)] + [("shared_expert", 64)]:
	        add(p + f"mlp.{e}.gate_proj", f, 64)
	        add(p + f"mlp.{e}.up_proj", f, 64)
	        add(p + f"mlp.{e}.down_proj", 64, f)
	add("model.norm", 64)
	if not tied:
	    add("lm_head", 32, 64)
	write_safetensors(d + "/model.safetensors", [(n, s, lambda x=x: x) for n, s, x in t], "F32")
	END
}

@test "to-gguf: experts lie side by side in one tensor, codes and all" {
	moe_model "$out/m"
	rtn -q -g 32 "$out/m" > "$out/s.qp"
	to-gguf -q --no-vocab "$out/s.qp" "$out/s.gguf"
	holds "$out/s.qp" "$out/s.gguf" Q4_0
	same_logits "$out/s.qp" "$out/s.gguf"
}

@test "to-gguf: qwen2moe gets a head of its own where the embedding is the head" {
	moe_model "$out/m" tied
	to-gguf -q --no-vocab "$out/m" "$out/m.gguf"
	"$PYTHON" -c '
import sys
from ggufread import Gguf
g = Gguf(sys.argv[1])
assert (g.tensor("output.weight") == g.tensor("token_embd.weight")).all()' "$out/m.gguf"
	same_logits "$out/m" "$out/m.gguf"
}

@test "to-gguf: experts of a stack that need different types are refused by name" {
	moe_model "$out/m"
	rtn -q -g 32 --skip='experts.2.up_proj' "$out/m" > "$out/s.qp"
	refuses 65 'blk\.0\.ffn_up_exps\.weight: experts of one stack must be of one type: expert 2 needs F32, those before it are Q4_0' \
		to-gguf -q --no-vocab "$out/s.qp" "$out/s.gguf"
}

@test "to-gguf: models that no architecture of GGUF computes are refused by name" {
	need_shared families
	refuses 65 'config: layer 0 looks back 12 tokens only' \
		to-gguf --no-vocab "$SHARED/families/mistral-window" "$out/x.gguf"
	refuses 65 'config: llama.cpp has no architecture for family opt' \
		to-gguf --no-vocab "$SHARED/families/opt-pre" "$out/x.gguf"
	refuses 65 'config: qwen2moe of GGUF .* norm_topk_prob is something else' \
		to-gguf --no-vocab "$SHARED/families/qwen2-moe-sparse-step" "$out/x.gguf"
	[ ! -e "$out/x.gguf" ]
}

@test "to-gguf: the tokenizer's keys are those of the model, tokens, scores and all" {
	to-gguf -q "$MODEL" "$out/m.gguf"
	"$PYTHON" - "$out/m.gguf" "$MODEL/tokenizer.json" <<-'END'
	import json, sys
	from ggufread import Gguf
	kv, t = Gguf(sys.argv[1]).kv, json.load(open(sys.argv[2]))
	vocab = sorted(t["model"]["vocab"], key=t["model"]["vocab"].get)
	assert kv["tokenizer.ggml.tokens"] == vocab and kv["tokenizer.ggml.model"] == "llama"
	added = {a["id"] for a in t["added_tokens"]}
	scores, types = kv["tokenizer.ggml.scores"], kv["tokenizer.ggml.token_type"]
	made = ["".join(m.split(" ") if isinstance(m, str) else m) for m in t["model"]["merges"]]
	for rank, text in enumerate(made):
	    i = t["model"]["vocab"][text]
	    assert scores[i] == -(rank + 1) and types[i] == 1
	assert all(types[i] in (2, 3) for i in added)
	assert kv["tokenizer.ggml.bos_token_id"] == 1 and kv["tokenizer.ggml.add_bos_token"] is True
	END
	head -c 3000 "$EVAL" > "$out/text"
	qp-tok -m "$MODEL" "$out/text" > "$out/a"
	qp-tok -m "$out/m.gguf" "$out/text" | cmp - "$out/a"
}

@test "to-gguf: byte-level tokenizers keep merges, types and the way text is cut" {
	local t pre
	need_shared tokenizers
	for t in llama3:llama-bpe qwen2_5:qwen2 gpt2:gpt-2; do
		pre=${t#*:} t=${t%:*}
		vocab=$("$PYTHON" -c '
import json, sys
t = json.load(open(sys.argv[1]))
print(1 + max([*t["model"]["vocab"].values(), *(a["id"] for a in t["added_tokens"])]))' \
			"$SHARED/tokenizers/$t/tokenizer.json")
		rm -rf "$out/m"
		"$PYTHON" "$ROOT/tests/mkmodel.py" "$out/m" hidden=32 ffn=32 heads=2 kv=1 layers=1 \
			vocab=$((vocab + 3)) tokenizer="$SHARED/tokenizers/$t"
		to-gguf -q --force "$out/m" "$out/m.gguf"
		"$PYTHON" -c '
import sys
from ggufread import Gguf
kv = Gguf(sys.argv[1]).kv
assert kv["tokenizer.ggml.pre"] == sys.argv[2], kv["tokenizer.ggml.pre"]
assert kv["tokenizer.ggml.tokens"][-1] == "[PAD%d]" % (len(kv["tokenizer.ggml.tokens"]) - 1)
assert kv["tokenizer.ggml.token_type"][-3:] == [5] * 3' "$out/m.gguf" "$pre"
		qp-tok -m "$out/m" "$DATA/tinystories-eval.txt" > "$out/a"
		qp-tok -m "$out/m.gguf" "$DATA/tinystories-eval.txt" | cmp - "$out/a"
	done
}

@test "to-gguf: the chat template travels, from either place" {
	cp -r "$MODEL" "$out/m"
	echo '{"chat_template": "{{ one }}"}' > "$out/m/tokenizer_config.json"
	to-gguf -q "$out/m" "$out/1.gguf"
	printf '{{ two }}' > "$out/m/chat_template.jinja"
	to-gguf -q "$out/m" "$out/2.gguf"
	"$PYTHON" -c '
import sys
from ggufread import Gguf
for path, want in zip(sys.argv[1:], ("{{ one }}", "{{ two }}")):
    assert Gguf(path).kv["tokenizer.chat_template"] == want' "$out/1.gguf" "$out/2.gguf"
}

@test "to-gguf: a stream without a tokenizer is refused, --no-vocab writes one without" {
	refuses 65 'tokenizer: the stream carries none: --no-vocab' to-gguf sym.qp "$out/s.gguf"
	[ ! -e "$out/s.gguf" ]
	refuses 64 '--pre: contradicts --no-vocab' to-gguf --no-vocab --pre=gpt-2 sym.qp "$out/s.gguf"
}

@test "to-gguf: --type without codes in the stream is refused" {
	refuses 65 'no codes in the stream, which --type is about; put rtn or gptq before to-gguf' \
		to-gguf -q --no-vocab --type=q4_0 tiny "$out/s.gguf"
}

@test "to-gguf: what is there is not touched without --force, nor by a failure with it" {
	mkdir "$out/d"
	echo old > "$out/d/x.gguf"
	refuses 73 ".*x\.gguf: is there already; --force" to-gguf -q --no-vocab sym.qp "$out/d/x.gguf"
	head -c 9000 sym.qp > "$out/cut.qp"
	run -65 to-gguf -q --no-vocab --force "$out/cut.qp" "$out/d/x.gguf"
	[ "$(cat "$out/d/x.gguf")" = old ]
	nothing_but x.gguf
	to-gguf -q --no-vocab --force sym.qp "$out/d/x.gguf"
	holds sym.qp "$out/d/x.gguf" Q4_0
	refuses 73 "/dev/null: is no regular file" to-gguf -q --no-vocab --force sym.qp /dev/null
}

@test "to-gguf: a bit that the disk turns over is noticed, wherever it is" {
	not_with_sanitizers "the shim must be loaded before the sanitizer's runtime"
	notices_every_flip "$out/f" to-gguf -q --no-vocab asym.qp "$out/f"
}

@test "to-gguf: a full disk leaves nothing behind, wherever it strikes" {
	local n at st
	local shim=${BUILD:-$ROOT/build}/shim/failwrite.so
	not_with_sanitizers "the shim must be loaded before the sanitizer's runtime"
	mkdir "$out/d"
	LD_PRELOAD=$shim FAIL_COUNT=$out/count to-gguf -q --no-vocab sym.qp "$out/d/x.gguf"
	holds sym.qp "$out/d/x.gguf" Q4_0 # short writes are no error
	rm "$out/d/x.gguf"
	n=$(cat "$out/count")
	for ((at = 1; at <= n; at++)); do
		st=0
		LD_PRELOAD=$shim FAIL_AT=$at to-gguf -q --no-vocab sym.qp "$out/d/x.gguf" \
			2> "$out/err" || st=$?
		[ "$st" -eq 74 ] || { echo "write $at of $n: exit $st"; cat "$out/err"; return 1; }
		grep -q '^to-gguf: .*No space left' "$out/err"
		nothing_but
	done
}

@test "to-gguf: killed in the middle it leaves no file" {
	local pid
	mkdir "$out/d"
	mkfifo "$out/pipe"
	to-gguf -q --no-vocab "$out/pipe" "$out/d/x.gguf" &
	pid=$!
	exec 9> "$out/pipe"
	head -c 30000 sym.qp >&9
	until [ -n "$(ls -A "$out/d")" ]; do sleep 0.05; done
	kill -TERM "$pid"
	wait "$pid" || [ $? -eq 143 ]
	exec 9>&-
	nothing_but
}

@test "to-gguf: every truncation of the stream is refused" {
	to_gguf() { to-gguf -q --no-vocab --force - "$out/t.gguf"; }
	refuses_every_prefix sym.qp to_gguf
	[ ! -e "$out/t.gguf" ]
}

@test "to-gguf: what the run time must do is refused by name" {
	qp-dump sym.qp | awk '{ print } /^block index=0/ { print "run layers.0.mlp.in must=true kind=\"hadamard\"" }' |
		qp-make > "$out/r.qp"
	run to-gguf -q --no-vocab "$out/r.qp" "$out/r.gguf"
	[ "$status" -eq 65 ] || [ "$status" -eq 76 ]
	[[ $output == *layers.0.mlp.in* || $output == *hadamard* || $output == *run* ]]
	[ ! -e "$out/r.gguf" ]
}

@test "to-gguf: peak memory is the formula of the man page" {
	not_with_sanitizers "memory is not what it would be"
	cd "$out"
	heavy_model
	rtn -q -g 32 m > r.qp
	to-gguf -v --no-vocab r.qp r.gguf 2> err
	peak_is err $((2 * D * F + 9 * MiB))
}
