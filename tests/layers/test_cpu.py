"""The compositions for the CPU against the formulas, also where they hand over to torch's own kernels."""

from __future__ import annotations

import pytest
import torch

from normdoctor.layers import functional, native, reference
from normdoctor.layers.cpu import channels, groups, rows

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
types = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
affine = pytest.mark.parametrize("affine", [False, True])


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    """Small inputs take the composition, too, in pieces of few rows."""
    monkeypatch.setattr(rows, "SMALL", 0)
    monkeypatch.setattr("normdoctor.layers.cpu.common.PIECE", 60)
    for name in ("VALUES", "POSITIONS"):
        monkeypatch.setattr(channels, name, 0)
    monkeypatch.setattr(groups, "VALUES", 0)
    monkeypatch.setattr(groups, "NARROW", 100)
    monkeypatch.setattr(groups, "NARROW_HALF", 100)


def made(shape, dtype, seed=0, mean=0.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) + mean).to(dtype)


def parameters(size, dtype, affine):
    return [made(size, dtype, seed).requires_grad_() if affine else None for seed in (1, 2)]


def compare(found, expected, inputs, dtype):
    """Results, statistics and gradients."""
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(found[0], expected[0], **tolerance)
    for one, other in zip(found[1:], expected[1:], strict=True):
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        torch.testing.assert_close(one, other, rtol=max(TOLERANCE[wide], 1e-12), atol=TOLERANCE[wide])
    grad = made(found[0].shape, dtype, seed=3)
    wanted = [one for one in inputs if one is not None]
    pairs = zip(
        torch.autograd.grad(found[0], wanted, grad),
        torch.autograd.grad(expected[0], wanted, grad),
        strict=True,
    )
    for one, other in pairs:
        scale = float(other.abs().max().clamp_min(1))
        torch.testing.assert_close(one, other, rtol=5 * TOLERANCE[dtype], atol=5 * TOLERANCE[dtype] * scale)


@types
@affine
@pytest.mark.parametrize("shape", [(5, 7), (40, 16), (3, 4, 12), (1, 200)])
def test_rms_norm(shape, dtype, affine):
    x = made(shape, dtype).requires_grad_()
    weight, _ = parameters(shape[-1], dtype, affine)
    expected = reference.rms_norm(x, shape[-1:], weight, 1e-5)
    compare(rows.rms_norm(x, shape[-1:], weight, 1e-5), expected, [x, weight], dtype)
    with torch.no_grad():
        torch.testing.assert_close(
            rows.rms_norm(x, shape[-1:], weight, 1e-5)[0], expected[0], rtol=TOLERANCE[dtype], atol=1e-6
        )


@types
@pytest.mark.parametrize("fused", [True, False])
def test_small_rms_norm(dtype, fused, monkeypatch):
    monkeypatch.setattr(rows, "SMALL", 1 << 17)
    if not fused:
        monkeypatch.delattr(torch, "_fused_rms_norm", raising=False)
    x = made((3, 4, 12), dtype).requires_grad_()
    weight, _ = parameters(12, dtype, True)
    found = rows.rms_norm(x, (12,), weight, 1e-5)
    assert not found[1].requires_grad
    compare(found, reference.rms_norm(x, (12,), weight, 1e-5), [x, weight], dtype)


def test_rms_norm_of_several_dimensions_and_of_a_gradient_that_is_no_block():
    x = made((6, 4, 5), torch.float64).requires_grad_()
    weight = made((4, 5), torch.float64).requires_grad_()
    for function in (rows.rms_norm, reference.rms_norm):
        y = function(x.transpose(0, 1).transpose(0, 1), (4, 5), weight, 1e-5)[0]
        grads = torch.autograd.grad(y.sum(), (x, weight))
        if function is rows.rms_norm:
            found = grads
    torch.testing.assert_close(found, grads)


@types
@affine
@pytest.mark.parametrize("shape", [(3, 4, 9), (5, 2, 4, 3), (2, 3, 2, 3, 4)])
def test_batch_norm(shape, dtype, affine):
    x = made(shape, dtype, mean=2.0).requires_grad_()
    weight, bias = parameters(shape[1], torch.float32 if dtype in reference.HALF else dtype, affine)
    expected = reference.batch_norm(x, weight, bias, 1e-5, "relu")
    compare(channels.batch_norm(x, weight, bias, 1e-5, "relu"), expected, [x, weight, bias], dtype)


