"""How sure the statistics of each BatchNorm are by batch size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from normdoctor.output.charts.base import Axis, Chart, Lines, Series, fewer, figure, of_all
from normdoctor.output.charts.names import called
from normdoctor.rules.smallbatch import ERROR, WARNING
from normdoctor.views.batchsizes import SIZES

if TYPE_CHECKING:
    from normdoctor.report import TargetSummary
    from normdoctor.views.batchsizes import BatchSizes

#: So many norms are drawn beside the two that are named; they are parallel lines.
FAINT = 60
CAPTION = (
    "The standard error of the mean that a BatchNorm takes from a batch, in standard deviations of its "
    "input, by batch size. Below the lower line statistics are sure enough (ND701); above the upper "
    "one accuracy falls by several percent. The points stand at the batch size of this run."
)


def charts(target: TargetSummary) -> Iterator[Chart]:
    """One chart where BatchNorms were measured on data."""
    rows = fewer(target.batch_sizes, lambda one: one.per_sample)
    if not rows:
        return
    ranked = sorted(rows, key=lambda one: one.per_sample)
    named = {"noisiest": ranked[0], "surest": ranked[-1]} if len(ranked) > 1 else {"": ranked[0]}
    between = ranked[1:-1]
    step = -(-len(between) // FAINT) or 1
    series = [_line(f"{word}: {_name(one)}".removeprefix(": "), one) for word, one in named.items()]
    here = sorted({(float(one.batch), one.error_of_mean(one.batch)) for one in rows})
    series.append(
        Series(name="this run", x=tuple(x for x, _ in here), y=tuple(y for _, y in here), line=False)
    )
    series += [_line("", one, faint=True) for one in between[::step]]
    yield Chart(
        kind="batch-noise",
        title="Noise of batch statistics",
        caption=CAPTION + of_all(len(rows), len(target.batch_sizes)),
        headers=("norm", "values a sample", *map(str, SIZES), "batch here", "passes from", "instead"),
        rows=tuple(
            (
                _name(one),
                figure(one.per_sample),
                *(figure(one.error_of_mean(size)) for size in SIZES),
                f"{one.batch}",
                f"{one.passes}",
                one.instead,
            )
            for one in rows
        ),
        drawing=Lines(
            x=Axis(label="batch size", scale="log", ticks=tuple(map(float, SIZES))),
            y=Axis(label="error of the mean", scale="log"),
            series=tuple(series),
            levels=((ERROR, f"{ERROR:g}: too noisy"), (WARNING, f"{WARNING:g}: passes below")),
        ),
        target=target.name,
    )


def _name(one: BatchSizes) -> str:
    return called(one.module, one.call)


def _line(name: str, one: BatchSizes, *, faint: bool = False) -> Series:
    values = tuple(one.error_of_mean(size) for size in SIZES)
    return Series(name=name, x=tuple(map(float, SIZES)), y=values, faint=faint)
