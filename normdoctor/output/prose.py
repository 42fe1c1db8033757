"""The small part of Markdown in which messages and pages of rules are written: `code`, paragraphs, lists."""

from __future__ import annotations

import re
from collections.abc import Iterator


def spans(text: str) -> Iterator[tuple[bool, str]]:
    """The parts of a text and whether each is code, without its backticks; odd backticks mean nothing."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        yield False, text
        return
    for number, part in enumerate(parts):
        if part:
            yield bool(number % 2), part


def blocks(text: str) -> Iterator[tuple[bool, tuple[str, ...]]]:
    """The paragraphs and lists of a text, each line of source joined to the one before it.

    A list comes as `(True, items)`, a paragraph as `(False, (text,))`.
    """
    for chunk in re.split(r"\n\s*\n", text.strip()):
        lead, *items = re.split(r"(?:^|\n)- ", chunk)
        if lead.strip():
            yield False, (_joined(lead),)
        if items:
            yield True, tuple(_joined(item) for item in items)


def section(page: str, heading: str) -> str:
    """What stands below a heading of a page; empty where there is none."""
    return page.partition(f"## {heading}\n")[2].partition("\n## ")[0].strip()


def _joined(text: str) -> str:
    return " ".join(text.split())
