"""Running statistics against those of the batches, for every BatchNorm: means and variances."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from normdoctor.output.charts.base import Axis, Chart, Lines, Series, fewer, figure, of_all, percent
from normdoctor.output.charts.names import called
from normdoctor.views.runningstats import LIMITS

if TYPE_CHECKING:
    from normdoctor.report import TargetSummary

MEAN = (
    "How far the running mean of each BatchNorm is from the mean of the batches, in standard deviations of "
    "its input; what is closer than a thousandth stands at the lower edge. "
)
VARIANCE = (
    "The variance of the batches over the running variance of each BatchNorm: 1 where they agree; above, the "
    "model in eval mode divides by too little, below by too much. "
)
ORDER = "In eval mode the first norm that is off changes what all later ones get: read from the left."
HEADERS = ("norm", "channels", "batches", "median channel", "worst channel", "its place", "initial")
#: Distances of means below this are as good as none.
CLOSE = 1e-3
SHIFT, RATIO = LIMITS


def charts(target: TargetSummary) -> Iterator[Chart]:
    """Two charts where BatchNorms with running statistics were measured."""
    points = fewer(
        target.running_stats, lambda one: max(one.worst_shift, one.worst_ratio, 1 / one.worst_ratio)
    )
    if not points:
        return
    names, more = (
        [called(one.module, one.call) for one in points],
        of_all(len(points), len(target.running_stats)),
    )
    means = [(one.shift, one.worst_shift, one.worst_shift_channel) for one in points]
    ratios = [(one.ratio, one.worst_ratio, one.worst_ratio_channel) for one in points]
    for kind, title, caption, figures, y, levels in (
        (
            "running-mean",
            "Running means against batches",
            MEAN,
            means,
            Axis(label="standard deviations", scale="log", floor=CLOSE),
            ((SHIFT, f"{SHIFT:g}: ND703 looks closer"),),
        ),
        (
            "running-var",
            "Running variances against batches",
            VARIANCE,
            ratios,
            Axis(label="batch / running", scale="log"),
            ((RATIO, f"{1 / RATIO:g} and {RATIO:g}: ND703 looks closer"), (1 / RATIO, "")),
        ),
    ):
        rows = zip(names, points, figures, strict=True)
        yield Chart(
            kind=kind,
            title=title,
            caption=caption + ORDER + more,
            headers=HEADERS,
            rows=tuple(
                (
                    name,
                    f"{one.channels}",
                    f"{one.batches}",
                    figure(middle),
                    figure(worst),
                    f"{place}",
                    percent(one.initial),
                )
                for name, one, (middle, worst, place) in rows
            ),
            drawing=Lines(
                x=Axis(label="norms in the order of execution", names=tuple(names)),
                y=y,
                series=(
                    _series("median channel", [middle for middle, _, _ in figures]),
                    _series("worst channel", [worst for _, worst, _ in figures]),
                ),
                levels=levels,
            ),
            target=target.name,
        )


def _series(name: str, values: list[float]) -> Series:
    return Series(name=name, x=tuple(map(float, range(len(values)))), y=tuple(values))