@types
@affine
@pytest.mark.parametrize(
    ("shape", "count"), [((3, 6, 5, 4), 6), ((3, 6, 5, 4), 2), ((1, 8, 4, 4), 4), ((2, 4, 3, 2, 3), 4)]
)
@pytest.mark.parametrize("positions", [1, 10**6], ids=["shortcut", "exact"])
def test_group_norm(shape, count, dtype, affine, positions, monkeypatch):
    monkeypatch.setattr(groups, "POSITIONS", positions)
    x = made(shape, dtype).contiguous(memory_format=LAST[len(shape)]).requires_grad_()
    weight, bias = parameters(shape[1], dtype, affine)
    residual = made(shape, dtype, seed=4).requires_grad_()
    assert groups.usable(x, count)
    found = groups.group_norm(x, count, weight, bias, 1e-5, "silu", residual)
    assert found[0].is_contiguous(memory_format=LAST[len(shape)])
    expected = reference.group_norm(x, count, weight, bias, 1e-5, "silu", residual)
    compare(found, expected, [x, weight, bias, residual], dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@affine
@pytest.mark.parametrize("shape", [(3, 4, 9), (1, 2, 5, 4), (2, 3, 2, 3, 4)])
def test_instance_norm_in_the_usual_layout(shape, dtype, affine, monkeypatch):
    monkeypatch.setattr(groups, "POSITIONS", 0)
    x = made(shape, dtype).requires_grad_()
    weight, bias = parameters(shape[1], dtype, affine)
    assert groups.usable(x, shape[1])
    found = groups.group_norm(x, shape[1], weight, bias, 1e-5, "gelu")
    expected = reference.group_norm(x, shape[1], weight, bias, 1e-5, "gelu")
    compare(found, expected, [x, weight, bias], dtype)


@pytest.mark.parametrize("mean", [0.0, 10.0, 1e3, 1e4])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("count", [2, 16])
def test_a_large_mean_costs_no_digits(mean, last, count):
    x = made((4, 16, 40, 40), torch.float32, mean=mean)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    wide = x.double()
    over = wide.view(4, count, -1).var(2, correction=0) if not last else None
    over = wide.contiguous().view(4, count, -1).var(2, correction=0) if over is None else over
    found = groups.group_norm(x, count, None, None, 0.0)[2].double().pow(-2)
    assert float((found / over - 1).abs().max()) < 1e-4
    found = channels.batch_norm(x, None, None, 1e-5)[2].double()
    assert float((found / wide.var((0, 2, 3), correction=0) - 1).abs().max()) < 1e-4


def functions():
    yield "rms", (4, 6), (6,), lambda x, w, b: rows.rms_norm(x, (6,), w, 1e-3)[0]
    yield "batch", (3, 2, 5), (2,), lambda x, w, b: channels.batch_norm(x, w, b, 1e-3)[0]
    for count in (2, 4):

        def grouped(x, w, b, count=count):
            last = x.contiguous(memory_format=torch.channels_last)
            return groups.group_norm(last, count, w, b, 1e-3)[0]

        yield f"groups of {count}", (2, 4, 3, 2), (4,), grouped


@pytest.mark.parametrize(("shape", "size", "function"), [one[1:] for one in functions()])
def test_first_and_second_derivatives(shape, size, function):
    inputs = [made(shape, torch.float64, 5), *(made(size, torch.float64, seed) for seed in (6, 7))]
    inputs = [one.requires_grad_() for one in inputs]
    if function(*inputs).grad_fn.name().startswith("_RMSNorm") or len(shape) == 2:
        x, weight, _ = inputs
        assert torch.autograd.gradcheck(lambda x, w: function(x, w, None), (x, weight))
        assert torch.autograd.gradgradcheck(lambda x, w: function(x, w, None), (x, weight))
        return
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_auto_takes_the_compositions_and_torch_does_not(monkeypatch):
    taken = []
    monkeypatch.setitem(functional.fast._CPU, "rms_norm", lambda *_: taken.append(1) or (None, None))
    functional.rms_norm(torch.ones(2, 3), (3,))
    assert taken == [1]
    functional.rms_norm(torch.ones(2, 3), (3,), backend="torch")
    assert taken == [1]


def test_without_a_card_triton_is_refused():
    if torch.version.cuda is not None:
        pytest.skip("torch is built for CUDA")
    from normdoctor.errors import UsageError

    with pytest.raises(UsageError, match="built for CUDA"):
        functional.rms_norm(torch.ones(2, 3), (3,), backend="triton")


def test_what_gains_nothing_goes_to_torch():
    x = torch.randn(2, 4, 6, 6)
    assert not groups.usable(x, 2)
    assert not groups.usable(torch.randn(2, 4, 1, 1), 4)
    assert not channels.usable(x.half())
    assert not channels.usable(x.contiguous(memory_format=torch.channels_last))
    assert native.LARGE_MEAN_SHORTCUT < native.LARGE_MEAN
