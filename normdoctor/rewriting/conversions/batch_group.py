"""`batch->group`: BatchNorm to GroupNorm, which does not depend on the batch."""

from __future__ import annotations

from math import prod

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from normdoctor.layers import GroupNorm
from normdoctor.layers.batchnorm import _BatchNorm as _OwnBatchNorm
from normdoctor.layers.syncbatchnorm import SyncBatchNorm as _OwnSyncBatchNorm
from normdoctor.rewriting.conversions.base import Conversion, Place, Refused

#: What a layer may do to be a BatchNorm and nothing else; ours may end with an activation, which is kept.
_FORWARDS = (
    _BatchNorm.forward,
    nn.SyncBatchNorm.forward,
    _OwnBatchNorm.forward,
    _OwnSyncBatchNorm.forward,
)
#: Numbers of groups to choose from, and how many channels a group must keep.
FRESH_GROUPS, FRESH_CHANNELS = (32, 16, 8, 4, 2), 4
#: A trained net keeps its function better with few large groups: their statistics vary less.
TRAINED_GROUPS, TRAINED_CHANNELS = (4, 2), 16


class BatchToGroup(Conversion):
    """Keeps scale and shift, drops the running statistics."""

    spec = "batch->group"
    own_state = frozenset(
        "running_mean running_var num_batches_tracked num_features momentum track_running_stats "
        "process_group".split()
    )

    def concerns(self, module: nn.Module) -> bool:
        """BatchNorm of any rank, SyncBatchNorm, and their subclasses."""
        return isinstance(module, _BatchNorm)

    def replacement(self, place: Place) -> nn.Module:
        """A GroupNorm with the same parameters and eps."""
        old = place.module
        assert isinstance(old, _BatchNorm)
        _refuse_what_is_more_than_batchnorm(old)
        channels = old.num_features
        groups = self.num_groups or choose_groups(channels, trained(old))
        if channels % groups != 0:
            raise Refused(f"{groups} groups do not divide {channels} channels")
        self._refuse_single_values(place, channels // groups)
        return GroupNorm(
            groups,
            channels,
            eps=old.eps,
            affine=old.weight is not None,
            bias=old.bias is not None,
            device="meta",  # the old layer's parameters take the place of these
            activation=getattr(old, "activation", None),
            backend=getattr(old, "backend", "auto"),
        )

    def notes(self, places: list[Place]) -> list[str]:
        """Say what a trained net loses."""
        count = sum(trained(place.module) for place in places)
        if not count:
            return []
        return [
            f"{count} of the BatchNorms had trained running statistics, which GroupNorm does not use: "
            "fine-tune the model before it is used"
        ]

    @staticmethod
    def _refuse_single_values(place: Place, width: int) -> None:
        flat = isinstance(place.module, nn.BatchNorm1d)
        smallest = min((prod(shape[2:]) for shape in place.shapes), default=1 if flat else 2)
        if width * smallest == 1:
            raise Refused("a group would hold a single value, which normalization turns into zero")


def choose_groups(channels: int, is_trained: bool) -> int:
    """The largest usual number of groups that divides the channels and leaves enough in each."""
    options, least = (TRAINED_GROUPS, TRAINED_CHANNELS) if is_trained else (FRESH_GROUPS, FRESH_CHANNELS)
    fitting = (g for g in options if channels % g == 0 and channels // g >= least)
    return next(fitting, 1)


def trained(module: nn.Module) -> bool:
    """Have its running statistics left their initial values?"""
    mean, var = getattr(module, "running_mean", None), getattr(module, "running_var", None)
    if mean is None or var is None or mean.is_meta:
        return False
    return bool(torch.any(mean != 0)) or bool(torch.any(var != 1))


def _refuse_what_is_more_than_batchnorm(module: _BatchNorm) -> None:
    kind = type(module)
    if parametrize.is_parametrized(module):
        raise Refused("its parameters are parametrized")
    if kind.forward not in _FORWARDS or "forward" in vars(module):
        raise Refused(f"{kind.__name__} has a forward of its own, which would be lost")
