"""How often units are active, layer by layer: dead, saturated and clipped ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from normdoctor.output.charts.base import Chart, Heat, fewer, of_all, percent
from normdoctor.output.charts.names import brief
from normdoctor.views.activity import CLASSES

if TYPE_CHECKING:
    from normdoctor.report import TargetSummary
    from normdoctor.views.activity import Activity

CAPTION = (
    "Each column is an activation, in the order of execution; each cell says which share of its units is "
    "above zero that often, over all observations. Units of a ReLU that are never active are dead."
)
ENDS = {
    "saturated": " Saturated units rest at the bounds of a sigmoid or tanh.",
    "clipped": " Clipped units are often at the upper bound of a ReLU6 or hardtanh.",
}


def charts(target: TargetSummary) -> Iterator[Chart]:
    """One chart where activations were observed."""
    points = fewer(target.activity, _worst)
    ends = [name for name in ENDS if any(_end(one, name) is not None for one in points)]
    classes = CLASSES if any(one.shares for one in points) else ()
    if not ends and not classes:
        return
    cells = [[_known(_end(one, name)) for one in points] for name in ends]
    cells += [
        [one.shares[place] if one.shares else math.nan for one in points]
        for place in reversed(range(len(classes)))
    ]
    yield Chart(
        kind="activity",
        title="How often units are active",
        caption="".join([CAPTION, *(ENDS[name] for name in ends)])
        + of_all(len(points), len(target.activity)),
        headers=("place", "units", "observations", *classes, "dead", "saturated", "clipped"),
        rows=tuple(
            (
                one.site,
                f"{one.units}",
                f"{one.observations}",
                *(percent(share) for share in one.shares or [None] * len(classes)),
                percent(one.dead),
                percent(one.saturated),
                percent(one.clipped),
            )
            for one in points
        ),
        drawing=Heat(
            columns=brief([(one.site, one.module) for one in points]),
            rows=(*ends, *reversed(classes)),
            cells=tuple(map(tuple, cells)),
            alarming=(*ends, "never"),
            x="activations in the order of execution",
        ),
        target=target.name,
    )


def _end(one: Activity, name: str) -> float | None:
    return one.saturated if name == "saturated" else one.clipped


def _known(share: float | None) -> float:
    return math.nan if share is None else share


def _worst(one: Activity) -> float:
    return max(one.dead or 0.0, one.saturated or 0.0, one.clipped or 0.0)
