"""What the layers normalize by: exact for large means, kept for the probe, and no burden on anything else."""

import copy
import pickle
import weakref

import pytest
import torch

from normdoctor import layers
from normdoctor.layers import functional

from .norms import BACKENDS, BUILD, CHOOSING, HALF, scatter

AXES = {
    "BatchNorm1d": (0, 2),
    "BatchNorm2d": (0, 2, 3),
    "BatchNorm3d": (0, 2, 3, 4),
    "SyncBatchNorm": (0, 2),
    "BatchRenorm": (0, 2),
    "MaskedBatchNorm": (0, 2),
    "InstanceNorm1d": (2,),
    "InstanceNorm2d": (2, 3),
    "InstanceNorm3d": (2, 3, 4),
    "LayerNorm": (2, 3),
    "LayerNorm2d": (1,),
}
RATIO = 1e4  # mean over standard deviation


def drift(found, x, axes):
    right = x.double().var(axes, correction=0)
    return ((found.double() - right) / right).abs().max().item()


def shifted(*shape, dtype=torch.float32, memory_format=torch.contiguous_format):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) + RATIO
    return x.to(dtype).contiguous(memory_format=memory_format)


FORMATS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("size", [8, 64, 192])
class TestLargeMean:
    """A mean of 10 000 standard deviations in float32 leaves the variance 4 digits."""

    def test_batch_norm(self, backend, memory_format, size):
        x = shifted(2, 8, size, size, memory_format=memory_format)
        layer = layers.BatchNorm2d(8, backend=backend, momentum=1.0)
        y = layer(x)
        assert drift(layer.statistics.var, x, (0, 2, 3)) < 1e-4
        count = x.numel() / 8
        assert drift(layer.running_var * (count - 1) / count, x, (0, 2, 3)) < 1e-4
        assert (y.double().var((0, 2, 3), correction=0) - 1).abs().max() < 3e-4

    @pytest.mark.parametrize("groups", [1, 4, 8])
    def test_group_norm(self, backend, memory_format, size, groups):
        x = shifted(2, 8, size, size, memory_format=memory_format)
        layer = layers.GroupNorm(groups, 8, backend=backend)
        y = layer(x)
        assert drift(layer.statistics.var, x.unflatten(1, (groups, -1)), (2, 3, 4)) < 1e-4
        assert (y.double().unflatten(1, (groups, -1)).var((2, 3, 4), correction=0) - 1).abs().max() < 3e-4

    def test_instance_norm(self, backend, memory_format, size):
        x = shifted(2, 8, size, size, memory_format=memory_format)
        layer = layers.InstanceNorm2d(8, backend=backend)
        layer(x)
        assert drift(layer.statistics.var, x, (2, 3)) < 1e-4

    def test_layer_norm(self, backend, memory_format, size):
        x = shifted(2, 8, size, size, memory_format=memory_format)
        layer = layers.LayerNorm((size, size), backend=backend)
        y = layer(x)
        assert drift(layer.statistics.var, x, (2, 3)) < 1e-4
        assert (y.double().var((2, 3), correction=0) - 1).abs().max() < 3e-4

    def test_layer_norm_of_channels(self, backend, memory_format, size):
        x = shifted(2, 64, size, size, memory_format=memory_format)
        layer = layers.LayerNorm2d(64, backend=backend)
        layer(x)
        assert drift(layer.statistics.var, x, (1,)) < 1e-4

    def test_rms_norm(self, backend, memory_format, size):
        x = shifted(2, 8, size, size, memory_format=memory_format)
        layer = layers.RMSNorm(size, backend=backend)
        layer(x)
        right = x.double().square().mean(-1)
        assert ((layer.statistics.mean_square.double() - right) / right).abs().max() < 1e-4


