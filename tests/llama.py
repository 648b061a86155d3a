#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""llama.py forward|stats MODEL IDS STREAM - hold a stream to a plain forward pass in float64

MODEL is an HF directory with one safetensors file, IDS lines of token ids, STREAM what qp-forward
--hidden (forward) or record-acts --stats=all (stats) made of them.  Prints the largest errors,
relative to the largest value; exits 1 if one is above 2e-5.  Written from the definition of the
model, not from our code; nothing is clever here.
"""
import json
import os
import struct
import sys

import msgpack
import numpy as np


def read_safetensors(path):
    with open(path, "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(size))
        data = f.read()
    out = {}
    for name, t in header.items():
        if name == "__metadata__":
            continue
        raw = data[slice(*t["data_offsets"])]
        if t["dtype"] == "BF16":
            x = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            x = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[t["dtype"]])
        out[name] = x.reshape(t["shape"]).astype(np.float64)
    return out


def read_stream(path):
    """{(name, stat or ""): (array, header)} of the F32 tensors."""
    out = {}
    with open(path, "rb") as f:
        u = msgpack.Unpacker(f, max_buffer_size=0)
        for h in u:
            data = b"".join(next(u) for _ in range(h.get("chunks", 0)))
            if h["t"] == "tensor" and h["dtype"] == "F32":
                x = np.frombuffer(data, "<f4").reshape(h["shape"])
                out[h["name"], h.get("stat", "")] = x, h
    return out


class Llama:
    def __init__(self, path):
        with open(os.path.join(path, "config.json")) as f:
            self.c = json.load(f)
        self.w = read_safetensors(os.path.join(path, "model.safetensors"))
        self.heads = self.c["num_attention_heads"]
        self.kv = self.c.get("num_key_value_heads", self.heads)
        self.dim = self.c.get("head_dim") or self.c["hidden_size"] // self.heads
        rope = self.c.get("rope_scaling") or {}
        assert "rope_parameters" not in self.c and (not rope or rope["rope_type"] == "linear")
        self.stretch = rope.get("factor", 1.0)

    def linear(self, name, x):
        y = x @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def norm(self, name, x):
        scale = np.sqrt((x * x).mean(-1, keepdims=True) + self.c["rms_norm_eps"])
        return x / scale * self.w[name + ".weight"]

    def rotate(self, x):
        half = self.dim // 2
        theta = self.c.get("rope_theta", 10000.0)
        at = np.arange(len(x))[:, None] / self.stretch    # linear scaling: positions lie closer
        angle = at * theta ** (-np.arange(half) / half)
        a, b = x[..., :half], x[..., half:]
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def sees(self, i, n):
        """[n, n]: does token q of layer i see token k?"""
        return np.tri(n, dtype=bool)

    def block(self, i, x, edges):
        p, n = "model.layers.%d." % i, len(x)
        edges["attn.in"] = a = self.norm(p + "input_layernorm", x)
        q = self.rotate(self.linear(p + "self_attn.q_proj", a).reshape(n, self.heads, self.dim))
        k = self.rotate(self.linear(p + "self_attn.k_proj", a).reshape(n, self.kv, self.dim))
        v = self.linear(p + "self_attn.v_proj", a).reshape(n, self.kv, self.dim)
        edges["attn.k"], edges["attn.v"] = k.reshape(n, -1), v.reshape(n, -1)
        out = np.zeros((n, self.heads, self.dim))
        for h in range(self.heads):
            g = h // (self.heads // self.kv)
            s = q[:, h] @ k[:, g].T / np.sqrt(self.dim)
            s[~self.sees(i, n)] = -np.inf
            s = np.exp(s - s.max(-1, keepdims=True))
            out[:, h] = s / s.sum(-1, keepdims=True) @ v[:, g]
        edges["attn.mid"] = out.reshape(n, -1)
        x = x + self.linear(p + "self_attn.o_proj", edges["attn.mid"])
        edges["mlp.in"] = b = self.norm(p + "post_attention_layernorm", x)
        gate = self.linear(p + "mlp.gate_proj", b)
        edges["mlp.mid"] = gate / (1 + np.exp(-gate)) * self.linear(p + "mlp.up_proj", b)
        return x + self.linear(p + "mlp.down_proj", edges["mlp.mid"])

    def run(self, ids):
        """Hidden states (the last after the final norm), logits, edges of every block."""
        x = self.w["model.embed_tokens.weight"][ids]
        hidden, edges = [x], []
        for i in range(self.c["num_hidden_layers"]):
            edges.append({})
            x = self.block(i, x, edges[-1])
            hidden.append(x)
        normed = self.norm("model.norm", x)
        head = self.w.get("lm_head.weight", self.w["model.embed_tokens.weight"])
        return hidden, normed, normed @ head.T, edges


def main():
    what, path, ids, stream = sys.argv[1:]
    model, got, worst = Llama(path), read_stream(stream), {}
    with open(ids) as f:
        runs = [model.run([int(i) for i in line.split()]) for line in f]

    def compare(kind, key, want):
        x = got[key][0]
        assert x.shape == want.shape, (key, x.shape, want.shape)
        worst[kind] = max(worst.get(kind, 0), np.abs(x - want).max() / np.abs(want).max())

    for n, (hidden, normed, logits, edges) in enumerate(runs):
        if what == "forward":
            for i, x in enumerate(hidden):
                compare("hidden", ("hidden.%d.%d" % (n, i), ""), x)
            compare("norm", ("hidden.%d.norm" % n, ""), normed)
            compare("logits", ("logits.%d" % n, ""), logits)
    for i in range(model.c["num_hidden_layers"] if what == "stats" else 0):
        for edge in ("attn.in", "attn.mid", "mlp.in", "mlp.mid"):
            x = np.concatenate([r[3][i][edge] for r in runs])
            name = "layers.%d.%s" % (i, edge)
            rows = len(got[name, "samples"][0])
            compare("absmax", (name, "absmax"), np.abs(x).max(0))
            compare("absmean", (name, "absmean"), np.abs(x).mean(0))
            compare("min", (name, "min"), x.min(0))
            compare("max", (name, "max"), x.max(0))
            compare("hessian", (name, "hessian"), (x.T @ x)[np.triu_indices(x.shape[1])])
            compare("samples", (name, "samples"), x[::len(x) // rows][:rows])
            assert all(got[name, s][1]["tokens"] == len(x) for s in ("absmax", "hessian"))
        for place in ("attn.k", "attn.v"):
            name = "layers.%d.%s" % (i, place)
            for stat in ("min", "max") if (name, "min") in got else ():
                x = np.concatenate([r[3][i][place] for r in runs])
                compare(stat + " of the cache", (name, stat), getattr(x, stat)(0))
    print(" ".join("%s %.1e" % w for w in worst.items()))
    sys.exit(0 if worst and max(worst.values()) <= 2e-5 else 1)


if __name__ == "__main__":
    main()
