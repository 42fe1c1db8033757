"""The signal by depth: the variance of what layers, norms and activations hand on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from normdoctor.output.charts.base import Axis, Chart, Lines, Series, figure

if TYPE_CHECKING:
    from normdoctor.report import TargetSummary

#: Role of a place to the name of its series.
SERIES = {"linear": "layers with weights", "norm": "norms", "activation": "activations"}
CAPTION = (
    "The variance of all values that each place hands on, in the order of execution. A signal that grows or "
    "shrinks from layer to layer shows as a slope; on this scale each step of the grid is a factor."
)


def charts(target: TargetSummary) -> Iterator[Chart]:
    """One chart where the signal was measured."""
    points = target.profile
    if not points:
        return
    series = [
        Series(
            name=name,
            x=tuple(float(one.depth) for one in points if one.role == role),
            y=tuple(one.variance for one in points if one.role == role),
        )
        for role, name in SERIES.items()
        if any(one.role == role for one in points)
    ]
    yield Chart(
        kind="signal",
        title="Signal by depth",
        caption=CAPTION,
        headers=("place", "role", "mean", "variance", "variance of a unit"),
        rows=tuple(
            (one.site, one.role, figure(one.mean), figure(one.variance), figure(one.between))
            for one in points
        ),
        drawing=Lines(
            x=Axis(label="depth", names=tuple(one.site for one in points)),
            y=Axis(label="variance", scale="log"),
            series=tuple(series),
        ),
        target=target.name,
    )
