"""ND309: attention whose weights are normalized along another axis than the one that is summed."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.attention import Attention, attentions, operands
from normdoctor.rules.axes import forth, shown, softmax_axis, words
from normdoctor.rules.base import Rule

_RENORMALIZES = frozenset({"div", "normalize", "sum", "softmax", "mul"})


class SoftmaxWrongAxis(Rule):
    """Attention whose softmax runs along the queries.

    ## What it does
    Finds `softmax(q @ k.T) @ v` where the softmax normalizes another axis than the one that the product
    with the values sums over.

    ## Why is this bad?
    The weights of a query should sum to one over the keys, so that its result is a mean of the values.
    Normalized over the queries, the weights of one query sum to anything between 0 and the number of
    keys: the result grows with the length of the sequence. Normalized over the heads, a key that a causal
    mask hides from all of them is 0 / 0.

    ## Example
    ```python bad
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            scores = self.q(x) @ self.k(x).transpose(1, 2) / 8**0.5
            weights = scores.softmax(dim=1)  # ND309
            return weights @ self.v(x)

    model = Attention()
    inputs = torch.randn(2, 5, 8)
    ```
    ```python good
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            scores = self.q(x) @ self.k(x).transpose(1, 2) / 8**0.5
            weights = scores.softmax(dim=-1)
            return weights @ self.v(x)

    model = Attention()
    inputs = torch.randn(2, 5, 8)
    ```

    ## When to ignore
    Where queries are meant to compete for keys. Weights that are normalized again along the keys
    (slot attention, external attention) are not reported. Confidence is low: competition is a design
    that some use on purpose; between heads it is medium.

    ## References
    - Vaswani et al. 2017, Attention is all you need, section 3.2.1.
    - Locatello et al. 2020, Object-centric learning with slot attention (softmax over the slots, then
      a mean over the inputs).
    """

    code = "ND309"
    name = "softmax-wrong-axis"
    category = "activation"
    severity = Severity.WARNING
    confidence = Confidence.LOW

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report each attention whose softmax and whose sum run along different axes."""
        for one in attentions(graph):
            node = one.softmax
            axis = softmax_axis(graph, node)
            if axis is None or one.scores is None or _renormalized(one):
                continue
            if axis < len(node.axes) and "batch" in words(node.axes[axis]):
                continue  # ND308
            summed = _summed(graph, one)
            if summed is None:
                continue
            place, last = _followed(graph, one, axis)
            if place is None or place == summed or last.shape[place] == 1:
                continue
            aside = place < len(last.shape) - 2 and one.product.kind == "matmul"
            of = f" of {shown(node.axes, node.shape)}" if node.axes else ""
            yield self.finding(
                graph,
                f"{graph.named(node)} normalizes over axis {axis}{of}, but the product with the values sums "
                "over another one: "
                + ("it is one of heads or batches" if aside else "these are the queries"),
                node=node,
                confidence=Confidence.MEDIUM if aside else Confidence.LOW,
                evidence={"axis": axis, "summed": summed, "shape": list(node.shape)},
                related=(("the product with the values", graph.where(one.product)),),
            )


def _renormalized(one: Attention) -> bool:
    return any(node.kind in _RENORMALIZES and len(node.inputs) > 1 for node in one.after)


def _followed(graph: Graph, one: Attention, axis: int) -> tuple[int | None, Node]:
    """Where the axis of the softmax is in the operand of the product."""
    place: int | None = axis
    current = one.softmax
    for node in one.after:
        if place is None:
            break
        place = forth(graph, current, place, node)
        current = node
    return place, current


def _summed(graph: Graph, one: Attention) -> int | None:
    """The axis of the weights that the product with the values sums over."""
    last = one.after[-1] if one.after else one.softmax
    rank = len(last.shape)
    given = operands(graph, one.product)
    places = [at for at, node in enumerate(given) if node is not None and node.index == last.index]
    if len(places) != 1 or len(given) != 2 or rank < 2:
        return None
    if one.product.kind == "matmul" and "function" not in one.product.config:
        return rank - 1 if places[0] == 0 else rank - 2
    equation = one.product.config.get("equation")
    if one.product.kind != "einsum" or not isinstance(equation, str) or "..." in equation:
        return None
    left, _, right = equation.replace(" ", "").partition("->")
    letters = left.split(",")[places[0]]
    gone = [at for at, letter in enumerate(letters) if letter not in right]
    return gone[0] if len(gone) == 1 and len(letters) == rank else None
