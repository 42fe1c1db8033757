"""The small-batch advisor as a table: effective values and error of the mean by batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from normdoctor.output.table import table
from normdoctor.views.batchsizes import SIZES

if TYPE_CHECKING:
    from normdoctor.output.style import Style
    from normdoctor.report import Report
    from normdoctor.views.batchsizes import BatchSizes

RULE = "ND701"

#: What the lines and the last column of the table are.
LEGEND = (
    "n_eff: how many independent values a channel's mean rests on; error: that of",
    "the mean, in standard deviations; from: the smallest batch that passes",
)


def asked_for(report: Report) -> bool:
    """Was the check about batch sizes and nothing else (`--select ND701`)?"""
    return {result.code for result in report.results} == {RULE}


def batch_table(rows: Sequence[BatchSizes], style: Style) -> str:
    """Two lines a layer, n_eff and the standard error of the mean in standard deviations, and remedies.

    `from` is the smallest batch that passes; the batch that was seen and remedies stand below.
    """
    if not rows:
        return ""
    cells: list[tuple[str, ...]] = []
    for row in rows:
        n_eff = [_count(row.n_eff(size)) for size in SIZES]
        error = [f"{row.error_of_mean(size):.2f}".removeprefix("0") for size in SIZES]
        cells.append((_named(row, style), "n_eff", *n_eff, str(row.passes)))
        cells.append(("", "error", *error, ""))
    headers = ("layer", "batch", *map(str, SIZES), "from")
    text = table(cells, headers, style.width, right=headers[2:], least={"batch": 5})
    sizes = sorted({row.batch for row in rows})
    below = [f"batches here: {', '.join(map(str, sizes))}"]
    remedies: dict[str, list[str]] = {}
    for row in rows:
        if row.instead:
            remedies.setdefault(row.instead, []).append(_named(row, style))
    below += [f"{remedy}: {', '.join(names)}" for remedy, names in remedies.items()]
    return "\n".join([text, *LEGEND, *below])


def _named(row: BatchSizes, style: Style) -> str:
    name = style.clean(row.module) or "the model"
    return f"{name} (call {row.call + 1})" if row.call else name


def _count(value: float) -> str:
    """Three digits at most: `4.8`, `160`, `12k`."""
    if value < 9.95:
        return f"{value:.1f}"
    return f"{value:.0f}" if value < 999.5 else f"{value / 1000:.0f}k"
