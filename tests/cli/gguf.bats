#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# gguf.bats - GGUF files as models, good ones and bad ones

setup() {
	load ../helpers
	set -o pipefail
	cd "$BATS_TEST_TMPDIR"
	GGUF=$DATA/stories260K/stories260K-Q4_0.gguf
}

# A small model m and its file m.gguf: options of mkmodel.py, "--", options of mkgguf.py.
small() {	# small [KEY=VALUE...] [-- KEY=VALUE...]
	local model=()
	need_python numpy
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		model+=("$1")
		shift
	done
	rm -rf m m.gguf
	"$PYTHON" "$ROOT/tests/mkmodel.py" m "${model[@]}"
	"$PYTHON" "$ROOT/tests/mkgguf.py" m m.gguf "${@:2}"
}

stream() {
	record-acts -q --stats=none "$@"
}

# m.gguf is refused with a message like REGEX, and no output appears.
refused() {	# refused REGEX
	refuses 65 "m\.gguf: $1" record-acts -q --stats=none -o out.qp m.gguf
	[ -z "$(find . -name 'out.qp*' -o -name '.out.qp*')" ] || { ls -A; return 1; }
}

# The small model, written with these options of mkgguf.py, is refused.
faulty() {	# faulty REGEX KEY=VALUE...
	local regex=$1
	shift
	small -- "$@"
	refused "$regex"
}

# The header of a model's stream.
header() {
	stream "$1" | qp-dump | sed '/^file/,$d'
}

@test "gguf: every type's weights are what numpy makes of the same bytes, bit for bit" {
	for type in F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K; do
		small hidden=256 ffn=512 vocab=48 tied=0 -- type=$type twin=twin
		qp-cmp twin m.gguf
		[ "$type" = F32 ] || refuses_nothing qp-cmp -q m m.gguf
	done
}

# As "refuses", for a comparison that must find a difference: exit 1, and no message.
refuses_nothing() {
	run --separate-stderr -1 "$@"
	[ -z "$stderr" ]
}

@test "gguf: F32, F16 and BF16 pass as they are, quantized types come out as F32" {
	for type in F32 F16 BF16; do
		small dtype=$type -- type=$type
		qp-ls m.gguf > list
		grep -q "q_proj.weight *weight *$type " list
		grep -q "input_layernorm.weight *weight *F32 " list
	done
	small hidden=32 -- type=Q8_0
	qp-ls m.gguf | grep -q 'q_proj.weight *weight *F32 '
}

@test "gguf: the model that a directory makes, the model that its conversion makes: one header" {
	need_python numpy
	for options in "tied=1" "tied=0 kv=4" "tied=0 linear=4" "heads=2 kv=1 layers=3"; do
		small $options
		qp-cmp m m.gguf
		header m > a
		header m.gguf > b
		grep -q max_position_embeddings a
		diff a b
	done
}

@test "gguf: rotary factors become the parameters of Llama 3's scaling" {
	need_shared families/llama3-rope
	need_python numpy
	m=$SHARED/families/llama3-rope
	"$PYTHON" "$ROOT/tests/mkgguf.py" "$m" m.gguf
	header "$m" > a
	header m.gguf > b
	diff a b
	grep -q llama3 b
}

@test "gguf: every family's weights, and the logits of the directory" {
	need_shared families
	need_python numpy
	n=0
	for m in "$SHARED"/families/*; do
		# GGUF has none of the first three, and a mixture in every block of the last
		case $m in */opt-*|*/vit|*/mistral-*|*sparse-step) continue ;; esac
		"$PYTHON" "$ROOT/tests/mkgguf.py" "$m" m.gguf
		qp-cmp "$m" m.gguf
		echo 3 17 200 5 9 311 0 > ids
		qp-forward -q "$m" a.qp < ids
		qp-forward -q m.gguf b.qp < ids
		qp-cmp a.qp b.qp
		header "$m" > a
		header m.gguf > b
		diff a b
		n=$((n + 1))
	done
	[ $n -ge 6 ]
}

