"""From values to places on paper: ranges, ticks, and labels that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from normdoctor.output.charts.base import Axis, Scale

#: Beyond this many decades below the largest value nothing can be told apart in a picture.
DECADES = 24
#: Larger values stand at the edge: the difference of two would not be finite.
LARGEST = 1e300
#: Values that differ by a smaller share of themselves are one value.
SAME = 1e-9


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """The values from one edge of a picture to the other, and where the ticks stand."""

    low: float
    high: float
    scale: Scale
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """How far from the low edge to the high one a value stands, from 0 to 1."""
        if self.scale == "log":
            low, high, value = math.log10(self.low), math.log10(self.high), math.log10(value)
            return min(max((value - low) / (high - low), 0.0), 1.0)
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


def drawable(value: float, axis: Axis) -> bool:
    """Has the value a place on the axis?"""
    return math.isfinite(value) and (axis.scale == "linear" or (value > 0 and value >= axis.floor))


def range_of(values: Iterable[float], axis: Axis, most: int = 6) -> Range:
    """A range that holds all values that can be drawn, with at most about `most` ticks."""
    known = [value for value in values if drawable(value, axis)]
    if axis.scale == "linear":
        return _steps(known, most)
    return _decades([*known, axis.floor] if axis.floor else known, most)


def _decades(values: Sequence[float], most: int) -> Range:
    kept = [min(max(value, 1 / LARGEST), LARGEST) for value in values] or [1.0]
    high = math.ceil(math.log10(max(kept)) - 1e-9)
    low = math.floor(math.log10(min(kept)) + 1e-9)
    high = high + 1 if high == low else high
    low = max(low, high - DECADES)
    step = max(math.ceil((high - low) / (most - 1)), 1)
    ticks = tuple(10.0**power for power in range(low, high + 1) if (high - power) % step == 0)
    return Range(low=10.0**low, high=10.0**high, scale="log", ticks=ticks)


def _steps(values: Sequence[float], most: int) -> Range:
    low, high = (max(min(values), -LARGEST), min(max(values), LARGEST)) if values else (0.0, 1.0)
    if high - low <= max(SAME * max(abs(low), abs(high)), 1 / LARGEST):
        margin = abs(low) / 2 if abs(low) > 1 / LARGEST else 0.5
        low, high = low - margin, high + margin
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(index * step for index in range(first, last + 1))
    return Range(low=ticks[0], high=ticks[-1], scale="linear", ticks=ticks)


def thinned(count: int, most: int) -> list[int]:
    """At most `most` of the places 0 to count - 1, evenly spread, the first among them."""
    step = max(math.ceil(count / max(most, 1)), 1)
    return list(range(0, count, step))


def tick(value: float) -> str:
    """A number at an axis: `0.5`, `100`, `1e-6`."""
    text = f"{value:.6g}"
    if "e" in text or (value and not 1e-3 <= abs(value) < 1e5):
        mantissa, _, power = f"{value:.3e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{int(power)}"
    return text


def shortened(name: str, most: int) -> str:
    """A name that is too long loses its middle; its end tells layers apart."""
    if len(name) <= most:
        return name
    head = (most - 2) // 3
    return f"{name[:head]}..{name[-(most - 2 - head) :]}"
