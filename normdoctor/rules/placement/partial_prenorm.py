"""ND111: self-attention whose queries are normalized and whose keys or values are not."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph, Norm
from normdoctor.rules.attention import attentions, operands
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import CONVS, DENSE

_STEPS = frozenset("split chunk unbind getitem select mul div dropout roll pad narrow".split())
_LONGEST = 24


class PartialPrenorm(Rule):
    """Self-attention whose queries are normalized and whose keys or values are not.

    ## What it does
    Finds attention whose queries are computed from the output of a norm, and whose keys or values from
    the very tensor that this norm reads.

    ## Why is this bad?
    A pre-norm block normalizes what enters the attention, so that the scale of the residual stream,
    which grows with depth, does not. Where the norm is applied to the first of `attn(q, k, v)` only,
    keys and values keep that scale: the scores grow with depth, and so does what the block adds.

    ## Example
    ```python bad
    import torch
    from torch import nn

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(16)
            self.attn = nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, x):
            return x + self.attn(self.norm(x), x, x)[0]  # ND111

    model = Layer()
    inputs = torch.randn(2, 5, 16)
    ```
    ```python good
    import torch
    from torch import nn

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(16)
            self.attn = nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, x):
            n = self.norm(x)
            return x + self.attn(n, n, n)[0]

    model = Layer()
    inputs = torch.randn(2, 5, 16)
    ```

    ## When to ignore
    In cross-attention keys and values come from elsewhere, which is not reported.

    ## References
    - facebookresearch/xformers#233: a pre-norm wrapper that normalized the first input only.
    """

    code = "ND111"
    name = "partial-prenorm"
    category = "placement"
    severity = Severity.WARNING
    confidence = Confidence.MEDIUM

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report each attention in which query and key, or value, lie on both sides of one norm."""
        for node, query, others in _attended(graph):
            normed, norm = _source(graph, query)
            if norm is None or norm.input is None:
                continue
            raw = graph.through(norm.input).index
            found = []
            for name, other in others:
                source, _ = _source(graph, other)
                if source.index == raw and source.index != normed.index:
                    found.append(name)
            if found:
                yield self.finding(
                    graph,
                    f"the queries of the attention in {{modules}} are normalized, the {' and '.join(found)} "
                    "are computed from the same tensor without the norm",
                    node=node,
                    location=norm.output.location or node.location,
                    evidence={"norm": graph.label(norm.output), "without norm": found},
                    related=(("the attention", node.location),),
                )


def _attended(graph: Graph) -> Iterator[tuple[Node, Node, list[tuple[str, Node]]]]:
    """Each attention as (its node, the queries, [("keys", ...), ("values", ...)])."""
    for node in graph.by_role("attention"):
        given = operands(graph, node)[:3]
        if len(given) == 3 and given[0] is not None:
            others = [(name, one) for name, one in zip(("keys", "values"), given[1:], strict=True) if one]
            yield node, given[0], others
    for one in attentions(graph):
        if one.query is not None and one.key is not None:
            values = [("values", one.value)] if one.value is not None else []
            yield one.softmax, one.query, [("keys", one.key), *values]


def _source(graph: Graph, node: Node) -> tuple[Node, Norm | None]:
    """The tensor that a query, key or value is projected from, and the norm whose output it is."""
    current = node
    projected = False
    for _ in range(_LONGEST):
        norm = graph.norm_at(current)
        if norm is not None and (projected or not _of_heads(current)):
            return current, norm
        passes = graph.transparent(current) or current.kind in _STEPS or norm is not None
        if current.kind in DENSE | CONVS and not projected:
            passes = projected = True
        if not passes or not current.inputs:
            break
        source = norm.input if norm is not None and norm.input is not None else graph.nodes[current.inputs[0]]
        if len(current.inputs) > 1 and norm is None and not graph.transparent(current):
            break
        current = source
    return current, None


def _of_heads(node: Node) -> bool:
    """Does a norm act on single heads (a norm of queries and keys)?"""
    return len(node.shape) == 4 and "heads" in node.axes
