"""Charts of a report: plain data that `svg` draws for a page and `plot` with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normdoctor.output.charts import activity, batchnoise, gradients, neighbourhood, running, signal
from normdoctor.output.charts.base import Chart
from normdoctor.output.charts.conversion import conversion

if TYPE_CHECKING:
    from normdoctor.report import Report, TargetSummary

__all__ = ["Chart", "charts", "charts_of", "conversion"]

#: What makes charts of a target, in the order in which they are shown.
_MAKERS = (
    signal.charts,
    gradients.charts,
    activity.charts,
    running.charts,
    batchnoise.charts,
    neighbourhood.charts,
)


def charts(report: Report) -> tuple[Chart, ...]:
    """All charts for which a report holds figures, target by target, in a fixed order."""
    return tuple(chart for target in report.targets for chart in charts_of(target))


def charts_of(target: TargetSummary) -> tuple[Chart, ...]:
    """The charts of one target; empty where nothing was measured."""
    return tuple(chart for make in _MAKERS for chart in make(target))
