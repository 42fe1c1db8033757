"""`renorm->batch`: BatchRenorm to BatchNorm."""

from __future__ import annotations

from torch import nn

from normdoctor.rewriting.batchlike import led_back, plain_batch_norm
from normdoctor.rewriting.conversions.base import Conversion, Place
from normdoctor.rewriting.scene import Scene


class RenormToBatch(Conversion):
    """The layer that `batch->renorm` made it of, otherwise torch's for the dimensions of its input."""

    spec = "renorm->batch"
    families = frozenset({"renorm"})
    exact = frozenset({"eval"})
    own_state = frozenset({"rmax", "dmax"})

    def replacement(self, place: Place, scene: Scene) -> nn.Module:
        """A BatchNorm with the same tensors."""
        return led_back(place, frozenset({"batch"})) or plain_batch_norm(place)
