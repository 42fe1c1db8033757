"""What stands around a finding: the recorded graph two steps up and down of its first place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from normdoctor.census import within
from normdoctor.facts import Location, Node
from normdoctor.findings import Finding
from normdoctor.graph import Graph

#: How far around a place the graph is shown, how many nodes at most, and how many of them as its places.
STEPS, MOST, PLACES = 2, 14, 3
#: What no neighbourhood shows: parameters that are read, and the end of the graph.
_LEFT_OUT = frozenset({"get_attr", "output"})


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """One node: what it computes, where it stands, and the shape that it hands on.

    `chosen` is true for the places of the finding. `module` is the path of the module that it calls, or
    of that in whose forward a function stands, with `function` true.
    """

    kind: str
    role: str
    module: str
    function: bool = False
    shape: tuple[int, ...] = ()
    chosen: bool = False
    location: Location | None = None


class Neighbourhood(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes around a finding, in execution order.

    Args:
        finding: The fingerprint of the finding, with `code`.
        code: Its rule.
        module: The place that is shown: the first of the finding's.
        nodes: The nodes.
        edges: From which of them data flows to which, by their places in `nodes`.
        above: How many further inputs of these nodes are left out.
        below: How many further readers of them.
        places: At how many further modules the finding holds that are not among the nodes.
    """

    finding: str
    code: str
    module: str
    nodes: tuple[Neighbour, ...]
    edges: tuple[tuple[int, int], ...]
    above: int = 0
    below: int = 0
    places: int = 0


def neighbourhoods(graph: Graph, findings: Iterable[Finding]) -> tuple[Neighbourhood, ...]:
    """One for each finding whose place is in the recorded graph, in the order of the findings."""
    if not graph.nodes:
        return ()
    found = (_around(graph, finding) for finding in findings)
    return tuple(one for one in found if one is not None)


def _around(graph: Graph, finding: Finding) -> Neighbourhood | None:
    start = _places(graph, finding)
    if not start:
        return None
    kept = _within_reach(graph, start)
    shown = [graph.nodes[index] for index in sorted(kept)]
    place = {node.index: position for position, node in enumerate(shown)}
    inputs = {i for node in shown for i in node.inputs if _shown(graph.nodes[i])}
    readers = {user.index for node in shown for user in graph.users(node) if _shown(user)}
    named = {graph.label(node) for node in shown}
    return Neighbourhood(
        finding=finding.fingerprint,
        code=finding.code,
        module=graph.label(start[0]),
        nodes=tuple(_neighbour(graph, node, finding, start) for node in shown),
        edges=tuple(
            (place[source], place[node.index])
            for node in shown
            for source in dict.fromkeys(node.inputs)
            if source in place
        ),
        above=len(inputs - kept),
        below=len(readers - kept - inputs),
        places=sum(not _stands_for(path, named) for path in finding.modules),
    )


def _neighbour(graph: Graph, node: Node, finding: Finding, start: Sequence[Node]) -> Neighbour:
    held = node.module is not None and node.module in finding.modules
    return Neighbour(
        kind=node.kind,
        role=node.role,
        module=graph.label(node),
        function=node.module is None,
        shape=node.shape,
        chosen=held or node in start,
        location=graph.where(node),
    )


def _places(graph: Graph, finding: Finding) -> list[Node]:
    """The nodes that the first module of the finding stands for; without one, those at its source line."""
    for path in finding.modules[:1]:
        if calls := graph.calls_of(path):
            return calls[:1]
        inside = [
            node for node in graph.nodes if _shown(node) and (node.scope == path or within(node.scope, path))
        ]
        calls_at = {finding.location, *(site.call for site in finding.sites[:1])} - {None}
        if at := [node for node in inside if node.location in calls_at]:
            return at[:PLACES]
        names = {name for name, held in graph.parameters.items() if held.module == path}
        if reading := [node for node in inside if names.intersection(node.parameters)]:
            return reading[:PLACES]
        if path and inside:  # a block: its first and its last step
            return list({node.index: node for node in (inside[0], inside[-1])}.values())
    if finding.location is None:
        return []
    return [node for node in graph.nodes if node.location == finding.location and _shown(node)][:PLACES]


def _within_reach(graph: Graph, start: Sequence[Node]) -> set[int]:
    """The nearest nodes first, those before a place ahead of those behind it."""
    kept = {node.index for node in start}
    up, down = list(start), list(start)
    for _ in range(STEPS):
        up = [node for one in up for node in graph.inputs(one) if _shown(node) and node.index not in kept]
        up = _taken(up, kept)
        down = [node for one in down for node in graph.users(one) if _shown(node) and node.index not in kept]
        down = _taken(down, kept)
    return kept


def _taken(nodes: Sequence[Node], kept: set[int]) -> list[Node]:
    """Keep of these what there is room for."""
    taken = []
    for node in nodes:
        if node.index not in kept and len(kept) < MOST:
            kept.add(node.index)
            taken.append(node)
    return taken


def _shown(node: Node) -> bool:
    return node.op not in _LEFT_OUT and node.role != "parameter"


def _stands_for(path: str, shown: set[str]) -> bool:
    """Is a module, or a part of it, among those shown?"""
    return path in shown or any(within(one, path) for one in shown)
