"""The name of a norm, from the axes that share statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence

from normdoctor.tracing.handwritten.formula import Formula, Partition


def kind_of(formula: Formula, found: Partition, affine: Sequence[tuple[int, ...]]) -> str:
    """The norm in torch.nn.functional's words, "" where it has none.

    `affine` are the shapes of scale and shift: where the axes alone leave it open, they tell which
    axis holds the channels.
    """
    if abs(formula.scale * math.sqrt(found.count) - 1) < 1e-4:
        return "normalize"
    if found.partial:
        return "group_norm" if formula.centred and formula.spread == "var" else "rms_norm"
    rank, reduced = len(found.shape), set(found.reduced)
    if len(reduced) == rank:
        return ""
    if 0 in reduced:
        return "batch_norm"
    if not formula.centred or formula.spread != "var":
        return "rms_norm" if formula.spread == "square" else ""
    if rank >= 3 and reduced == set(range(2, rank)):
        return "instance_norm" if rank > 3 or _along(affine, 1, found.shape) else "layer_norm"
    if rank == 3 and reduced == {1} and not _along(affine, 1, found.shape):
        return "instance_norm"  # over time, channels last
    if rank >= 4 and reduced == set(range(1, rank - 1)):
        return "instance_norm"  # over space, channels last
    return "layer_norm"


def _along(affine: Sequence[tuple[int, ...]], axis: int, shape: tuple[int, ...]) -> bool:
    """Does a scale or shift vary along this axis, and along no other?"""
    for one in affine:
        padded = (1,) * (len(shape) - len(one)) + one
        if [place for place, size in enumerate(padded) if size > 1] == [axis]:
            return True
    return False
