"""What losses take: the tensor, what computed it, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import LossFact, Node
from normdoctor.findings import Confidence
from normdoctor.graph import Graph
from normdoctor.rules.layers import number
from normdoctor.rules.mixtures import clamps_to_unit

#: Losses that apply a softmax or sigmoid themselves, and so take scores without bounds.
TAKES_LOGITS = frozenset(
    "cross_entropy binary_cross_entropy_with_logits multilabel_soft_margin_loss multi_margin_loss".split()
)
#: Losses that measure how far values are from a target.
REGRESSION = frozenset("mse_loss l1_loss smooth_l1_loss huber_loss".split())
#: Kinds that hand on some of the values of their input, and nothing else.
SELECTS = frozenset(
    "getitem select narrow chunk split unbind index_select gather slice masked_select expand expand_as "
    "repeat repeat_interleave flip roll tile broadcast_to take_along_dim unfold stack select_output "
    "hstack vstack dstack".split()
)
#: Kinds that hand on averages of the values of their input.
AVERAGES = frozenset(
    "mean interpolate avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d".split()
)
_MOST = 64


def losses_on(graph: Graph, kinds: frozenset[str]) -> Iterator[tuple[LossFact, Node]]:
    """The losses of these kinds, each with the node whose output it takes.

    A loss that was read off the source is left out where the model returns several tensors that it
    could take.
    """
    for loss in graph.facts.losses:
        if loss.kind not in kinds or not 0 <= loss.node < len(graph.nodes):
            continue
        taken = graph.nodes[loss.node]
        if loss.certain or loss.output or not _ambiguous(graph, taken):
            yield loss, taken


def _ambiguous(graph: Graph, taken: Node) -> bool:
    """Does the model return another tensor of the same rank, which the loss may take instead?"""
    first = taken
    while first.index not in {node.index for node in graph.outputs} and first.inputs:
        first = graph.nodes[first.inputs[0]]
    others = [node for node in graph.outputs if node.index != first.index]
    return any(len(node.shape) == len(first.shape) for node in others)


def sureness(graph: Graph, loss: LossFact) -> Confidence:
    """How sure a finding about a loss is: the source may mean another model, or another path of it."""
    if loss.certain:
        return Confidence.HIGH
    on_path = loss.path == "evaluation" and not graph.facts.training
    return Confidence.MEDIUM if graph.facts.training or on_path else Confidence.LOW


def described(loss: LossFact) -> str:
    """A loss in the words of a message."""
    words = {
        "cross_entropy": "cross entropy",
        "nll_loss": "nll_loss",
        "binary_cross_entropy": "binary_cross_entropy",
        "binary_cross_entropy_with_logits": "binary_cross_entropy_with_logits",
    }
    where = " of the evaluation" if loss.path == "evaluation" else ""
    return words.get(loss.kind, loss.kind) + where


def values_of(graph: Graph, node: Node) -> tuple[Node, ...]:
    """The nodes that computed the values that `node` holds, looking through indexing and joining.

    `()` where they cannot be told. Averages of values are among them: they keep their range.
    """
    found: dict[int, Node] = {}
    stack: list[tuple[Node, tuple[int, int, int] | None]] = [(node, None)]
    seen: set[tuple[int, tuple[int, int, int] | None]] = set()
    while stack:
        current, window = stack.pop()
        if (current.index, window) in seen:
            continue
        seen.add((current.index, window))
        if len(seen) > _MOST:
            return ()
        before = graph.inputs(current)
        if not before or current.parameters:
            found[current.index] = current
        elif current.kind == "cat":
            stack += [(one, None) for one in _pieces(current, before, window)]
        elif current.kind == "getitem":
            stack.append((before[0], _window(current, before[0])))
        elif current.kind in SELECTS:
            stack += [(one, None) for one in before if one.shape or current.kind == "stack"]
        elif graph.transparent(current):
            same = current.shape == before[0].shape
            stack.append((before[0], window if same else None))
        elif current.kind in AVERAGES or clamps_to_unit(current) or _is_average(current, before):
            stack += [(one, None) for one in before]
        else:
            found[current.index] = current
    return tuple(found[index] for index in sorted(found))


def _pieces(node: Node, before: list[Node], window: tuple[int, int, int] | None) -> list[Node]:
    """The operands of a concatenation that lie in a window (axis, first, last) of the result."""
    dim = node.config.get("dim", 0)
    rank = len(node.shape)
    if window is None or not isinstance(dim, int) or not rank or dim % rank != window[0]:
        return before
    found, start = [], 0
    for one in before:
        length = one.shape[window[0]] if len(one.shape) == rank else 0
        if start < window[2] and window[1] < start + length:
            found.append(one)
        start += length
    return found or before


def _window(node: Node, before: Node) -> tuple[int, int, int] | None:
    """(axis, first, past the last) of the one axis that an indexing cuts; None where it is not so simple."""
    entries = node.config.get("index")
    if not isinstance(entries, list) or "tensor" in entries or "None" in entries:
        return None
    rank = len(before.shape)
    if "..." in entries:
        place = entries.index("...")
        entries = [*entries[:place], *[":"] * (rank - len(entries) + 1), *entries[place + 1 :]]
    cuts = [(axis, one) for axis, one in enumerate(entries[:rank]) if str(one).strip(":")]
    if len(cuts) != 1:
        return None
    axis, entry = cuts[0]
    length = before.shape[axis]
    if isinstance(entry, int):
        return axis, entry % length, entry % length + 1
    ends = str(entry).split(":")
    try:
        low = int(ends[0]) if ends[0] else 0
        high = int(ends[1]) if ends[1] else length
    except (ValueError, IndexError):
        return None
    return axis, low + length * (low < 0), high + length * (high < 0)


def _is_average(node: Node, before: list[Node]) -> bool:
    """A sum of several, or one divided: the average of two heads, `(a + b) / 2`."""
    if node.kind == "add":
        return len(before) > 1 and "scalar" not in node.config
    factor = number(node.config.get("scalar"))
    return (
        factor is not None
        and ((node.kind == "div" and 1 <= factor <= 64) or (node.kind == "mul" and 0 < factor <= 1))
        and bool(before)
        and before[0].kind in ("add", "sum", "stack")
    )
