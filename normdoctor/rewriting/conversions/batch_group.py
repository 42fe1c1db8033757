"""`batch->group`: BatchNorm to GroupNorm, which does not depend on the batch."""

from __future__ import annotations

from typing import Any

from torch import nn

from normdoctor.layers import GroupNorm
from normdoctor.rewriting.batchlike import FromBatch, channels_of, positions, settings, trained
from normdoctor.rewriting.built import StandardizedGroupNorm
from normdoctor.rewriting.conversions.base import Place, Refused

#: Numbers of groups to choose from, and how many channels a group must keep.
FRESH_GROUPS, FRESH_CHANNELS = (32, 16, 8, 4, 2), 4
#: A trained net keeps its function better with few large groups: their statistics vary less.
TRAINED_GROUPS, TRAINED_CHANNELS = (4, 2), 16


class BatchToGroup(FromBatch):
    """Keeps scale and shift; running statistics of a trained layer go into the layer in front."""

    spec = "batch->group"

    def build(self, place: Place, standardized: bool) -> nn.Module:
        """A GroupNorm with the same eps."""
        old: Any = place.module
        channels = channels_of(old)
        groups = self.num_groups or choose_groups(channels, trained(old))
        if channels % groups != 0:
            raise Refused(f"{groups} groups do not divide {channels} channels")
        if channels // groups * positions(place) == 1:
            raise Refused("a group would hold a single value, which normalization turns into zero")
        kind = StandardizedGroupNorm if standardized else GroupNorm
        return kind(groups, channels, **settings(old))


def choose_groups(channels: int, is_trained: bool) -> int:
    """The largest usual number of groups that divides the channels and leaves enough in each."""
    options, least = (TRAINED_GROUPS, TRAINED_CHANNELS) if is_trained else (FRESH_GROUPS, FRESH_CHANNELS)
    fitting = (g for g in options if channels % g == 0 and channels // g >= least)
    return next(fitting, 1)
