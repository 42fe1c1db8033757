"""`ghost->batch`: GhostBatchNorm to BatchNorm."""

from __future__ import annotations

from torch import nn

from normdoctor.rewriting.batchlike import led_back, plain_batch_norm
from normdoctor.rewriting.conversions.base import Conversion, Place
from normdoctor.rewriting.scene import Scene


class GhostToBatch(Conversion):
    """The layer that `batch->ghost` made it of, otherwise torch's for the dimensions of its input."""

    spec = "ghost->batch"
    families = frozenset({"ghost"})
    exact = frozenset({"eval"})
    own_state = frozenset({"ghost_size"})

    def replacement(self, place: Place, scene: Scene) -> nn.Module:
        """A BatchNorm with the same tensors."""
        return led_back(place, frozenset({"batch"})) or plain_batch_norm(place)
