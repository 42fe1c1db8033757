"""`torch->own`: torch's norms, and subclasses that compute the same, to our own layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from normdoctor import layers
from normdoctor.layers.fused import Fused
from normdoctor.rewriting.batchlike import channels_of
from normdoctor.rewriting.built import with_tail
from normdoctor.rewriting.conversions.base import Conversion, Place, Refused
from normdoctor.rewriting.scene import Scene

_DIMENSIONS: tuple[tuple[type[nn.Module], Any], ...] = (
    (nn.BatchNorm1d, layers.BatchNorm1d),
    (nn.BatchNorm2d, layers.BatchNorm2d),
    (nn.BatchNorm3d, layers.BatchNorm3d),
    (nn.InstanceNorm1d, layers.InstanceNorm1d),
    (nn.InstanceNorm2d, layers.InstanceNorm2d),
    (nn.InstanceNorm3d, layers.InstanceNorm3d),
)


def _affine(old: Any) -> dict[str, Any]:
    return {"affine": old.weight is not None, "bias": old.bias is not None, "device": "meta"}


def _elementwise(old: Any) -> dict[str, Any]:
    return {"elementwise_affine": old.weight is not None, "bias": old.bias is not None, "device": "meta"}


def _running(old: Any) -> nn.Module:
    made = next((own for kind, own in _DIMENSIONS if isinstance(old, kind)), None)
    if made is None:
        raise Refused(f"a {type(old).__name__} is none of torch's layers for 1, 2 or 3 dimensions")
    new: nn.Module = made(
        old.num_features, old.eps, old.momentum, track_running_stats=old.track_running_stats, **_affine(old)
    )
    return new


_BUILD: dict[str, Callable[[Any], nn.Module]] = {
    "batch": _running,
    "instance": _running,
    "sync": lambda old: layers.SyncBatchNorm(
        old.num_features, old.eps, old.momentum, track_running_stats=old.track_running_stats,
        process_group=old.process_group, **_affine(old),
    ),
    "frozen": lambda old: layers.FrozenBatchNorm(channels_of(old), old.eps, **_affine(old)),
    "layer": lambda old: layers.LayerNorm(old.normalized_shape, old.eps, **_elementwise(old)),
    "layer2d": lambda old: layers.LayerNorm2d(old.normalized_shape[0], old.eps, **_elementwise(old)),
    "group": lambda old: layers.GroupNorm(old.num_groups, old.num_channels, old.eps, **_affine(old)),
    "rms": lambda old: layers.RMSNorm(old.normalized_shape, old.eps, old.weight is not None, device="meta"),
    "response": lambda old: layers.LocalResponseNorm(old.size, old.alpha, old.beta, old.k),
}  # fmt: skip


class TorchToOwn(Conversion):
    """The same tensors under the same names, the same numbers, faster kernels."""

    spec = "torch->own"
    aliases = ("torch->ours",)
    families = frozenset(_BUILD)
    calls = frozenset({"batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm"})
    exact = frozenset({"eval", "train"})
    leads_back = True

    def concerns(self, module: nn.Module) -> bool:
        """Leave our own as they are."""
        return not isinstance(module, Fused)

    def replacement(self, place: Place, scene: Scene) -> nn.Module:
        """Our layer of the same name."""
        return with_tail(_BUILD[place.kind.family](place.module), place.kind.tail)
