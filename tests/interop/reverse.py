# SPDX-License-Identifier: Apache-2.0
"""reverse.py ids DIR - golden.safetensors' tokens; reverse.py compare DIR STREAM - and its logits"""
import json
import sys

import numpy as np
from safetensors.numpy import load_file

from qpstream import Stream


def compare(d, golden, stream):
    s = Stream(stream)
    rows = [s.tensor(h["name"], h.get("role")) for h, _ in s.records if h["t"] == "tensor"]
    got = np.stack(rows)[:, golden["logit_positions"]]
    want = golden.get("logits_by_dequant", golden["logits"])
    apart = abs(got - want).max(2) / abs(want).max()
    q = json.load(open(d + "/config.json")).get("quantization_config", {})
    # Rounded activations hang on the last bits of sums.
    rounds = "config_groups" in q and any(g.get("input_activations") for g in q["config_groups"].values())
    limit = 1e-4
    print("%.1e of the largest logit, %.0f %% of the tokens to %g" %
          (apart.max(), 100 * (apart < limit).mean(), limit))
    return (apart < limit).mean() >= (0.75 if rounds else 1) and apart.max() < 1.5e-2


what, d = sys.argv[1:3]
golden = load_file(d + "/golden.safetensors")
if what == "ids":
    for row in golden["input_ids"]:
        print(*row)
else:
    sys.exit(not compare(d, golden, sys.argv[3]))