#: Layer, shape, and the axes of the input, or of its groups, that one statistic is taken over.
MANY_VALUES = {
    "groups of images": (lambda **o: layers.GroupNorm(2, 4, **o), (1, 4, 384, 384), (2, 3, 4)),
    "groups of volumes": (lambda **o: layers.GroupNorm(2, 4, **o), (1, 4, 64, 64, 48), (2, 3, 4, 5)),
    "wide groups": (lambda **o: layers.GroupNorm(1, 16, **o), (1, 16, 192, 192), (2, 3, 4)),
    "instances": (lambda **o: layers.InstanceNorm2d(2, affine=True, **o), (1, 2, 768, 768), (2, 3)),
    "batch of images": (lambda **o: layers.BatchNorm2d(2, momentum=1.0, **o), (2, 2, 512, 512), (0, 2, 3)),
    "batch of rows": (lambda **o: layers.BatchNorm1d(2, momentum=1.0, **o), (2**19, 2), (0,)),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", MANY_VALUES)
@pytest.mark.parametrize("ratio", [30.0, RATIO])
def test_large_mean_of_many_values_in_channels_last(backend, case, ratio):
    """Added up in float32 one by one, the mean itself is off by many standard deviations."""
    build, shape, axes = MANY_VALUES[case]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + ratio
    last = {2: torch.contiguous_format, 4: torch.channels_last, 5: torch.channels_last_3d}[x.dim()]
    x = x.contiguous(memory_format=last).requires_grad_()
    layer = scatter(build(backend=backend))
    y = layer(x)
    assert y.is_contiguous(memory_format=last)
    groups = getattr(layer, "num_groups", None)
    seen = x.detach() if groups is None else x.detach().unflatten(1, (groups, -1))
    assert drift(layer.statistics.var, seen, axes) < 1e-4
    if getattr(layer, "running_var", None) is not None:
        assert drift(layer.running_var, seen, axes) < 1e-4
    if ratio != RATIO:
        return
    seed = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(y, (x, *layer.parameters()), seed)
    wide = x.detach().double().requires_grad_()
    other = scatter(build(backend="reference")).double()
    right = torch.autograd.grad(other(wide), (wide, *other.parameters()), seed.double())
    for one, two in zip(found, right, strict=True):
        scale = two.abs().max().item()
        torch.testing.assert_close(one.double() / scale, two / scale, rtol=2e-3, atol=2e-3)


def test_large_mean_in_the_other_batch_norms():
    x = shifted(64, 8, 9)
    for layer in (layers.BatchRenorm(8), layers.MaskedBatchNorm(8), layers.SyncBatchNorm(8)):
        layer(x)
        assert drift(layer.statistics.var, x, (0, 2)) < 1e-4
    masked = layers.MaskedBatchNorm(8)
    masked(x, torch.arange(9).expand(64, 9) < 6)
    assert drift(masked.statistics.var, x[..., :6], (0, 2)) < 1e-4
    ghost = layers.GhostBatchNorm(8, 32)
    ghost(x)
    assert drift(ghost.statistics.var, x[32:], (0, 2)) < 1e-4


@pytest.mark.parametrize("name", sorted(AXES))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF])
def test_kept_statistics(name, dtype):
    """Those of the last forward, in float32 at least."""
    build, shape = BUILD[name]
    torch.manual_seed(0)
    for backend in BACKENDS:
        layer = scatter(build(backend=backend)).to(dtype)
        assert layer.statistics.mean is None
        assert layer.statistics.var is None
        for _ in range(2):
            x = (torch.randn(shape) * 2 + 3).to(dtype)
            layer(x.clone().requires_grad_()).sum().backward()
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        found = layer.statistics
        assert found.mean.dtype == found.var.dtype == wide
        assert not found.mean.requires_grad
        tolerance = 1e-10 if dtype == torch.float64 else 1e-2 if dtype in HALF else 1e-5
        axes = AXES[name]
        torch.testing.assert_close(found.mean.double(), x.double().mean(axes), rtol=tolerance, atol=tolerance)
        right = x.double().var(axes, correction=0)
        torch.testing.assert_close(found.var.double(), right, rtol=tolerance, atol=tolerance)
        right = x.double().square().mean(axes)
        torch.testing.assert_close(found.mean_square.double(), right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_kept_by_group_norm(backend):
    layer, x = layers.GroupNorm(2, 6, backend=backend), torch.randn(3, 6, 4)
    layer(x)
    assert layer.statistics.mean.shape == (3, 2)
    torch.testing.assert_close(layer.statistics.var, x.unflatten(1, (2, 3)).var((2, 3), correction=0))


@pytest.mark.parametrize(
    ("name", "axes"), [("RMSNorm", -1), ("ScaleNorm", -1), ("FilterResponseNorm", (2, 3)), ("GRN", (1, 2))]
)
def test_kept_mean_squares(name, axes):
    build, shape = BUILD[name]
    layer, x = build(), torch.randn(shape)
    layer(x)
    assert layer.statistics.mean is None
    assert layer.statistics.var is None
    torch.testing.assert_close(layer.statistics.mean_square, x.square().mean(axes))


@pytest.mark.parametrize("name", list(BUILD))
def test_statistics_are_no_burden(name):
    """Not in state, copies or pickles; no graph and no input is kept alive; empty inputs change nothing."""
    build, shape = BUILD[name]
    layer = build()
    keys = list(layer.state_dict())
    x = torch.randn(shape, requires_grad=True)
    inner = x * 1
    layer(inner).sum().backward()
    kept = layer.statistics.mean_square
    assert list(layer.state_dict()) == keys
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.statistics is not layer.statistics
        assert other.statistics.mean_square is None
        assert "empty" in repr(other.statistics)
    dead = weakref.ref(inner)
    del inner
    assert dead() is None
    layer(x[:0])
    assert (kept is None) == (layer.statistics.mean_square is None)
    if kept is not None:
        assert torch.equal(layer.statistics.mean_square, kept)
        layer.statistics.clear()
        assert layer.statistics.mean_square is None


@pytest.mark.parametrize("name", [n for n in CHOOSING if "BatchNorm" in n and n != "FrozenBatchNorm"])
def test_eval_mode_keeps_those_of_training(name):
    build, shape = BUILD[name]
    layer = build()
    layer(torch.randn(shape))
    kept = layer.statistics.mean
    layer.eval()(torch.randn(shape))
    assert layer.statistics.mean is kept


def test_functions_return_statistics_without_a_graph():
    x = torch.randn(4, 6, 5, requires_grad=True)
    weight = torch.ones(6, requires_grad=True)
    for backend in BACKENDS:
        for _, *found in (
            functional.batch_norm(x, weight, backend=backend),
            functional.group_norm(x, 2, weight, backend=backend),
            functional.instance_norm(x, weight, backend=backend),
            functional.layer_norm(x, (5,), backend=backend),
            functional.rms_norm(x, (5,), backend=backend),
        ):
            assert not any(one.requires_grad for one in found)


@pytest.mark.parametrize("mean", [0.0, RATIO])
def test_many_rows_of_channels_last(mean):
    """torch's kernel adds such a channel up value by value in float32, and is off by 1e-4 and more."""
    shape = (2, 3, 400, 400)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + mean
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    layer = layers.BatchNorm2d(3, momentum=1.0)
    y = layer(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert drift(layer.statistics.var, x.detach(), (0, 2, 3)) < 1e-5
    assert drift(layer.running_var, x.detach(), (0, 2, 3)) < 1e-4
    seed = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(y, (x, *layer.parameters()), seed)
    wide = x.detach().double().requires_grad_()
    other = layers.BatchNorm2d(3, backend="reference").double()
    right = torch.autograd.grad(other(wide), (wide, *other.parameters()), seed.double())
    for one, two in zip(found, right, strict=True):
        torch.testing.assert_close(one.double(), two, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(3, 6, 0), (0, 6, 4)])
def test_no_values_move_no_running_statistics(shape):
    layer = layers.InstanceNorm1d(6, track_running_stats=True)
    assert layer(torch.empty(shape)).shape == shape
    assert torch.equal(layer.running_mean, torch.zeros(6))
    assert torch.equal(layer.running_var, torch.ones(6))


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_channels(backend):
    layer = layers.InstanceNorm1d(6, backend=backend)
    with pytest.warns(UserWarning, match="does not match num_features"):
        assert layer(torch.empty(0, 4)).shape == (0, 4)
