"""Comparing numbers with the formula of a norm: which elements share statistics, and which statistics."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

#: How far the output may be from the formula, relative to its spread: float64 leaves about 1e-13.
TOLERANCE = 1e-8
#: A formula that is this close need not be compared with others.
EXACT = 1e-13
#: How many elements are compared, spread over all.
SAMPLE = 1 << 12


@dataclass(frozen=True)
class Partition:
    """How the elements of a tensor fall into the sets that share statistics.

    `split` is the shape with every axis that is reduced in part taken apart into (sets, members) or
    (members, sets); `over` are the axes of it that are reduced. `reduced` are axes of the tensor
    itself, `partial` those among them that are reduced in part, into `sets` sets.
    """

    shape: tuple[int, ...]
    split: tuple[int, ...]
    over: tuple[int, ...]
    reduced: tuple[int, ...]
    partial: tuple[int, ...] = ()
    sets: int = 1

    @property
    def count(self) -> int:
        """The number of elements that share statistics."""
        return math.prod(self.split[axis] for axis in self.over)


@dataclass(frozen=True)
class Formula:
    """`scale * (x - mean) / sqrt(var + eps)` as the numbers say it is.

    `scale` is relative to gamma; `spread` is `var` or `square` (the mean square); `place` is where
    eps stands.
    """

    centred: bool
    spread: str
    unbiased: bool
    place: str
    eps: float | None
    scale: float
    gamma: str = ""
    inverted: bool = False
    error: float = 0.0
    offset: float = 0.0


def partition(run: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Partition | None:
    """See which outputs follow a change of one element: those share its statistics.

    None where they are no product of ranges (in equal steps) of the axes.
    """
    place = tuple(size // 2 for size in x.shape)
    before = run(x)
    if before.shape != x.shape or not bool(before.isfinite().all()):
        return None
    nudged = x.clone()
    nudged[place] += nudged.abs().max() + 1
    moved = (run(nudged) - before).abs() > 1e-12 * before.abs().max()
    split: list[int] = []
    over: list[int] = []
    reduced: list[int] = []
    partial: list[int] = []
    sets = 1
    touched = 1
    for axis, size in enumerate(x.shape):
        others = [one for one in range(x.dim()) if one != axis]
        hit = moved.permute(axis, *others).reshape(size, -1).any(dim=1).nonzero().flatten().tolist()
        touched *= len(hit)
        if len(hit) in (0, 1) or len(hit) == size:
            over += [len(split)] if len(hit) > 1 else []
            reduced += [axis] if len(hit) > 1 else []
            split.append(size)
            continue
        steps = {later - earlier for earlier, later in itertools.pairwise(hit)}
        if len(steps) != 1 or size % len(hit):
            return None
        sets, members = size // len(hit), len(hit)
        together = steps == {1}
        over.append(len(split) + together)
        split += [sets, members] if together else [members, sets]
        reduced.append(axis)
        partial.append(axis)
    if touched != int(moved.sum()) or touched == 0 or len(partial) > 1:
        return None
    return Partition(tuple(x.shape), tuple(split), tuple(over), tuple(reduced), tuple(partial), sets)


def fit(
    x: torch.Tensor,
    outputs: Sequence[tuple[float, torch.Tensor]],
    found: Partition,
    places: Sequence[tuple[str, float | None]],
) -> Formula | None:
    """The formula that gives these outputs, each made with all of the model's tensors at one value.

    `places` are the epsilons to try and where they stand. None where no formula fits.
    """
    shaped = x.reshape(found.split)
    mean = shaped.mean(found.over, keepdim=True)
    var = shaped.var(found.over, correction=0, keepdim=True)
    square = shaped.pow(2).mean(found.over, keepdim=True)
    n = found.count
    outputs = [(fill, _sampled(y)) for fill, y in outputs]
    spreads = [("square", square, False), ("var", var, False), ("var", var * n / (n - 1), True)]
    fits: list[Formula] = []
    for (spread, value, unbiased), centred, (place, eps) in itertools.product(spreads, (False, True), places):
        root = _root(value, place, eps, n)
        top = shaped - mean if centred else shaped
        for inverted in (False, True):
            if inverted and not (centred if spread == "var" else eps):
                continue  # `x * x.std()` weighs something, and was hardly meant to be a norm
            z = top * root if inverted else top / root
            scale = _scale(_sampled(z), outputs)
            if scale is None:
                continue
            one = Formula(centred, spread, unbiased, place, eps, *scale[:2], inverted, *scale[2:])
            if not any(_rank(one, n)[:3]) and one.error < EXACT:
                return one
            fits.append(one)
    return min(fits, key=lambda one: _rank(one, n), default=None)


def _root(value: torch.Tensor, place: str, eps: float | None, n: int) -> torch.Tensor:
    if eps is None or place == "clamp":
        return value.sqrt()
    if place == "inside":
        return (value + eps).sqrt()
    if place == "inside the sum":  # of the squares, before it is divided by their number
        return (value + eps / n).sqrt()
    if place == "outside the sum":  # of the root of the sum
        return value.sqrt() + eps / math.sqrt(n)
    return value.sqrt() + eps


def _sampled(values: torch.Tensor) -> torch.Tensor:
    """Elements of a tensor in even steps, in the order of its memory."""
    return values.reshape(-1)[:: max(1, values.numel() // SAMPLE) | 1]


def _scale(
    z: torch.Tensor, outputs: Sequence[tuple[float, torch.Tensor]]
) -> tuple[float, str, float, float] | None:
    """The factor in front of gamma, how gamma enters, the error, and what neither z nor beta explains.

    None where z is not in the outputs.
    """
    slopes: list[float] = []
    worst = offset = 0.0
    spread = z - z.mean()
    total = spread.pow(2).sum()
    if not bool(total > 0):
        return None
    for fill, y in outputs:
        slope = (spread * y).sum() / total
        left = y - y.mean() - slope * spread
        size = (y - y.mean()).abs().max()
        error = float(left.abs().max() / size) if bool(size > 0) else 1.0
        if not error < TOLERANCE:
            return None
        slopes.append(float(slope))
        worst = max(worst, error)
        rest = float(y.mean()) - float(slope) * float(z.mean())
        offset = max(offset, min(abs(rest), abs(abs(rest) - fill)))
    (first, one), (second, other) = ((fill, slope) for (fill, _), slope in zip(outputs, slopes, strict=True))
    for gamma, at_first, at_second in (
        ("", 1.0, 1.0),
        ("gamma", first, second),
        ("1 + gamma", 1 + first, 1 + second),
        ("exp(gamma)", math.exp(first), math.exp(second)),
    ):
        if abs(one / at_first - other / at_second) < 1e-6 * abs(one):
            return one / at_first, gamma, worst, offset
    return None


def _rank(found: Formula, n: int) -> tuple[int, int, int, float]:
    """Plain formulas before those with a factor or an offset, and exact ones before loose ones."""
    plain = abs(found.scale - 1) < 1e-4
    unit = abs(found.scale * math.sqrt(n) - 1) < 1e-4
    factor = 0 if plain else 1 if unit else 2
    return int(found.offset > 1e-6), factor, int(found.inverted), round(math.log10(found.error + 1e-16))
