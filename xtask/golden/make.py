#!/usr/bin/env python3
"""Writes the reference files of the tests anew, with PyTorch. Needs `pip install torch==2.9.1 numpy safetensors`.

crates/qgraph/tests/golden/ops.safetensors   values and gradients of every op: `case/x0 …`, `case/y`, `case/dy`, `case/g0 …`
crates/qzoo/tests/golden/optim.safetensors   parameters after each of several steps of every optimizer
crates/qzoo/tests/golden/schedules.json      learning rates of every schedule
crates/qzoo/tests/golden/curves.json         losses of 20 training steps from weights and data that a formula gives
crates/qzoo/tests/golden/*.pth               a small checkpoint in the zip and in the legacy format
"""
import pathlib
import torch
import checkpoints
import curves
import ops
import optim
import schedules

root = pathlib.Path(__file__).resolve().parents[2]
torch.set_num_threads(1)
for crate in ("qgraph", "qzoo"):
    (root / "crates" / crate / "tests" / "golden").mkdir(parents=True, exist_ok=True)
ops.write(root / "crates/qgraph/tests/golden/ops.safetensors")
optim.write(root / "crates/qzoo/tests/golden/optim.safetensors")
schedules.write(root / "crates/qzoo/tests/golden/schedules.json")
checkpoints.write(root / "crates/qzoo/tests/golden")
curves.write(root / "crates/qzoo/tests/golden/curves.json")
