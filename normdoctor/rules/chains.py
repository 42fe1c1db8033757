"""Walking chains of nodes: back to what computed a tensor, and forward along one axis of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from normdoctor.facts import Node
from normdoctor.graph import Graph, Norm

#: Preserving kinds that move axes; where they move them to is read off the shapes.
MOVES = frozenset("permute transpose swapaxes movedim moveaxis t mT T adjoint".split())
#: Preserving kinds that keep the order of memory, so that an axis can be found again by its strides.
RESHAPES = frozenset(
    "view reshape flatten unflatten squeeze unsqueeze squeeze_ unsqueeze_ view_as reshape_as "
    "_unsafe_view".split()
)
#: Preserving kinds that tear an axis apart.
SHUFFLES = frozenset("pixel_shuffle pixel_unshuffle".split())


class Chain(NamedTuple):
    """Where a walk back ended, and the nodes that it passed, in execution order."""

    source: Node | None
    passed: tuple[Node, ...]


def walk_back(graph: Graph, node: Node, through: Callable[[Node], bool], *, alone: bool = True) -> Chain:
    """Follow first inputs back from `node` through the nodes that `through` accepts.

    The source is the first node that it does not accept. With `alone`, the walk ends without a
    source at a tensor that something else reads too.
    """
    passed: list[Node] = []
    current = node
    while current.inputs:
        before = graph.nodes[current.inputs[0]]
        if alone and len(graph.users(before)) > 1:
            break
        if not through(before):
            return Chain(before, tuple(reversed(passed)))
        passed.append(before)
        current = before
    return Chain(None, tuple(reversed(passed)))


def walk_back_from(graph: Graph, norm: Norm, through: Callable[[Node], bool]) -> Chain:
    """As `walk_back`, from what a norm normalizes; a hand-written one may read it in several places."""
    start = norm.input
    if norm.handwritten is None or start is None:
        return walk_back(graph, norm.output, through)
    if any(reader.index not in norm.handwritten.nodes for reader in graph.users(start)):
        return Chain(None, ())
    if not through(start):
        return Chain(start, ())
    source, passed = walk_back(graph, start, through)
    return Chain(source, (*passed, start))


def follow_axis(start: Node, axis: int, passed: Sequence[Node]) -> int | None:
    """Where `axis` of what `start` returns lies after the preserving nodes `passed`, None if lost."""
    shape = start.shape
    axis = axis % len(shape) if shape else 0
    for node in passed:
        if not shape or not node.shape or axis >= len(shape):
            return None
        found = _step(node.kind, shape, axis, node.shape)
        if found is None:
            return None
        axis, shape = found, node.shape
    return axis


def axis_before(node: Node, before: tuple[int, ...], axis: int) -> int | None:
    """Which axis of its input, of shape `before`, a preserving node hands on as `axis`."""
    return _step(node.kind, node.shape, axis, before) if axis < len(node.shape) else None


def _step(kind: str, shape: tuple[int, ...], axis: int, after: tuple[int, ...]) -> int | None:
    length = shape[axis]
    if kind in SHUFFLES:
        return None
    if kind in RESHAPES:
        before = math.prod(shape[:axis])
        for place, size in enumerate(after):
            if size == length and math.prod(after[:place]) == before:
                return place
        return None
    if kind in MOVES:
        places = [place for place, size in enumerate(after) if size == length]
        return places[0] if len(places) == 1 else None
    return axis if after == shape else None


def preserves(graph: Graph) -> Callable[[Node], bool]:
    """Accepts what hands each value on and keeps channels whole (no pixel shuffle)."""
    return lambda node: graph.transparent(node) and node.kind not in SHUFFLES
