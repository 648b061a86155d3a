# SPDX-License-Identifier: Apache-2.0
"""gptq_values.py DIR STREAM - do DIR's packed codes stand for the STREAM's weights, bit for bit?

The layouts of GPTQ and AWQ, unpacked by what is published of them: codes of b bits, lowest first, in
words of 32, GPTQ down the input dimension (the zeros along the output, less one in v1), AWQ along
the output dimension, columns 0 2 4 6 1 3 5 7 of every eight.
"""
import json
import sys

import numpy as np
from safetensors import safe_open

from qpstream import Stream


def bits_along(words, b):
    """[n, w] words -> [n, 32 w / b] codes: a stream of bits, which 3 bits take too."""
    raw = np.unpackbits(np.ascontiguousarray(words).view("u1"), axis=1, bitorder="little")
    n = raw.shape[1] // b
    return (raw[:, :n * b].reshape(len(words), n, b).astype(int) << np.arange(b)).sum(2)


def gptq(t, q):
    b = q["bits"]
    codes = bits_along(t["qweight"].T, b).T
    zeros = bits_along(t["qzeros"], b)
    if q.get("checkpoint_format", "gptq") != "gptq_v2":
        zeros = zeros + 1
    return codes, zeros, t["g_idx"]


def awq(t, q):
    inverse = [0, 4, 1, 5, 2, 6, 3, 7]

    def unpack(w):
        c = (w.astype("<u4")[:, :, None] >> (4 * np.arange(8))) & 15
        return c[:, :, inverse].reshape(len(w), -1).astype(int)
    codes = unpack(t["qweight"])
    return codes, unpack(t["qzeros"]), np.arange(len(codes)) // q["group_size"]


def main(path, stream):
    q = json.load(open(path + "/config.json"))["quantization_config"]
    s, n = Stream(stream), 0
    with safe_open(path + "/model.safetensors", "pt") as f:
        parts = {k: f.get_tensor(k) for k in f.keys()}
    for name in s.names("codes"):
        m = name[:-len("weight")]
        t = {k: parts[m + k].numpy() for k in ("qweight", "qzeros", "scales", "g_idx")
             if m + k in parts}
        codes, zeros, group = (gptq if q["quant_method"] == "gptq" else awq)(t, q)
        scales = t["scales"].astype("f4")
        w = (codes - zeros[group]).astype("f4") * scales[group]
        want = s.tensor(name)
        if w.T.shape != want.shape or not (np.ascontiguousarray(w.T).view("<u4") == want.view("<u4")).all():
            sys.exit("%s: not the values of the stream" % name)
        n += 1
    if n == 0 or n != sum(k.endswith(".qweight") for k in parts):
        sys.exit("%d linears in codes" % n)
    print("%d linears" % n)


main(*sys.argv[1:])
