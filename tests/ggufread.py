# SPDX-License-Identifier: Apache-2.0
"""ggufread.py - GGUF files for tests: keys, and tensors as float32, by numpy alone

    from ggufread import Gguf
    g = Gguf("q.gguf")
    g.kv["llama.block_count"]; g.types["blk.0.attn_q.weight"]; g.tensor("blk.0.attn_q.weight")

Written from the description of the format, for comparison with what to-gguf writes.
"""
import struct

import numpy as np

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
         6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 12: ("Q4_K", 256, 144),
         14: ("Q6_K", 256, 210), 30: ("BF16", 1, 2)}


def nibbles(b):
    return np.concatenate([b & 15, b >> 4], axis=1).astype(np.int32)


def fifth(b):
    word = b.copy().view("<u4").astype(np.uint32)
    return ((word >> np.arange(32, dtype=np.uint32)) & 1).astype(np.int32) << 4


def half(b):
    return b.copy().view("<f2").astype(np.float32)


def q4_k(b):
    d, dmin, s, q = half(b[:, 0:2]), half(b[:, 2:4]), b[:, 4:16].astype(np.int32), b[:, 16:]
    scale = np.concatenate([s[:, :4] & 63, (s[:, 8:] & 15) | (s[:, :4] >> 6) << 4], axis=1)
    low = np.concatenate([s[:, 4:8] & 63, (s[:, 8:] >> 4) | (s[:, 4:8] >> 6) << 4], axis=1)
    q = q.reshape(-1, 4, 32)
    v = np.stack([q & 15, q >> 4], axis=2).reshape(-1, 8, 32).astype(np.float32)
    scale, low = d * scale.astype(np.float32), dmin * low.astype(np.float32)
    return (scale[:, :, None] * v - low[:, :, None]).reshape(len(b), 256)


def q6_k(b):
    low, high = b[:, :128].reshape(-1, 2, 64), b[:, 128:192].reshape(-1, 2, 32)
    v = np.concatenate([low & 15, low >> 4], axis=2).astype(np.int32)
    top = np.concatenate([high >> k & 3 for k in (0, 2, 4, 6)], axis=2).astype(np.int32)
    v = ((v | top << 4) - 32).reshape(-1, 16, 16).astype(np.float32)
    scale = half(b[:, 208:]) * b[:, 192:208].copy().view("i1").astype(np.float32)
    return (scale[:, :, None] * v).reshape(len(b), 256)


BLOCKS = {
    "Q4_0": lambda b: half(b[:, :2]) * (nibbles(b[:, 2:]) - 8).astype(np.float32),
    "Q4_1": lambda b: half(b[:, :2]) * nibbles(b[:, 4:]).astype(np.float32) + half(b[:, 2:4]),
    "Q5_0": lambda b: half(b[:, :2]) * ((nibbles(b[:, 6:]) | fifth(b[:, 2:6])) - 16).astype(np.float32),
    "Q5_1": lambda b: half(b[:, :2]) * (nibbles(b[:, 8:]) | fifth(b[:, 4:8])).astype(np.float32)
    + half(b[:, 2:4]),
    "Q8_0": lambda b: half(b[:, :2]) * b[:, 2:].copy().view("i1").astype(np.float32),
    "Q4_K": q4_k,
    "Q6_K": q6_k,
}


