# SPDX-License-Identifier: Apache-2.0
"""gguf_values.py FILE STREAM - does the package gguf make of FILE the STREAM's weights, bit for bit?

STREAM: of rtn, whose codes come with the weights that they stand for, or of record-acts.
"""
import re
import sys

import gguf
import numpy as np

from qpstream import Stream

NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def ours(name):
    m = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    layer = f"model.layers.{m[1]}." if m[1] else ""
    return f"{layer}{NAMES[m[2]]}.{m[3]}", m[3]


def turned_back(w, heads):
    """Rows of a head are pairs (j, j + d/2) side by side in files of architecture llama."""
    d = w.shape[0] // heads
    return w.reshape(heads, d // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)


def main(path, stream):
    r, s = gguf.GGUFReader(path), Stream(stream)
    arch = r.fields["general.architecture"].contents()
    heads = {"attn_q": r.fields[arch + ".attention.head_count"].contents(),
             "attn_k": r.fields[arch + ".attention.head_count_kv"].contents()}
    types = {}
    for t in r.tensors:
        w = gguf.dequantize(t.data, t.tensor_type).astype("<f4")
        name, role = ours(t.name)
        want = s.tensor(name, role)
        kind = t.name.split(".")[-2]
        if arch == "llama" and kind in heads:
            w = turned_back(w, heads[kind])
        same = want is not None and np.array_equal(
            np.ascontiguousarray(w).reshape(want.shape).view("<u4"),
            np.ascontiguousarray(want.astype("<f4")).view("<u4"))
        if not same:
            sys.exit(f"{t.name}: {t.tensor_type.name}: not the values of {name}")
        types[t.tensor_type.name] = types.get(t.tensor_type.name, 0) + 1
    wanted = len({n for role in ("weight", "bias") for n in s.names(role)})
    if len(r.tensors) != wanted:
        sys.exit(f"{len(r.tensors)} tensors, {wanted} in the stream")
    print(" ".join(f"{v} {k}" for k, v in sorted(types.items())))


main(*sys.argv[1:])
