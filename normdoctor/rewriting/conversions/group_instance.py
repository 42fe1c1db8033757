"""`group->instance`: GroupNorm with one group a channel to InstanceNorm, which is the same."""

from __future__ import annotations

from typing import Any

from torch import nn

from normdoctor.layers import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from normdoctor.rewriting.batchlike import led_back, settings
from normdoctor.rewriting.built import with_tail
from normdoctor.rewriting.conversions.base import Conversion, Place, Refused
from normdoctor.rewriting.scene import Scene

_KINDS = {3: InstanceNorm1d, 4: InstanceNorm2d, 5: InstanceNorm3d}


class GroupToInstance(Conversion):
    """Exact where each channel is a group; refused elsewhere."""

    spec = "group->instance"
    families = frozenset({"group"})
    calls = frozenset({"group_norm"})
    exact = frozenset({"eval", "train"})
    own_state = frozenset({"num_groups", "num_channels"})

    def replacement(self, place: Place, scene: Scene) -> nn.Module:
        """The layer that `instance->group` made it of, otherwise one for the dimensions of its input."""
        old: Any = place.module
        if old.num_groups != old.num_channels:
            raise Refused(
                f"its {old.num_groups} groups hold {old.num_channels // old.num_groups} channels each"
            )
        found = led_back(place, frozenset({"instance"}))
        if found is not None:
            return found
        known = {len(shape) for shape in place.shapes}
        if len(known) != 1 or not known <= set(_KINDS):
            raise Refused("the number of dimensions of its input is not known: pass inputs=")
        return with_tail(_KINDS[known.pop()](old.num_channels, **settings(old)), place.kind.tail)
