"""Intervals for proportions."""

from __future__ import annotations

import math

#: The 97.5 % point of the standard normal: two-sided 95 %.
Z95 = 1.959963984540054


def wilson(hits: int, total: int, z: float = Z95) -> tuple[float, float]:
    """The score interval of Wilson (1927) for `hits` of `total`; (0, 1) where there is nothing.

    >>> [round(bound, 3) for bound in wilson(9, 10)]
    [0.596, 0.982]
    """
    if not total:
        return 0.0, 1.0
    share = hits / total
    scale = 1 + z * z / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def proportion(hits: int, total: int) -> str:
    """The share with its interval, in percent: `9/10 = 90.0 % [59.6, 98.2]`."""
    if not total:
        return "0/0"
    low, high = wilson(hits, total)
    return f"{hits}/{total} = {100 * hits / total:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
