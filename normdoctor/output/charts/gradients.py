"""The gradients of the weights by depth, as a watched training showed them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from normdoctor.output.charts.base import Axis, Chart, Lines, Series, fewer, figure, of_all

if TYPE_CHECKING:
    from normdoctor.report import TargetSummary
    from normdoctor.views.gradients import GradientPoint

CAPTION = (
    "The root mean square of the gradient of each weight, from the input to the output: over the last looks, "
    "and in the look where it was smallest and largest. A gradient that vanishes or explodes towards the "
    "input shows as a slope. Weights that never had a gradient are in the table only."
)


def charts(target: TargetSummary) -> Iterator[Chart]:
    """One chart where gradients were watched."""
    points = fewer(target.gradients, lambda one: math.nan if one.rms is None else one.rms)
    if not any(one.rms is not None for one in points):
        return
    yield Chart(
        kind="gradients",
        title="Gradients by depth",
        caption=CAPTION + of_all(len(points), len(target.gradients)),
        headers=("weight", "elements", "gradient", "smallest", "largest", "looks", "zero", "not finite"),
        rows=tuple(
            (
                one.parameter,
                f"{one.elements}",
                figure(one.rms),
                figure(one.low),
                figure(one.high),
                f"{one.seen} of {one.looks}",
                f"{one.zero}",
                f"{one.bad}",
            )
            for one in points
        ),
        drawing=Lines(
            x=Axis(label="weights from input to output", names=tuple(one.parameter for one in points)),
            y=Axis(label="root mean square", scale="log"),
            series=(
                _series("gradient", points, [one.rms for one in points]),
                _series("smallest and largest", points, [one.low for one in points], faint=True),
                _series("", points, [one.high for one in points], faint=True),
            ),
        ),
        target=target.name,
    )


def _series(
    name: str, points: Sequence[GradientPoint], values: Sequence[float | None], *, faint: bool = False
) -> Series:
    known = [(float(place), value) for place, value in enumerate(values) if value is not None]
    x, y = tuple(place for place, _ in known), tuple(value for _, value in known)
    return Series(name=name, x=x, y=y, faint=faint)
