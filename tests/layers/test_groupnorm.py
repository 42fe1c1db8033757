"""GroupNorm against torch's: numbers, gradients, memory formats, errors, state."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from normdoctor.errors import UsageError
from normdoctor.layers import GroupNorm

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}


def pair(groups: int, channels: int, **options) -> tuple[GroupNorm, nn.GroupNorm]:
    """The own layer and torch's, with the same random affine parameters."""
    own = GroupNorm(groups, channels, backend="reference", **options)
    theirs = nn.GroupNorm(groups, channels, **options)
    if own.weight is not None:
        nn.init.normal_(own.weight)
        nn.init.normal_(own.bias)
        theirs.load_state_dict(own.state_dict())
    return own, theirs


@st.composite
def cases(draw):
    groups, width = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    spatial = draw(st.lists(st.integers(1, 7), max_size=3))
    batch = draw(st.integers(2, 5))
    return groups, (batch, groups * width, *spatial)


@settings(max_examples=150, deadline=None)
@given(
    case=cases(),
    dtype=st.sampled_from(list(TOLERANCE)),
    eps=st.sampled_from([1e-6, 1e-5, 1e-3, 0.1]),
    affine=st.booleans(),
    offset=st.sampled_from([0.0, 3.0, -50.0]),
    seed=st.integers(0, 1000),
)
def test_equals_torch(case, dtype, eps, affine, offset, seed):
    groups, shape = case
    torch.manual_seed(seed)
    own, theirs = pair(groups, shape[1], eps=eps, affine=affine, dtype=dtype)
    x = (torch.randn(shape, dtype=torch.float64) + offset).to(dtype)
    # The exact answer for this very input, not another approximation of it.
    exact = theirs.double()(x.double())
    got = own(x)
    assert got.dtype == dtype
    assert got.shape == x.shape
    scale = exact.abs().clamp_min(1.0)
    # A group of equal values divides rounding errors by sqrt(eps); an offset multiplies them.
    amplified = 1.0 + (abs(offset) / eps**0.5 if dtype in (torch.float32, torch.float64) else 0.0)
    unit = TOLERANCE[dtype] if dtype in (torch.float16, torch.bfloat16) else torch.finfo(dtype).eps * 8
    bound = max(TOLERANCE[dtype], unit * amplified)
    assert ((got.double() - exact).abs() / scale).max() <= bound


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_input_with_float_parameters(dtype):
    own, theirs = pair(4, 16)
    x = torch.randn(3, 16, 5, 5).to(dtype)
    torch.testing.assert_close(own(x), theirs(x))


def test_large_mean_keeps_its_digits():
    x = torch.randn(2, 8, 16, 16) + 1e4
    exact = nn.functional.group_norm(x.double(), 2)
    own = GroupNorm(2, 8, affine=False, backend="reference")
    assert (own(x).double() - exact).abs().max() < 2e-3


def test_half_does_not_overflow():
    x = torch.full((1, 4, 4), 600.0, dtype=torch.float16)
    x[..., 0] = -600.0
    assert GroupNorm(2, 4, backend="reference", dtype=torch.float16)(x).isfinite().all()


