"""The signal by depth: the variance of what layers, norms and activations hand on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from normdoctor.output.charts.base import Axis, Chart, Lines, Series, fewer, figure, of_all
from normdoctor.output.charts.names import brief

if TYPE_CHECKING:
    from normdoctor.report import TargetSummary

#: Role of a place to the name of its series.
SERIES = {"linear": "layers with weights", "norm": "norms", "activation": "activations"}
CAPTION = (
    "The variance of all values that each place hands on, in the order of execution. A signal that grows or "
    "shrinks from layer to layer shows as a slope; a norm brings the variance back to its own scale."
)


def charts(target: TargetSummary) -> Iterator[Chart]:
    """One chart where the signal was measured."""
    points = fewer(target.profile, lambda one: one.variance)
    if not points:
        return
    series = []
    for role, name in SERIES.items():
        places = [place for place, one in enumerate(points) if one.role == role]
        if places:
            values = tuple(points[place].variance for place in places)
            series.append(Series(name=name, x=tuple(map(float, places)), y=values))
    yield Chart(
        kind="signal",
        title="Signal by depth",
        caption=CAPTION + of_all(len(points), len(target.profile)),
        headers=("place", "role", "mean", "variance", "variance of a unit"),
        rows=tuple(
            (one.site, one.role, figure(one.mean), figure(one.variance), figure(one.between))
            for one in points
        ),
        drawing=Lines(
            x=Axis(
                label="places in the order of execution",
                names=brief([(one.site, one.module) for one in points]),
            ),
            y=Axis(label="variance", scale="log"),
            series=tuple(series),
        ),
        target=target.name,
    )
