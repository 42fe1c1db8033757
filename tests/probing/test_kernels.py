"""The statistics of an activation: by torch, by the textbook, and by the Triton kernel in its interpreter."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from normdoctor.probing.ledger import ROWS
from normdoctor.probing.statistics import BOUNDS, RANGES, rows_of

ROOT = Path(__file__).parent.parent.parent

CASES = """
def cases():
    generator = torch.Generator().manual_seed(0)
    def made(*shape):
        return torch.randn(shape, generator=generator)
    yield "dense", made(50, 40), 1
    yield "one", made(7), 0
    yield "tokens", made(3, 17, 48), 2
    yield "channels", made(4, 5, 9, 11), 1
    yield "channels last", made(4, 6, 9, 11).to(memory_format=torch.channels_last), 1
    yield "sequence", made(3, 8, 33), 1
    yield "unbatched", made(8, 9, 9), 0
    yield "thinned", made(8, 6, 12, 20)[::2, :, 1::3, ::4], 1
    yield "thinned tokens", made(9, 40, 24)[1::2, ::3], 2
    yield "transposed", made(30, 20).T, 1
    yield "long", made(3000, 3), 1
    yield "half", made(64, 33).half(), 1
    yield "bfloat16", made(64, 33).bfloat16(), 1
    yield "far from zero", made(500, 4) + 1e4, 1
    yield "flat", torch.ones(20, 5), 1
    bad = made(40, 6)
    bad[3, 1], bad[4, 2], bad[5, 3] = float("nan"), float("inf"), -float("inf")
    yield "bad", bad, 1
    yield "huge", made(40, 6) * 1e30, 1
"""
exec(CASES)


def textbook(values, axis, bounds, span):
    """One unit at a time, in float64."""
    columns = []
    for unit in values.double().movedim(axis, 0).flatten(1) if values.dim() > 1 else values.double()[:, None]:
        n = unit.numel()
        if not bool(torch.isfinite(unit).all()) or unit.abs().max() > 1e19:
            columns.append([0, 0, 0, math.inf, -math.inf, 0, 0, 0, 0, 1])
            continue
        low = int((unit <= bounds[0]).sum()) if bounds else 0
        high = int((unit >= bounds[1]).sum()) if bounds else 0
        level = 0.0
        if span:
            level = float((unit - sum(span) / 2).abs().sum() / ((span[1] - span[0]) / 2))
        columns.append(
            [
                n, float(unit.mean()), float(unit.var(correction=0) * n), float(unit.min()),
                float(unit.max()), int((unit > 0).sum()), low, high, level, 0,
            ]
        )  # fmt: skip
    return torch.tensor(columns, dtype=torch.float64).T


NAMES = [name for name, *_ in cases()]  # noqa: F821
KINDS = (None, "sigmoid", "hardtanh", "relu6")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_torch_against_the_textbook(name, kind):
    values, axis = next((values, axis) for one, values, axis in cases() if one == name)  # noqa: F821
    bounds, span = BOUNDS.get(kind), RANGES.get(kind)
    rows = rows_of(values, axis, bounds, span)
    expected = textbook(values, axis, bounds, span)
    assert rows.shape == expected.shape == (len(ROWS), values.shape[axis])
    assert rows.dtype == torch.float64
    torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-3 if name != "far from zero" else 0.2)


SCRIPT = (
    """
import math, torch
from normdoctor.probing import kernels
from normdoctor.probing.statistics import BOUNDS, RANGES, finished, rows_of
"""
    + CASES
    + """
count = 0
for name, values, axis in cases():
    for kind in (None, "sigmoid", "hardtanh", "relu6"):
        bounds, span = BOUNDS.get(kind), RANGES.get(kind)
        assert kernels.usable(values)
        n = values.numel() // values.shape[axis]
        found = finished(n, *kernels.totals(values, axis, bounds, span))
        expected = rows_of(values, axis, bounds, span)
        tolerance = 0.2 if name == "far from zero" else 1e-3
        told = lambda text: f"{name} {kind}: {text}"
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=tolerance, msg=told)
        count += 1
assert not kernels.usable(torch.ones(3, dtype=torch.float64))
assert not kernels.usable(torch.ones(0, 3))
assert not kernels.usable(torch.ones(1, 1, 1, 1, 3))
print("agreed", count)
"""
)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernel_in_the_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"agreed {len(NAMES) * len(KINDS)}" in done.stdout


COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from normdoctor.probing import kernels
for pointer in ("*fp32", "*fp16", "*bf16"):
    for broad in (1, 32):
        signature = {"values": pointer, "out": "*fp32"}
        signature |= dict.fromkeys("units n size1 size2 stride0 stride1 stride2 stride_unit".split(), "i32")
        signature |= dict.fromkeys(("low", "high", "middle"), "fp32")
        signature |= dict.fromkeys(("tiles", "tall", "broad"), "constexpr")
        given = {"tiles": 4, "tall": 1024 // broad, "broad": broad}
        source = ASTSource(kernels._KERNEL, signature=signature, constexprs=given)
        assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
print("compiled")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernel_compiles_without_a_card(tmp_path):
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], env=environment, capture_output=True, text=True, check=False
    )
    assert "compiled" in done.stdout, done.stderr[-3000:]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no card")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_on_a_card(name, kind):
    values, axis = next((values, axis) for one, values, axis in cases() if one == name)  # noqa: F821
    bounds, span = BOUNDS.get(kind), RANGES.get(kind)
    on_card = values.to("cuda")
    rows_of(on_card, axis, bounds, span)
    torch.cuda.set_sync_debug_mode("error")
    try:
        rows = rows_of(on_card, axis, bounds, span)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = rows_of(values, axis, bounds, span)
    torch.testing.assert_close(rows.cpu(), expected, rtol=1e-4, atol=0.2 if name == "far from zero" else 1e-3)


def test_a_kernel_that_fails_gives_way_to_torch(monkeypatch):
    from types import ModuleType

    from normdoctor.probing import statistics

    broken = ModuleType("broken")
    calls = []

    def totals(*_):
        calls.append(1)
        raise RuntimeError("no such architecture")

    broken.usable, broken.totals = lambda values: True, totals
    monkeypatch.setattr(statistics, "_kernels", lambda: broken)
    monkeypatch.setattr(statistics, "_FAILED", set())
    for _ in range(2):
        assert statistics.in_one_read(torch.ones(3, 2), 1, None, None) is None
    assert calls == [1]


def test_without_triton_there_is_no_kernel(monkeypatch):
    from normdoctor.probing import statistics

    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "normdoctor.probing.kernels", raising=False)
    statistics._kernels.cache_clear()
    try:
        assert statistics._kernels() is None
    finally:
        statistics._kernels.cache_clear()
