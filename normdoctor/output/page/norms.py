"""The norms of a model as a table, with the findings that hold for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from normdoctor.output.page.figures import Link, Table
from normdoctor.output.paths import shown_path
from normdoctor.views.inventory import times

if TYPE_CHECKING:
    from normdoctor.output.page.cards import Card
    from normdoctor.report import TargetSummary
    from normdoctor.views.norms import NormRow

#: Rows beyond these are counted.
MAX_ROWS = 1000
HEADERS = ("layer", "norm", "source", "over", "eps", "momentum", "affine", "output", "runs", "parameters")


def norm_table(target: TargetSummary, made: Sequence[Card]) -> Table | None:
    """A row for each norm, in the order of execution; None where there is none."""
    shown = target.inventory[:MAX_ROWS]
    if not shown:
        return None
    found: dict[str, list[Link]] = {}
    for card in made:
        if card.finding.target == target.name:
            for path in card.finding.modules:
                found.setdefault(path, []).append(Link(card.key, card.finding.code))
    left = len(target.inventory) - len(shown)
    return Table(
        caption=f"Norm layers of {target.name or 'the model'}",
        headers=HEADERS,
        rows=tuple(_cells(row) for row in shown),
        more=f"and {left:,} more" if left else "",
        links=tuple(tuple(found.get(row.module, ())) for row in shown) if found else (),
    )


def _cells(row: NormRow) -> tuple[str, ...]:
    groups = f" in {row.groups} groups" if row.groups else ""
    return (
        row.module or "the model",
        row.type,
        f"{shown_path(row.location.file)}:{row.location.line}" if row.location else "",
        f"{times(row.size)}{groups}",
        "" if row.eps is None else f"{row.eps:g}",
        f"{row.momentum:g}" if row.momentum is not None else "average" if row.running else "",
        "yes" if row.affine else "no",
        times(row.output),
        f"{row.calls:,}",
        f"{row.parameters:,}",
    )
