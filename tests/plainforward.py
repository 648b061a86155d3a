#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""plainforward.py - OPT, ViT and Qwen2 in plain float64, and changed copies of models of them

change FROM TO [KEY=JSON...] [-REGEX...] [+NAME=SHAPE...]
        copies the HF directory FROM to TO: KEY of config.json set to the value (removed by
        "KEY="), tensors whose names match REGEX dropped, random F32 tensors added (SHAPE: 48 or
        48,16)
compare MODEL INPUT STREAM
        what qp-forward --hidden made of MODEL and INPUT, lines of ids or a safetensors file with
        pixel_values.  Prints the largest errors, relative to the largest value; exits 1 if one
        is above 2e-5 or nothing was compared.

Written from the definitions of transformers' OPTForCausalLM, ViTForImageClassification and
Qwen2ForCausalLM (version 5), not from our code; nothing is clever here.
"""
import json
import math
import os
import re
import struct
import sys

import numpy as np

from llama import Llama, read_safetensors, read_stream


def gelu_new(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "gelu_new": gelu_new,
}


def softmax(s):
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Plain:
    """What OPT and ViT have in common: weights, linears with a bias, layer norms, attention."""

    def __init__(self, config, weights):
        self.c, self.w = config, weights
        self.used = set()

    def get(self, name):
        self.used.add(name)
        return self.w[name]

    def linear(self, name, x, bias):
        y = x @ self.get(name + ".weight").T
        return y + self.get(name + ".bias") if bias else y

    def norm(self, name, x, eps, affine=True):
        mean = x.mean(-1, keepdims=True)
        y = (x - mean) / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + eps)
        return y * self.get(name + ".weight") + self.get(name + ".bias") if affine else y

    def attend(self, q, k, v, causal):
        """[n, hidden] each, cut into heads."""
        n, hidden = q.shape
        dim = hidden // self.c["num_attention_heads"]
        out = np.zeros((n, hidden))
        for at in range(0, hidden, dim):
            h = slice(at, at + dim)
            s = q[:, h] @ k[:, h].T / math.sqrt(dim)
            if causal:
                s = np.where(np.tri(n, dtype=bool), s, -np.inf)
            out[:, h] = softmax(s) @ v[:, h]
        return out


class Opt(Plain):
    def layer_norm(self, name, x):
        return self.norm(name, x, 1e-5, self.c["layer_norm_elementwise_affine"])

    def block(self, i, x):
        p, bias = "model.decoder.layers.%d." % i, self.c["enable_bias"]
        before = self.c["do_layer_norm_before"]
        a = self.layer_norm(p + "self_attn_layer_norm", x) if before else x
        q, k, v = (self.linear(p + "self_attn.%s_proj" % n, a, bias) for n in "qkv")
        x = x + self.linear(p + "self_attn.out_proj", self.attend(q, k, v, True), bias)
        if not before:
            x = self.layer_norm(p + "self_attn_layer_norm", x)
        b = self.layer_norm(p + "final_layer_norm", x) if before else x
        act = ACTIVATIONS[self.c["activation_function"]]
        x = x + self.linear(p + "fc2", act(self.linear(p + "fc1", b, bias)), bias)
        return x if before else self.layer_norm(p + "final_layer_norm", x)

    def run(self, ids):
        embed = self.get("model.decoder.embed_tokens.weight")
        narrow = self.c["word_embed_proj_dim"] != self.c["hidden_size"]
        x = embed[ids]
        if narrow:
            x = self.linear("model.decoder.project_in", x, False)
        x = x + self.get("model.decoder.embed_positions.weight")[2:2 + len(ids)]
        out = {"hidden.%d.0": x}
        for i in range(self.c["num_hidden_layers"]):
            out["hidden.%%d.%d" % (i + 1)] = x = self.block(i, x)
        if self.c["do_layer_norm_before"] and not self.c["_remove_final_layer_norm"]:
            x = self.layer_norm("model.decoder.final_layer_norm", x)
        if narrow:
            x = self.linear("model.decoder.project_out", x, False)
        assert self.c["tie_word_embeddings"]
        return {**out, "hidden.%d.norm": x, "logits.%d": x @ embed.T}


class Vit(Plain):
    def block(self, i, x):
        p, eps = "vit.encoder.layer.%d." % i, self.c["layer_norm_eps"]
        a = self.norm(p + "layernorm_before", x, eps)
        q, k, v = (self.linear(p + "attention.attention." + n, a, self.c["qkv_bias"])
                   for n in ("query", "key", "value"))
        x = x + self.linear(p + "attention.output.dense", self.attend(q, k, v, False), True)
        b = self.linear(p + "intermediate.dense", self.norm(p + "layernorm_after", x, eps), True)
        return x + self.linear(p + "output.dense", ACTIVATIONS[self.c["hidden_act"]](b), True)

    def run(self, image):
        e, side = "vit.embeddings.", self.c["patch_size"]
        kernel = self.get(e + "patch_embeddings.projection.weight")
        x = [self.get(e + "cls_token")[0, 0]]
        for top in range(0, self.c["image_size"], side):
            for left in range(0, self.c["image_size"], side):
                patch = image[:, top:top + side, left:left + side]
                x.append((kernel * patch).sum((1, 2, 3)) +
                         self.get(e + "patch_embeddings.projection.bias"))
        x = np.array(x) + self.get(e + "position_embeddings")[0]
        out = {"hidden.%d.0": x}
        for i in range(self.c["num_hidden_layers"]):
            out["hidden.%%d.%d" % (i + 1)] = x = self.block(i, x)
        x = self.norm("vit.layernorm", x, self.c["layer_norm_eps"])
        logits = self.linear("classifier", x[:1], True)
        return {**out, "hidden.%d.norm": x, "logits.%d": logits}


class Qwen2(Llama):
    """Llama with biases on q, k and v, and a window in the later layers."""

    def sees(self, i, n):
        back = np.arange(n)[:, None] - np.arange(n)    # how far back key k lies from query q
        windowed = self.c["use_sliding_window"] and i >= self.c["max_window_layers"]
        return (back >= 0) & (back < (self.c["sliding_window"] if windowed else n))

    def run(self, ids):
        assert all("model.layers.%d.self_attn.%s_proj.bias" % (i, n) in self.w
                   for i in range(self.c["num_hidden_layers"]) for n in "qkv")
        hidden, normed, logits, _ = super().run(ids)
        return {**{"hidden.%%d.%d" % i: x for i, x in enumerate(hidden)},
                "hidden.%d.norm": normed, "logits.%d": logits}


def compare(path, source, stream):
    with open(os.path.join(path, "config.json")) as f:
        config = json.load(f)
    weights = read_safetensors(os.path.join(path, "model.safetensors"))
    kind = config["model_type"]
    if kind == "vit":
        inputs = read_safetensors(source)["pixel_values"]
    else:
        with open(source) as f:
            inputs = [[int(i) for i in line.split()] for line in f]
    model = Qwen2(path) if kind == "qwen2" else {"opt": Opt, "vit": Vit}[kind](config, weights)
    got, worst = read_stream(stream), {}
    for n, x in enumerate(inputs):
        for name, want in model.run(x).items():
            have = got[name % n, ""][0]
            assert have.shape == want.shape, (name % n, have.shape, want.shape)
            what = name.split(".")[0]
            error = np.abs(have - want).max() / np.abs(want).max()
            worst[what] = max(worst.get(what, 0), error)
    if kind != "qwen2":
        assert model.used == set(weights), model.used ^ set(weights)
    print(" ".join("%s %.1e" % w for w in worst.items()))
    return 0 if worst and max(worst.values()) <= 2e-5 else 1


def change(source, out, *changes):
    with open(os.path.join(source, "config.json")) as f:
        config = json.load(f)
    weights = read_safetensors(os.path.join(source, "model.safetensors"))
    rng = np.random.Generator(np.random.PCG64(len(weights)))
    for c in changes:
        if c[0] == "-":
            drop = [k for k in weights if re.search(c[1:], k)]
            assert drop, c
            for k in drop:
                del weights[k]
        elif c[0] == "+":
            name, shape = c[1:].split("=")
            size = [int(n) for n in shape.split(",")]
            weights[name] = rng.standard_normal(size) * 0.5
        else:
            key, value = c.split("=", 1)
            config.pop(key, None)
            if value:
                config[key] = json.loads(value)
    header, at = {}, 0
    for name, x in weights.items():
        end = at + 4 * x.size
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(out)
    with open(os.path.join(out, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for x in weights.values():
            f.write(x.astype("<f4").tobytes())
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit({"change": change, "compare": compare}[sys.argv[1]](*sys.argv[2:]))
