#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""methods.py smooth|search|rtn|gptq|clip BEFORE AFTER OPTION... - what the quantizers wrote, worked out again

Streams are read with msgpack, everything is computed by numpy in float64 from the definitions in
quantpipe-methods(7); exits 1 with an AssertionError where the stream says something else.
OPTION: -b BITS -g GROUP, then any of --asym --scale-dtype=T; for smooth the exponent alpha.
"""
import sys

import numpy as np

from qpstream import Stream

CONSUMERS = {
    "attn.in": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "attn.mid": ["self_attn.o_proj"],
    "mlp.in": ["mlp.gate_proj", "mlp.up_proj"],
    "mlp.mid": ["mlp.down_proj"],
}
PRODUCERS = {
    "attn.in": "input_layernorm",
    "attn.mid": "self_attn.v_proj",
    "mlp.in": "post_attention_layernorm",
    "mlp.mid": "mlp.up_proj",
}


def edge_of(name):
    """layers.3.mlp.in of model.layers.3.mlp.up_proj.weight"""
    _, _, layer, linear = name.removesuffix(".weight").split(".", 3)
    edge = next(e for e, linears in CONSUMERS.items() if linear in linears)
    return f"layers.{layer}.{edge}"


def energy(d, h):
    return np.trace(d @ h @ d.T)


def stored(x, dtype):
    """f64 rounded to F32 and on to the type, as f32"""
    x = x.astype("f4")
    if dtype == "F32":
        return x
    if dtype == "F16":
        return x.astype("f2").astype("f4")
    bits = x.view("u4")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype("u4").view("f4")


class Options:
    def __init__(self, args):
        self.bits, self.group = int(args[1]), int(args[3])
        self.asym = "--asym" in args
        self.dtype = next((a.split("=")[1] for a in args if "scale-dtype" in a), "f16").upper()
        self.top, self.mid = 2 ** self.bits - 1, 2 ** (self.bits - 1)


def common(was, now, n, o):
    """codes, scale, zero, weight and ref belong together; returns W, Q in f64 and groups of W"""
    w, c, h = was.tensor(n).astype("f8"), now.tensor(n, "codes"), now.head(n, "codes")
    rows, cols = w.shape
    v = w.reshape({0: (1, 1, -1), -1: (rows, 1, -1)}.get(o.group, (rows, -1, o.group)))
    s = now.tensor(n, "scale").astype("f4")
    assert s.shape == v.shape[:2] and now.head(n, "scale")["dtype"] == o.dtype
    z = now.tensor(n, "zero")
    assert (z is not None) == o.asym
    z = np.full(s.shape, o.mid, "i4") if z is None else z.astype("i4")
    assert c.max() <= o.top and z.max() <= o.top
    assert h["bits"] == o.bits and h["sym"] == (not o.asym)
    assert h["group"] == (o.group if o.group > 0 else cols)
    q = (s[:, :, None] * (c.reshape(v.shape) - z[:, :, None]).astype("f4")).reshape(rows, cols)
    assert (q == now.tensor(n)).all() and now.head(n, "weight")["dtype"] == "F32"
    assert (now.tensor(n, "ref") == was.tensor(n)).all()
    assert now.head(n, "ref")["dtype"] == was.head(n, "weight")["dtype"]
    e = now.notes()[n]
    assert e["bits"] == o.bits and e["group"] == o.group and "seconds" not in e
    return w, q.astype("f8"), v, s, z, c


def rtn(was, now, args):
    o = Options(args)
    for n in now.names("codes"):
        w, q, v, s, z, c = common(was, now, n, o)
        lo, hi = np.minimum(v.min(2), 0), np.maximum(v.max(2), 0)
        span = (hi - lo) / o.top if o.asym else np.maximum(hi, -lo) / (o.top / 2)
        assert (s == stored(span, o.dtype)).all()
        assert not o.asym or (z == np.clip(np.rint(-lo.astype("f4") / s), 0, o.top)).all()
        t = v.astype("f4") / s[:, :, None] + (z - o.mid).astype("f4")[:, :, None]
        assert (c == np.clip(np.rint(t) + o.mid, 0, o.top).reshape(c.shape)).all()
        e = now.notes()[n]
        assert e["by"] == "rtn"
        if "rel_err" in e:
            h = now.hessian(edge_of(n))
            assert abs(e["rel_err"] / (energy(w - q, h) / energy(w, h)) - 1) < 1e-4
        else:
            assert abs(e["w_rel_err"] / (((w - q) ** 2).sum() / (w ** 2).sum()) - 1) < 1e-5
    assert len(now.names("codes")) == 14


def gptq(was, now, args):
    o = Options(args)
    for n in now.names("codes"):
        w, q, *_ = common(was, now, n, o)
        e, h = now.notes()[n], now.hessian(edge_of(n))
        want = energy(w - q, h) / energy(w, h)
        assert abs(e["rel_err"] / want - 1) < 1e-3, (e, want)
        assert (e["by"], e["damp"], e["damp_raised"], e["dead"]) == ("gptq", 0.01, 0, 0), e
    assert len(now.names("codes")) == 14


def near(x, y, tol=3e-7):
    """one rounding to F32 (tol: how many)"""
    assert np.abs(x / y - 1)[y != 0].max() < tol, np.abs(x / y - 1)[y != 0].max()


def smooth(was, now, args):
    alpha, heads, kv, dim = float(args[0]), 4, 2, 4
    channel = np.arange(heads * dim) // dim // (heads // kv) * dim + np.arange(heads * dim) % dim

    def weight(s, layer, n):
        return s.tensor(f"model.layers.{layer}.{n}.weight").astype("f8")

    for layer in range(2):
        done = {}  # what columns were multiplied by
        for edge, consumers in CONSUMERS.items():
            name, producer = f"layers.{layer}.{edge}", PRODUCERS[edge]
            a = was.tensor(name, "stat", "absmax").astype("f8")
            w = np.max([np.abs(weight(was, layer, c)).max(0) for c in consumers], axis=0)
            if edge == "attn.mid":
                a, w = (np.array([x[channel == c].max() for c in range(kv * dim)]) for x in (a, w))
            s = np.maximum(a ** alpha / np.maximum(w, 1e-5) ** (1 - alpha), 1e-5)
            s[a == 0] = 1
            wide = s[channel] if edge == "attn.mid" else s
            done.update((c, wide) for c in consumers)
            for stat in ("absmax", "absmean", "min", "max", "samples"):
                near(now.tensor(name, "stat", stat), was.tensor(name, "stat", stat) / wide)
            near(now.hessian(name), was.hessian(name) / np.outer(wide, wide))
            for c in consumers:
                if c not in PRODUCERS.values():
                    near(weight(now, layer, c), weight(was, layer, c) * wide)
            got, before = weight(now, layer, producer), weight(was, layer, producer)
            if producer in done:  # a consumer of the edge before: rounded twice
                near(got, before * done[producer] / s[:, None], 6e-7)
            else:
                near(got, before / s)


def qdq(v, o):
    """every row of v [rows, n] rounded to nearest in a group of its own, f32 as the programs do"""
    lo, hi = np.minimum(v.min(1), 0).astype("f8"), np.maximum(v.max(1), 0).astype("f8")
    span = (hi - lo) / o.top if o.asym else np.maximum(hi, -lo) / (o.top / 2)
    s = stored(np.where(span == 0, 1, span), o.dtype)
    z = np.clip(np.rint(-lo.astype("f4") / s), 0, o.top) if o.asym else np.full(len(s), o.mid)
    t = v.astype("f4") / s[:, None] + (z - o.mid).astype("f4")[:, None]
    q = np.clip(np.rint(t) + o.mid, 0, o.top)
    return (s[:, None] * (q - z[:, None]).astype("f4")).astype("f8")


def option(args, name, otherwise):
    return next((float(a.split("=")[1]) for a in args if a.startswith(name)), otherwise)


def clip(was, now, args):
    o, grid = Options(args), int(option(args, "--n-grid", 20))
    steps, notes = int(option(args, "--max-shrink", 0.5) * grid), now.notes("clip")
    assert len(notes) == 10
    for n, note in notes.items():
        w, got, h = was.tensor(n), now.tensor(n), was.hessian(edge_of(n))
        rows, cols = w.shape
        g = o.group if o.group > 0 else cols
        cut = np.empty_like(w)
        for c in range(0, cols, g):
            v, hg = w[:, c:c + g], h[c:c + g, c:c + g]
            top = np.abs(v).max(1)
            best = np.full(rows, np.inf)
            for i in range(steps):
                limit = ((1 - i / grid) * top.astype("f8")).astype("f4")[:, None]
                x = np.clip(v, -limit, limit)
                d = qdq(x, o) - v
                err = np.einsum("ri,ij,rj->r", d, hg, d)
                better = err < best * (1 - 1e-5)
                cut[better, c:c + g] = x[better]
                best[better] = err[better]
        assert (cut == got).mean() > 0.995, (n, (cut == got).mean())  # ties, in f32

        def error(x):
            groups = x.reshape(-1, g)
            return energy(qdq(groups, o).reshape(rows, cols) - w, h) / energy(w, h)

        assert abs(note["before"] / error(w) - 1) < 1e-3
        assert abs(note["after"] / error(got) - 1) < 1e-3
        assert abs(note["clipped"] - (got != w).mean()) < 1e-9


def search(was, now, args):
    o = Options(args[1:])
    grid, duo = int(option(args, "--n-grid", 20)), "--duo" in args
    acts = int(option(args, "--act-bits", 0)) if "--search=wa" in args else 0
    stat = next((a.split("=")[1] for a in args if a.startswith("--stat=")), "rms")
    heads, kv, dim = 4, 2, 4
    shared = np.arange(heads * dim) // dim // (heads // kv) * dim + np.arange(heads * dim) % dim

    def weight(s, layer, n):
        return s.tensor(f"model.layers.{layer}.{n}.weight").astype("f8")

    def rounded(w):
        g = o.group if o.group > 0 else w.shape[1]
        return qdq(w.reshape(-1, g), o).reshape(w.shape)

    def rounded_tokens(x):
        s = np.maximum(np.abs(x).max(1), 1e-5)[:, None] / (2 ** (acts - 1) - 1)
        return np.rint(x / s) * s

    for layer in range(2):
        undo = {}  # rows that an edge before divided, as this edge's consumers were found
        for edge, consumers in CONSUMERS.items():
            name, note = f"layers.{layer}.{edge}", now.notes("search")[f"layers.{layer}.{edge}"]
            h, tokens = was.hessian(name), was.head(name, "stat", "hessian")["tokens"]
            samples = was.tensor(name, "stat", "samples").astype("f8")
            ws = [weight(was, layer, c) / undo.get(c, 1) for c in consumers]
            channel = shared if edge == "attn.mid" else np.arange(len(h))
            x = np.sqrt(np.diag(h) / tokens) if stat == "rms" else was.tensor(name, "stat", stat)
            g = o.group if o.group > 0 else len(h)
            top = [np.abs(w).reshape(len(w), -1, g) for w in ws]
            m = np.concatenate([(t / (t.max(2, keepdims=True) + 1e-6)).reshape(len(t), -1)
                                for t in top]).mean(0)
            x, m = (np.array([v[channel == c].mean() for c in range(channel.max() + 1)])
                    for v in (x, m))

            def loss(s):
                s, sum_ = s[channel], 0
                for w in ws:
                    q = rounded(w * s)
                    if acts:
                        sum_ += ((rounded_tokens(samples / s) @ q.T - samples @ w.T) ** 2).sum()
                    elif "--loss=samples" in args:
                        sum_ += ((samples @ (q / s - w).T) ** 2).sum()
                    else:
                        sum_ += energy(q / s - w, h)
                return sum_

            total = sum(((samples @ w.T) ** 2).sum() if acts or "--loss=samples" in args
                        else energy(w, h) for w in ws)
            maps = [np.ones(len(x))]
            for i in range(grid):
                r = i / grid
                s = np.maximum(x ** r / (m ** (1 - r) + 1e-4 if duo else 1), 1e-4)
                maps.append(s / np.sqrt(s.max() * s.min()))
            losses = np.array([loss(s) for s in maps]) / total
            pick = 1 + round(note["ratio"] * grid) if note["moved"] else 0
            # another code here and there: rounding in f32 falls otherwise on ties
            assert losses[pick] <= losses.min() * 1.02, (name, pick, losses)
            assert abs(note["before"] / losses[0] - 1) < 0.02, (name, note, losses)
            assert abs(note["after"] / losses[pick] - 1) < 0.02, (name, note, losses)
            near(np.diag(now.hessian(name)), np.diag(h) / maps[pick][channel] ** 2, 1e-5)
            undo[PRODUCERS[edge]] = maps[pick][:, None]


if __name__ == "__main__":
    globals()[sys.argv[1]](Stream(sys.argv[2]), Stream(sys.argv[3]), sys.argv[4:])
