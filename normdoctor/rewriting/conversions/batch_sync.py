"""`batch->sync`: BatchNorm to SyncBatchNorm, whose statistics are those of all ranks."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import nn

from normdoctor.layers import SyncBatchNorm
from normdoctor.rewriting.batchlike import settings
from normdoctor.rewriting.built import with_tail
from normdoctor.rewriting.conversions.base import Conversion, Place
from normdoctor.rewriting.scene import Scene


class BatchToSync(Conversion):
    """The same tensors. With one process nothing changes; own SyncBatchNorm trains on any device."""

    spec = "batch->sync"
    families = frozenset({"batch"})
    calls = frozenset({"batch_norm"})
    exact = frozenset({"eval", "train"})
    leads_back = True

    def begin(self, scene: Scene) -> None:
        """With several ranks, train mode changes, and must."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self.exact = frozenset({"eval"})  # type: ignore[misc]

    def replacement(self, place: Place, scene: Scene) -> nn.Module:
        """A SyncBatchNorm of all ranks."""
        old: Any = place.module
        new = SyncBatchNorm(
            old.num_features,
            momentum=old.momentum,
            track_running_stats=old.track_running_stats,
            **settings(old),
        )
        return with_tail(new, place.kind.tail)
