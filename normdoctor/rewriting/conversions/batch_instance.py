"""`batch->instance`: BatchNorm to InstanceNorm, which takes the size of each channel off each sample."""

from __future__ import annotations

from typing import Any

from torch import nn

from normdoctor.layers import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from normdoctor.rewriting.batchlike import FromBatch, channels_of, dimensions, positions, settings
from normdoctor.rewriting.conversions.base import Place, Refused

_KINDS = {3: InstanceNorm1d, 4: InstanceNorm2d, 5: InstanceNorm3d}


class BatchToInstance(FromBatch):
    """Keeps scale and shift. Running statistics have no use: the new layer undoes them for each channel."""

    spec = "batch->instance"
    preserving = False

    def build(self, place: Place, standardized: bool) -> nn.Module:
        """An InstanceNorm with the same eps and scale and shift of its own."""
        old: Any = place.module
        number = dimensions(place)
        if number not in _KINDS or positions(place) == 1:
            raise Refused("a channel would hold a single value, which normalization turns into zero")
        return _KINDS[number](channels_of(old), **settings(old))
