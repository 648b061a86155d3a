# SPDX-License-Identifier: Apache-2.0
"""qpstream.py - streams for tests: every record with its payload, by msgpack and numpy alone

    from qpstream import Stream
    s = Stream("acts.qp")
    s.tensor("model.layers.0.mlp.up_proj.weight", "codes")   -> an array
"""
import msgpack
import numpy as np

DTYPES = {"F32": "<f4", "F16": "<f2", "U8": "u1", "I32": "<i4", "F64": "<f8"}


class Stream:
    def __init__(self, path):
        self.records = []
        with open(path, "rb") as f:
            values = msgpack.Unpacker(f, raw=False, max_buffer_size=1 << 28)
            for head in values:
                self.records.append((head, b"".join(next(values) for _ in range(head.get("chunks", 0)))))
        assert self.records[-1][0]["t"] == "end"

    def head(self, name, role=None, stat=None):
        got = [h for h, _ in self.records if h.get("name") == name and h.get("role") == role
               and h.get("stat") == stat and h["t"] in ("tensor", "file")]
        assert len(got) <= 1, (name, role, stat)
        return got[0] if got else None

    def tensor(self, name, role="weight", stat=None):
        for h, data in self.records:
            if (h["t"], h.get("name"), h.get("role"), h.get("stat")) != ("tensor", name, role, stat):
                continue
            assert not h.get("enc")
            if h["dtype"] == "BF16":
                bits = np.frombuffer(data, "<u2").astype("<u4") << 16
                return bits.view("<f4").reshape(h["shape"])
            if h["dtype"] in ("U2", "U3", "U4"):
                bits, rows = int(h["dtype"][1]), h["shape"][0]
                raw = np.unpackbits(np.frombuffer(data, "u1").reshape(rows, -1), axis=1,
                                    bitorder="little")[:, :h["shape"][1] * bits]
                return (raw.reshape(rows, -1, bits) << np.arange(bits, dtype="u1")).sum(2).astype("u1")
            return np.frombuffer(data, DTYPES[h["dtype"]]).reshape(h["shape"])
        return None

    def hessian(self, edge):
        h, tri = self.head(edge, "stat", "hessian"), self.tensor(edge, "stat", "hessian")
        full = np.zeros((h["width"], h["width"]))
        full[np.triu_indices(h["width"])] = tri
        return full + np.triu(full, 1).T

    def notes(self, kind="layer-error"):
        return {h["name"]: h for h, _ in self.records if h["t"] == "note" and h["kind"] == kind}

    def names(self, role="weight"):
        return [h["name"] for h, _ in self.records if h["t"] == "tensor" and h.get("role") == role]
