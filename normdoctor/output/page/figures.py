"""Figures of findings as tables of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from normdoctor.findings import Finding
from normdoctor.output.paths import shown
from normdoctor.output.plainjson import plain

#: Items of a list, entries of a nested figure, and places of a finding, beyond which the rest is counted.
MAX_ITEMS, MAX_ENTRIES, MAX_PLACES = 8, 12, 100


@dataclass(frozen=True, slots=True)
class Link:
    """A place in the page, and the text that leads there."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text. `links` are the findings about each row, a column of their own where there are any."""

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: str = ""
    links: tuple[tuple[Link, ...], ...] = ()

    @property
    def right(self) -> frozenset[int]:
        """The columns in which every cell is a number or empty."""
        columns = enumerate(zip(*self.rows, strict=True))
        return frozenset(
            place for place, cells in columns if any(cells) and all(_is_number(cell) for cell in cells)
        )


def common(finding: Finding) -> Table | None:
    """What holds at all places of a finding."""
    rows = tuple(_flat(plain(finding.evidence)))
    return Table(f"Figures of {finding.code}", ("figure", "value"), rows) if rows else None


def by_place(finding: Finding) -> Table | None:
    """What was found at each place, without what is the same at all; None for a lone place."""
    if len(finding.sites) < 2:
        return None
    sites = [(site, dict(_flat(plain(site.evidence)))) for site in finding.sites]
    names = dict.fromkeys(name for _, figures in sites for name in figures)
    telling = [name for name in names if len({figures.get(name) for _, figures in sites}) > 1]
    calls = len({site.call for site, _ in sites}) > 1
    rows = tuple(
        (
            site.module or "the model",
            *((shown(site.call) if site.call else "",) if calls else ()),
            *(figures.get(name, "") for name in telling),
        )
        for site, figures in sites[:MAX_PLACES]
    )
    if not telling and not calls:
        return None
    left = len(sites) - len(rows)
    headers = ("module", *(("call",) if calls else ()), *telling)
    return Table(f"Places of {finding.code}", headers, rows, f"and {left} more" if left else "")


def _flat(figures: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in figures.items():
        name = before + key.replace("_", " ")
        if isinstance(value, dict) and len(value) <= MAX_ENTRIES:
            yield from _flat(value, f"{name}: ")
        else:
            yield name, text(value)


def text(value: Any) -> str:
    """A figure as a cell shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return f"{len(value)} entries"
    if isinstance(value, list):
        return _listed(value)
    return "none" if value is None else str(value)


def _listed(values: Sequence[Any]) -> str:
    more = f" and {len(values) - MAX_ITEMS} more" if len(values) > MAX_ITEMS else ""
    return ", ".join(text(value) for value in values[:MAX_ITEMS]) + more


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "").removesuffix("%") or 0)
    except ValueError:
        return False
    return True
