"""The Triton kernels in Triton's interpreter, and on a card where there is one.

`NORMDOCTOR_KERNEL_CASES` sets the number of random cases behind the marker `kernels`: 48 where it is not set.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent.parent
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


def interpreted(*arguments):
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def agree(number, first):
    out = interpreted(str(ROOT / "tests" / "layers" / "kernel_cases.py"), number, first)
    assert f"agreed {number}" in out


@needs_triton
def test_the_kernels_agree_with_the_formulas():
    agree("12", "0")


@needs_triton
@pytest.mark.kernels
def test_the_kernels_agree_with_the_formulas_in_many_cases():
    agree(os.environ.get("NORMDOCTOR_KERNEL_CASES", "48"), "12")


DERIVATIVES = """
import torch
from normdoctor.layers import functional as F

torch.manual_seed(0)
inputs = [torch.randn(2, 4, 3, 5), torch.randn(4), torch.randn(4), torch.randn(2, 4, 3, 5)]
inputs = [one.requires_grad_() for one in inputs]

def second(function, backend):
    y = function(*inputs, backend)
    first = torch.autograd.grad(y.pow(3).sum(), inputs, create_graph=True)
    return torch.autograd.grad(sum(one.square().sum() for one in first), inputs)

def layer_norm(x, w, b, r, backend):
    return F.layer_norm(x.movedim(1, -1), (4,), w, b, 1e-3, "silu", r.movedim(1, -1), backend=backend)[0]

for function in (
    lambda x, w, b, r, backend: F.group_norm(x, 2, w, b, 1e-3, "silu", r, backend=backend)[0],
    lambda x, w, b, r, backend: F.batch_norm(x, w, b, 1e-3, "gelu", r, backend=backend)[0],
    layer_norm,
):
    for one, other in zip(second(function, "triton"), second(function, "reference"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)

for mean in (0.0, 1e4):
    x = torch.randn(3, 4, 70, 70) + mean
    for function, wide in (
        (lambda x, b: F.group_norm(x, 2, eps=1e-9, backend=b)[2], (3, 2)),
        (lambda x, b: F.batch_norm(x, eps=1e-9, backend=b)[2].rsqrt(), (4,)),
        (lambda x, b: F.layer_norm(x, (70,), eps=1e-9, backend=b)[2], (3, 4, 70)),
    ):
        found, right = function(x, "triton"), function(x.double(), "reference")
        assert found.shape == wide
        assert float((found.double().pow(-2) / right.pow(-2) - 1).abs().max()) < 1e-4

assert F.group_norm(torch.ones(0, 4, 3), 2, backend="triton")[0].shape == (0, 4, 3)
nan = torch.randn(2, 2, 5)
nan[0, 0, 0] = float("nan")
for activation in (None, "relu", "leaky_relu", "silu"):
    y = F.group_norm(nan, 2, activation=activation, backend="triton")[0]
    assert y[0, 0].isnan().all() and not y[1].isnan().any()
print("agreed")
"""

COMPILED = """
import torch
from torch.library import opcheck
from normdoctor import layers
from normdoctor.layers.kernels import operators

utilities = ("test_schema", "test_faketensor", "test_autograd_registration", "test_aot_dispatch_static")
x = torch.randn(2, 4, 3, 5, requires_grad=True)
w = torch.randn(4, requires_grad=True)
for groups, across in ((4, True), (2, False)):
    opcheck(operators.slab_norm, (x, w, None, x, groups, across, 1e-3, "silu"), test_utils=utilities)
opcheck(operators.row_norm, (x, None, None, None, 5, False, 1e-3, "none"), test_utils=utilities)
opcheck(operators.channel_affine, (x, w, w, None, "relu"), test_utils=utilities)

seen = []

def backend(graph, inputs):
    from torch._dynamo.backends.common import aot_autograd

    def keep(module, _):
        seen.append({str(node.target) for node in module.graph.nodes})
        return module.forward

    return aot_autograd(fw_compiler=keep, bw_compiler=keep)(graph, inputs)

for layer, operator in (
    (layers.GroupNorm(2, 4, activation="relu", backend="triton"), "slab_norm"),
    (layers.BatchNorm2d(4, backend="triton"), "slab_norm"),
    (layers.InstanceNorm2d(4, affine=True, backend="triton"), "slab_norm"),
    (layers.LayerNorm(5, backend="triton"), "row_norm"),
    (layers.RMSNorm(5, backend="triton"), "row_norm"),
):
    seen.clear()
    found = torch.compile(layer, backend=backend, fullgraph=True)(x)
    expected = layer(x)
    torch.testing.assert_close(found, expected)
    inputs = [x, *layer.parameters()]
    for one, other in zip(
        torch.autograd.grad(found.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    assert f"normdoctor.{operator}.default" in seen[0], seen
    assert f"normdoctor.{operator}_backward.default" in seen[1], seen
    program = torch.export.export(layer.eval(), (x.detach(),))
    torch.testing.assert_close(program.module()(x.detach()), layer(x))
print("compiled")
"""


@needs_triton
def test_second_derivatives_large_means_and_bad_values():
    assert "agreed" in interpreted("-c", DERIVATIVES)


@needs_triton
@pytest.mark.kernels
def test_compilers_and_exporters_see_the_operators():
    assert "compiled" in interpreted("-c", COMPILED)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no card")
@pytest.mark.parametrize("seed", range(300))
def test_on_a_card(seed):
    from .kernel_cases import Case, check

    check(Case(seed, "cuda"))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no card")
def test_offsets_of_more_than_32_bits_on_a_card():
    from normdoctor.layers import functional

    x = torch.zeros(3, 2, 2**29, dtype=torch.bfloat16, device="cuda")
    x[2, 1, -1000:] = 1.0
    y, mean, _ = functional.group_norm(x, 2, backend="triton")
    assert float(y[2, 1, -1]) > 100
    assert float(y[2, 1, 0].abs()) < 1
    assert float(mean[2, 1]) == pytest.approx(1000 / 2**29, rel=1e-3)