@test "gguf: experts are taken out of their stacks, quantized ones too" {
	need_shared families/qwen2-moe
	need_python numpy
	m=$SHARED/families/qwen2-moe
	"$PYTHON" "$ROOT/tests/mkgguf.py" "$m" m.gguf type=F16 twin=twin
	qp-cmp twin m.gguf
	qp-ls m.gguf | grep -q 'layers\.2\.mlp\.experts\.5\.down_proj\.weight *weight *F16 *48x40 '
	"$PYTHON" "$ROOT/tests/mkgguf.py" "$m" m.gguf set=qwen2moe.expert_count:u32:7
	refuses 65 'm\.gguf: blk\.0\.ffn_gate_inp\.weight: has shape \[6, 48\], the keys make it \[7, 48\]' \
		qp-ls m.gguf
	"$PYTHON" "$ROOT/tests/mkgguf.py" "$m" m.gguf drop=blk.1.ffn_up_exps.weight
	refuses 65 'm\.gguf: blk\.1\.ffn_up_exps\.weight: is missing \(model\.layers\.1\.mlp\.experts\.0\.up' \
		qp-ls m.gguf
	"$PYTHON" "$ROOT/tests/mkgguf.py" "$SHARED/families/qwen2-moe-sparse-step" m.gguf
	refuses 65 'm\.gguf: blk\.0\.ffn_gate_inp\.weight: is missing' qp-ls m.gguf
}

@test "gguf: llama.cpp's own file, its weights as gguf-py computes them" {
	need_python numpy
	need_python msgpack
	stream "$GGUF" > a.qp
	qp-check a.qp
	"$PYTHON" - "${GGUF%.gguf}.sha256" <<-'END'
	import hashlib, msgpack, numpy as np, sys
	names = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj",
	         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
	         "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
	         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
	         "token_embd": "model.embed_tokens", "output_norm": "model.norm"}
	got = {}
	u = msgpack.Unpacker(open("a.qp", "rb"))
	for r in u:
	    body = b"".join(next(u) for _ in range(r.get("chunks", 0)))
	    if r["t"] == "tensor":
	        x = np.frombuffer(body, {"F32": "<f4", "F16": "<f2"}[r["dtype"]]).astype("<f4")
	        got[r["name"]] = x.reshape(r["shape"])
	for line in open(sys.argv[1]):
	    want, name = line.split()
	    p = name.split(".")
	    ours = names[p[-2]] + ".weight"
	    x = got.pop(("model.layers.%s." % p[1] if p[0] == "blk" else "") + ours)
	    if p[-2] in ("attn_q", "attn_k"):
	        heads = x.shape[0] // 8
	        x = x.reshape(heads, 2, 4, -1).swapaxes(1, 2).reshape(x.shape)
	    assert hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest() == want, name
	assert not got
	END
}

@test "gguf: perplexity is llama-perplexity's, which rounds activations to 8 bits" {
	# Final estimate: PPL = 4.5958 (llama.cpp, -c 512 --chunks 8)
	eval-ppl -q -d llama.cpp -w 8 --json "$GGUF" < "$EVAL" > out
	awk '{ match($0, /"ppl": *[0-9.]*/); v = substr($0, RSTART, RLENGTH); sub(/.*: */, "", v)
	       exit !(v > 4.590 && v < 4.602) }' out || { cat out; return 1; }
}

@test "gguf: all of llama.cpp's files, their perplexity within 0.2 % of its own" {
	need_shared interop/gguf-stories260K text/tinystories/niklas6_tinystories.txt
	sed -n 's/^\([^ ]*\.gguf\) Final.*PPL = \([0-9.]*\) .*/\1 \2/p' \
		"$SHARED/interop/gguf-stories260K/ppl.txt" > list
	n=0
	while read -r name want; do
		f=$SHARED/interop/gguf-stories260K/$name
		[ -e "$f" ] || continue
		eval-ppl -q -d llama.cpp -w 8 "$f" \
			-t "$SHARED/text/tinystories/niklas6_tinystories.txt" > out
		awk -v want="$want" '{ exit !($2 > want * 0.998 && $2 < want * 1.002) }' out ||
			{ echo "$name: want $want"; cat out; return 1; }
		n=$((n + 1))
	done < list
	[ $n -ge 6 ]
}

