"""`sync->batch`: SyncBatchNorm, torch's or own, to the BatchNorm of each process by itself."""

from __future__ import annotations

import torch.distributed as dist
from torch import nn

from normdoctor.rewriting.batchlike import led_back, plain_batch_norm
from normdoctor.rewriting.conversions.base import Conversion, Place
from normdoctor.rewriting.scene import Scene


class SyncToBatch(Conversion):
    """The layer that `batch->sync` made it of, otherwise torch's for the dimensions of its input."""

    spec = "sync->batch"
    families = frozenset({"sync"})
    exact = frozenset({"eval", "train"})
    own_state = frozenset({"process_group"})

    def begin(self, scene: Scene) -> None:
        """With several ranks, train mode changes, and must."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self.exact = frozenset({"eval"})  # type: ignore[misc]

    def replacement(self, place: Place, scene: Scene) -> nn.Module:
        """A BatchNorm with the same tensors."""
        return led_back(place, frozenset({"batch"})) or plain_batch_norm(place)
