# SPDX-License-Identifier: Apache-2.0
"""checkpoint.py - model directories for tests, read by numpy alone, strictly

    from checkpoint import Directory
    d = Directory("exported")
    d.tensor("model.norm.weight")       -> an array, floats as float32, F8 as their bytes
    d.dtype(name), d.config, d.files

What a loader may rely on is asserted: ranges that cover the data in order without holes, tensors
aligned to their elements, format "pt", an index that lists every tensor of every shard, and no
file that nobody asked for.
"""
import json
import os
import struct

import numpy as np

DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I32": "<i4", "I64": "<i8", "I8": "i1",
          "U8": "u1", "F8_E4M3": "u1"}


def read_safetensors(path, ours=True):
    raw = open(path, "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    assert n % 8 == 0 and raw[8:9] == b"{", path
    header = json.loads(raw[8:8 + n])
    assert header.pop("__metadata__", {}).get("format") == "pt" or not ours
    data, at, out = raw[8 + n:], 0, {}
    for name, t in sorted(header.items(), key=lambda x: x[1]["data_offsets"]):
        begin, end = t["data_offsets"]
        kind = np.dtype(DTYPES[t["dtype"]])
        assert begin == at and begin % kind.itemsize == 0, (path, name, begin, at)
        assert end - begin == int(np.prod(t["shape"])) * kind.itemsize, name
        out[name] = (t["dtype"], np.frombuffer(data[begin:end], kind).reshape(t["shape"]))
        at = end
    assert at == len(data), path
    return out


class Directory:
    def __init__(self, path):
        self.files = sorted(os.listdir(path))
        self.config = json.load(open(os.path.join(path, "config.json")))
        self.tensors = {}
        shards = [f for f in self.files if f.endswith(".safetensors")]
        for f in shards:
            got = read_safetensors(os.path.join(path, f))
            assert not set(got) & set(self.tensors)
            self.tensors.update({k: (*v, f) for k, v in got.items()})
        index = os.path.join(path, "model.safetensors.index.json")
        if shards == ["model.safetensors"]:
            assert not os.path.exists(index)
            return
        index = json.load(open(index))
        assert index["weight_map"] == {k: v[2] for k, v in self.tensors.items()}
        assert index["metadata"]["total_size"] == sum(v[1].nbytes for v in self.tensors.values())
        want = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
        assert shards == want, shards

    def dtype(self, name):
        return self.tensors[name][0]

    def tensor(self, name):
        dtype, x, _ = self.tensors[name]
        if dtype == "BF16":
            return (x.astype("<u4") << 16).view("<f4")
        return x.astype("<f4") if dtype in ("F16", "F32") else x


def to_bf16(x):
    """f32 to the nearest bf16, half to even, as f32."""
    bits = np.ascontiguousarray(x, "<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype("<u4").view("<f4")
