"""`batch->ghost`: BatchNorm to GhostBatchNorm, for very large batches."""

from __future__ import annotations

from typing import Any

from torch import nn

from normdoctor.layers import GhostBatchNorm
from normdoctor.rewriting.batchlike import settings
from normdoctor.rewriting.built import with_tail
from normdoctor.rewriting.conversions.base import Conversion, Place
from normdoctor.rewriting.scene import Scene


class BatchToGhost(Conversion):
    """The same tensors; eval mode is the same, in training each 32 samples have statistics of their own."""

    spec = "batch->ghost"
    families = frozenset({"batch"})
    calls = frozenset({"batch_norm"})
    exact = frozenset({"eval"})
    leads_back = True

    def replacement(self, place: Place, scene: Scene) -> nn.Module:
        """A GhostBatchNorm of 32 samples a ghost."""
        old: Any = place.module
        new = GhostBatchNorm(
            old.num_features,
            momentum=old.momentum,
            track_running_stats=old.track_running_stats,
            **settings(old),
        )
        return with_tail(new, place.kind.tail)

    def notes(self, places: list[Place]) -> list[str]:
        """Say what may be set."""
        return ["32 samples in a ghost batch: set `ghost_size` of the layers for another number"]
