"""`instance->group`: InstanceNorm to GroupNorm with one group a channel, which is the same."""

from __future__ import annotations

from typing import Any

from torch import nn

from normdoctor.layers import GroupNorm
from normdoctor.rewriting.batchlike import RUNNING, settings
from normdoctor.rewriting.built import with_tail
from normdoctor.rewriting.conversions.base import Conversion, Place, Refused
from normdoctor.rewriting.scene import Scene


class InstanceToGroup(Conversion):
    """Exact without running statistics."""

    spec = "instance->group"
    families = frozenset({"instance"})
    calls = frozenset({"instance_norm"})
    exact = frozenset({"eval", "train"})
    own_state = RUNNING
    leads_back = True

    def replacement(self, place: Place, scene: Scene) -> nn.Module:
        """A GroupNorm of as many groups as channels."""
        old: Any = place.module
        if old.running_mean is not None:
            raise Refused("it keeps running statistics, which GroupNorm does not")
        if self.num_groups not in (None, old.num_features):
            raise Refused(f"InstanceNorm is a GroupNorm of {old.num_features} groups, not {self.num_groups}")
        for shape in place.shapes:
            if len(shape) == old._get_no_batch_dim():
                raise Refused("it takes inputs without a batch, which GroupNorm does not")
            if shape[1] != old.num_features:
                raise Refused(f"it is built for {old.num_features} channels and gets {shape[1]}")
        return with_tail(GroupNorm(old.num_features, old.num_features, **settings(old)), place.kind.tail)
