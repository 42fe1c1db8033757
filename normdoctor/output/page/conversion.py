"""What a conversion did, before and after, as a page and for notebooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import normdoctor
from normdoctor.output.charts import conversion
from normdoctor.output.page.engine import fragment, notebook_style, page
from normdoctor.output.page.figures import Table
from normdoctor.output.page.pictures import Picture, pictures, prefix_of
from normdoctor.report import plural

if TYPE_CHECKING:
    from normdoctor.rewriting.result import ConvertResult
    from normdoctor.rewriting.verify import Difference

#: Rows of a table beyond these are counted.
MAX_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Converted:
    """The verdict with its tone, what else there is to know, and the numbers."""

    tone: str
    text: str
    notes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    tables: tuple[Table, ...]


def conversion_page(result: ConvertResult) -> str:
    """Write one file that needs nothing else."""
    made = _converted(result)
    contents = [("summary", "Summary", "")]
    contents += [("layers", "Before and after", "")] if made.pictures or made.tables else []
    title = f"Conversion {result.spec}"
    return page(
        "conversion.html", title=title, version=normdoctor.__version__, contents=contents, result=made
    )


def conversion_fragment(result: ConvertResult) -> str:
    """Write what a notebook shows."""
    return fragment(
        "notebook-conversion.html",
        style=notebook_style(),
        title=f"Conversion {result.spec}",
        result=_converted(result),
    )


def _converted(result: ConvertResult) -> Converted:
    chart = conversion(result)
    drawn = [chart] if chart is not None else []
    tables = (_outputs(result), _replaced(result), _refused(result), _keys(result))
    counts = f"{plural(len(result.replaced), 'layer')} replaced, {len(result.refused)} refused"
    told = [f"{mode} outputs {_told(by)}" for mode, by in result.differences.items() if result.replaced]
    return Converted(
        tone={"exact": "fine", "approximate": "warning", "refused": "plain"}[result.verdict],
        text=f"{counts}, {_verdict(result)}",
        notes=(*told, *result.notes),
        pictures=pictures(drawn, prefix_of(drawn)),
        tables=tuple(table for table in tables if table is not None),
    )


def _verdict(result: ConvertResult) -> str:
    if result.verdict != "exact" or not result.replaced:
        return str(result.verdict)
    words = f"exact in {' and '.join(result.exact_in)} mode"
    return words if result.verified else f"{words} (not verified)"


def _told(difference: Difference) -> str:
    return f"differ: {difference}" if difference.largest else "are equal"


def _outputs(result: ConvertResult) -> Table | None:
    rows = tuple(
        (
            mode,
            f"{by.largest:.3g}",
            f"{by.relative:.3g}",
            "" if by.decisions is None else f"{by.decisions:.1%}",
        )
        for mode, by in result.differences.items()
    )
    headers = ("mode", "largest difference", "relative difference", "same class")
    return _table("Outputs of the model", headers, rows) if result.replaced else None


def _replaced(result: ConvertResult) -> Table | None:
    rows = tuple(
        (", ".join((one.path or "the model", *one.aliases)), _line(one.old), _line(one.new))
        for one in result.replaced
    )
    return _table("Replaced layers", ("layer", "before", "after"), rows)


def _refused(result: ConvertResult) -> Table | None:
    rows = tuple((one.path or "the model", one.reason) for one in result.refused)
    return _table("Refused", ("layer", "reason"), rows)


def _keys(result: ConvertResult) -> Table | None:
    """The keys of the state dict that have another name now, or are gone."""
    rows = tuple((old, new or "gone") for old, new in result.key_map.items() if old != new)
    return _table("Keys of the state dict", ("before", "after"), rows)


def _table(caption: str, headers: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> Table | None:
    left = len(rows) - MAX_ROWS
    return (
        Table(caption, headers, rows[:MAX_ROWS], f"and {left:,} more" if left > 0 else "") if rows else None
    )


def _line(printed: str) -> str:
    """A layer with parts prints over several lines."""
    return " ".join(printed.split())