class Gguf:
    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = f.read()
        self.at = 0
        assert self.take("4s") == b"GGUF" and self.take("I") == 3
        tensors, keys = self.take("Q"), self.take("Q")
        self.kv, self.info, self.types = {}, {}, {}
        for _ in range(keys):
            key = self.string()
            assert key not in self.kv
            self.kv[key] = self.value(self.take("I"))
        end = 0
        for _ in range(tensors):
            name = self.string()
            ne = [self.take("Q") for _ in range(self.take("I"))]
            kind, offset = self.take("I"), self.take("Q")
            size, nbytes = TYPES[kind][1:]
            # The next one lies where the one before it ends, padded.
            assert offset == end and ne[0] % size == 0 and name not in self.info
            n = int(np.prod(ne)) // size * nbytes
            end += -(-n // 32) * 32
            self.info[name] = (TYPES[kind], ne, offset, n)
            self.types[name] = TYPES[kind][0]
        self.start = -(-self.at // 32) * 32
        assert len(self.data) == self.start + end

    def take(self, form):
        v = struct.unpack_from("<" + form, self.data, self.at)[0]
        self.at += struct.calcsize("<" + form)
        return v

    def string(self):
        return self.take(f"{self.take('Q')}s").decode()

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            elem, n = self.take("I"), self.take("Q")
            return [self.value(elem) for _ in range(n)]
        return self.take(NUMBERS[kind])

    def tensor(self, name):
        (kind, _, nbytes), ne, offset, n = self.info[name]
        raw = self.data[self.start + offset:self.start + offset + n]
        shape = ne[::-1]
        if kind == "BF16":
            return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
        if kind in ("F32", "F16"):
            return np.frombuffer(raw, "<f4" if kind == "F32" else "<f2").astype("<f4").reshape(shape)
        return BLOCKS[kind](np.frombuffer(raw, "u1").reshape(-1, nbytes)).reshape(shape)


LINEARS = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
           "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
           "mlp.down_proj": "ffn_down", "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
           "mlp.shared_expert.up_proj": "ffn_up_shexp", "mlp.shared_expert.down_proj": "ffn_down_shexp"}


def linear(g, name, heads=None):
    """The tensor of a stream's linear, [rows, cols], as the checkpoint has it.

    heads: of the rows of q and k, where the architecture permutes them."""
    layer, module = name[len("model.layers."):-len(".weight")].split(".", 1)
    if module.startswith("mlp.experts."):
        expert, kind = module[len("mlp.experts."):].split(".")
        return g.tensor(f"blk.{layer}.ffn_{kind[:-5]}_exps.weight")[int(expert)]
    w = g.tensor(f"blk.{layer}.{LINEARS[module]}.weight")
    if heads and module.endswith(("q_proj", "k_proj")):
        # (head, pair, half) back to (head, half, pair)
        w = w.reshape(heads, -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)
    return w


def on_grid(grid, q, heads):
    """Codes [rows, cols] of a grid of super-blocks, whose heads are [rows, cols / 256, bytes]."""
    q, b = q.reshape(-1, 256).astype("<f4"), heads.reshape(-1, heads.shape[2])
    if grid == "q6_K":
        scale = np.repeat(half(b[:, 16:]) * b[:, :16].copy().view("i1").astype("<f4"), 16, axis=1)
        return (scale * (q - 32)).reshape(heads.shape[0], -1)
    bits = np.unpackbits(b[:, 4:], axis=1, bitorder="little").reshape(-1, 12, 8)
    six, low, high = bits[:, :8, :6], bits[:, 8:, :4], bits[:, 8:, 4:]
    top = bits[:, :8, 6:]
    weigh = lambda x: (x * (1 << np.arange(x.shape[2]))).sum(2).astype("<f4")
    scale = np.concatenate([weigh(six[:, :4]), weigh(low) + 16 * weigh(top[:, :4])], axis=1)
    low = np.concatenate([weigh(six[:, 4:]), weigh(high) + 16 * weigh(top[:, 4:])], axis=1)
    scale, low = half(b[:, :2]) * scale, half(b[:, 2:4]) * low
    w = np.repeat(scale, 32, axis=1) * q - np.repeat(low, 32, axis=1)
    return w.reshape(heads.shape[0], -1)


def values(s, name):
    """What the codes of a stream stand for, scale * (code - zero) in float32, or on their grid."""
    h, q = s.head(name, "codes"), s.tensor(name, "codes")
    if h.get("grid"):
        return on_grid(h["grid"], q, s.tensor(name, "scale"))
    scale, zero = s.tensor(name, "scale").astype("<f4"), s.tensor(name, "zero")
    if zero is None:
        zero = np.full(scale.shape, 1 << (h["bits"] - 1))
    q = q.reshape(q.shape[0], -1, h["group"]).astype(np.int32) - zero.astype(np.int32)[:, :, None]
    return (scale[:, :, None] * q.astype("<f4")).reshape(h["shape"])
