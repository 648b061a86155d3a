#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""ct.py - DIR IDS LOGITS TOLERANCE SHARE WORST: transformers' logits of DIR against a stream's

That share of the tokens must agree to the tolerance, all to worst, of the largest logit.
"""
import json
import re
import sys

import numpy as np
import torch
from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationConfig
from compressed_tensors.transform import TransformConfig, apply_transform_config
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from qpstream import Stream

path, ids, stream = sys.argv[1:4]
tolerance, share, worst = map(float, sys.argv[4:7])


def turn(model):
    """transformers leaves transforms to engines: compressed-tensors alone applies them."""
    config = json.load(open(path + "/config.json"))["quantization_config"].get("transform_config")
    if config and config.get("config_groups"):
        apply_transform_config(model, TransformConfig(**config))


def load():
    model, info = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32,
                                                       output_loading_info=True)
    more = {k for k in info["unexpected_keys"] if not re.search(r"\.R[34]_\d+_\w+\.weight$", k)}
    assert not info["missing_keys"] and not more, info
    assert model.config.quantization_config is not None
    return model


def load_unpacked(config, tensors):
    """transformers makes no room for packed zero points: compressed-tensors alone unpacks."""
    group = QuantizationConfig(**{k: v for k, v in config.quantization_config.items() if v is not None})
    (scheme,) = group.config_groups.values()
    for name in [k for k in tensors if k.endswith(".weight_packed")]:
        m = name[:-len("weight_packed")]
        part = {k[len(m):]: tensors.pop(k) for k in list(tensors) if k.startswith(m)}
        part["weight_scale"] = part["weight_scale"].float()  # weights have its type
        tensors[m + "weight"] = PackedQuantizationCompressor.decompress(part, scheme)["weight"]
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    missing, more = model.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=False)
    assert not more and set(missing) <= {"lm_head.weight"}, (missing, more)
    model.tie_weights()
    return model.eval()


config = AutoConfig.from_pretrained(path)
with safe_open(path + "/model.safetensors", "pt") as f:
    tensors = {k: f.get_tensor(k) for k in f.keys()}
assert any(k.endswith(".weight_scale") for k in tensors)
packed_zero = any(k.endswith(".weight_zero_point") for k in tensors)
model = load_unpacked(config, tensors) if packed_zero else load()
if not packed_zero:
    turn(model)
rows = torch.tensor([[int(x) for x in line.split()] for line in open(ids)])
with torch.no_grad():
    want = model(rows).logits.float().numpy()
s = Stream(stream)
got = np.stack([s.tensor(h["name"], h.get("role")) for h, _ in s.records if h["t"] == "tensor"])
assert got.shape == want.shape and want.std() > 0, (got.shape, want.shape)
apart = abs(got - want).max(2) / abs(want).max()
print("%.1e of the largest logit, %.0f %% of the tokens to %g" %
      (apart.max(), 100 * (apart < tolerance).mean(), tolerance))
sys.exit(not ((apart < tolerance).mean() >= share and apart.max() <= worst))
