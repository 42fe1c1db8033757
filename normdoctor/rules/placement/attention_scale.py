"""ND119: attention that is scaled behind the softmax, or not at all."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.attention import Attention, attentions, operands
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.layers import CONVS, DENSE, number

_TOLERANCE = 1e-3


class AttentionScale(Rule):
    """Attention that is scaled behind the softmax, or not at all.

    ## What it does
    Finds `softmax(q @ k.T) * s @ v` where `s` is one over (or times) the root of the width of the
    heads, and nothing scales the scores (error). Self-attention between linear projections with no
    scale anywhere is a warning of low confidence.

    ## Why is this bad?
    The variance of a product of a query and a key grows with their width d. Divided by the root of d,
    the scores keep the variance that the softmax is made for; without it they are large, the softmax
    picks one key, and its gradient vanishes. The same factor behind the softmax does not help: it
    shrinks the result of the attention, whose weights then sum to 1/sqrt(d) and not to one.

    ## Example
    ```python bad
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, x):
            weights = (self.q(x) @ self.k(x).mT).softmax(dim=-1) * 16**-0.5  # ND119
            return weights @ self.v(x)

    model = Attention()
    inputs = torch.randn(2, 5, 16)
    ```
    ```python good
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, x):
            weights = (self.q(x) * 16**-0.5 @ self.k(x).mT).softmax(dim=-1)
            return weights @ self.v(x)

    model = Attention()
    inputs = torch.randn(2, 5, 16)
    ```

    ## When to ignore
    T5 has no scale by design: its initialization has it. So may code whose weights were made for it.
    Non-local blocks and attention between an encoder and a decoder of recurrent nets have none in the
    papers that introduced them; that is why the second finding has low confidence. Normed queries or
    keys, a learned temperature, a cap by tanh, and a factor on queries, keys or scores count as scale.

    ## References
    - Vaswani et al. 2017, Attention is all you need, section 3.2.1.
    - FrancescoSaverioZuppichini/ViT#6: the factor stands behind the softmax.
    - Raffel et al. 2020 (T5): the scale is part of the initialization.
    """

    code = "ND119"
    name = "attention-scale"
    category = "placement"
    severity = Severity.ERROR

    class Options(RuleOptions, frozen=True):
        """`min_width`: heads narrower than this need no scale (the root of 8 is 2.8)."""

        min_width: int = 8

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report each dot-product attention whose scores nothing scales."""
        for one in attentions(graph):
            if one.scores is None or one.scale is not None:
                continue
            width = _width(graph, one.scores)
            if width is None or width < self.options.min_width:
                continue
            rescaled = next((node for node in one.after if _root(node, width)), None)
            if rescaled is not None:
                yield self._behind(graph, one, rescaled, width)
            elif one.rescaled is None and self._plain(one):
                yield self._none(graph, one, width)

    @staticmethod
    def _plain(one: Attention) -> bool:
        """Are queries and keys projections by layers, and not one the other?"""
        layers = DENSE | CONVS | {"split", "chunk", "getitem", "unbind", "select", "select_output"}
        both = [node for node in (one.query, one.key) if node is not None]
        return len(both) == 2 and all(node.kind in layers for node in both) and both[0] is not both[1]

    def _behind(self, graph: Graph, one: Attention, rescaled: Node, width: int) -> Finding:
        factor = _factor(rescaled)
        return self.finding(
            graph,
            f"the attention in {{modules}} is scaled by {factor:.4g} behind the softmax: its weights sum to "
            f"{factor:.4g}, and the scores of width {width} are not scaled",
            node=rescaled,
            evidence={"factor": factor, "width": width},
            related=(("the softmax", graph.where(one.softmax)),),
        )

    def _none(self, graph: Graph, one: Attention, width: int) -> Finding:
        return self.finding(
            graph,
            f"nothing scales the scores of the attention in {{modules}}, products of vectors of {width}",
            node=one.softmax,
            severity=Severity.WARNING,
            confidence=Confidence.LOW,
            evidence={"width": width, "usual factor": width**-0.5},
        )


def _width(graph: Graph, scores: Node) -> int | None:
    """The length of the vectors that queries and keys are."""
    pair = [node for node in operands(graph, scores) if node is not None]
    if len(pair) < 2 or not pair[0].shape or not scores.shape:
        return None
    if scores.kind != "einsum":
        return pair[0].shape[-1]
    equation = scores.config.get("equation")
    if not isinstance(equation, str) or "..." in equation:
        return None
    left, _, right = equation.replace(" ", "").partition("->")
    gone = [
        size for letter, size in zip(left.split(",")[0], pair[0].shape, strict=False) if letter not in right
    ]
    return gone[0] if len(gone) == 1 else None


def _factor(node: Node) -> float:
    value = number(node.config.get("scalar")) or 1.0
    return 1 / value if node.kind == "div" else value


def _root(node: Node, width: int) -> bool:
    """Does a node multiply by one over the root of the width, of all heads or of one, or by the root?"""
    if node.kind not in ("mul", "div") or len(node.inputs) != 1 or not number(node.config.get("scalar")):
        return False
    square = _factor(node) ** 2
    size = 1 / square if square < 1 else square
    whole = round(size)
    near = abs(size - whole) < _TOLERANCE * whole and whole > 1
    return near and (whole % width == 0 or width % whole == 0)
