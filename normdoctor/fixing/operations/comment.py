"""Suppression comments."""

from __future__ import annotations

import re

from normdoctor.findings import Edit
from normdoctor.fixing.case import Case
from normdoctor.fixing.splices import Change, Refused, Splice
from normdoctor.suppression import NOQA, OWN


def comment(case: Case, edit: Edit) -> list[Change]:
    """Leave only these codes in a comment, or none of it."""
    place = case.finding.location
    doc = case.document(place)
    assert place is not None
    start = doc.offset(place.line, place.column - 1)
    end = doc.offset(place.end_line or place.line, place.end_column - 1)
    text = doc.text[start:end]
    idle = {str(code) for code in case.finding.evidence.get("unused", ())}
    for pattern in (OWN, NOQA):
        for found in pattern.finditer(text):
            named = [part.strip() for part in re.split(r"[\s,]+", found["codes"] or "") if part.strip()]
            if not idle <= set(named):
                continue
            kept = [name for name in named if name not in idle]
            if kept:
                first, last = found.span("codes")
                lead = " " if pattern is NOQA else ""
                new = Splice(doc.file, start + first, start + last, lead + ", ".join(kept))
                return [Change((new,))]
            last = start + _end(found)
            return [Change((_whole(doc.text, doc.file, start, end, start + found.start(), last),))]
    raise Refused("the comment is not as it was read")


def _end(found: re.Match[str]) -> int:
    """Where it ends: in front of the comment of another tool, and of the space before that."""
    first = found.start() + 1
    other = found.string.find("#", first, found.end())
    stop = found.end() if other < 0 else other
    return first + len(found.string[first:stop].rstrip())


def _whole(text: str, file: str, start: int, end: int, first: int, last: int) -> Splice:
    """The comment (or its part) with the space before it, or with its line where nothing else is on it."""
    if first == start and last >= end:
        line = max(text.rfind("\n", 0, start), text.rfind("\r", 0, start)) + 1
        if not text[line:start].strip():
            stop = re.compile(r"[^\r\n]*(\r\n|\r|\n|$)").match(text, end)
            return Splice(file, line, stop.end() if stop else end, "")
        return Splice(file, line + len(text[line:start].rstrip()), end, "")
    rest = text[last:end].lstrip()
    if first == start and rest.startswith("#"):
        return Splice(file, start, end - len(rest), "")
    return Splice(file, len(text[:first].rstrip()), last, "")
