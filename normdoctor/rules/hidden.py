"""Hidden layers: activations whose result feeds a layer with weights, and chains of them."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.graph import Graph
from normdoctor.rules.chains import walk_back
from normdoctor.rules.layers import CONVS, DENSE, TRANSPOSED

#: Layers that a hidden activation stands between; recurrent ones have gates of their own.
LAYERS = CONVS | TRANSPOSED | DENSE
_BETWEEN = frozenset({"norm", "pool", "dropout"})


def layers_behind(graph: Graph, node: Node) -> list[Node]:
    """The layers that an activation feeds through norms, pooling, dropout and reshapes.

    Empty where anything else reads it too: a product (a gate), a sum, the output.
    """
    found: list[Node] = []
    stack = [node]
    seen: set[int] = set()
    while stack:
        for reader in graph.readers(stack.pop()):
            if reader.index in seen:
                continue
            seen.add(reader.index)
            if reader.kind in LAYERS and reader.inputs:
                found.append(reader)
            elif reader.role in _BETWEEN and graph.users(reader):
                stack.append(reader)
            else:
                return []
    return found


def layer_before(graph: Graph, node: Node) -> tuple[Node | None, int]:
    """The layer whose output an activation gets, and the number of norms between the two."""
    chain = walk_back(graph, node, lambda one: graph.transparent(one) or one.role in _BETWEEN)
    source = chain.source if chain.source is not None and chain.source.kind in LAYERS else None
    return source, sum(one.role == "norm" for one in chain.passed)


def hidden_chains(graph: Graph, kinds: frozenset[str]) -> Iterator[tuple[tuple[Node, ...], int]]:
    """Longest runs of layers whose activation is of these kinds, with the number of norms in them.

    A run goes from an activation to the next through one layer only, which nothing else feeds or
    bypasses: a sum or a second reader lets the gradient around, and ends it.
    """
    lengths: dict[int, tuple[tuple[Node, ...], int]] = {}
    last: set[int] = set()
    for node in graph.by_role("activation"):
        if node.kind not in kinds or not layers_behind(graph, node):
            continue
        layer, norms = layer_before(graph, node)
        if layer is None:
            continue
        chain: tuple[Node, ...] = (node,)
        before = norms
        chained = walk_back(graph, layer, lambda one: graph.transparent(one) or one.role in _BETWEEN)
        previous = chained.source
        if previous is not None and previous.index in lengths:
            earlier, count = lengths[previous.index]
            between = sum(one.role == "norm" for one in chained.passed)
            chain, before = (*earlier, node), count + norms + between
            last.discard(previous.index)
        lengths[node.index] = (chain, before)
        last.add(node.index)
    for index in sorted(last):
        yield lengths[index]
