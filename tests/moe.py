#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""moe.py DENSE OUT [EXPERTS] - a Llama as a Qwen2-MoE that computes the same

DENSE is an HF directory with one safetensors file.  Its MLP is cut into EXPERTS (default 4, a power
of two, so that bf16 stays exact) slices of its width; the router is zero, so that every expert has
the weight 1 / EXPERTS, all of them are picked, and each down_proj is multiplied by EXPERTS.  The
shared expert's down_proj is zero.  A trained mixture of experts, for tests of quality: its
perplexity is the dense model's.
"""
import json
import os
import shutil
import struct
import sys

import numpy as np


def main():
    dense, out = sys.argv[1:3]
    n = int(sys.argv[3]) if len(sys.argv) > 3 else 4
    with open(os.path.join(dense, "model.safetensors"), "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(size))
        data = f.read()
    with open(os.path.join(dense, "config.json")) as f:
        config = json.load(f)
    ffn, hidden = config["intermediate_size"], config["hidden_size"]
    width = ffn // n
    assert ffn % n == 0 and n & (n - 1) == 0
    rng = np.random.Generator(np.random.PCG64(5))
    tensors = {}
    for name, t in header.items():
        if name == "__metadata__":
            continue
        assert t["dtype"] == "BF16"
        x = np.frombuffer(data[slice(*t["data_offsets"])], "<u2").reshape(t["shape"])
        if ".mlp." not in name:
            tensors[name] = x
            continue
        block, part = name.split(".mlp.")
        for e in range(n):
            cut = slice(e * width, (e + 1) * width)
            y = x[:, cut] if part.startswith("down") else x[cut]
            if part.startswith("down"):     # the exponent of a bf16 is its bits 7 to 14
                y = np.where(y & 0x7F80, y + (n.bit_length() - 1 << 7), y).astype("<u2")
            tensors["%s.mlp.experts.%d.%s" % (block, e, part)] = y
        tensors[block + ".mlp.gate.weight"] = np.zeros((n, hidden), "<u2")
        tensors[block + ".mlp.shared_expert_gate.weight"] = np.zeros((1, hidden), "<u2")
        shape = {"gate": (8, hidden), "up": (8, hidden), "down": (hidden, 8)}
        for p, s in shape.items():
            y = rng.standard_normal(s).astype("<f4").view("<u4") >> 16
            y = (y * (p != "down")).astype("<u2")
            tensors["%s.mlp.shared_expert.%s_proj.weight" % (block, p)] = y
    config = {
        "architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "qkv_bias": False,
        "num_experts": n, "num_experts_per_tok": n, "moe_intermediate_size": width,
        "shared_expert_intermediate_size": 8, "norm_topk_prob": False, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "hidden_act": "silu", "torch_dtype": "bfloat16",
        **{k: config.get(k, d) for k, d in (
            ("hidden_size", None), ("num_hidden_layers", None), ("num_attention_heads", None),
            ("num_key_value_heads", None), ("intermediate_size", None), ("vocab_size", None),
            ("max_position_embeddings", None), ("rms_norm_eps", 1e-6), ("rope_theta", 10000.0),
            ("tie_word_embeddings", False), ("bos_token_id", None), ("eos_token_id", None))}}
    os.makedirs(out, exist_ok=True)
    header, at = {}, 0
    for name, x in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(x.shape),
                        "data_offsets": [at, at + 2 * x.size]}
        at += 2 * x.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(out, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for x in tensors.values():
            f.write(np.ascontiguousarray(x).tobytes())
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if os.path.exists(os.path.join(dense, name)):
            shutil.copy(os.path.join(dense, name), out)


main()
