#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""lowrank_torch.py BENCH [D RANK] - T17: the best map of a low rank, beside PyTorch's full SVD

BENCH is build/bench/lowrank, D x RANK is 4096 x 64 unless given.  In turns: BENCH finds the map of
that rank that holds most of a random D x D one, and torch.linalg.svd decomposes one as large, f32.
Prints TSV: row, what, our seconds, ratio of our time to that of PyTorch, target; and how much of
the best sum of squares ours holds.
"""
import subprocess
import sys
import time

try:
    import torch
except ImportError:
    sys.exit("lowrank_torch.py: no PyTorch for this Python")

bench = sys.argv[1]
d, rank = (int(x) for x in sys.argv[2:4]) if len(sys.argv) > 2 else (4096, 64)
ours, theirs = [], []
for turn in range(2):
    seconds, caught = (float(x) for x in subprocess.run(
        [bench, str(d), str(rank)], check=True, capture_output=True, text=True).stdout.split())
    ours.append(seconds)
    a = torch.rand(d, d, generator=torch.Generator().manual_seed(turn)) * 2 - 1
    start = time.monotonic()
    values = torch.linalg.svd(a).S
    theirs.append(time.monotonic() - start)
best = (values[:rank].double() ** 2).sum() / (values.double() ** 2).sum()
print("T17\trank %d of a %d x %d map / PyTorch's full SVD (%.2f s)\t%.3f s\t%.3f\t<= 0.1\t"
      % (rank, d, d, min(theirs), min(ours), min(ours) / min(theirs)))
print("T17\t  what it holds / what the SVD's first values hold\t%.4f\t%.4f\t>= 0.99\t"
      % (caught, caught / best))
