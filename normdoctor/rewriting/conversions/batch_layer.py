"""`batch->layer`: BatchNorm to a LayerNorm over the channels at each position, as in ConvNeXt."""

from __future__ import annotations

from typing import Any

from torch import nn

from normdoctor.rewriting.batchlike import FromBatch, channels_of, settings
from normdoctor.rewriting.built import ChannelNorm, StandardizedChannelNorm
from normdoctor.rewriting.conversions.base import Place, Refused


class BatchToLayer(FromBatch):
    """One mean and variance for each position of each sample; of `(N, C)` the LayerNorm of torch.

    A LayerNorm over channels and positions is `batch->group` with `num_groups=1`.
    """

    spec = "batch->layer"

    def build(self, place: Place, standardized: bool) -> nn.Module:
        """A LayerNorm over dimension 1 with the same eps."""
        old: Any = place.module
        if channels_of(old) == 1:
            raise Refused("a position would hold a single value, which normalization turns into zero")
        kind = StandardizedChannelNorm if standardized else ChannelNorm
        return kind(channels_of(old), **settings(old))
