"""ND307: a softmax over an axis of length one."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.axes import back, softmax_axis
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import CONVS, DENSE, TRANSPOSED, channel_axis

_WRITES_LAST = DENSE | {"bilinear", "embedding", "lstm", "gru", "rnn", "matmul"}
_KEEPS = frozenset(
    "add sub mul div masked_fill where clamp exp pow neg abs maximum minimum sqrt rsqrt tanh lerp".split()
)
_KEEPING_ROLES = frozenset({"activation", "dropout", "norm", "softmax"})
_DEEPEST = 40


class SoftmaxOverOne(Rule):
    """A softmax over an axis of length one: its result is 1, whatever the input.

    ## What it does
    Finds a softmax whose axis has length one by the way in which the model is built: the layer that
    writes that axis has one output (`Linear(h, 1)`, `Conv2d(c, 1, 1)`), or the axis was put there by
    `unsqueeze`, by `None` in an index, or by a reduction with `keepdim`.

    ## Why is this bad?
    `exp(x) / exp(x)` is 1 and its gradient is 0. A binary classifier with one output and a softmax
    predicts 1 for everything and never learns; attention weights of shape (batch, time, 1) that are
    normalized over the last axis weigh every position with 1, and the layer that scores them never
    gets a gradient. log_softmax gives 0 in the same way.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(8, 16),
        nn.ReLU(),
        nn.Linear(16, 1),
        nn.Softmax(dim=1),  # ND307
    )
    inputs = torch.randn(4, 8)
    ```
    ```python bad
    import torch
    from torch import nn

    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Linear(8, 1)

        def forward(self, x):
            weights = torch.softmax(self.score(x), dim=-1)  # ND307
            return (weights * x).sum(dim=1)

    model = Pool()
    inputs = torch.randn(4, 5, 8)
    ```
    ```python good
    import torch
    from torch import nn

    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Linear(8, 1)

        def forward(self, x):
            weights = torch.softmax(self.score(x), dim=1)
            return (weights * x).sum(dim=1)

    model = Pool()
    inputs = torch.randn(4, 5, 8)
    ```

    ## When to ignore
    Never, where the axis cannot be longer. An axis that has length one for this input only (a batch of
    one, a sequence of one token) is not reported.

    ## References
    - Reported for attention weights (DEEP-PolyU/KEQA_WSDM19#2) and often for binary classifiers.
    """

    code = "ND307"
    name = "softmax-over-one"
    category = "activation"
    severity = Severity.ERROR

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report each softmax over an axis that can only have one element."""
        for node in graph.by_role("softmax"):
            axis = softmax_axis(graph, node)
            if axis is None or node.shape[axis] != 1 or not node.inputs:
                continue
            before = graph.nodes[node.inputs[0]]
            if before.shape != node.shape or (maker := _maker(graph, before, axis, 0)) is None:
                continue
            yield self.finding(
                graph,
                f"{graph.named(node)} normalizes over axis {axis}, which has length 1: "
                f"the result is always {0 if node.kind == 'log_softmax' else 1}",
                node=node,
                evidence={"axis": axis, "shape": list(node.shape), "made by": _named(maker)},
                related=((f"{maker.kind} makes this axis of length 1", graph.where(maker)),),
            )


def _named(node: Node) -> str:
    return f"{node.kind} {node.module}" if node.module is not None else node.kind


def _maker(graph: Graph, node: Node, axis: int, depth: int) -> Node | None:
    """The node that makes this axis of length one by construction, None where the input might."""
    if depth > _DEEPEST or axis >= len(node.shape) or node.shape[axis] != 1:
        return None
    if _makes(node, axis):
        return node
    passes = graph.transparent(node) or node.kind in _KEEPS or node.kind == "getitem"
    if not passes and node.role not in _KEEPING_ROLES:
        return None
    found = None
    for source in graph.inputs(node)[: 1 if node.kind == "masked_fill" else None]:
        if source.role == "parameter":
            continue
        place = back(graph, node, axis, source)
        if place is None:
            if len(source.shape) < len(node.shape) and node.kind in _KEEPS:
                continue  # broadcast along this axis
            return None
        found = _maker(graph, source, place, depth + 1)
        if found is None:
            return None
    return found


def _makes(node: Node, axis: int) -> bool:
    rank = len(node.shape)
    if node.kind in _WRITES_LAST and node.role == "linear":
        return axis == rank - 1
    if node.kind in CONVS | TRANSPOSED:
        return axis == rank + channel_axis(node)
    if node.kind == "unsqueeze":
        place = node.config.get("dim")
        return isinstance(place, int) and place % rank == axis
    if node.kind == "getitem":
        index = node.config.get("index", [])
        return (
            "..." not in index
            and index[axis : axis + 1] == ["None"]
            and not any(isinstance(one, int) for one in index[:axis])
        )
    if node.role == "reduce" and node.config.get("keepdim"):
        dims = node.config.get("dim")
        several = dims if isinstance(dims, list) else [dims]
        return any(isinstance(one, int) and one % rank == axis for one in several)
    return False
