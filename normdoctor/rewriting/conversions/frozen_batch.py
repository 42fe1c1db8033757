"""`frozen->batch`: FrozenBatchNorm, own or torchvision's, to a BatchNorm that learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from normdoctor.rewriting.batchlike import led_back, plain_batch_norm
from normdoctor.rewriting.conversions.base import Conversion, Place
from normdoctor.rewriting.families import BATCH_LIKE
from normdoctor.rewriting.scene import Scene


class FrozenToBatch(Conversion):
    """The layer that `batch->frozen` made it of, otherwise torch's for the dimensions of its input."""

    spec = "frozen->batch"
    families = frozenset({"frozen"})
    exact = frozenset({"eval"})

    def replacement(self, place: Place, scene: Scene) -> nn.Module:
        """A BatchNorm with the same values."""
        found = led_back(place, BATCH_LIKE)
        if found is not None:
            return found
        old: Any = place.module
        new: Any = plain_batch_norm(place)
        for name in ("weight", "bias"):
            value = getattr(old, name)
            new._parameters[name] = None if value is None else nn.Parameter(value.detach().clone())
        new.num_batches_tracked = torch.zeros((), dtype=torch.long, device=old.running_mean.device)
        return new  # type: ignore[no-any-return]
