"""`layer->rms`: LayerNorm to RMSNorm, in networks whose residual stream can do without a mean."""

from __future__ import annotations

from typing import Any

from torch import nn

from normdoctor.layers import RMSNorm
from normdoctor.rewriting.built import BiasedRMSNorm, with_tail
from normdoctor.rewriting.conversions.base import Conversion, Place, Refused
from normdoctor.rewriting.recentre import Recentring
from normdoctor.rewriting.scene import Scene


class LayerToRms(Conversion):
    """Exact in eval mode: whatever writes to the stream leaves the mean out (see `recentre`).

    Scale and bias stay. In train mode, dropout on the stream itself makes a mean that LayerNorm would take
    off and RMSNorm does not; without such dropout it is exact there as well.
    """

    spec = "layer->rms"
    families = frozenset({"layer"})
    calls = frozenset({"layer_norm"})
    exact = frozenset({"eval"})
    traced = True

    def begin(self, scene: Scene) -> None:
        """One look at the whole model."""
        self.recentring = Recentring(scene) if scene.flow is not None else None

    def replacement(self, place: Place, scene: Scene) -> nn.Module:
        """An RMSNorm with the same scale, bias and eps."""
        old: Any = place.module
        if len(old.normalized_shape) != 1:
            raise Refused("it normalizes over several dimensions")
        if self.recentring is None:
            raise Refused(f"the forward is not known: {scene.why_no_flow}")
        self.recentring.apply(self.recentring.stream(old))
        more: dict[str, Any] = {
            "device": "meta",
            "activation": getattr(old, "activation", None),
            "backend": getattr(old, "backend", "auto"),
        }
        width, affine = old.normalized_shape, old.weight is not None
        if old.bias is None:
            return with_tail(RMSNorm(width, old.eps, affine, **more), place.kind.tail)
        return with_tail(BiasedRMSNorm(width, old.eps, affine=affine, bias=True, **more), place.kind.tail)
