#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""mkgguf.py HFDIR OUT.gguf [KEY=VALUE...] - an HF model directory as a GGUF file

What llama.cpp's converter writes for llama, qwen2, qwen2_moe and qwen3: keys, names, permuted rows
of q and k (llama only), stacked experts, rope_freqs.weight for llama3 scaling.  No tokenizer.
    type=F32       F16, BF16, or a quantized type.  Then every matrix whose rows divide into blocks
                   gets random bytes (with scales that keep the values small), the rest stays F32:
                   the model is another, see twin
    twin=DIR       the HF directory, in F32, of what was written: weights computed back from the bytes
    version=3 align=32 seed=0
    set=KEY:TYPE:VALUE   another key (u32 f32 bool str ...; an array as u32[]:1,2), or one changed;
                   without VALUE: none of that name
    drop=NAME add=NAME   a tensor less, or (two zeros) more
    parts=N        OUT-00001-of-0000N.gguf ...: all keys in the first, tensors one after the other

The computing back is written from ggml's description of its blocks, whole arrays at a time, apart
from the C in formats/ggml.c.
"""
import json
import os
import struct
import sys

import numpy as np

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
KINDS = dict(u8=U8, i8=I8, u16=U16, i16=I16, u32=U32, i32=I32, f32=F32, bool=BOOL, str=STR, u64=U64,
             i64=I64, f64=F64)
PACK = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B",
        U64: "<Q", I64: "<q", F64: "<d"}


# ---- blocks: (number, weights, bytes, offsets of halves, to f32 from uint8 [blocks, bytes]) ----

def half(b, at):
    return b[:, at:at + 2].copy().view("<f2").astype(np.float32)


def nibbles(q):     # low of all, then high of all
    return np.concatenate([q & 15, q >> 4], axis=1)


def fifth(b, at):   # 32 bits a block, as 0 or 16
    return np.unpackbits(b[:, at:at + 4], axis=1, bitorder="little") << 4


def f(x):
    return x.astype(np.float32)


def q4_0(b):
    return (f(nibbles(b[:, 2:])) - np.float32(8)) * half(b, 0)


def q4_1(b):
    return f(nibbles(b[:, 4:])) * half(b, 0) + half(b, 2)


def q5_0(b):
    return (f(nibbles(b[:, 6:]) | fifth(b, 2)) - np.float32(16)) * half(b, 0)


def q5_1(b):
    return f(nibbles(b[:, 8:]) | fifth(b, 4)) * half(b, 0) + half(b, 2)


def q8_0(b):
    return f(b[:, 2:].view(np.int8)) * half(b, 0)


def crumbs(b, at):  # 64 bytes -> 256 values of two bits: halves of 128, in each 4 planes of 32
    q = b[:, at:at + 64].reshape(-1, 2, 1, 32)
    return ((q >> np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)) & 3).reshape(-1, 256)


def spread(x, n):   # one value for each group -> one for each weight
    return np.repeat(x, n, axis=1)


def q2_k(b):
    s = b[:, :16]
    return (spread(half(b, 80) * f(s & 15), 16) * f(crumbs(b, 16)) -
            spread(half(b, 82) * f(s >> 4), 16))


def q3_k(b):
    high = np.unpackbits(b[:, :32].reshape(-1, 32, 1), axis=2, bitorder="little")
    high = high.transpose(0, 2, 1).reshape(-1, 256)     # bit 0 of 32 weights, bit 1 ...
    low4 = np.concatenate([b[:, 96:104] & 15, b[:, 96:104] >> 4], axis=1)
    two = b[:, 104:108]
    top = np.concatenate([two >> s & 3 for s in (0, 2, 4, 6)], axis=1)
    s = (low4 | top << 4).astype(np.int32) - 32
    v = crumbs(b, 32).astype(np.int32) - np.where(high, 0, 4)
    return spread(half(b, 108) * f(s), 16) * f(v)


def pairs(b):       # the 12 bytes at 4: six bits of scale and minimum for 8 groups
    s = b[:, 4:16]
    lo, mid, hi = s[:, :4], s[:, 4:8], s[:, 8:12]
    return (np.concatenate([lo & 63, (hi & 15) | (lo >> 6) << 4], axis=1),
            np.concatenate([mid & 63, hi >> 4 | (mid >> 6) << 4], axis=1))


def q45_k(b, q, high):
    s, m = pairs(b)
    q = q.reshape(-1, 4, 32)
    v = np.stack([q & 15, q >> 4], axis=2).reshape(-1, 256) | high
    return (spread(half(b, 0) * f(s), 32) * f(v)) - spread(half(b, 2) * f(m), 32)


def q4_k(b):
    return q45_k(b, b[:, 16:], np.uint8(0))


def q5_k(b):
    high = np.unpackbits(b[:, 16:48].reshape(-1, 32, 1), axis=2, bitorder="little")
    return q45_k(b, b[:, 48:], high.transpose(0, 2, 1).reshape(-1, 256) << 4)


def q6_k(b):
    low = b[:, :128].reshape(-1, 2, 64)
    low = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 256)
    v = (low | crumbs(b, 128) << 4).astype(np.int32) - 32
    return spread(half(b, 208) * f(b[:, 192:208].view(np.int8)), 16) * f(v)


QUANT = {
    "Q4_0": (2, 32, 18, [0], q4_0), "Q4_1": (3, 32, 20, [0, 2], q4_1),
    "Q5_0": (6, 32, 22, [0], q5_0), "Q5_1": (7, 32, 24, [0, 2], q5_1),
    "Q8_0": (8, 32, 34, [0], q8_0), "Q2_K": (10, 256, 84, [80, 82], q2_k),
    "Q3_K": (11, 256, 110, [108], q3_k), "Q4_K": (12, 256, 144, [0, 2], q4_k),
    "Q5_K": (13, 256, 176, [0, 2], q5_k), "Q6_K": (14, 256, 210, [208], q6_k),
}


def quantized(kind, shape, rng):
    """Random blocks: their bytes and their values."""
    number, weights, size, halves, values = QUANT[kind]
    n = int(np.prod(shape)) // weights
    b = rng.integers(0, 256, (n, size), np.uint8)
    top = 2.0 ** -{32: 6, 256: 12}[weights]     # a K-quant's scale is multiplied by another
    for at in halves:
        d = (rng.standard_normal((n, 1)) * top).astype("<f2")
        b[:, at:at + 2] = d.view(np.uint8)
    return number, b.tobytes(), values(b).reshape(shape)


# ---- Hugging Face ---------------------------------------------------------------------------

def read_safetensors(path):
    raw = open(path, "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    out = {}
    for name, t in json.loads(raw[8:8 + n]).items():
        if name == "__metadata__":
            continue
        a, b = t["data_offsets"]
        x = np.frombuffer(raw[8 + n + a:8 + n + b], {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[t["dtype"]])
        if t["dtype"] == "BF16":
            x = (x.astype("<u4") << 16).view("<f4")
        out[name] = x.astype(np.float32).reshape(t["shape"])
    return out


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, x in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for x in tensors.values():
            out.write(np.ascontiguousarray(x, "<f4").tobytes())


MODULES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp", "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp", "mlp.shared_expert.down_proj": "ffn_down_shexp",
}


def gguf_name(name):
    module, kind = name.rsplit(".", 1)
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    if module in top:
        return top[module] + "." + kind, -1
    _, _, layer, rest = module.split(".", 3)
    if rest.startswith("mlp.experts."):
        _, _, e, what = rest.split(".")
        return "blk.%s.ffn_%s_exps.%s" % (layer, what.split("_")[0], kind), int(e)
    return "blk.%s.%s.%s" % (layer, MODULES[rest], kind), -1


def permuted(x, heads, back=False):     # halves of a head to pairs, or back
    d = x.shape[0] // heads
    inner = (d // 2, 2) if back else (2, d // 2)
    return x.reshape(heads, *inner, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def llama3_factors(rope, dim, theta):
    freq = theta ** -(np.arange(0, dim, 2, dtype=np.float64) / dim)
    turns = rope["original_max_position_embeddings"] * freq / (2 * np.pi)
    low, high, by = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    s = (turns - low) / (high - low)
    mid = 1 / ((1 - s) / by + s)
    return np.where(turns > high, 1.0, np.where(turns < low, by, mid)).astype(np.float32)


ARCH = {"llama": "llama", "qwen2": "qwen2", "qwen2_moe": "qwen2moe", "qwen3": "qwen3"}


def keys_of(c):
    a = ARCH[c["model_type"]]
    rope = c.get("rope_parameters") or c.get("rope_scaling") or {}
    heads = c["num_attention_heads"]
    dim = c.get("head_dim") or c["hidden_size"] // heads
    kv = {"general.architecture": (STR, a)}

    def put(name, kind, value):
        if value is not None:
            kv[a + "." + name] = (kind, value)

    put("block_count", U32, c["num_hidden_layers"])
    put("context_length", U32, c["max_position_embeddings"])
    put("embedding_length", U32, c["hidden_size"])
    put("feed_forward_length", U32, c["intermediate_size"])
    put("attention.head_count", U32, heads)
    put("attention.head_count_kv", U32, c.get("num_key_value_heads", heads))
    put("rope.freq_base", F32, c.get("rope_theta", rope.get("rope_theta", 10000.0)))
    put("attention.layer_norm_rms_epsilon", F32, c["rms_norm_eps"])
    if a in ("llama", "qwen3"):
        put("attention.key_length", U32, dim)
        put("attention.value_length", U32, dim)
    if a == "llama":
        put("vocab_size", U32, c["vocab_size"])
        put("rope.dimension_count", U32, dim)
    if a == "qwen2moe":
        put("expert_count", U32, c["num_experts"])
        put("expert_used_count", U32, c["num_experts_per_tok"])
        put("expert_feed_forward_length", U32, c["moe_intermediate_size"])
        put("expert_shared_feed_forward_length", U32, c["shared_expert_intermediate_size"])
    if rope.get("rope_type", rope.get("type")) == "linear":
        put("rope.scaling.type", STR, "linear")
        put("rope.scaling.factor", F32, rope["factor"])
    for id_ in ("bos", "eos"):
        v = c.get(id_ + "_token_id")
        if v is not None:
            kv["tokenizer.ggml.%s_token_id" % id_] = (U32, v)
    return kv, dim, rope


# ---- the file ---------------------------------------------------------------------------------

def text(s):
    s = s.encode() if isinstance(s, str) else s
    return struct.pack("<Q", len(s)) + s


def value(kind, v):
    if isinstance(v, list):
        return struct.pack("<IQ", kind, len(v)) + b"".join(value(kind, x) for x in v)
    return text(v) if kind == STR else struct.pack(PACK[kind], v)


def encode(kv, tensors, version, align):
    """tensors: (name, shape, number, bytes)"""
    out = bytearray(b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(kv)))
    for k, (kind, v) in kv.items():
        out += text(k) + struct.pack("<I", ARR if isinstance(v, list) else kind) + value(kind, v)
    at = 0
    for name, shape, number, data in tensors:
        out += text(name) + struct.pack("<I", len(shape))
        for d in reversed(shape):
            out += struct.pack("<Q", d)
        out += struct.pack("<IQ", number, at)
        at += len(data) + -len(data) % align
    out += b"\0" * (-len(out) % align)
    for _, _, _, data in tensors:
        out += data + b"\0" * (-len(data) % align)
    return bytes(out)


def write(path, kv, tensors, opt):
    n = opt["parts"]
    for i in range(n):
        split = {"split.no": (U16, i), "split.count": (U16, n),
                 "split.tensors.count": (I32, len(tensors))}
        name = path if n == 1 else "%s-%05d-of-%05d.gguf" % (path[:-len(".gguf")], i + 1, n)
        with open(name, "wb") as out:
            out.write(encode({**({} if i else kv), **(split if n > 1 else {})}, tensors[i::n],
                             opt["version"], opt["align"]))


def set_key(kv, spec):
    key, *rest = spec.split(":", 2)
    kv.pop(key, None)
    if not rest:
        return
    kind, v = rest
    listed = kind.endswith("[]")
    kind = KINDS[kind.rstrip("[]")]
    parse = {STR: str, F32: float, F64: float}.get(kind, int)
    kv[key] = (kind, [parse(x) for x in v.split(",")] if listed else parse(v))


def main():
    opt = dict(type="F32", twin="", version=3, align=32, seed=0, parts=1)
    sets, drop, add = [], [], []
    for a in sys.argv[3:]:
        key, v = a.split("=", 1)
        if key in ("set", "drop", "add"):
            dict(set=sets, drop=drop, add=add)[key].append(v)
        else:
            opt[key] = type(opt[key])(v)
    source = sys.argv[1]
    config = json.load(open(os.path.join(source, "config.json")))
    ours = read_safetensors(os.path.join(source, "model.safetensors"))
    rng = np.random.Generator(np.random.PCG64(opt["seed"]))
    kv, dim, rope = keys_of(config)
    if opt["align"] != 32:
        kv["general.alignment"] = (U32, opt["align"])
    for s in sets:
        set_key(kv, s)

    stacks = {}     # name in the file: [(our name, values)] by expert
    for name, x in ours.items():
        g, expert = gguf_name(name)
        if config["model_type"] == "llama" and ("attn_q." in g or "attn_k." in g):
            x = permuted(x, x.shape[0] // dim)
        stacks.setdefault(g, {})[expert] = (name, x)
    tensors, twin = [], {}
    for g, parts in stacks.items():
        names = [parts[e][0] for e in sorted(parts)]
        x = np.stack([parts[e][1] for e in sorted(parts)]) if -1 not in parts else parts[-1][1]
        if g.endswith("ffn_gate_inp_shexp.weight"):
            x = x.reshape(-1)
        t = opt["type"]
        vector = x.ndim == 1 or "_norm" in g or "gate_inp" in g
        if t in QUANT and not vector and x.shape[-1] % QUANT[t][1] == 0:
            number, data, x = quantized(t, x.shape, rng)
        elif t == "F16" and not vector:
            number, data = 1, x.astype("<f2").tobytes()
            x = x.astype("<f2").astype(np.float32)
        elif t == "BF16" and not vector:
            bits = np.ascontiguousarray(x, "<f4").view("<u4")
            bits = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
            number, data = 30, bits.astype("<u2").tobytes()
            x = (bits << 16).view("<f4")
        else:
            number, data = 0, np.ascontiguousarray(x, "<f4").tobytes()
        tensors.append((g, x.shape, number, data))
        for e, name in enumerate(names):
            v = x[e] if -1 not in parts else x
            if config["model_type"] == "llama" and ("attn_q." in g or "attn_k." in g):
                v = permuted(v, v.shape[0] // dim, back=True)
            twin[name] = np.asarray(v).reshape(ours[name].shape)
    if rope.get("rope_type") == "llama3":
        theta = config.get("rope_theta", rope.get("rope_theta", 10000.0))
        x = llama3_factors(rope, dim, theta)
        tensors.append(("rope_freqs.weight", x.shape, 0, x.tobytes()))
    tensors = [t for t in tensors if t[0] not in drop]
    tensors += [(a, (2,), 0, bytes(8)) for a in add]
    write(sys.argv[2], kv, tensors, opt)
    if opt["twin"]:
        os.makedirs(opt["twin"], exist_ok=True)
        json.dump(config, open(os.path.join(opt["twin"], "config.json"), "w"))
        write_safetensors(os.path.join(opt["twin"], "model.safetensors"), twin)


if __name__ == "__main__":
    main()