@test "gguf: weights of all of llama.cpp's files are those of gguf-py (K-quants too)" {
	need_shared interop/gguf-wide interop/gguf-stories260K
	need_python numpy
	need_python msgpack
	"$PYTHON" - "$SHARED" <<-'END'
	import glob, hashlib, json, msgpack, numpy as np, os, subprocess, sys
	seen = set()
	for path in sorted(glob.glob(sys.argv[1] + "/interop/gguf-*/*.gguf")):
	    info = json.load(open(os.path.dirname(path) + "/dequant.json"))["files"][os.path.basename(path)]
	    want = sorted(t["f32_sha256"] for t in info["tensors"].values())
	    heads = info["kv"]["llama.attention.head_count"], info["kv"]["llama.attention.head_count_kv"]
	    seen |= {t["type"] for t in info["tensors"].values()}
	    p = subprocess.run(["record-acts", "-q", "--stats=none", path], stdout=subprocess.PIPE, check=True)
	    u = msgpack.Unpacker(max_buffer_size=0)
	    u.feed(p.stdout)
	    got = []
	    for r in u:
	        body = b"".join(next(u) for _ in range(r.get("chunks", 0)))
	        if r["t"] != "tensor":
	            continue
	        x = np.frombuffer(body, {"F32": "<f4", "F16": "<f2"}[r["dtype"]]).astype("<f4")
	        x = x.reshape(r["shape"])
	        for name, h in zip((".q_proj.", ".k_proj."), heads):
	            if name in r["name"]:
	                x = x.reshape(h, 2, -1, x.shape[1]).swapaxes(1, 2)
	        got.append(hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest())
	    assert sorted(got) == want, path
	assert seen >= {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q6_K"}, seen
	END
}

@test "gguf: the embedded tokenizer makes the tokens that the model knows" {
	printf 'Once upon a time, there was a little girl named Lily.' > text
	[ "$(qp-tok -m "$GGUF" < text)" = "1 403 407 261 378 432 383 286 261 376 298 315 421 395 317 426" ]
	qp-tok -m "$GGUF" < text | qp-tok -m "$GGUF" --decode > back
	grep -q 'Once upon a time, there was a little girl named Lily\.' back
}

@test "gguf: a packed stream of it needs the file no more" {
	cp "$GGUF" m.gguf
	calib-pack -q -m m.gguf -n 4 -s 128 "$CALIB" > calib.qp
	record-acts -q -c calib.qp m.gguf | gptq -q -b 4 -g 4 | pack-int4 -q > q.bin
	eval-ppl -q -c 256 m.gguf < "$EVAL" > a
	rm m.gguf
	eval-ppl -q -c 256 q.bin < "$EVAL" > b
	awk '{ p[NR] = $2 } END { exit !(p[2] != p[1] && p[2] < 1.1 * p[1] && p[2] > 0.95 * p[1]) }' a b || { cat a b; return 1; }
	head -c 500 "$EVAL" > text
	qp-tok -m "$GGUF" < text > a
	qp-tok -m q.bin < text | cmp a -
}

@test "gguf: a file with a tokenizer and nothing else is one for -m" {
	need_shared tokenizers/vectors/ggml-vocab-gpt-2.gguf tokenizers/gpt2/tokenizer.json
	head -c 3000 "$EVAL" > text
	qp-tok -m "$SHARED/tokenizers/gpt2/tokenizer.json" < text > a
	qp-tok -m "$SHARED/tokenizers/vectors/ggml-vocab-gpt-2.gguf" < text | cmp a -
}

@test "gguf: versions 2 and 3, and other alignments, are read alike" {
	small
	stream m.gguf > a.qp
	for o in version=2 align=64 align=1 align=4096; do
		"$PYTHON" "$ROOT/tests/mkgguf.py" m m.gguf $o
		stream m.gguf | cmp a.qp -
	done
}

@test "gguf: memory is that of a tensor, not of the model" {
	not_with_sanitizers "memory is measured"
	small hidden=512 ffn=2048 heads=8 layers=2 vocab=64 -- type=Q8_0
	record-acts -v --stats=none m.gguf 2> two > /dev/null
	small hidden=512 ffn=2048 heads=8 layers=12 vocab=64 -- type=Q8_0
	record-acts -v --stats=none m.gguf 2> twelve > /dev/null
	peak() { sed -n 's/.*peak \([0-9]*\).*/\1/p' "$1"; }
	[ "$(peak twelve)" -le $(($(peak two) + 4)) ] || { cat two twelve; return 1; }
}

# ---- what is refused --------------------------------------------------------------------------

@test "gguf: broken files are refused by name" {
	need_shared interop/broken
	n=0
	for f in "$SHARED"/interop/broken/gguf-*.gguf; do
		b=$(basename "$f")
		refuses 65 "$b: [A-Za-z]" record-acts -q --stats=none "$f"
		case $b in
		*-tensor-type*|*-dims-*|*-dim-zero*|*row-not*|*-tensor-dup*) want=': a: ' ;;
		*-offset-*|*-overlap*|*truncated-data*) want=': b: ' ;;
		*-array-*|*kv-type*|*bool-2*) want=': x\.y: ' ;;
		*kv-dup*) want=': general\.architecture: ' ;;
		*alignment*) want=': general\.alignment: ' ;;
		*big-endian*) want='big-endian' ;;
		*version*) want='version [0-9]* is not supported' ;;
		*) want= ;;
		esac
		[[ $stderr =~ $want ]] || { echo "$b: $stderr"; return 1; }
		n=$((n + 1))
	done
	[ $n -eq 32 ]
}

