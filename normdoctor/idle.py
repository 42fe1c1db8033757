"""Suppression comments that were examined and silenced nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence

from normdoctor.facts import Facts, Location
from normdoctor.report import RuleResult
from normdoctor.rules.runs import IdleComment
from normdoctor.sources import installed, source_lines
from normdoctor.suppression import Comment, Suppressions


def idle_comments(
    silencer: Suppressions, all_facts: Sequence[Facts], results: Iterable[RuleResult]
) -> tuple[IdleComment, ...]:
    """The comments, not those of installed packages, that name rules which ran there and were not silenced.

    A rule in a comment is judged where it ran on every target with a span at the comment's lines. Where
    there is no such span nothing is known, and nothing is said.
    """
    if not silencer.heed_comments:
        return ()
    ran: dict[str, set[str]] = {}
    for result in results:
        if result.outcome not in ("skipped", "error"):
            ran.setdefault(result.target, set()).add(result.code)
    spans: dict[str, list[tuple[str, Location]]] = {}
    for facts in all_facts:
        for place in set(locations(facts)):
            spans.setdefault(place.file, []).append((facts.target, place))
    found: list[IdleComment] = []
    for file in sorted(spans):
        if installed(file):
            continue
        for comment in silencer.comments(file):
            at = {target for target, place in spans[file] if comment.covers(place)}
            if not at or (comment.lines is None and not _whole(file, [place for _, place in spans[file]])):
                continue
            judged = set.intersection(*(ran.get(target, set()) for target in at))
            found += _idle(comment, judged, silencer)
    return tuple(found)


def _idle(comment: Comment, judged: set[str], silencer: Suppressions) -> Iterator[IdleComment]:
    used: list[str] = []
    idle: list[str] = []
    for text, codes in comment.named.items():
        in_use = any((comment.place.file, comment.place.line, code) in silencer.used for code in codes)
        # What was not judged has to stay as well.
        (idle if codes <= judged and not in_use else used).append(text)
    if idle:
        yield IdleComment(location=comment.place, verb=comment.verb, idle=tuple(idle), used=tuple(used))


def locations(facts: Facts) -> Iterator[Location]:
    """Every span of source that the facts of a target know of."""
    for module in facts.modules:
        yield from ((module.origin,) if module.origin else ())
        yield from module.via
    others = (facts.nodes, facts.losses, facts.optimizers, facts.handwritten)
    yield from (item.location for group in others for item in group if item.location is not None)
    yield from (parameter.origin for parameter in facts.parameters if parameter.origin is not None)


def _whole(file: str, spans: Sequence[Location]) -> bool:
    """Was every model that the file defines (a class with a forward) built or called?"""
    try:
        tree = ast.parse("".join(source_lines(file)))
    except (SyntaxError, ValueError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        forward = any(isinstance(item, ast.FunctionDef) and item.name == "forward" for item in node.body)
        last = node.end_lineno or node.lineno
        if forward and not any(node.lineno <= place.line <= last for place in spans):
            return False
    return True
