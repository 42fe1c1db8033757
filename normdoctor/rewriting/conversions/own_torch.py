"""`own->torch`: our own layers to torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from normdoctor import layers
from normdoctor.layers.fused import Fused
from normdoctor.rewriting.conversions.base import Conversion, Place, Refused
from normdoctor.rewriting.families import FAMILIES
from normdoctor.rewriting.scene import Scene
from normdoctor.rewriting.surgery import origin_of, returned

_DIMENSIONS: tuple[tuple[type[nn.Module], Any], ...] = (
    (layers.BatchNorm1d, nn.BatchNorm1d),
    (layers.BatchNorm2d, nn.BatchNorm2d),
    (layers.BatchNorm3d, nn.BatchNorm3d),
    (layers.InstanceNorm1d, nn.InstanceNorm1d),
    (layers.InstanceNorm2d, nn.InstanceNorm2d),
    (layers.InstanceNorm3d, nn.InstanceNorm3d),
)


def _running(old: Any) -> nn.Module:
    kind = next(theirs for own, theirs in _DIMENSIONS if isinstance(old, own))
    new: nn.Module = kind(
        old.num_features,
        old.eps,
        old.momentum,
        old.weight is not None,
        old.track_running_stats,
        device="meta",
    )
    return new


_BUILD: dict[str, Callable[[Any], nn.Module]] = {
    "batch": _running,
    "instance": _running,
    "sync": lambda old: nn.SyncBatchNorm(
        old.num_features, old.eps, old.momentum, old.weight is not None, old.track_running_stats,
        old.process_group, device="meta",
    ),
    "layer": lambda old: nn.LayerNorm(old.normalized_shape, old.eps, old.weight is not None, device="meta"),
    "group": lambda old: nn.GroupNorm(
        old.num_groups, old.num_channels, old.eps, old.weight is not None, device="meta"
    ),
    "rms": lambda old: nn.RMSNorm(old.normalized_shape, old.eps, old.weight is not None, device="meta"),
    "response": lambda old: nn.LocalResponseNorm(old.size, old.alpha, old.beta, old.k),
}  # fmt: skip


class OwnToTorch(Conversion):
    """What `torch->own` made of it, otherwise torch's layer of the same name; refused where there is none."""

    spec = "own->torch"
    aliases = ("ours->torch",)
    families = FAMILIES
    exact = frozenset({"eval", "train"})
    own_state = frozenset({"activation", "backend", "statistics", "_tail"})

    def concerns(self, module: nn.Module) -> bool:
        """Our own only."""
        return isinstance(module, Fused)

    def replacement(self, place: Place, scene: Scene) -> nn.Module:
        """Torch's layer, with the same tensors."""
        old: Any = place.module
        origin = origin_of(old)
        before = returned(old, origin) if origin is not None else old
        if not isinstance(before, Fused) and _same_family(place, before):
            return before
        if old.activation is not None:
            raise Refused(f"it ends with {old.activation}, which torch's layer does not")
        build = _BUILD.get(place.kind.family)
        if build is None or place.kind.tail:
            raise Refused(f"torch has no layer that is a {type(old).__name__}")
        new: Any = build(old)
        if new._parameters.get("bias") is not None and old.bias is None:
            new.register_parameter("bias", None)
        return new  # type: ignore[no-any-return]


def _same_family(place: Place, before: nn.Module) -> bool:
    from normdoctor.rewriting.families import family_of

    now, then = place.kind.family, family_of(before)
    return now == then or {now, then} == {"layer", "layer2d"}
