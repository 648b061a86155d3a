#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""mkllama2c.py HFDIR OUT.bin [VERSION] - a Llama model directory (F32) as a .bin of llama2.c

VERSION 0 (default): the legacy file, whose rotary tables, which nobody reads, are NaN; 1: version 1.
"""
import json
import os
import struct
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from mkgguf import permuted, read_safetensors   # noqa: E402


def main():
    source, version = sys.argv[1], int(sys.argv[3]) if len(sys.argv) > 3 else 0
    c = json.load(open(os.path.join(source, "config.json")))
    t = read_safetensors(os.path.join(source, "model.safetensors"))
    heads = c["num_attention_heads"]
    kv = c.get("num_key_value_heads", heads)
    dim = c["hidden_size"] // heads
    tied = c.get("tie_word_embeddings", False)
    numbers = [c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"], heads, kv,
               c["vocab_size"], c["max_position_embeddings"]]

    def each(module, turn=0):
        out = []
        for i in range(c["num_hidden_layers"]):
            x = t["model.layers.%d.%s.weight" % (i, module)]
            out.append(permuted(x, turn) if turn else x)
        return np.concatenate([x.reshape(-1) for x in out])

    attention = [each("self_attn.q_proj", heads), each("self_attn.k_proj", kv),
                 each("self_attn.v_proj"), each("self_attn.o_proj")]
    mlp = [each("mlp.gate_proj"), each("mlp.down_proj"), each("mlp.up_proj")]
    norms = each("input_layernorm"), each("post_attention_layernorm"), t["model.norm.weight"]
    embed = t["model.embed_tokens.weight"]
    head = [] if tied else [t["lm_head.weight"]]
    if version == 0:
        if not tied:
            numbers[5] = -numbers[5]
        start = struct.pack("<7i", *numbers)
        tables = np.full(numbers[6] * dim, np.nan, np.float32)
        parts = [embed, norms[0], *attention, norms[1], *mlp, norms[2], tables, *head]
    else:
        start = struct.pack("<Ii7iB", 0x616b3432, version, *numbers, tied).ljust(256, b"\0")
        parts = [*norms, embed, *attention, *mlp, *head]
    with open(sys.argv[2], "wb") as out:
        out.write(start)
        for x in parts:
            out.write(np.ascontiguousarray(x, "<f4").tobytes())


if __name__ == "__main__":
    main()
