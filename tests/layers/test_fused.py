"""Activation and residual inside a norm: the same as behind it, rounded once."""

import copy

import pytest
import torch
import torch.nn.functional as F

from .norms import BACKENDS, BUILD, FUSED, HALF, error, scatter

ACTIVATIONS = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
}
FIRST = ["BatchNorm2d", "GroupNorm", "InstanceNorm1d", "LayerNorm", "LayerNorm2d", "RMSNorm"]


def both(name, activation, dtype, residual, backend, training):
    """Output and gradients, fused and one after the other in float64."""
    build, shape = BUILD[name]
    torch.manual_seed(0)
    fused = scatter(build(activation=activation, backend=backend)).to(dtype).train(training)
    plain = scatter(build(backend="reference")).to(dtype).train(training).double()
    x = torch.randn(shape).to(dtype)
    added = torch.randn(shape).to(dtype) if residual else None
    upstream = torch.randn(shape).to(dtype)

    def call(layer, apart):
        inputs = [
            None if t is None else (t.double() if apart else t).clone().requires_grad_() for t in (x, added)
        ]
        if apart:
            y = layer(inputs[0])
            y = y if inputs[1] is None else y + inputs[1]
            y = y if activation is None else ACTIVATIONS[activation](y)
        else:
            y = layer(inputs[0], residual=inputs[1])
        leaves = [t for t in (*inputs, *layer.parameters()) if t is not None]
        return [y.detach(), *torch.autograd.grad(y, leaves, upstream.to(y.dtype))]

    return call(fused, apart=False), call(plain, apart=True)


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@pytest.mark.parametrize("residual", [False, True])
def test_fused_equals_one_after_the_other(name, activation, residual):
    for backend in BACKENDS:
        for training in (True, False):
            found, right = both(name, activation, torch.float64, residual, backend, training)
            assert max(map(error, found, right)) < 1e-12


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("dtype", HALF)
def test_half(name, activation, dtype):
    for backend in BACKENDS:
        for training in (True, False):
            found, right = both(name, activation, dtype, True, backend, training)
            assert all(one.dtype == dtype for one in found)
            # torch's own calls round after each step, and a sum of many terms once for each.
            assert error(found[0], right[0]) < (4 if backend == "torch" else 1.01) * torch.finfo(dtype).eps
            assert max(map(error, found, right)) < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients(name, backend):
    build, shape = BUILD[name]
    layer = scatter(build(activation="silu", backend=backend)).double()
    parameters = dict(layer.named_parameters())
    x, residual = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def call(x, residual, *values):
        state = {n: b.clone() for n, b in layer.named_buffers()} | dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(layer, state, (x, residual))

    for training in (True, False):
        layer.train(training)
        inputs = (x, residual, *parameters.values())
        assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize("name", FIRST)
def test_a_residual_of_other_strides(name):
    build, shape = BUILD[name]
    layer, x = scatter(build(activation="relu")), torch.randn(shape)
    residual = torch.randn(shape[::-1]).permute(*range(len(shape))[::-1])
    other = copy.deepcopy(layer)
    torch.testing.assert_close(layer(x, residual), other(x, residual.contiguous()))


def test_unbatched_residual():
    build, shape = BUILD["InstanceNorm2d"]
    layer = build(activation="relu")
    x, residual = torch.randn(shape), torch.randn(shape)
    torch.testing.assert_close(layer(x, residual)[0], layer(x[0], residual[0]))
