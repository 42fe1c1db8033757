"""What each axis of each tensor stands for: batch, channel, space, time or heads.

Labels come from layers that state them (the channel axis of a convolution, the last axis of a linear
layer, `batch_first` of a recurrent layer) and from the inputs, and flow through every call. Axes that
run together in one call are one, so that what a later layer states is known of earlier tensors too.
`time` are the positions of a sequence or a set, `space` those of an image or a volume; patches that
are taken for tokens remain space. What cannot be told is "".

The nodes are walked over twice: once to learn what the layers say of the inputs, then, with the
labels that are usual where they said nothing, to label all.
"""

from __future__ import annotations

import msgspec

from normdoctor.facts import Facts, Node
from normdoctor.tracing.axes import arithmetic, layers, moves
from normdoctor.tracing.axes.atoms import LIKELY, USUAL
from normdoctor.tracing.axes.flow import Flow, Step

_STEPS: dict[str, Step] = arithmetic.STEPS | moves.STEPS | layers.STEPS
_Seeds = dict[int, tuple[tuple[str, int], ...]]


def with_axes(facts: Facts) -> Facts:
    """The facts with `Node.axes` filled."""
    if not facts.nodes:
        return facts
    first = Flow(facts, _STEPS, {})
    first.run()
    flow = Flow(facts, _STEPS, _seeds(first))
    flow.run()
    return msgspec.structs.replace(facts, nodes=tuple(_labelled(flow, node) for node in facts.nodes))


def _labelled(flow: Flow, node: Node) -> Node:
    known = flow.axes[node.index]
    axes = tuple(flow.text(axis) for axis in known[0]) if known else ()
    return msgspec.structs.replace(node, axes=axes) if any(axes) else node


def _seeds(flow: Flow) -> _Seeds:
    """The labels of the inputs: what the layers say, then what is usual."""
    told: dict[int, list[tuple[str, int]]] = {}
    places = [node for node in flow.nodes if node.op == "placeholder" and node.outputs]
    embedded = {flow.atoms.find(atom) for atom in flow.embedded}
    into = {node.index: _embedded(flow, node, embedded) for node in places}
    for node in places:
        axes = flow.axes[node.index][0]
        told[node.index] = [(flow.text(axis), flow.atoms.strength(axis)) for axis in axes]
    size = _batch_size(places, told, into)
    for node in places:
        _usual(told[node.index], node.shape, size, into[node.index])
    return {index: tuple(labels) for index, labels in told.items()}


def _embedded(flow: Flow, node: Node, atoms: set[int]) -> bool:
    axes = flow.axes[node.index][0]
    integers = "int" in node.outputs[0].dtype
    return integers and any(flow.atoms.find(atom) in atoms for axis in axes for atom in axis)


def _batch_size(
    places: list[Node], told: dict[int, list[tuple[str, int]]], into: dict[int, bool]
) -> int | None:
    """The size of the batch: of an axis that a layer says is it, else of the first axis of an input."""
    for node in places:
        for (label, _), size in zip(told[node.index], node.shape, strict=True):
            if label == "batch":
                return size
    for node in places:
        floating = "float" in node.outputs[0].dtype and len(node.shape) > 1
        labels = told[node.index]
        if (floating or into[node.index]) and labels and not labels[0][0]:
            return node.shape[0]
    return None


def _usual(labels: list[tuple[str, int]], shape: tuple[int, ...], batch: int | None, ids: bool) -> None:
    """Fill in what is usual: the batch first, then of indices and of features the positions."""
    words = [label for label, _ in labels]
    if labels and not words[0] and "batch" not in words and shape[0] == batch:
        labels[0] = ("batch", USUAL)
    if len(labels) == 2 and not words[1] and ids:
        labels[1] = ("time", USUAL)
    certain = len(labels) == 3 and words[2] == "channel" and labels[2][1] > LIKELY
    if certain and not words[1] and labels[0][0] == "batch":
        labels[1] = ("time", LIKELY)


__all__ = ["with_axes"]
