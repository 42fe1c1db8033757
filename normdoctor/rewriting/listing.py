"""The norms of a model that are no layers: calls of functions, and formulas written by hand."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.output.paths import shown_path
from normdoctor.rewriting.families import family_of
from normdoctor.rewriting.flow import Flow
from normdoctor.rewriting.where import Predicate


def calls_elsewhere(flow: Flow, kinds: frozenset[str], chosen: Predicate) -> Iterator[tuple[str, str]]:
    """The module in whose forward each call stands, and why it is left as it is."""
    seen: set[tuple[str, object]] = set()
    for norm in flow.norms:
        node = norm.output
        scope = norm.handwritten.module if norm.handwritten is not None else node.scope
        entry = flow.recording.parts.modules.get(scope)
        if node.module is not None or norm.kind not in kinds or entry is None:
            continue
        if id(entry.module) in flow.layers or family_of(entry.module) or not chosen(scope, entry.module):
            continue
        place = norm.handwritten.location if norm.handwritten is not None else node.location
        if (scope, place) in seen:
            continue
        seen.add((scope, place))
        at = f" ({shown_path(place.file)}:{place.line})" if place is not None else ""
        verb = "computes" if norm.handwritten is not None else "calls"
        by_hand = " by hand" if norm.handwritten is not None else ""
        yield scope, f"its forward {verb} {norm.kind}{by_hand}{at}, where no layer can take its place"
