#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""target.py MODEL IDS STREAM - what gptq --sequential --target=full wrote, worked out in float64

MODEL runs as it is and with the weights in STREAM; from the inputs of each linear in both, M, H, C
and the step a are computed from their definitions in quantpipe-methods(7).  Exits 1 with an
AssertionError if a note says something else, or if the weights of the last layer, which are to
have many bits, are not near W'.
"""
import sys

import numpy as np

from llama import Llama
from qpstream import Stream

EDGES = {
    "attn.in": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "attn.mid": ["self_attn.o_proj"],
    "mlp.in": ["mlp.gate_proj", "mlp.up_proj"],
    "mlp.mid": ["mlp.down_proj"],
}


def energy(d, h):
    return np.einsum("ij,jk,ik", d, h, d)


def main():
    path, ids, stream = sys.argv[1:]
    was, now, stream = Llama(path), Llama(path), Stream(stream)
    now.w = {n: stream.tensor(n).astype("f8") for n in was.w}
    with open(ids) as f:
        rows = [[int(i) for i in line.split()] for line in f]
    full, quantized = ([m.run(r)[3] for r in rows] for m in (was, now))
    aside = np.array([w % 8 == 7 for w in range(len(rows))])
    last, steps = was.c["num_hidden_layers"] - 1, []
    for layer in range(last + 1):
        for edge, linears in EDGES.items():
            x, y = (np.stack([e[layer][edge] for e in m]) for m in (full, quantized))
            m, h, mv, hv = (np.einsum("wti,wtj->ij", a[at], y[at])
                            for at in (~aside, aside) for a in (x, y))
            d = 0.01 * np.trace(h + hv) / len(h)
            c = (m - h) @ np.linalg.inv(h + d * np.eye(len(h)))
            for linear in linears:
                name = "model.layers.%d.%s.weight" % (layer, linear)
                w, q = was.w[name], now.w[name]
                a = np.trace(w @ (mv - hv) @ (w @ c).T) / max(energy(w @ c, hv), 1e-300)
                a = min(max(a, 0), 1) if (layer, edge) != (0, "attn.in") else 0
                got = stream.notes()[name]
                assert abs(got["step"] - a) < 2e-3, (name, got["step"], a)
                rel = energy(w - q, h + hv) / energy(w, h + hv)
                assert abs(got["rel_err"] / rel - 1) < 1e-2, (name, got["rel_err"], rel)
                moved = w + a * w @ c
                if layer == last and a > 0.1:
                    assert energy(moved - q, h) < 0.02 * energy(w - q, h), name
                steps.append(a)
    assert np.median(steps) > 0.1, steps


if __name__ == "__main__":
    main()