@test "gguf: a file that is not there is 66, an empty one or another format 65" {
	refuses 66 'none\.gguf: cannot open' record-acts -q --stats=none none.gguf
	: > m.gguf
	refused 'header: 8 bytes at byte 0, but the file ends at 0'
	echo '{"model_type": "llama"}' > m.gguf
	refused 'is not a GGUF file'
}

@test "gguf: it is known by its content, whatever it is called" {
	cp "$GGUF" model.bin
	qp-cmp "$GGUF" model.bin
}

@test "gguf: through a pipe it is refused: tensors are read where they lie" {
	refuses 65 'standard input: not a quantpipe stream' sh -c 'record-acts -q - < "$1"' - "$GGUF"
}

@test "gguf: every prefix is refused" {
	small hidden=8 ffn=8 heads=2 kv=1 layers=1 vocab=8
	mv m.gguf whole
	size=$(wc -c < whole)
	stream whole > /dev/null
	for ((n = 0; n < size; n += n < 1800 ? 7 : 31)); do
		head -c "$n" whole > m.gguf
		st=0
		record-acts -q --stats=none m.gguf > out 2> err || st=$?
		[ "$st" -eq 65 ] || { echo "$n of $size bytes: exit $st"; cat err; return 1; }
	done
}

@test "gguf: a flipped byte is refused, or changes a value, and nothing else happens" {
	small hidden=8 ffn=8 heads=2 kv=1 layers=1 vocab=8
	cp m.gguf whole
	size=$(wc -c < whole)
	for ((n = 0; n < size; n += n < 1800 ? 11 : 97)); do
		cp whole m.gguf
		printf '\377' | dd of=m.gguf bs=1 seek="$n" conv=notrunc status=none
		st=0
		record-acts -q --stats=none m.gguf > out 2> err || st=$?
		case $st in
		0) qp-check out ;;
		65) grep -q '^record-acts: ' err ;;
		*) echo "byte $n: exit $st"; cat err; return 1 ;;
		esac
	done
}

@test "gguf: an architecture that is not known is named, with those that are" {
	faulty "general\.architecture 'gemma2' is not supported \(known: llama, qwen2, qwen2moe, qwen3\)" \
		set=general.architecture:str:gemma2
	faulty 'has no general\.architecture' set=general.architecture
}

