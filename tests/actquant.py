#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""actquant.py - run records of kind act-quant in plain numpy

STREAM IDS LOGITS           the logits of the Llama in STREAM with its run records obeyed: those of
                            half of the tokens must agree to 1e-5 of the largest, of nine in ten to
                            2e-2 (a value that lies on a tie may fall to the other side)
--squares ACTS BETTER WORSE the grids of BETTER have no larger sum of squares over ACTS' samples
--shares ACTS CLAMPED       the notes on clamps in CLAMPED are what ACTS' samples say
--levels STREAM N           no token of any samples has more than N different values

Written from the definitions, not from our code; nothing is clever here.
"""
import sys

import numpy as np

from qpstream import Stream


def e4m3(x):
    a = np.minimum(np.abs(x), 448)
    step = 2.0 ** (np.maximum(np.floor(np.log2(np.maximum(a, 2.0 ** -9))), -6) - 3)
    return np.sign(x) * np.rint(a / step) * step


def grid(h, m, M):
    """Scale, zero and code limits of a range, as arrays."""
    m, M = m * h.get("clip", 1), M * h.get("clip", 1)
    A = np.maximum(np.abs(m), np.abs(M))
    if h["format"] == "e4m3":
        return A / 448, 0 * A
    b = h["bits"]
    if h["rule"] == "gptq" and not h["sym"]:
        m, M = np.minimum(m, 0), np.maximum(M, 0)
        return (M - m) / (2 ** b - 1), np.rint(-m / ((M - m) / (2 ** b - 1)))
    if h["rule"] == "awq" and not h["sym"]:
        s = np.maximum(M - m, 1e-5) / (2 ** b - 1)
        return s, np.clip(-np.rint(m / s), 0, 2 ** b - 1)
    assert h["rule"] == "quarot" and h["sym"], h
    return A / (2 ** (b - 1) - 1), 0 * A


def to_grid(h, x, s, z):
    if h["format"] == "e4m3":
        return e4m3(x / s) * s
    lo = -(2 ** (h["bits"] - 1)) if h["sym"] else 0
    q = np.clip(np.rint(x / s) + z, lo, lo + 2 ** h["bits"] - 1)
    if "clamp" in h:
        q = clamp(h, q - lo) + lo
    return s * (q - z)


def classes(h, q):
    """0, 1, 2 for each group of codes from 0 on, q [..., codes of a group]: 4, 6, 8 bits."""
    if h["clamp_by"] == "range":
        need, limits = q.max(-1) - q.min(-1), (15, 63)
    else:
        need, limits = (np.floor(np.log2(np.maximum(q, 1))) + 1).mean(-1), (4, 6)
    return (need > limits[0]) * 1 + (need > limits[1])


def clamp(h, q):
    g = q.reshape(*q.shape[:-1], -1, h["clamp"])
    mid = (g.max(-1, keepdims=True) + g.min(-1, keepdims=True)) / 2
    mid = np.floor(mid) if h["clamp_mid"] == "floor" else np.ceil(mid)
    mid = mid if h["clamp_by"] == "range" else 0
    cut = mid + 4 * np.floor((g - mid) / 4)
    if h["clamp_mid"] == "ceil":
        cut = np.maximum(cut, 0)
    return np.where(classes(h, g)[..., None] == 1, cut, g).reshape(q.shape)


def quantize(op, x):
    """x [tokens, width]"""
    if op is None:
        return x
    h, data = op
    group = h.get("group", x.shape[1])
    y = x.reshape(len(x), -1, group)
    if h["range"] == "static":
        fixed = np.frombuffer(data, "<f4").reshape(-1, 2).astype(np.float64)
        return to_grid(h, y, fixed[:, 0][None, :, None], fixed[:, 1][None, :, None]).reshape(x.shape)
    axis = (0, 1, 2) if h["per"] == "tensor" else 2
    s, z = grid(h, y.min(axis, keepdims=True), y.max(axis, keepdims=True))
    return to_grid(h, y, np.where(s == 0, 1, s), z).reshape(x.shape)


class Model:
    def __init__(self, path):
        self.s = Stream(path)
        self.c = self.s.records[0][0]["config"]
        self.ops = {h["name"]: (h, d) for h, d in self.s.records if h["t"] == "run"}

    def w(self, name):
        return self.s.tensor(name + ".weight").astype(np.float64)

    def norm(self, name, x):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.c["norm_eps"]) * self.w(name)

    def rotate(self, x, dim):
        half = dim // 2
        angle = np.arange(len(x))[:, None] * self.c["rope_theta"] ** (-np.arange(half) / half)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        x = x.reshape(len(x), -1, dim)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1).reshape(len(x), -1)

    def attention(self, q, k, v, k0, v0, at):
        heads, kv, dim = (self.c[n] for n in ("num_attention_heads", "num_key_value_heads", "head_dim"))
        recent = at("attn.k.raw", "attn.k")
        recent = recent[0].get("recent", 0) if recent else 0
        out = np.zeros_like(q)
        for h in range(heads):
            mine = slice(h * dim, (h + 1) * dim)
            g = h // (heads // kv)
            theirs = slice(g * dim, (g + 1) * dim)
            for i in range(len(q)):
                old = np.arange(i + 1) <= i - recent
                kk = np.where(old[:, None], k[:i + 1, theirs], k0[:i + 1, theirs])
                vv = np.where(old[:, None], v[:i + 1, theirs], v0[:i + 1, theirs])
                p = kk @ q[i, mine] / np.sqrt(dim)
                p = np.exp(p - p.max())
                p = quantize(at("attn.p"), (p / p.sum())[None])[0]
                out[i, mine] = p @ vv
        return out

    def block(self, i, x):
        at = lambda *names: next((self.ops[f"layers.{i}.{n}"] for n in names
                                  if f"layers.{i}.{n}" in self.ops), None)
        do = lambda name, x: quantize(at(name), x)
        l, dim = f"model.layers.{i}.", self.c["head_dim"]
        a = do("attn.in", self.norm(l + "input_layernorm", x))
        q, k, v = (a @ self.w(l + f"self_attn.{n}_proj").T for n in "qkv")
        kq = do("attn.k", self.rotate(do("attn.k.raw", k), dim))
        c = self.attention(self.rotate(q, dim), kq, do("attn.v", v), self.rotate(k, dim), v, at)
        x = do("attn.resid", x + do("attn.mid", c) @ self.w(l + "self_attn.o_proj").T)
        b = do("mlp.in", self.norm(l + "post_attention_layernorm", x))
        g, u = (b @ self.w(l + f"mlp.{n}_proj").T for n in ("gate", "up"))
        m = do("mlp.mid", g / (1 + np.exp(-g)) * u)
        return do("mlp.resid", x + m @ self.w(l + "mlp.down_proj").T)

    def logits(self, ids):
        table = self.w("model.embed_tokens")
        x = table[ids]
        for i in range(self.c["num_hidden_layers"]):
            x = self.block(i, x)
        head = self.s.tensor("lm_head.weight")
        return self.norm("model.norm", x) @ (table if head is None else head.astype(np.float64)).T


def compare(stream, ids, logits):
    m, got = Model(stream), Stream(logits)
    assert m.ops
    want = np.concatenate([m.logits([int(n) for n in line.split()]) for line in open(ids) if line.strip()])
    have = np.concatenate([got.tensor(n, r).reshape(-1, want.shape[1])
                           for n, r in [(h["name"], h.get("role")) for h, _ in got.records
                                        if h["t"] == "tensor" and h["shape"][-1] == want.shape[1]]])
    assert have.shape == want.shape, (have.shape, want.shape)
    off = np.sort(np.abs(have - want).max(1) / np.abs(want).max())
    print("median %.2g, nine in ten %.2g, largest %.2g" %
          (off[len(off) // 2], off[len(off) * 9 // 10], off[-1]))
    return off[len(off) // 2] < 1e-5 and off[len(off) * 9 // 10] < 2e-2


def squares(acts, better, worse):
    a = Stream(acts)
    sums = []
    for path in (better, worse):
        ops = [(h, d) for h, d in Stream(path).records if h["t"] == "run"]
        sums.append([((x - quantize(op, x)) ** 2).sum() for op in ops
                     for x in [a.tensor(op[0]["name"], "stat", "samples").astype(np.float64)]])
    print(sums)
    return all(b <= w * (1 + 1e-6) for b, w in zip(*sums)) and sum(sums[0]) < sum(sums[1])


def shares(acts, clamped):
    a, c, n = Stream(acts), Stream(clamped), 0
    for h, _ in c.records:
        if h["t"] != "run":
            continue
        x = a.tensor(h["name"], "stat", "samples").astype(np.float64)
        s, z = grid(h, x.min(1, keepdims=True), x.max(1, keepdims=True))
        q = np.clip(np.rint(x / s) + z, 0, 255).reshape(len(x), -1, h["clamp"])
        want = np.bincount(classes(h, q).ravel(), minlength=3) / q[..., 0].size
        note = c.notes("clamp")[h["name"]]
        have = [note[k] for k in ("int4", "int5_6", "int7_8")]
        forms = -(-q.shape[1] // 4)
        size = forms + q.shape[1] * (1 + h["clamp"] * (1 - (have[0] + have[1]) / 2))
        print(h["name"], want, have, note["packed"], size / x.shape[1])
        assert abs(want - have).max() < 1e-3 and note["tokens"] == len(x)
        assert abs(note["packed"] - size / x.shape[1]) < 1e-9
        n += min(have[1], have[2]) > 0.01
    return n > 0


def levels(path, n):
    s = Stream(path)
    rows = [r for h, _ in s.records if h.get("stat") == "samples"
            for r in s.tensor(h["name"], "stat", "samples")]
    assert rows
    return max(len(set(r.tolist())) for r in rows) <= n


if sys.argv[1] == "--squares":
    good = squares(*sys.argv[2:])
elif sys.argv[1] == "--shares":
    good = shares(*sys.argv[2:])
elif sys.argv[1] == "--levels":
    good = levels(sys.argv[2], int(sys.argv[3]))
else:
    good = compare(*sys.argv[1:])
sys.exit(0 if good else 1)
