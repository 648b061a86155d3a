#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""golden.py - streams held to what transformers computed in float64

inputs MODEL            the ids of MODEL/golden.safetensors, a line a sequence (nothing for images)
compare MODEL STREAM    logits and hidden states of qp-forward --hidden against golden.safetensors:
                        exits 1 if any differs by more than 2e-5 of the largest
deviation A B LIMIT     exits 1 if logits of B are further than LIMIT deviations (root mean square
                        over standard deviation) from those of A, or not apart at all
places MODEL STREAM     the logits that MODEL/golden.safetensors has of some positions (those of an
                        exact dequantization, where they are there), to 1e-5 of the largest
errors A B              layer-error notes: exits 1 unless A's rel_err is below B's in every layer
"""
import json
import os
import struct
import sys

import msgpack
import numpy as np


def golden(model):
    with open(os.path.join(model, "golden.safetensors"), "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(size))
        data = f.read()
    kinds = {"F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8"}
    return {k: np.frombuffer(data[slice(*t["data_offsets"])], kinds[t["dtype"]]).reshape(t["shape"])
            for k, t in header.items() if k != "__metadata__"}


def records(path):
    with open(path, "rb") as f:
        u = msgpack.Unpacker(f, max_buffer_size=0)
        for h in u:
            yield h, b"".join(next(u) for _ in range(h.get("chunks", 0)))


def tensors(path):
    return {h["name"]: np.frombuffer(d, "<f4").reshape(h["shape"]).astype(float)
            for h, d in records(path) if h["t"] == "tensor" and h["dtype"] == "F32"}


def compare(model, path):
    want, got, worst, n = golden(model), tensors(path), 0.0, 0
    last = max(int(k.split(".")[1]) for k in want if k.startswith("hidden."))
    images = "pixel_values" in want
    for k, w in want.items():
        if not k.startswith("hidden.") and k != "logits":
            continue
        for i in range(len(w)):
            if k == "logits":
                x = got["logits.%d" % i][0] if images else got["logits.%d" % i]
            else:
                layer = k.split(".")[1]
                # transformers lists the last hidden state of a language model normed
                normed = int(layer) == last and not images
                x = got["hidden.%d.%s" % (i, "norm" if normed else layer)]
            assert x.shape == w[i].shape, (k, x.shape, w[i].shape)
            worst = max(worst, np.abs(x - w[i]).max() / np.abs(w).max())
            n += 1
    print("%s: %d tensors, largest error %.1e" % (os.path.basename(model), n, worst))
    return n >= 2 * (last + 2) and worst < 2e-5


def places(model, path):
    want, got = golden(model), tensors(path)
    logits = want.get("logits_by_dequant", want["logits"])
    x = np.stack([got["logits.%d" % i][want["logit_positions"]] for i in range(len(logits))])
    worst = np.abs(x - logits).max() / np.abs(logits).max()
    print("%s: largest error %.1e" % (os.path.basename(model), worst))
    return worst < 1e-5


def deviation(a, b, limit):
    a, b = tensors(a), tensors(b)
    x = np.concatenate([a[k].ravel() for k in sorted(a) if k.startswith("logits")])
    y = np.concatenate([b[k].ravel() for k in sorted(a) if k.startswith("logits")])
    d = np.sqrt(np.mean((x - y) ** 2)) / x.std()
    print("%.4f deviations" % d)
    return 0 < d < float(limit)


def errors(a, b):
    a, b = ({h["name"]: h["rel_err"] for h, _ in records(p)
             if h["t"] == "note" and h["kind"] == "layer-error"} for p in (a, b))
    assert a.keys() == b.keys() and a
    worse = [k for k in a if a[k] >= b[k]]
    print("\n".join(worse))
    return not worse


def main():
    what, *args = sys.argv[1:]
    if what == "inputs":
        for row in golden(args[0]).get("input_ids", []):
            print(*row)
        return 0
    return 0 if {"compare": compare, "deviation": deviation,
                 "places": places, "errors": errors}[what](*args) else 1


if __name__ == "__main__":
    sys.exit(main())
