"""What the tests of layers share: the layers beside torch's, comparisons, inputs of every layout."""

from __future__ import annotations

import copy

import torch
from torch import nn

from normdoctor import layers

#: Layers that torch has too: ours and torch's.
TWINS = {
    name: (getattr(layers, name), getattr(nn, name))
    for name in (
        "BatchNorm1d BatchNorm2d BatchNorm3d InstanceNorm1d InstanceNorm2d InstanceNorm3d "
        "GroupNorm LayerNorm RMSNorm LocalResponseNorm"
    ).split()
}
BACKENDS = ("auto", "reference", "torch")
#: Largest difference from torch in units of max(1, |y|); half types: one rounding.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
HALF = (torch.float16, torch.bfloat16)

#: A way to build each layer, and an input for it.
BUILD = {
    "BatchNorm1d": (lambda **o: layers.BatchNorm1d(6, **o), (5, 6, 4)),
    "BatchNorm2d": (lambda **o: layers.BatchNorm2d(6, **o), (3, 6, 4, 3)),
    "BatchNorm3d": (lambda **o: layers.BatchNorm3d(6, **o), (2, 6, 3, 2, 2)),
    "SyncBatchNorm": (lambda **o: layers.SyncBatchNorm(6, **o), (3, 6, 4)),
    "BatchRenorm": (lambda **o: layers.BatchRenorm(6, **o), (4, 6, 3)),
    "GhostBatchNorm": (lambda **o: layers.GhostBatchNorm(6, 2, **o), (4, 6, 3)),
    "MaskedBatchNorm": (lambda **o: layers.MaskedBatchNorm(6, **o), (4, 6, 3)),
    "FrozenBatchNorm": (lambda **o: layers.FrozenBatchNorm(6, **o), (3, 6, 4, 3)),
    "GroupNorm": (lambda **o: layers.GroupNorm(3, 6, **o), (3, 6, 4, 3)),
    "InstanceNorm1d": (lambda **o: layers.InstanceNorm1d(6, affine=True, **o), (3, 6, 5)),
    "InstanceNorm2d": (lambda **o: layers.InstanceNorm2d(6, **o), (3, 6, 4, 3)),
    "InstanceNorm3d": (
        lambda **o: layers.InstanceNorm3d(6, track_running_stats=True, **o),
        (2, 6, 3, 2, 2),
    ),
    "LayerNorm": (lambda **o: layers.LayerNorm((4, 3), **o), (3, 6, 4, 3)),
    "LayerNorm2d": (lambda **o: layers.LayerNorm2d(6, **o), (3, 6, 4, 3)),
    "RMSNorm": (lambda **o: layers.RMSNorm(8, **o), (3, 6, 8)),
    "LocalResponseNorm": (lambda **o: layers.LocalResponseNorm(3, **o), (3, 6, 4)),
    "FilterResponseNorm": (lambda: layers.FilterResponseNorm(6, learnable_eps=True), (3, 6, 4, 3)),
    "ScaleNorm": (lambda: layers.ScaleNorm(8), (3, 6, 8)),
    "GRN": (lambda: layers.GRN(6), (3, 4, 3, 6)),
    "DyT": (lambda: layers.DyT(8), (3, 6, 8)),
}
#: Those that can end with an activation.
FUSED = [
    name for name in BUILD if name not in "LocalResponseNorm FilterResponseNorm ScaleNorm GRN DyT".split()
]
#: Those that choose a backend.
CHOOSING = [*FUSED, "LocalResponseNorm"]


def scatter(layer: nn.Module, seed: int = 0) -> nn.Module:
    """Give all parameters and buffers values of their own; variances stay positive."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*layer.named_parameters(), *layer.named_buffers()]:
            if not value.is_floating_point():
                continue
            drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.copy_(drawn.square() + 0.5 if name.endswith("running_var") else drawn)
    return layer


def twin(own: nn.Module, theirs: nn.Module) -> None:
    """Give both layers the same state."""
    scatter(own)
    theirs.load_state_dict(own.state_dict())


def run(layer, x, seed_gradient, **kwargs):
    """Output and the gradients of input and parameters, with leaves of their own."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    layer.zero_grad()
    y = layer(x, **kwargs)
    y.backward(seed_gradient.to(y.dtype))
    found = {"y": y.detach(), "dx": x.grad}
    found |= {f"d{name}": p.grad for name, p in layer.named_parameters()}
    return found


def plain(x):
    """A copy with the usual strides, also of dimensions of size one."""
    return torch.empty(x.shape, dtype=x.dtype).copy_(x)


def exact(layer, x, seed_gradient):
    """The same in float64, from torch's layer: the right answer for these very values."""
    return run(copy.deepcopy(layer).double(), plain(x.double()), plain(seed_gradient.double()))


def error(value, right):
    """Largest error in units of max(1, largest value)."""
    if right.numel() == 0:
        return 0.0
    scale = max(1.0, right.abs().max().item())
    return (value.double() - right.double()).abs().max().item() / scale


def assert_as_good(own, theirs, right, dtype, more=0.0):
    """Within the tolerance of the right answer, or no worse than four times torch's own error."""
    assert own.keys() == theirs.keys()
    for name, value in own.items():
        if theirs[name] is None:
            assert value is None, name
            continue
        assert value.dtype == theirs[name].dtype, name
        assert value.shape == theirs[name].shape, name
        bound = max(TOLERANCE[dtype], 4 * error(theirs[name], right[name])) + more
        found = error(value, right[name])
        assert found <= bound, f"{name}: off by {found:.1e}, allowed {bound:.1e}"


def assert_buffers_equal(own, theirs, dtype):
    ours, others = dict(own.named_buffers()), dict(theirs.named_buffers())
    assert ours.keys() == others.keys()
    for name, value in others.items():
        assert ours[name].dtype == value.dtype, name
        if value.is_floating_point():
            bound = 2 * TOLERANCE[dtype]
            torch.testing.assert_close(
                ours[name], value, rtol=bound, atol=bound, msg=lambda m, n=name: f"{n}: {m}"
            )
        else:
            assert torch.equal(ours[name], value), name


LAYOUTS = ("contiguous", "channels_last", "permuted", "sliced", "expanded", "offset")


def laid_out(shape, layout, dtype, generator, mean=0.0):
    """Random numbers of a shape, with the strides that the name says."""

    def draw(*sizes):
        return (torch.randn(sizes, generator=generator, dtype=torch.float64) + mean).to(dtype)

    if layout == "channels_last" and len(shape) in (4, 5):
        last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
        return draw(*shape).to(memory_format=last)
    if layout == "permuted":
        return draw(*shape[::-1]).permute(*range(len(shape))[::-1])
    if layout == "sliced":
        doubled = draw(*(2 * size for size in shape))
        return doubled[tuple(slice(None, None, 2) for _ in shape)]
    if layout == "expanded" and len(shape) > 2 and shape[-1] > 1:
        return draw(*shape[:-1], 1).expand(shape).clone(memory_format=torch.preserve_format)
    if layout == "offset":
        return draw(shape[0] + 1, *shape[1:])[1:]
    return draw(*shape)
