"""Running statistics against those of the batches, for every BatchNorm: means and variances."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from normdoctor.output.charts.base import Axis, Chart, Lines, Series, fewer, figure, of_all, percent
from normdoctor.output.charts.names import called
from normdoctor.rules.stalestats import RATIO, SHIFT

if TYPE_CHECKING:
    from normdoctor.report import TargetSummary

MEAN = (
    "How far the running mean of each BatchNorm is from the mean of the batches, in standard deviations of "
    "its input: 0 where they agree. "
)
VARIANCE = (
    "The variance of the batches over the running variance of each BatchNorm: 1 where they agree; above, the "
    "model in eval mode divides by too little, below by too much. "
)
ORDER = "In eval mode the first norm that is off changes what all later ones get: read from the left."


def charts(target: TargetSummary) -> Iterator[Chart]:
    """Two charts where BatchNorms with running statistics were measured."""
    points = fewer(target.running_stats, lambda one: one.worst_shift)
    if not points:
        return
    x = Axis(label="norms in the order of execution", names=tuple(called(o.module, o.call) for o in points))
    places, more = tuple(map(float, range(len(points)))), of_all(len(points), len(target.running_stats))
    yield Chart(
        kind="running-mean",
        title="Running means against batches",
        caption=MEAN + ORDER + more,
        headers=("norm", "channels", "batches", "median channel", "worst channel", "its place", "initial"),
        rows=tuple(
            (
                called(one.module, one.call),
                f"{one.channels}",
                f"{one.batches}",
                figure(one.shift),
                figure(one.worst_shift),
                f"{one.worst_shift_channel}",
                percent(one.initial),
            )
            for one in points
        ),
        drawing=Lines(
            x=x,
            y=Axis(label="standard deviations"),
            series=(
                Series(name="median channel", x=places, y=tuple(one.shift for one in points)),
                Series(name="worst channel", x=places, y=tuple(one.worst_shift for one in points)),
            ),
            levels=((SHIFT, f"{SHIFT:g}: ND703 looks closer"),),
        ),
        target=target.name,
    )
    yield Chart(
        kind="running-var",
        title="Running variances against batches",
        caption=VARIANCE + ORDER + more,
        headers=("norm", "channels", "batches", "median channel", "worst channel", "its place", "initial"),
        rows=tuple(
            (
                called(one.module, one.call),
                f"{one.channels}",
                f"{one.batches}",
                figure(one.ratio),
                figure(one.worst_ratio),
                f"{one.worst_ratio_channel}",
                percent(one.initial),
            )
            for one in points
        ),
        drawing=Lines(
            x=x,
            y=Axis(label="batch / running", scale="log"),
            series=(
                Series(name="median channel", x=places, y=tuple(one.ratio for one in points)),
                Series(name="worst channel", x=places, y=tuple(one.worst_ratio for one in points)),
            ),
            levels=((RATIO, f"{RATIO:g}: ND703 looks closer"), (1 / RATIO, f"{1 / RATIO:g}")),
        ),
        target=target.name,
    )
