#!/usr/bin/env python3
"""Sparse layers of Quartz beside PyTorch's dense ones and SparseProp, in alternating rounds.

    sparse_peers.py QUARTZ [--threads N] [--rounds N] [--mask magnitude|random] [--batch N ...] [--sparsity S ...] [--no-sparseprop]

QUARTZ is the program, such as target/release/quartz. Needs PyTorch 2 and numpy, and for its columns sparseprop 0.1.14, which pip builds from source:

    pip install torch numpy scipy tqdm "pybind11==2.13.6" "setuptools==80.9.0" wheel packaging
    pip install --no-build-isolation --no-deps sparseprop==0.1.14

Every row is the forward and the backward pass (both gradients) of one layer, module in to module out, in ms: the best round of each program, the median of repeated passes within a round.
Rows of SparseProp are those of its faster layout. `ratio` is PyTorch's time by Quartz's int8 time, `f32` SparseProp's by Quartz's f32 time.
"""
import argparse
import json
import statistics
import subprocess
import time

import torch
from torch import nn

try:
    from sparseprop.modules import SparseConv2d, SparseLinear
except ImportError:
    SparseConv2d = SparseLinear = None


def quartz(options):
    """One line of JSON a row, from the program itself."""
    command = [options.quartz, "bench", "sparse", "--json", "--mask", options.mask, "--threads", str(options.threads)]
    for name, values in (("--sparsity", options.sparsity), ("--batch", options.batch)):
        if name == "--sparsity" and values:
            command += [name, ",".join(map(str, values))]
        elif name == "--batch":
            for value in values:
                command += [name, str(value)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["bench"] in ("sparse_conv", "sparse_linear", "sparse_resnet18")]


def prune(weights, sparsity, mask):
    """Zeros at the smallest weights, or at random ones."""
    ranks = torch.rand_like(weights) if mask == "random" else weights.abs()
    threshold = ranks.flatten().kthvalue(max(1, int(sparsity * weights.numel()))).values
    return weights * (ranks > threshold)


def passes(module, x, repeat=5, least=0.2):
    """Median seconds of a forward and a backward pass, after two that warm up: of at least so many, and of more where they take less than so many seconds."""
    times = []
    while len(times) < repeat + 2 or sum(times[2:]) < least:
        x = x.detach().requires_grad_()
        start = time.perf_counter()
        y = module(x)
        elapsed = time.perf_counter() - start
        dy = torch.randn(y.shape)
        start = time.perf_counter()
        y.backward(dy)
        times.append(elapsed + time.perf_counter() - start)
    return statistics.median(times[2:])


def peers(row, options):
    """Seconds of PyTorch's dense layer and of SparseProp's; None for what is not installed."""
    if row["bench"] == "sparse_linear":
        n, inputs, outputs = row["n"], row["i"], row["o"]
        w, x = torch.randn(outputs, inputs), torch.relu(torch.randn(n, inputs))
        dense = nn.Linear(inputs, outputs, bias=False)
        layouts = [lambda w: SparseLinear(w)]
    else:
        n, c, k, hw, kernel, stride, pad = (row[key] for key in ("n", "c", "k", "hw", "kernel", "stride", "pad"))
        w, x = torch.randn(k, c, kernel, kernel), torch.relu(torch.randn(n, c, hw, hw))
        dense = nn.Conv2d(c, k, kernel, stride, pad, bias=False)
        layouts = [
            lambda w, over=over: SparseConv2d(w, padding=pad, stride=stride, vectorizing_over_on=over)
            for over in (False, True)
        ]
    w = prune(w, row["sparsity"], options.mask)
    with torch.no_grad():
        dense.weight.copy_(w)
    has_sparse = SparseLinear and not options.no_sparseprop
    sparse = min(passes(layout(w), x) for layout in layouts) if has_sparse else None
    return passes(dense, x), sparse


# How often ResNet-18 has a layer, by what begins its row.
REPEATED = {"64,64,56,3": 4, "128,128,28,3": 3, "256,256,14,3": 3, "512,512,7,3": 3}
COUNTS = {}


def name(row):
    shape = [str(row[key]) for key in ("n", "i", "o", "c", "k", "hw", "kernel", "stride", "pad") if key in row]
    return f"{row['bench'].removeprefix('sparse_'):8} {','.join(shape):24} {row['sparsity']:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quartz")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--mask", choices=["magnitude", "random"], default="magnitude")
    parser.add_argument("--batch", type=int, nargs="*", default=[64])
    parser.add_argument("--no-sparseprop", action="store_true", help="leave its columns out: it takes minutes at large batches")
    parser.add_argument("--sparsity", type=float, nargs="*", default=[0.9, 0.95, 0.98])
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    best = {}
    for _ in range(options.rounds):
        for row in quartz(options):
            torch_dense, sparseprop = peers(row, options)
            ours = [row[f"{kind}_fwd_seconds"] + row[f"{kind}_bwd_seconds"] for kind in ("dense", "f32", "int8")]
            times = [torch_dense, sparseprop or float("nan"), *ours]
            old = best.get(name(row), times)
            best[name(row)] = [min(pair) for pair in zip(old, times)]
            if row["bench"] == "sparse_resnet18":
                shape = ",".join(str(row[key]) for key in ("c", "k", "hw", "kernel"))
                COUNTS[name(row)] = REPEATED.get(shape, 1)
    columns = ("torch", "sparseprop", "dense", "f32", "int8", "ratio", "f32")
    total = [sum(COUNTS.get(layer, 0) * times[i] for layer, times in best.items()) for i in range(5)]
    if any(total):
        best["all of ResNet-18"] = total
    print(f"{'layer':42}" + "".join(f"{column:>12}" for column in columns))
    for row, (torch_dense, sparseprop, dense, f32, int8) in best.items():
        times = "".join(f"{1e3 * seconds:12.2f}" for seconds in (torch_dense, sparseprop, dense, f32, int8))
        print(f"{row:42}{times}{torch_dense / int8:12.2f}{sparseprop / f32:12.2f}")


if __name__ == "__main__":
    main()
