"""The signal by depth as a chart of characters, one line a layer, on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from normdoctor.output.table import table

if TYPE_CHECKING:
    from normdoctor.output.style import Style
    from normdoctor.views.profile import ProfilePoint

#: Characters of the widest bar, and the decades of variance below the largest that are told apart.
BAR = 20
DECADES = 10.0


def chart(points: Sequence[ProfilePoint], style: Style) -> str:
    """A line for each layer: its mean, its variance, the gradient where it is known, and a bar.

    The bar shows the variance relative to the largest: a full one is that, and each tenth less is a
    factor of ten. Without layers (all weights are used by hand) the activations are shown.
    """
    shown = [one for one in points if one.role == "linear"] or list(points)
    if not shown:
        return ""
    top = max(one.variance for one in shown)
    rows = [
        (
            style.clean(one.site),
            f"{one.mean:.2g}",
            f"{one.variance:.2g}",
            f"{one.gradient_rms:.2g}" if one.gradient_rms is not None else "",
            bar(one.variance, top, "\u2588" if style.unicode else "#"),
        )
        for one in shown
    ]
    headers = ("layer", "mean", "variance", "gradient", "variance, log scale")
    return table(rows, headers, style.width, right=headers[1:4])


def bar(value: float, top: float, mark: str) -> str:
    """A bar of at most `BAR` characters; `.` for what is zero or further below than it can show."""
    if value <= 0 or top <= 0:
        return "."
    length = round(BAR * (1 + math.log10(value / top) / DECADES))
    return mark * length if length > 0 else "."
