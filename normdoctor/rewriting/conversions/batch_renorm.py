"""`batch->renorm`: BatchNorm to BatchRenorm, for small or unlike batches."""

from __future__ import annotations

from typing import Any

from torch import nn

from normdoctor.layers import BatchRenorm
from normdoctor.rewriting.batchlike import demand_statistics, settings
from normdoctor.rewriting.built import with_tail
from normdoctor.rewriting.conversions.base import Conversion, Place
from normdoctor.rewriting.scene import Scene


class BatchToRenorm(Conversion):
    """The same tensors; eval mode is the same, train mode corrects towards the running statistics."""

    spec = "batch->renorm"
    families = frozenset({"batch"})
    calls = frozenset({"batch_norm"})
    exact = frozenset({"eval"})
    leads_back = True

    def replacement(self, place: Place, scene: Scene) -> nn.Module:
        """A BatchRenorm with the momentum of the layer."""
        old: Any = place.module
        demand_statistics(old)
        new = BatchRenorm(old.num_features, momentum=old.momentum, **settings(old))
        return with_tail(new, place.kind.tail)

    def notes(self, places: list[Place]) -> list[str]:
        """Say what is set by hand."""
        return ["rmax=3 and dmax=5: of a net at its start set both to 1 and 0 for some thousand steps"]