@test "gguf: a key that may change what is computed is named" {
	faulty 'llama\.logit_scale: is not known' set=llama.logit_scale:f32:2
	faulty 'llama\.expert_count: only 0 or false' set=llama.expert_count:u32:8
	faulty 'llama\.attention\.sliding_window: only 0' set=llama.attention.sliding_window:u32:64
	faulty 'llama\.attention\.causal: only true' set=llama.attention.causal:bool:0
	faulty "llama\.rope\.scaling\.type: 'yarn' is not supported" \
		set=llama.rope.scaling.type:str:yarn
	faulty 'llama\.rope\.scaling\.attn_factor: only 1' set=llama.rope.scaling.attn_factor:f32:2
	small -- set=llama.expert_count:u32:0 set=llama.rope.scaling.type:str:none \
		set=llama.attention.causal:bool:1 set=other.logit_scale:f32:2
	qp-cmp m m.gguf
}

@test "gguf: a key that is missing, of another type or contradicts others is named" {
	faulty 'llama\.block_count: is missing' set=llama.block_count
	faulty 'llama\.attention\.layer_norm_rms_epsilon: is missing' \
		set=llama.attention.layer_norm_rms_epsilon
	faulty 'llama\.embedding_length: expected an integer .*type string' \
		set=llama.embedding_length:str:16
	faulty 'llama\.attention\.head_count: expected an integer' \
		set=llama.attention.head_count:u32:0
	faulty 'llama\.attention\.head_count_kv: a value for each block' \
		'set=llama.attention.head_count_kv:u32[]:2,2'
	faulty 'llama\.vocab_size: is 31, but token_embd\.weight makes it 32' \
		set=llama.vocab_size:u32:31
	faulty 'llama\.rope\.dimension_count: is 2, but .* makes it 4' \
		set=llama.rope.dimension_count:u32:2
	faulty 'llama\.attention\.value_length: is 8' set=llama.attention.value_length:u32:8
	faulty 'num_key_value_heads: 3 does not divide' set=llama.attention.head_count_kv:u32:3
	faulty 'tokenizer\.ggml\.bos_token_id: expected a token id' \
		set=tokenizer.ggml.bos_token_id:i32:-5
	faulty 'llama\.rope\.freq_base: expected a number above 0' set=llama.rope.freq_base:f32:nan
}

@test "gguf: a tensor that is missing, unknown or of another shape is named" {
	faulty 'blk\.1\.ffn_up\.weight: is missing \(model\.layers\.1\.mlp\.up_proj\.weight\)' \
		drop=blk.1.ffn_up.weight
	faulty 'token_embd\.weight: is missing' drop=token_embd.weight
	faulty 'output_norm\.weight: is missing' drop=output_norm.weight
	faulty 'blk\.0\.attn_q\.scale: is no tensor of this architecture' add=blk.0.attn_q.scale
	faulty 'blk\.2\.attn_norm\.weight: is no tensor' add=blk.2.attn_norm.weight
	faulty 'blk\.0\.attn_q\.bias: is no tensor' add=blk.0.attn_q.bias
	faulty 'blk\.0\.ffn_gate\.weight: has shape \[32, 16\], the keys make it \[48, 16\]' \
		set=llama.feed_forward_length:u32:48
	faulty 'rope_freqs\.weight: a factor is not above 0' add=rope_freqs.weight
}

@test "gguf: a block more or less than there is is named" {
	faulty 'blk\.2\.attn_norm\.weight: is missing' set=llama.block_count:u32:3
	faulty 'blk\.1\.[a-z_.]*: is no tensor' set=llama.block_count:u32:1
	faulty 'blk\.2\.attn_norm\.weight: is missing' set=llama.block_count:u32:60000
	faulty 'num_hidden_layers: 2147483648 is not in' set=llama.block_count:u32:2147483648
}

