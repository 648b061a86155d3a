# SPDX-License-Identifier: Apache-2.0
"""int32.py - linears of GPTQ and AWQ directories for tests, by numpy alone

    from int32 import linear
    linear(Directory("exported"), "model.layers.0.mlp.up_proj")     -> float32 [N, K]

Written from the description of the layouts, for comparison with what to-gptq and to-awq write.
"""
import numpy as np


def stream(words, bits, axis):
    """Codes packed along an axis as one stream of bits, lowest first."""
    w = np.moveaxis(words.view("<u4"), axis, -1)
    b = (w[..., None] >> np.arange(32, dtype="<u4")) & 1
    b = b.reshape(*w.shape[:-1], -1, bits)
    v = (b << np.arange(bits, dtype="<u4")).sum(-1).astype(np.int32)
    return np.moveaxis(v, -1, axis)


def gemm(words):
    """Eight columns to a word: nibble i is column order[i]."""
    w = words.view("<u4")
    v = np.zeros((w.shape[0], w.shape[1] * 8), np.int32)
    for i, column in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
        v[:, column::8] = w >> (4 * i) & 15
    return v


def linear(d, module):
    q = d.config["quantization_config"]
    qweight, qzeros = d.tensors[module + ".qweight"][1], d.tensors[module + ".qzeros"][1]
    scales = d.tensors[module + ".scales"][1]
    assert scales.dtype == np.dtype("<f2")
    if q["quant_method"] == "awq":
        code, zero = gemm(qweight), gemm(qzeros)
        group = np.arange(len(code)) // (len(code) // len(zero))
    else:
        code, zero = stream(qweight, q["bits"], 0), stream(qzeros, q["bits"], 1)
        zero = zero + (q["checkpoint_format"] == "gptq")
        group = d.tensors[module + ".g_idx"][1]
        size = q["group_size"] if q["group_size"] > 0 else len(code)
        assert (group == np.arange(len(code)) // size).all()
    return np.ascontiguousarray((scales[group].astype("<f4") * (code - zero[group]).astype("<f4")).T)
