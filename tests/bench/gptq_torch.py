#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""gptq_torch.py BENCH [N,K ...] - T7: our solver against GPTQ as research code runs it, in PyTorch

BENCH is build/bench/gptq.  For each linear, in turns: BENCH solves one of that shape, and a loop of
the published form (Frantar et al., 2022, algorithm 1: three Cholesky calls, blocks of 128 columns,
groups of 128, one column a step) solves the same in PyTorch on as many threads.  Prints TSV: row, what,
our seconds, ratio of the loop's time to ours, target.
"""
import os
import subprocess
import sys
import time

try:
    import torch
except ImportError:
    sys.exit("gptq_torch.py: no PyTorch for this Python")

BLOCK = GROUP = 128
LEVELS = 15


def grid(w):
    """Symmetric 4-bit scale of each row of a group."""
    return (w.abs().amax(1, keepdim=True) / (LEVELS / 2)).clamp(min=1e-9)


def nearest(w, s, z):
    return s * (torch.clamp(torch.round(w / s) + z, 0, LEVELS) - z)


def published_loop(w, h):
    n, k = w.shape
    h = h + 0.01 * h.diagonal().mean() * torch.eye(k)
    u = torch.linalg.cholesky(
        torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    w, q, losses = w.clone(), torch.empty_like(w), torch.zeros_like(w)
    z = torch.full((n, 1), (LEVELS + 1) / 2)
    for a in range(0, k, BLOCK):
        b = min(a + BLOCK, k)
        part, err, ub = w[:, a:b].clone(), torch.empty(n, b - a), u[a:b, a:b]
        for j in range(b - a):
            if (a + j) % GROUP == 0:
                s = grid(part[:, j:j + GROUP])
            col = part[:, j:j + 1]
            d = nearest(col, s, z)
            losses[:, a + j] = ((col - d) ** 2 / ub[j, j] ** 2)[:, 0]
            e = (col - d) / ub[j, j]
            part[:, j:] -= e @ ub[j:j + 1, j:]
            q[:, a + j], err[:, j] = d[:, 0], e[:, 0]
        w[:, b:] -= err @ u[a:b, b:]
    return q, losses.sum() / 2


def ours(bench, n, k, threads):
    out = subprocess.run([bench, "-j", str(threads), "-n", "1", "%dx%d" % (n, k)],
                         capture_output=True, text=True, check=True).stdout
    for line in out.splitlines():
        f = line.split("\t")
        if f[0] == "T6" and f[1].startswith("GPTQ"):
            return float(f[2].split()[0])
    sys.exit("gptq_torch.py: %s printed no time for %dx%d" % (bench, n, k))


def main():
    bench = sys.argv[1]
    shapes = [tuple(map(int, s.split(","))) for s in sys.argv[2:]] or [
        (576, 576), (1536, 576), (576, 1536), (4096, 4096)]
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    for n, k in shapes:
        x = torch.randn(2 * k, k) @ (torch.eye(k) + 0.1 * torch.randn(k, k) / k ** 0.5)
        h, w = x.T @ x / k, torch.randn(n, k)
        theirs, mine = [], []
        for _ in range(5 if k < 4096 else 1):
            t = time.perf_counter()
            published_loop(w, h)
            theirs.append(time.perf_counter() - t)
            mine.append(ours(bench, n, k, threads))
        theirs.sort()
        mine.sort()
        t, m = theirs[len(theirs) // 2], mine[len(mine) // 2]
        target = 10 if k <= 1536 else 5 if k <= 4096 else 2.2
        print("T7\tGPTQ of %d x %d, g 128, against the PyTorch loop (%.3f s)\t%.4f s\t%.1f\t>= %g"
              % (n, k, t, m, t / m, target), flush=True)


main()
