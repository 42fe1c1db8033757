"""A report as a page of its own."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import normdoctor
from normdoctor.findings import Severity
from normdoctor.output.charts import charts
from normdoctor.output.page import overview
from normdoctor.output.page.cards import Card, cards
from normdoctor.output.page.engine import page
from normdoctor.output.page.pictures import Picture, pictures
from normdoctor.output.page.rulepages import rule_pages
from normdoctor.report import plural

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from normdoctor.report import Report


def report_page(report: Report) -> str:
    """Write one file that needs nothing else: no network, no other file."""
    drawn = charts(report)
    made = cards(report.findings, drawn)
    several = len(report.targets) > 1
    hidden = plural(report.hidden, "finding") + " of lower confidence: see --min-confidence."
    content = {
        "title": overview.title(report),
        "version": normdoctor.__version__,
        "verdict": overview.verdict(report),
        "problems": report.problems,
        "tiles": overview.tiles(report),
        "cards": made,
        "pictures": _by_target(report, pictures([one for one in drawn if not one.about], "picture")),
        "overviews": overview.overviews(report, made),
        "skipped": overview.by_reason(report.skipped, several=several),
        "raised": overview.raised(report),
        "silent": overview.silent(report),
        "pages": rule_pages(finding.code for finding in report.findings),
        "unshown": overview.unshown(report),
        "hidden": hidden if report.hidden else "",
        "surroundings": tuple(report.environment.items()),
        **_filters(made),
    }
    return page("report.html", contents=_contents(content), **content)


def _filters(made: Sequence[Card]) -> dict[str, Any]:
    """What can be chosen among: only what occurs."""
    levels = Counter(card.finding.severity for card in made)
    return {
        "levels": tuple((str(level), levels[level]) for level in reversed(Severity) if levels[level]),
        "rules": tuple(sorted({(card.finding.code, card.finding.name) for card in made})),
        "targets": tuple(dict.fromkeys(card.finding.target for card in made)),
    }


def _by_target(report: Report, drawn: Sequence[Picture]) -> tuple[tuple[str, tuple[Picture, ...]], ...]:
    names = dict.fromkeys(target.name for target in report.targets)
    grouped = ((name, tuple(one for one in drawn if one.target == name)) for name in names)
    return tuple((name, found) for name, found in grouped if found)


def _contents(content: dict[str, Any]) -> tuple[tuple[str, str, str], ...]:
    """The sections that the page has: their anchors, names and what they count."""
    hidden = bool(content["unshown"] or content["hidden"])
    rules = any(content[name] for name in ("skipped", "raised", "silent", "pages"))
    count = sum(len(found) for _, found in content["pictures"])
    sections = (
        ("summary", "Summary", "", True),
        ("findings", "Findings", str(len(content["cards"])), content["cards"]),
        ("pictures", "Pictures", str(count), content["pictures"]),
        ("examined", "What was examined", "", content["overviews"]),
        ("rules", "Rules", "", rules),
        ("unshown", "Not shown", "", hidden),
        ("environment", "Environment", "", content["surroundings"]),
    )
    return tuple((anchor, text, number) for anchor, text, number, there in sections if there)
