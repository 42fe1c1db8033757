"""Attention, whichever way it is written: weights that a softmax makes, and the values that they weigh.

`attentions(graph)` lists every softmax whose result weighs other activations in a product:

    softmax(q @ k.T * scale + mask) @ v         dot-product attention: `scores` is q @ k.T
    softmax(f(x)) * v, summed over an axis      additive or pooling attention: `scores` is None

Layers and functions of torch that do it all (`scaled_dot_product_attention`, `MultiheadAttention`)
have roles of their own and are not among them. `weighs` tells of a sigmoid or softmax whether its
values are factors of other activations (a gate, attention, a mixture) or go on as features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

from normdoctor.facts import Node
from normdoctor.graph import Graph

PRODUCTS = frozenset({"matmul", "einsum"})
#: What may stand between q @ k.T and the softmax: scale, mask, bias, cap, casts.
_SCORE_STEPS = frozenset(
    "add sub mul div masked_fill where clamp dropout tanh getitem pad maximum minimum expand pow neg "
    "baddbmm masked_scatter index_fill nan_to_num cat setitem triu tril gather roll float slice".split()
)
#: What may stand between the weights and their product with the values.
_WEIGHT_STEPS = frozenset(
    "dropout mul div add sub masked_fill where clamp getitem expand expand_as repeat unsqueeze pow rsub "
    "stack cat chunk split unbind select narrow nan_to_num setitem pad interpolate repeat_interleave "
    "broadcast_to sum neg index_select gather topk tile hardtanh bernoulli log unfold fold roll "
    "batch_norm layer_norm instance_norm group_norm rms_norm normalize".split()
)
#: What may stand between a projection and q @ k.T, scale and norms among them.
_OPERAND_STEPS = frozenset(
    "dropout mul div add getitem expand repeat cat neg roll pad stack sub chunk".split()
)
_LONGEST = 40


class Attention(NamedTuple):
    """One softmax whose result weighs other activations.

    Args:
        softmax: The softmax.
        scores: The product of queries and keys in front of it, None for additive attention.
        query: First operand of `scores` (what made it, seen through reshapes), `key` the second.
        value: What the weights are multiplied with.
        product: The product of weights and values.
        before: The nodes from `scores` to the softmax, in execution order.
        after: The nodes from the softmax to the product, in execution order.
        scale: The node that scales the scores, the queries or the keys: by a number, by a parameter,
            or by a norm; None where nothing does.
        rescaled: The node that multiplies the weights by a number after the softmax, None for none.
    """

    softmax: Node
    scores: Node | None
    query: Node | None
    key: Node | None
    value: Node | None
    product: Node
    before: tuple[Node, ...] = ()
    after: tuple[Node, ...] = ()
    scale: Node | None = None
    rescaled: Node | None = None


_found: WeakKeyDictionary[Graph, dict[int, Attention]] = WeakKeyDictionary()


def attentions(graph: Graph) -> tuple[Attention, ...]:
    """All attentions, in the order of their softmaxes (computed once for a graph)."""
    if graph not in _found:
        _found[graph] = {one.softmax.index: one for one in _search(graph)}
    return tuple(_found[graph].values())


def attention_at(graph: Graph, node: Node) -> Attention | None:
    """The attention whose softmax `node` is, None where its values weigh nothing."""
    attentions(graph)
    return _found[graph].get(node.index)


def weighs(graph: Graph, node: Node) -> Node | None:
    """The first product of the values of `node` with other activations: gate, attention, mixture.

    Reshapes, dropout, scaling, masks and sums over branches are looked through; None where the values
    go into a layer with weights, or to the output.
    """
    path = _to_product(graph, node)
    return path[-1] if path else None


def operands(graph: Graph, node: Node) -> list[Node | None]:
    """The tensors that a node reads, in argument order and with repetitions; parameters are None."""
    given = node.config.get("operands")
    if isinstance(given, list):
        return [graph.nodes[one] if isinstance(one, int) else None for one in given]
    return [graph.nodes[index] for index in node.inputs]


def is_parameter(node: Node | None) -> bool:
    """Is an operand made of parameters alone?"""
    return node is None or node.role == "parameter"


def _search(graph: Graph) -> Iterator[Attention]:
    for node in graph.by_role("softmax"):
        if node.kind in ("log_softmax", "softmin") or not node.inputs:
            continue
        path = _to_product(graph, node)
        if not path:
            continue
        product, after = path[-1], tuple(path[:-1])
        before = _to_scores(graph, node)
        scores = before[0] if before else None
        pair = operands(graph, scores) if scores is not None else []
        last = after[-1] if after else node
        others = [one for one in operands(graph, product) if one is not None and one.index != last.index]
        steps = tuple(before[1:])
        yield Attention(
            softmax=node,
            scores=scores,
            query=graph.through(pair[0]) if pair and pair[0] is not None else None,
            key=graph.through(pair[1]) if len(pair) > 1 and pair[1] is not None else None,
            value=graph.through(others[0]) if others else None,
            product=product,
            before=steps,
            after=after,
            scale=_scale(graph, scores, steps, pair),
            rescaled=next((one for one in after if scales(one)), None),
        )


def _to_product(graph: Graph, node: Node) -> list[Node]:
    """The nodes behind `node` up to the first product with other activations, which comes last."""
    queue: list[tuple[Node, tuple[Node, ...]]] = [(node, ())]
    seen = {node.index}
    for current, path in queue:
        if len(path) > _LONGEST:
            break
        for reader in graph.users(current):
            if reader.index in seen:
                continue
            seen.add(reader.index)
            if _is_product(graph, reader, current, seen):
                return [*path, reader]
            if (
                graph.transparent(reader)
                or reader.kind in _WEIGHT_STEPS
                or reader.role == "dropout"
                or _mixes_heads(graph, reader)
            ):
                queue.append((reader, (*path, reader)))
    return []


def _is_product(graph: Graph, reader: Node, current: Node, seen: set[int]) -> bool:
    """Does `reader` multiply the values of `current` with activations that are none of theirs?"""
    if reader.kind in PRODUCTS:
        given = [one for one in operands(graph, reader) if one is None or one.role != "parameter"]
        return len(given) > 1 and reader.role != "linear"
    if reader.kind not in ("mul", "lerp", "addcmul", "scaled_dot_product_attention"):
        return False
    others = [one for one in graph.inputs(reader) if one.index != current.index and one.role != "parameter"]
    return any(one.index not in seen for one in others)


def _to_scores(graph: Graph, softmax: Node) -> list[Node]:
    """The nodes from the product of queries and keys to the softmax, the product first; [] for none."""
    queue: list[tuple[Node, tuple[Node, ...]]] = [(softmax, ())]
    seen = {softmax.index}
    for current, path in queue:
        if len(path) > _LONGEST:
            break
        for before in graph.inputs(current):
            if before.index in seen:
                continue
            seen.add(before.index)
            if before.kind in PRODUCTS and before.role != "linear":
                return [before, *path]
            if (
                graph.transparent(before)
                or before.kind in _SCORE_STEPS
                or before.role == "dropout"
                or _mixes_heads(graph, before)
            ):
                queue.append((before, (before, *path)))
    return []


def _mixes_heads(graph: Graph, node: Node) -> bool:
    """A linear layer from heads to heads on the scores (talking heads)."""
    before = graph.input_tensor(node)
    if node.kind not in ("linear", "conv2d") or before is None or len(before.shape) < 4:
        return False
    axis = -1 if node.kind == "linear" else -3
    return before.shape[axis] == node.shape[axis] and before.shape[axis] <= 64


def scales(node: Node) -> bool:
    """Does a node multiply or divide by a number other than one?"""
    if node.kind not in ("mul", "div") or len(node.inputs) != 1:
        return False
    factor = node.config.get("scalar")
    return isinstance(factor, int | float) and not isinstance(factor, bool) and factor != 1


def _scale(
    graph: Graph, scores: Node | None, before: tuple[Node, ...], pair: list[Node | None]
) -> Node | None:
    """The node that keeps the scores small: on them, on the queries or on the keys."""
    if scores is None:
        return None
    if scores.config.get("alpha", 1) != 1:
        return scores
    for node in before:
        if _shrinks(graph, node):
            return node
    for operand in pair:
        if operand is not None and (found := _scale_behind(graph, operand)) is not None:
            return found
    return None


def _shrinks(graph: Graph, node: Node) -> bool:
    """Does a node set the size of its values: a factor (number, parameter, tensor), a norm, a bound?"""
    if node.kind in ("mul", "div"):
        return scales(node) or bool(node.parameters) or len(operands(graph, node)) > 1
    return (
        node.role == "norm"
        or graph.norm_at(node) is not None
        or node.kind in ("tanh", "normalize", "sigmoid")
    )


def _scale_behind(graph: Graph, operand: Node) -> Node | None:
    queue = [operand]
    seen = {operand.index}
    for node in queue:
        if _shrinks(graph, node) and not _rotates(graph, node):
            return node
        if len(seen) > _LONGEST or not (
            graph.transparent(node) or node.kind in _OPERAND_STEPS or node is operand
        ):
            continue
        for before in graph.inputs(node):
            if before.index not in seen and before.role != "linear":
                seen.add(before.index)
                queue.append(before)
    return None


def _rotates(graph: Graph, node: Node) -> bool:
    """Is a product of two tensors a rotation by position (`x * cos + rotate(x) * sin`), no scale?"""
    if node.kind != "mul" or scales(node) or node.parameters:
        return False
    return any(_is_wave(graph, one) for one in graph.inputs(node))


def _is_wave(graph: Graph, node: Node) -> bool:
    for _ in range(12):
        if node.kind in ("cos", "sin", "polar"):
            return True
        if not node.inputs or not (
            graph.transparent(node) or node.kind in ("mul", "getitem", "cat", "expand")
        ):
            return False
        node = graph.nodes[node.inputs[0]]
    return False
