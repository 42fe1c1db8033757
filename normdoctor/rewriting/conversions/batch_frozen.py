"""`batch->frozen`: BatchNorm to FrozenBatchNorm, which is in eval mode for good and learns nothing."""

from __future__ import annotations

from typing import Any

from torch import nn

from normdoctor.layers import FrozenBatchNorm
from normdoctor.rewriting.batchlike import RUNNING, channels_of, demand_statistics, settings
from normdoctor.rewriting.built import with_tail
from normdoctor.rewriting.conversions.base import Conversion, Place
from normdoctor.rewriting.families import BATCH_LIKE
from normdoctor.rewriting.scene import Scene


class BatchToFrozen(Conversion):
    """Parameters become buffers, in the same memory; `frozen->batch` makes the same parameters of them."""

    spec = "batch->frozen"
    families = BATCH_LIKE
    calls = frozenset({"batch_norm"})
    exact = frozenset({"eval"})
    own_state = RUNNING - {"running_mean", "running_var", "num_features"}
    leads_back = True

    def replacement(self, place: Place, scene: Scene) -> nn.Module:
        """A FrozenBatchNorm with the same values."""
        old: Any = place.module
        demand_statistics(old)
        new = FrozenBatchNorm(channels_of(old), **settings(old))
        for name in ("weight", "bias"):
            value = getattr(old, name)
            new._buffers[name] = None if value is None else value.detach()
        return with_tail(new, place.kind.tail)