# The small model in three parts, m-0000i-of-00003.gguf.
split() {	# split [OPTION OF mkgguf.py]
	small -- parts=3 "$@"
	[ "$(echo m-*.gguf)" = "m-00001-of-00003.gguf m-00002-of-00003.gguf m-00003-of-00003.gguf" ]
}

parts_refused() {	# parts_refused STATUS REGEX [FILE]
	refuses "$1" "$2" record-acts -q --stats=none -o out.qp "${3:-m-00001-of-00003.gguf}"
	[ ! -e out.qp ]
}

@test "gguf: a model in parts is read from its first, as the whole is" {
	split
	qp-cmp m m-00001-of-00003.gguf
	mkdir elsewhere
	mv m-*.gguf elsewhere
	qp-cmp m elsewhere/m-00001-of-00003.gguf
	small -- set=split.count:u16:1
	qp-cmp m m.gguf
}

@test "gguf: a part that is missing, another's, or not the first is named" {
	split
	parts_refused 65 'm-00002-of-00003\.gguf: is part 2 of 3 of a model: give the first' \
		m-00002-of-00003.gguf
	mv m-00003-of-00003.gguf third
	parts_refused 66 'm-00003-of-00003\.gguf: cannot open'
	cp m-00002-of-00003.gguf m-00003-of-00003.gguf
	parts_refused 65 'm-00003-of-00003\.gguf: is not part 3 of 3'
	head -c 300 third > m-00003-of-00003.gguf
	parts_refused 65 'm-00003-of-00003\.gguf: '
	cp third m-00003-of-00003.gguf
	mv m-00001-of-00003.gguf first.gguf
	parts_refused 65 'first\.gguf: is the first of 3 parts, but is not called NAME-00001-of-' \
		first.gguf
}

@test "gguf: parts that hold another number of tensors, or one twice, are refused" {
	split drop=blk.1.attn_norm.weight
	parts_refused 65 'm-00001-of-00003\.gguf: blk\.1\.attn_norm\.weight: is missing'
	split
	"$PYTHON" - <<-'END'
	# Part 2 called part 3.
	two = open("m-00002-of-00003.gguf", "rb").read()
	key = b"split.no" + bytes([2, 0, 0, 0])
	assert two.count(key + b"\1\0") == 1
	open("m-00003-of-00003.gguf", "wb").write(two.replace(key + b"\1\0", key + b"\2\0"))
	END
	parts_refused 65 'm-00001-of-00003\.gguf: .*: is there twice'
	split
	"$PYTHON" - <<-'END'
	one = open("m-00001-of-00003.gguf", "rb").read()
	at = one.index(b"split.tensors.count") + len("split.tensors.count") + 4
	open("m-00001-of-00003.gguf", "wb").write(one[:at] + bytes([one[at] + 1]) + one[at + 1:])
	END
	parts_refused 65 'm-00001-of-00003\.gguf: its parts have [0-9]+ tensors, key split.tensors.count says '
}

@test "gguf: a type that is not supported is named" {
	need_python numpy
	small hidden=32 ffn=32 -- type=Q4_0
	# IQ4_NL has blocks of the same size.
	"$PYTHON" - <<-'END'
	b = bytearray(open("m.gguf", "rb").read())
	at = b.index(b"blk.1.ffn_down.weight") + len("blk.1.ffn_down.weight") + 4 + 16
	assert b[at] == 2
	b[at] = 20
	open("m.gguf", "wb").write(b)
	END
	refused 'blk\.1\.ffn_down\.weight: type IQ4_NL is not supported \(only F32'
}

@test "gguf: a value that is not finite is named with its row and column" {
	need_python numpy
	small
	"$PYTHON" - <<-'END'
	import struct
	b = bytearray(open("m.gguf", "rb").read())
	b[-16:-12] = struct.pack("<f", float("nan"))    # of the last tensor, output_norm
	open("m.gguf", "wb").write(b)
	END
	refuses 65 'model\.norm\.weight: value 12 is -?nan: not finite' record-acts -q --stats=none \
		-o out.qp m.gguf
}
