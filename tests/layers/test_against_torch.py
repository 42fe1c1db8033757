"""Our layers and torch's over random shapes, layouts, types and settings.

`NORMDOCTOR_LAYER_CASES` sets the number of cases a layer: 60 where it is not set, 1000 for the full proof.
"""

import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from normdoctor import layers

from .norms import (
    BACKENDS,
    HALF,
    LAYOUTS,
    TOLERANCE,
    TWINS,
    assert_as_good,
    assert_buffers_equal,
    error,
    exact,
    laid_out,
    plain,
    run,
    twin,
)

thorough = settings(
    max_examples=int(os.environ.get("NORMDOCTOR_LAYER_CASES", "60")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
sizes = st.integers(1, 5)
epsilons = st.sampled_from([1e-6, 1e-5, 1e-3, 0.1])
types = st.sampled_from(list(TOLERANCE))
#: What does not depend on the layer.
common = {
    "dtype": types,
    "layout": st.sampled_from(LAYOUTS),
    "eps": epsilons,
    "backend": st.sampled_from(BACKENDS),
    "mean": st.sampled_from([0.0, 0.5, 4.0]),
    "seed": st.integers(0, 10**6),
    "float_parameters": st.booleans(),
}


def compare(cls, torch_cls, arguments, options, shape, training=True, steps=2, **drawn):
    """Two steps of both layers from the same state on the same inputs."""
    generator = torch.Generator().manual_seed(drawn["seed"])
    dtype = drawn["dtype"]
    own = cls(*arguments, eps=drawn["eps"], backend=drawn["backend"], **options)
    theirs = torch_cls(*arguments, eps=drawn["eps"], **options)
    if dtype not in HALF or not drawn["float_parameters"]:
        own.to(dtype)
        theirs.to(dtype)
    twin(own, theirs)
    own.train(training)
    theirs.train(training)
    for _ in range(steps):
        x = laid_out(shape, drawn["layout"], dtype, generator, drawn["mean"])
        seed = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        right = exact(theirs, x, seed)
        # torch has faults where a dimension of size one has an unusual stride.
        other = run(theirs, plain(x), seed)
        seed = laid_out(shape, drawn["layout"], dtype, generator) * 0 + seed
        found = run(own, x, seed)
        assert_as_good(found, other, right, dtype, amplified(x, own))
        assert_buffers_equal(own, theirs, dtype)


def amplified(x, layer):
    """What a rounding error of the input becomes: `1 / std` times as much in y, its square in gradients."""
    kept = layer.statistics
    variance = kept.mean_square if kept.mean is None else kept.var
    if variance is None or x.numel() == 0:
        return 0.0
    eps = torch.finfo(torch.float32).eps if layer.eps is None else layer.eps
    factor = (variance.min().item() + eps) ** -0.5
    unit = torch.finfo(torch.float32 if x.dtype in HALF else x.dtype).eps
    return 32 * unit * x.abs().max().item() * factor * max(1.0, factor)


def channel_shape(draw, dims, smallest_batch=0):
    batch = draw(st.integers(smallest_batch, 5))
    return batch, draw(sizes), *(draw(sizes) for _ in range(dims))


@st.composite
def batch_norms(draw):
    dims = draw(st.integers(0, 3))
    shape = channel_shape(draw, dims)
    if shape[0] * torch.Size(shape[2:]).numel() == 1:
        shape = (2, *shape[1:])
    options = {
        "momentum": draw(st.sampled_from([None, 0.0, 0.1, 0.9, 1.0])),
        "affine": draw(st.booleans()),
        "track_running_stats": draw(st.booleans()),
    }
    if options["affine"]:
        options["bias"] = draw(st.booleans())
    return ("BatchNorm1d", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d")[dims], shape, options


@thorough
@given(case=batch_norms(), training=st.booleans(), **common)
def test_batch_norm(case, training, **drawn):
    name, shape, options = case
    compare(getattr(layers, name), getattr(nn, name), (shape[1],), options, shape, training, **drawn)


@st.composite
def instance_norms(draw):
    dims = draw(st.integers(1, 3))
    shape = channel_shape(draw, dims, smallest_batch=1)
    if torch.Size(shape[2:]).numel() == 1:
        shape = (*shape[:-1], 3)
    if draw(st.booleans()):
        shape = shape[1:]
    options = {
        "momentum": draw(st.sampled_from([None, 0.0, 0.1, 1.0])),
        "affine": draw(st.booleans()),
        "track_running_stats": draw(st.booleans()),
    }
    if options["affine"]:
        options["bias"] = draw(st.booleans())
    return dims, shape, options


@thorough
@given(case=instance_norms(), training=st.booleans(), **common)
def test_instance_norm(case, training, **drawn):
    dims, shape, options = case
    name = f"InstanceNorm{dims}d"
    channels = shape[-dims - 1]
    compare(getattr(layers, name), getattr(nn, name), (channels,), options, shape, training, **drawn)


@st.composite
def group_norms(draw):
    groups, width = draw(sizes), draw(sizes)
    batch, _, *rest = channel_shape(draw, draw(st.integers(0, 3)))
    shape = (batch, groups * width, *rest)
    if batch * width * torch.Size(rest).numel() == 1:
        shape = (2, *shape[1:])
    options = {"affine": draw(st.booleans())}
    if options["affine"]:
        options["bias"] = draw(st.booleans())
    return groups, shape, options


@thorough
@given(case=group_norms(), **common)
def test_group_norm(case, **drawn):
    groups, shape, options = case
    compare(layers.GroupNorm, nn.GroupNorm, (groups, shape[1]), options, shape, steps=1, **drawn)


@st.composite
def rows(draw):
    normalized = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    leading = draw(st.lists(st.integers(0, 4), max_size=3))
    return (*leading, *normalized), tuple(normalized)


@thorough
@given(case=rows(), affine=st.booleans(), bias=st.booleans(), **common)
def test_layer_norm(case, affine, bias, **drawn):
    shape, normalized = case
    options = {"elementwise_affine": affine, "bias": bias}
    compare(layers.LayerNorm, nn.LayerNorm, (normalized,), options, shape, steps=1, **drawn)


@thorough
@given(case=rows(), affine=st.booleans(), default_eps=st.booleans(), **common)
def test_rms_norm(case, affine, default_eps, **drawn):
    shape, normalized = case
    drawn["float_parameters"] = False  # torch warns of mixed types
    drawn["eps"] = None if default_eps else drawn["eps"]
    options = {"elementwise_affine": affine}
    compare(layers.RMSNorm, nn.RMSNorm, (normalized,), options, shape, steps=1, **drawn)


@thorough
@given(
    batch=st.integers(0, 4),
    channels=sizes,
    rest=st.lists(sizes, min_size=1, max_size=3),
    size=st.integers(1, 6),
    alpha=st.sampled_from([1e-4, 1.0]),
    beta=st.sampled_from([0.75, 0.5, 2.0]),
    k=st.sampled_from([1.0, 2.0]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    layout=st.sampled_from(LAYOUTS),
    backend=st.sampled_from(BACKENDS),
    seed=st.integers(0, 10**6),
)
def test_local_response_norm(batch, channels, rest, size, alpha, beta, k, dtype, layout, backend, seed):
    generator = torch.Generator().manual_seed(seed)
    own = layers.LocalResponseNorm(size, alpha, beta, k, backend=backend)
    theirs = nn.LocalResponseNorm(size, alpha, beta, k)
    x = laid_out((batch, channels, *rest), layout, dtype, generator)
    # torch's function asks for a view that not every layout has; ours takes it only as backend "torch".
    dense = plain(x)
    seed = torch.randn_like(dense)
    right = exact(theirs, dense, seed)
    assert_as_good(run(own, dense, seed), run(theirs, dense, seed), right, dtype)
    if backend != "torch":
        torch.testing.assert_close(own(x), theirs(dense), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_local_response_norm_of_half_inputs(dtype, backend):
    x = (torch.randn(2, 8, 5, 5) * 300).to(dtype)  # the squares are beyond float16
    right = nn.LocalResponseNorm(3, alpha=1e-3)(x.double())
    y = layers.LocalResponseNorm(3, alpha=1e-3, backend=backend)(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), right, rtol=TOLERANCE[dtype], atol=1e-2)


@pytest.mark.parametrize("name", ["BatchNorm2d", "InstanceNorm2d", "GroupNorm"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [True, False])
def test_an_image_with_a_batch_dimension_added(name, backend, training):
    """`image.permute(2, 0, 1)[None]`: torch's BatchNorm has wrong gradients here on a CPU."""
    cls, torch_cls = TWINS[name]
    arguments = (1, 3) if name == "GroupNorm" else (3,)
    own, theirs = cls(*arguments, backend=backend).double(), torch_cls(*arguments).double()
    twin(own, theirs)
    own.train(training)
    theirs.train(training)
    image = torch.randn(4, 5, 3, dtype=torch.float64).permute(2, 0, 1)[None]
    for x in (image, plain(image)):
        for seed in (plain(image), image):
            own.load_state_dict(theirs.state_dict())
            found, right = run(own, x, seed), exact(theirs, x, seed)
            assert all(error(value, right[key]) < 1e-12 for key, value in found.items() if value is not None)


#: Large enough for the compositions that "auto" takes on a CPU, which small inputs never reach.
LARGE = {
    "BatchNorm1d": ((32,), (4, 32, 1024)),
    "BatchNorm2d": ((16,), (2, 16, 64, 64)),
    "BatchNorm3d": ((4,), (2, 4, 8, 48, 48)),
    "InstanceNorm2d": ((16,), (2, 16, 64, 64)),
    "InstanceNorm3d": ((4,), (2, 4, 8, 48, 48)),
    "GroupNorm": ((8, 32), (2, 32, 48, 48)),
    "LayerNorm": ((768,), (192, 768)),
    "RMSNorm": ((768,), (3, 64, 768)),
}


@pytest.mark.parametrize("name", list(LARGE))
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_inputs(name, layout, dtype):
    arguments, shape = LARGE[name]
    options = {"affine": True} if name.startswith("Instance") else {}
    drawn = {"dtype": dtype, "layout": layout, "eps": 1e-5, "backend": "auto", "mean": 0.5, "seed": 0}
    own, theirs = TWINS[name]
    drawn["float_parameters"] = name != "RMSNorm"
    compare(own, theirs, arguments, options, shape, steps=1, **drawn)


@pytest.mark.parametrize("name", list(LARGE))
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_second_derivatives_of_large_inputs(name, layout):
    """A penalty on the gradient, as of Wasserstein GANs, goes through the fast paths too."""
    arguments, shape = LARGE[name]
    own, theirs = TWINS[name]
    own, theirs = own(*arguments), theirs(*arguments).double()
    x = laid_out(shape, layout, torch.float32, torch.Generator().manual_seed(0))
    found = []
    seed = torch.randn(shape)
    for layer, one in ((own, x), (theirs, plain(x.double()))):
        leaf = one.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        (first,) = torch.autograd.grad((layer(leaf).tanh() * seed).sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), leaf)
        found.append(second)
    assert error(found[0], found[1]) < 1e-4
