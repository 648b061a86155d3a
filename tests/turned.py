#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""turned.py - R1 and R2 of a Llama in float64, and what rotate made of them

matrices WIDTH HEAD
        a stream of random orthogonal R1, R2 as text, for qp-make
check MODEL TURNED R1R2
        turns MODEL by the matrices in float64: its logits must stay within 1e-9 of the largest.
        TURNED, what rotate made of the same, must hold these weights, rounded to F32 once.
"""
import sys

import numpy as np

from llama import Llama
from qpstream import Stream


def matrices(width, head):
    print("stream v=[1,0] prov=[]")
    for name, n in ("R1", width), ("R2", head):
        q, _ = np.linalg.qr(np.random.default_rng(n).standard_normal((n, n)))
        print("tensor %s role=weight dtype=F64 shape=[%d,%d]" % (name, n, n))
        for row in q:
            print("", *(repr(float(v)) for v in row))
    print("end")


def turn(m, r1, r2):
    """The weights of m with R1 in the residual stream, R2 in every head of v and o."""
    w, out = m.w, {}
    heads = lambda n: np.kron(np.eye(n), r2)
    out["model.embed_tokens.weight"] = w["model.embed_tokens.weight"] @ r1
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    out["lm_head.weight"] = head * w["model.norm.weight"] @ r1
    out["model.norm.weight"] = np.ones(len(r1))
    for i in range(m.c["num_hidden_layers"]):
        p = "model.layers.%d." % i
        attn, mlp = w[p + "input_layernorm.weight"], w[p + "post_attention_layernorm.weight"]
        for n, gain in (("self_attn.q_proj", attn), ("self_attn.k_proj", attn),
                        ("self_attn.v_proj", attn), ("mlp.gate_proj", mlp), ("mlp.up_proj", mlp)):
            out[p + n + ".weight"] = w[p + n + ".weight"] * gain @ r1
        out[p + "self_attn.v_proj.weight"] = heads(m.kv).T @ out[p + "self_attn.v_proj.weight"]
        out[p + "self_attn.o_proj.weight"] = (r1.T @ w[p + "self_attn.o_proj.weight"] @
                                              heads(m.heads))
        out[p + "mlp.down_proj.weight"] = r1.T @ w[p + "mlp.down_proj.weight"]
        for n in "input_layernorm", "post_attention_layernorm":
            out[p + n + ".weight"] = np.ones(len(r1))
    return out


def check(model, turned, given):
    m, s, r = Llama(model), Stream(turned), Stream(given)
    ids = np.random.default_rng(1).integers(3, len(m.w["model.embed_tokens.weight"]), 64)
    was = m.run(ids)[2]
    m.w = turn(m, r.tensor("R1"), r.tensor("R2"))
    now = m.run(ids)[2]
    off = abs(now - was).max() / abs(was).max()
    print("float64 logits: %.1e" % off)
    assert 0 < off < 1e-9
    assert set(s.names()) == set(m.w), set(s.names()) ^ set(m.w)
    same = n = 0
    for name, want in m.w.items():
        have, rounded = s.tensor(name), want.astype("f4")
        assert abs(have - rounded).max() <= 2.0 ** -23 * abs(rounded).max(), name
        same, n = same + (have == rounded).sum(), n + have.size
    print("weights that are the float64 product rounded: %.5f" % (same / n))
    assert same / n > 0.999


if sys.argv[1] == "matrices":
    matrices(*map(int, sys.argv[2:]))
else:
    check(*sys.argv[2:])
