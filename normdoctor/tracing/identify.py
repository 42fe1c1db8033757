"""Which distribution the values of a tensor were drawn from: constant, uniform, normal, orthogonal, ...

The range is that of all values; the shape of the distribution is compared on a sample of at most
`SAMPLE` values, which lie at fixed places: no random numbers are drawn. The test is that of Kolmogorov and
Smirnov, at the 63 inner bounds of 64 equally probable bins, which needs no sorting.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from normdoctor.facts import InitFact, WeightFact

#: Values compared with a distribution: a standard error of at most 1.1 % of its cumulative probability.
SAMPLE = 2048
#: Mean and std of more values than this are those of a sample (0.8 % standard error).
MOMENTS = 1 << 13
#: Fewer values than this tell distributions apart too seldom.
LEAST = 32
#: sqrt(n) D: 2.2 is exceeded by one sample in 8,000 (Kolmogorov's distribution).
ACCEPTED = 2.2
#: Extremes that so small a share of normal samples shows speak against it.
RARE = 1e-5
#: Rows of a matrix whose products are looked at.
_ROWS = 32
_WIDEST = 1 << 16
_BINS = 64
_ROOT2 = math.sqrt(2.0)


def identify(tensor: torch.Tensor, known: WeightFact, sample: torch.Tensor | None = None) -> InitFact | None:
    """The distribution that the values match; None where they are too few to say."""
    if not known.finite:
        return None
    if known.minimum == known.maximum:
        return InitFact(distribution="constant", mean=known.mean, low=known.minimum, high=known.maximum)
    if known.count < LEAST:
        return None
    if found := _structured(tensor, known):
        return found
    return _family((sample_of(tensor) if sample is None else sample)[:SAMPLE], known)


def sample_of(tensor: torch.Tensor, size: int = SAMPLE) -> torch.Tensor:
    """At most `size` values as floats, from places that no length of a row resonates with."""
    count = tensor.numel()
    if count <= size:
        values = tensor.detach().reshape(-1)
    elif tensor.is_contiguous():
        values = tensor.detach().view(-1).take(_places(count, size).to(tensor.device))
    else:
        values = tensor.detach()[torch.unravel_index(_places(count, size).to(tensor.device), tensor.shape)]
    return values if values.dtype == torch.float64 else values.float()


@functools.lru_cache(maxsize=128)
def _places(count: int, size: int) -> torch.Tensor:
    """Multiples of the golden ratio, modulo one: spread evenly for every number of them."""
    steps = torch.arange(1, size + 1, dtype=torch.float64) * ((math.sqrt(5) - 1) / 2)
    return (steps.frac() * count).long().clamp_(max=count - 1)


def _structured(tensor: torch.Tensor, known: WeightFact) -> InitFact | None:
    """Identity, dirac and orthogonal matrices."""
    shape = tensor.shape
    if len(shape) < 2:
        return None
    peak = max(abs(known.minimum), abs(known.maximum))
    if known.minimum * known.maximum == 0 and shape[0] > 1 and known.mean_square < 0.6 * peak * peak:
        filled = int(torch.count_nonzero(tensor))
        if filled in (min(shape[0], shape[1]), shape[0]):
            value = known.maximum if known.minimum == 0 else known.minimum
            if _diagonal(tensor, value, filled):
                name = "identity" if len(shape) == 2 else "dirac"
                return InitFact(distribution=name, mean=known.mean, std=known.std, low=0.0, high=value)
    return _orthogonal(tensor, known)


def _diagonal(tensor: torch.Tensor, value: float, filled: int) -> bool:
    """Is `value` on the main diagonal (at the kernel's centre) the only thing that is not zero?

    Grouped convolutions repeat the diagonal; then each unit has one such value.
    """
    centre = tensor
    for length in tensor.shape[2:]:
        centre = centre.select(2, length // 2)
    if int((centre == value).sum()) != filled:
        return False
    rows = (centre != 0).sum(1)
    return bool((rows <= 1).all()) and bool(
        ((centre != 0).sum(0) <= max(1, filled // centre.shape[1] + 1)).all()
    )


def _orthogonal(tensor: torch.Tensor, known: WeightFact) -> InitFact | None:
    """Are the rows (of a tall matrix: the columns) orthogonal and of one length?

    `nn.init.orthogonal_` on (rows, the rest): some rows of full length are enough, since rows drawn
    independently have products of about 1 / sqrt(length).
    """
    rows, rest = tensor.shape[0], tensor.numel() // tensor.shape[0]
    if min(rows, rest) < 4 or max(rows, rest) > _WIDEST:
        return None
    matrix = tensor.detach().reshape(rows, rest) if tensor.is_contiguous() else tensor.detach().flatten(1)
    some = matrix[:_ROWS] if rows <= rest else matrix[:, :_ROWS].t()
    # Products of independent rows are about 1 / sqrt(length); rounding leaves less than a tenth of that.
    exact = tensor.dtype in (torch.float32, torch.float64)
    tolerance = min(1e-3 if exact else 3e-2, 0.3 / math.sqrt(max(rows, rest)))
    some = some.float()
    first, second = float(some[0].dot(some[0])), float(some[1].dot(some[1]))
    if first == 0 or abs(second / first - 1) > tolerance:
        return None
    gram = some @ some.t() / first
    if float((gram - torch.eye(len(gram), device=gram.device)).abs().max()) > tolerance:
        return None
    wide = min(rows, rest)
    if abs(known.mean_square * known.count / (first * wide) - 1) > 0.05:
        return None
    return InitFact(distribution="orthogonal", mean=known.mean, std=known.std, high=math.sqrt(first))


def _family(values: torch.Tensor, known: WeightFact) -> InitFact:
    """Uniform, truncated normal or normal: the first that neither sample nor extremes speak against."""
    share, mean, std, count = 0.0, known.mean, known.std, known.count
    kept = values
    if known.minimum <= 0 <= known.maximum and (filled := int(torch.count_nonzero(values))) < len(values):
        kept = values[values != 0]
        share = 1 - filled / len(values)
        if len(kept) < LEAST:
            return InitFact(distribution="", mean=mean, std=std, zeros=share, sample=len(values))
        # Moments of what is not zero, from those of everything.
        part = 1 - share
        mean, count = mean / part, max(LEAST, round(count * part))
        std = math.sqrt(max(known.mean_square / part - mean * mean, 0.0))
    low, high = known.minimum, known.maximum
    if std <= 0:
        return InitFact(distribution="", mean=known.mean, std=known.std, zeros=share, sample=len(kept))
    candidates = []
    for name, fitted in (("uniform", _uniform), ("truncated_normal", _truncated), ("normal", _normal)):
        if (found := fitted(mean, std, low, high, count)) is not None:
            distance = _distance(kept, found.cumulative)
            if distance <= _limit(name, len(kept), count):
                candidates.append((found.likelihood, name, found, distance))
    if not candidates:
        return InitFact(
            distribution="", mean=mean, std=std, low=low, high=high, zeros=share, sample=len(kept)
        )
    _, name, best, distance = max(candidates, key=lambda candidate: candidate[0])
    return InitFact(
        distribution=name, mean=mean, std=best.std, low=low, high=high, zeros=share,
        distance=round(distance, 4), sample=len(kept),
    )  # fmt: skip


class _Fitted(NamedTuple):
    """A distribution with its parameters; `likelihood` is the logarithm, less a penalty for fitted bounds."""

    std: float
    likelihood: float
    cumulative: Callable[[torch.Tensor], torch.Tensor]


def _uniform(mean: float, std: float, low: float, high: float, count: int) -> _Fitted | None:
    """The range of n values covers all but 2 / n of b - a, and their std is (b - a) / sqrt(12)."""
    width = (high - low) * (count + 1) / (count - 1)
    # The standard error of a uniform sample's standard deviation is 0.45 / sqrt(n) of it.
    if abs(std * math.sqrt(12) / width - 1) > 5 * 0.45 / math.sqrt(min(count, MOMENTS)) + 2 / count + 0.005:
        return None
    if abs((low + high) / 2 - mean) > 5 * std / math.sqrt(min(count, MOMENTS)) + width / count * 5:
        return None
    likelihood = -count * math.log(width) - 2
    return _Fitted(std, likelihood, lambda x: ((x - low) / (high - low)).clamp_(0, 1))


def _normal(mean: float, std: float, low: float, high: float, count: int) -> _Fitted | None:
    """The largest of n normal values has a known distribution: not too small, and not too large."""
    reach = max(high - mean, mean - low) / std
    if count * math.erfc(reach / _ROOT2) < RARE or _inside(reach) ** count < RARE:
        return None
    likelihood = -count * (math.log(std * math.sqrt(2 * math.pi)) + 0.5)
    return _Fitted(std, likelihood, lambda x: 0.5 * (1 + torch.erf((x - mean) / (std * _ROOT2))))


def _truncated(mean: float, std: float, low: float, high: float, count: int) -> _Fitted | None:
    """A normal cut at k standard deviations, 1.4 or more: k follows from reach / std (2.27 for k = 2)."""
    centre = (low + high) / 2
    reach = max(high - mean, mean - low) / std
    if abs(centre - mean) > 0.1 * std + 5 * std / math.sqrt(min(count, MOMENTS)) or not 1.95 < reach < 4.0:
        return None
    cut = _cut(reach)
    base = max(high - mean, mean - low) / cut
    inside = _inside(cut)

    def cumulative(x: torch.Tensor) -> torch.Tensor:
        scaled = 0.5 * torch.erf((x - mean) / (base * _ROOT2))
        return (0.5 + scaled / inside).clamp_(0, 1)

    spread = (std / base) ** 2 / 2
    likelihood = -count * (math.log(base * math.sqrt(2 * math.pi) * inside) + spread) - 4
    return _Fitted(base, likelihood, cumulative)


def _inside(reach: float) -> float:
    """The probability that a standard normal value lies within +- reach."""
    return math.erf(reach / _ROOT2)


@functools.lru_cache(maxsize=4096)
def _cut(reach: float) -> float:
    """The k for which k / std of a standard normal cut at +- k is `reach`, by bisection."""
    least, most = 0.3, 6.0
    for _ in range(40):
        k = (least + most) / 2
        density = math.exp(-k * k / 2) / math.sqrt(2 * math.pi)
        ratio = k / math.sqrt(1 - 2 * k * density / _inside(k))
        least, most = (k, most) if ratio < reach else (least, k)
    return (least + most) / 2


def _distance(values: torch.Tensor, cumulative: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Kolmogorov and Smirnov's distance at the bounds of the bins, times the root of the sample's size."""
    size, seen, most = len(values), 0.0, 0.0
    counts = torch.histc(cumulative(values), _BINS, 0.0, 1.0).tolist()
    for number, count in enumerate(counts[:-1], start=1):
        seen += count
        most = max(most, abs(seen / size - number / _BINS))
    return most * math.sqrt(size)


def _limit(name: str, sample: int, count: int) -> float:
    """A normal whose moments were fitted to the same values lies closer to them (Lilliefors, 1967)."""
    return 1.3 if name == "normal" and sample == count else ACCEPTED
