#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""mkmodel.py DIR [KEY=VALUE...] - a random Llama-family model of any shape, as an HF directory

Keys with their defaults: hidden=16 ffn=32 layers=2 heads=4 kv=2 vocab=32 context=512 dtype=F32
(F32, BF16 or F16) tied=1 seed=0 shards=1 tokenizer=DIR (copies its tokenizer files) linear=0.0
(rope_scaling of type linear by that factor; 0: none) sparse=0 (1: matrices of blocks are zeros, as
holes of the file).  Weights are normal with deviation
1/sqrt(columns), gains around 1, and one channel in 16 of the residual stream is ten times
larger, as in real models.
"""
import json
import os
import shutil
import struct
import sys

import numpy as np


def stored(x, dtype):
    x = np.ascontiguousarray(x, np.float32)
    if dtype == "F32":
        return x.tobytes()
    if dtype == "F16":
        return x.astype(np.float16).tobytes()
    bits = x.view(np.uint32)    # round to bf16, half to even
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def write_safetensors(path, tensors, dtype):
    header, at = {}, 0
    size = 4 if dtype == "F32" else 2
    for name, shape, _ in tensors:
        n = int(np.prod(shape)) * size
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape, make in tensors:
            if make is None:
                f.seek(header[name]["data_offsets"][1] + 8 + len(text))
            else:
                f.write(stored(make(), dtype))


def main():
    opt = dict(hidden=16, ffn=32, layers=2, heads=4, kv=2, vocab=32, context=512, dtype="F32",
               tied=1, seed=0, shards=1, tokenizer="", linear=0.0, sparse=0)
    out = sys.argv[1]
    for a in sys.argv[2:]:
        key, value = a.split("=", 1)
        opt[key] = type(opt[key])(value)
    d, ffn, dim = opt["hidden"], opt["ffn"], opt["hidden"] // opt["heads"]
    rng = np.random.Generator(np.random.PCG64(opt["seed"]))
    loud = np.where(np.arange(d) % 16 == 3, 10.0, 1.0)

    def matrix(n, k, gain=None):
        g = 1.0 if gain is None else gain
        return lambda: rng.standard_normal((n, k), np.float32) * (g / np.sqrt(k))

    def vector(n, gain=1.0):
        return lambda: (1 + 0.1 * rng.standard_normal(n, np.float32)) * gain

    tensors = [("model.embed_tokens.weight", (opt["vocab"], d),
                lambda: rng.standard_normal((opt["vocab"], d), np.float32) * loud)]
    for i in range(opt["layers"]):
        p = "model.layers.%d." % i
        q, kv = opt["heads"] * dim, opt["kv"] * dim
        for name, n, k in (("self_attn.q_proj", q, d), ("self_attn.k_proj", kv, d),
                           ("self_attn.v_proj", kv, d), ("self_attn.o_proj", d, q),
                           ("mlp.gate_proj", ffn, d), ("mlp.up_proj", ffn, d),
                           ("mlp.down_proj", d, ffn)):
            tensors.append((p + name + ".weight", (n, k),
                            None if opt["sparse"] else matrix(n, k)))
        tensors.append((p + "input_layernorm.weight", (d,), vector(d, loud)))
        tensors.append((p + "post_attention_layernorm.weight", (d,), vector(d, loud)))
    tensors.append(("model.norm.weight", (d,), vector(d)))
    if not opt["tied"]:
        tensors.append(("lm_head.weight", (opt["vocab"], d), matrix(opt["vocab"], d)))

    os.makedirs(out, exist_ok=True)
    if opt["shards"] == 1:
        write_safetensors(os.path.join(out, "model.safetensors"), tensors, opt["dtype"])
    else:
        where = {}
        for s in range(opt["shards"]):
            name = "model-%05d-of-%05d.safetensors" % (s + 1, opt["shards"])
            part = tensors[s::opt["shards"]]
            write_safetensors(os.path.join(out, name), part, opt["dtype"])
            where.update({t[0]: name for t in part})
        with open(os.path.join(out, "model.safetensors.index.json"), "w") as f:
            json.dump({"metadata": {}, "weight_map": where}, f)
    dtypes = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    rope = {"rope_type": "linear", "factor": opt["linear"]} if opt["linear"] else None
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": d,
            "intermediate_size": ffn, "num_hidden_layers": opt["layers"],
            "num_attention_heads": opt["heads"], "num_key_value_heads": opt["kv"],
            "vocab_size": opt["vocab"], "max_position_embeddings": opt["context"],
            "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "rope_scaling": rope, "attention_bias": False, "mlp_bias": False,
            "tie_word_embeddings": bool(opt["tied"]), "bos_token_id": 1, "eos_token_id": 2,
            "torch_dtype": dtypes[opt["dtype"]]}, f, indent=1)
    if opt["tokenizer"]:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(os.path.join(opt["tokenizer"], name), out)


if __name__ == "__main__":
    main()