@pytest.mark.parametrize("shape", [(3, 6), (2, 6, 4), (2, 6, 3, 2)])
def test_gradients(shape):
    own, _ = pair(3, 6, dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    inputs = (x, own.weight, own.bias)

    def call(x, weight, bias):
        return torch.func.functional_call(own, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


def test_gradients_equal_torch():
    own, theirs = pair(4, 16, dtype=torch.float64)
    x = torch.randn(2, 16, 5, dtype=torch.float64, requires_grad=True)
    seed = torch.randn(2, 16, 5, dtype=torch.float64)
    mine = torch.autograd.grad(own(x), (x, *own.parameters()), seed)
    others = torch.autograd.grad(theirs(x), (x, *theirs.parameters()), seed)
    for a, b in zip(mine, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def strided(kind: str) -> torch.Tensor:
    x = torch.randn(2, 8, 6, 4)
    return {
        "channels_last": lambda: x.to(memory_format=torch.channels_last),
        "permuted": lambda: torch.randn(2, 6, 4, 8).permute(0, 3, 1, 2),
        "transposed": lambda: x.transpose(2, 3),
        "sliced": lambda: torch.randn(2, 16, 6, 8)[:, ::2, :, 1::2],
        "expanded": lambda: torch.randn(2, 8, 6, 1).expand(2, 8, 6, 4),
    }[kind]()


@pytest.mark.parametrize("kind", ["channels_last", "permuted", "transposed", "sliced", "expanded"])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_strides(kind, backend):
    x = strided(kind)
    own, theirs = pair(4, 8)
    own.backend = backend
    torch.testing.assert_close(own(x), theirs(x), rtol=1e-5, atol=1e-5)
    if kind == "channels_last":
        assert own(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 3, 3), (2, 4, 0)])
def test_empty(shape):
    own, theirs = pair(2, 4)
    x = torch.empty(shape, requires_grad=True)
    assert own(x).shape == theirs(x).shape == torch.Size(shape)
    own(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(
    ("build", "shape", "dtype"),
    [
        (lambda cls: cls(3, 4), None, None),
        (lambda cls: cls(2, 4), (2, 6, 3), torch.float32),
        (lambda cls: cls(2, 4), (4,), torch.float32),
        (lambda cls: cls(2, 4, affine=False), (2, 5, 3), torch.float32),
        (lambda cls: cls(4, 4), (1, 4), torch.float32),
        (lambda cls: cls(4, 4), (1, 4, 1, 1), torch.float32),
        (lambda cls: cls(2, 4).half(), (2, 4, 3), torch.float32),
        (lambda cls: cls(2, 4), (2, 4, 3), torch.float64),
        (lambda cls: cls(2, 4), (2, 4, 3), torch.int64),
    ],
)
def test_errors_are_of_torchs_kind(build, shape, dtype):
    def run(cls):
        layer = build(cls)
        if isinstance(layer, GroupNorm):
            layer.backend = "reference"
        layer(torch.ones(shape, dtype=dtype))

    with pytest.raises((ValueError, RuntimeError)) as theirs:
        run(nn.GroupNorm)
    with pytest.raises(theirs.type):
        run(GroupNorm)


def test_unknown_backend():
    with pytest.raises(UsageError, match="auto, reference, torch"):
        GroupNorm(2, 4, backend="cuda")


@pytest.mark.parametrize("shape", [(3, 4, 1), (2, 4)])
def test_one_value_a_group_is_allowed_where_torch_allows_it(shape):
    own, theirs = pair(4, 4)
    x = torch.randn(shape)
    torch.testing.assert_close(own(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_train_and_eval_are_alike():
    own, _ = pair(2, 8)
    x = torch.randn(4, 8, 3)
    assert torch.equal(own.train()(x), own.eval()(x))
    assert not list(own.buffers())


def test_state_dict_both_ways_and_repr():
    for options in ({}, {"affine": False}, {"eps": 1e-3}):
        own, theirs = pair(2, 8, **options)
        assert list(own.state_dict()) == list(theirs.state_dict())
        own.load_state_dict(theirs.state_dict())
        theirs.load_state_dict(own.state_dict())
        own.backend = "auto"
        ours = "2, 8, eps={eps}, affine={affine}, bias={affine}"
        assert own.extra_repr() == ours.format(eps=own.eps, affine=own.affine)
        assert [p.shape for p in own.parameters()] == [p.shape for p in theirs.parameters()]


def test_without_bias():
    layer = GroupNorm(2, 8, bias=False)
    assert list(layer.state_dict()) == ["weight"]
    assert "bias=False" in layer.extra_repr()


def test_device_and_dtype():
    layer = GroupNorm(2, 8, device="meta", dtype=torch.float16)
    assert layer(torch.empty(2, 8, 3, device="meta", dtype=torch.float16)).is_meta
    assert layer.weight.dtype == torch.float16


def test_backends_agree():
    x = torch.randn(2, 32, 9, 7)
    auto, native = GroupNorm(8, 32), GroupNorm(8, 32, backend="torch")
    assert torch.equal(auto(x), native(x))
    torch.testing.assert_close(GroupNorm(8, 32, backend="reference")(x), native(x), rtol=1e-5, atol=1e-5)


def test_compiles():
    layer = GroupNorm(4, 8, backend="reference")
    x = torch.randn(2, 8, 5)
    torch.testing.assert_close(torch.compile(layer, backend="eager", fullgraph=True)(x), layer(x))
