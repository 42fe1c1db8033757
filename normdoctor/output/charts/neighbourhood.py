"""The recorded graph around a finding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from normdoctor.output.charts.base import Box, Chart, Edge, Network
from normdoctor.output.charts.layout import arranged
from normdoctor.report import plural

if TYPE_CHECKING:
    from normdoctor.report import TargetSummary
    from normdoctor.views.neighbourhood import Neighbour, Neighbourhood


def charts(target: TargetSummary) -> Iterator[Chart]:
    """One chart for each finding whose place is in the recorded graph."""
    for one in target.neighbourhoods:
        yield _chart(target.name, one)


def _chart(target: str, one: Neighbourhood) -> Chart:
    places, ways = arranged(len(one.nodes), one.edges)
    boxes = tuple(
        Box(
            text=_text(node),
            rank=place.rank,
            centre=place.centre,
            width=place.width,
            role=node.role,
            chosen=node.chosen,
        )
        for node, place in zip(one.nodes, places, strict=True)
    )
    edges = tuple(
        Edge(source=source, target=reader, via=way)
        for (source, reader), way in zip(one.edges, ways, strict=True)
    )
    sources: dict[int, list[str]] = {}
    for source, reader in one.edges:
        sources.setdefault(reader, []).append(str(source + 1))
    return Chart(
        kind="neighbourhood",
        title=f"Around {one.code} at {one.module or 'the model'}",
        caption=_caption(one),
        headers=("step", "what", "where", "output", "reads from", "finding"),
        rows=tuple(
            (
                str(index + 1),
                node.kind,
                _where(node),
                _shape(node),
                ", ".join(sources.get(index, ())),
                one.code if node.chosen else "",
            )
            for index, node in enumerate(one.nodes)
        ),
        drawing=Network(boxes=boxes, edges=edges),
        target=target,
        about=one.finding,
        place=one.module,
    )


def _caption(one: Neighbourhood) -> str:
    left = [
        plural(count, noun)
        for count, noun in ((one.above, "further input"), (one.below, "further reader"))
        if count
    ]
    text = "What the model computes around the finding, from top to bottom; its place has a thick border."
    if left:
        text += f" Not shown: {' and '.join(left)}."
    if one.places:
        text += f" The finding holds at {plural(one.places, 'further place')}."
    return text


def _text(node: Neighbour) -> tuple[str, ...]:
    return tuple(line for line in (node.kind, _where(node), _shape(node)) if line)


def _where(node: Neighbour) -> str:
    if node.role == "input":
        return ""
    return f"in {node.module or 'the model'}" if node.function else node.module


def _shape(node: Neighbour) -> str:
    return "x".join(map(str, node.shape))
