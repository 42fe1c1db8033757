"""ND123: a block whose first sublayer is post-norm and whose second is pre-norm."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Applicability, Confidence, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.blocks import Residual, attends, residuals, strip


class PostnormSkipFromRaw(Rule):
    """A post-norm block whose next skip continues from the sum that was not normalized.

    ## What it does
    Finds `s = x + attention(x)` without a norm in its branch, followed in the same block by
    `s + f(norm(s))`.

    ## Why is this bad?
    One half of the block is written as post-norm (the norm stands behind the sum), the other as pre-norm
    (the skip goes around the norm). The attention then sees the raw sum of all blocks before, whose
    scale grows with depth: its scores grow with the square of it. Either the skip should continue from
    the norm, or the attention should have a norm at its start.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.attn = nn.MultiheadAttention(d, 4, batch_first=True)
            self.norm1 = nn.LayerNorm(d)  # ND123
            self.norm2 = nn.LayerNorm(d)
            self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

        def forward(self, x):
            s = x + self.attn(x, x, x)[0]
            n = self.norm1(s)
            return self.norm2(s + self.mlp(n))


    model = Block(16)
    inputs = torch.randn(2, 6, 16)
    ```

    ```python good
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.attn = nn.MultiheadAttention(d, 4, batch_first=True)
            self.norm1 = nn.LayerNorm(d)
            self.norm2 = nn.LayerNorm(d)
            self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

        def forward(self, x):
            s = self.norm1(x + self.attn(x, x, x)[0])
            return self.norm2(s + self.mlp(s))


    model = Block(16)
    inputs = torch.randn(2, 6, 16)
    ```

    ## When to ignore
    Where a sublayer without a norm is meant. This rule is in preview.

    ## References
    - Xiong et al., 2020, "On Layer Normalization in the Transformer Architecture", figure 1: the two forms.
    """

    code = "ND123"
    name = "postnorm-skip-from-raw"
    category = "placement"
    severity = Severity.INFO
    confidence = Confidence.LOW
    preview = True

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look for a pre-norm sublayer behind an attention without a norm."""
        sums = {strip(graph, residual.add).index: residual for residual in residuals(graph)}
        for residual in residuals(graph):
            before = sums.get(strip(graph, residual.source).index)
            if before is None or not residual.prenorm or residual.skip or before.scope != residual.scope:
                continue
            if before.add.call == residual.add.call and self._bare(graph, before):
                yield self._report(graph, before, residual)

    @staticmethod
    def _bare(graph: Graph, residual: Residual) -> bool:
        """Is this an attention that reads a raw tensor, with no norm in its branch?"""
        inner = residual.nodes
        normed = any(norm.output.index in inner for norm in graph.norms)
        raw = graph.norm_at(strip(graph, residual.source)) is None
        return raw and not normed and not residual.skip and attends(graph, inner)

    def _report(self, graph: Graph, before: Residual, residual: Residual) -> Finding:
        norm = residual.prenorm[0]
        return self.finding(
            graph,
            f"{graph.named(norm.output)} stands behind the sum of an attention without a norm, and the next "
            "skip goes around it",
            node=norm.output,
            evidence={"block": residual.scope},
            related=(
                ("the sum that is not normalized", before.add.location),
                ("the next sum", residual.add.location),
            ),
            fix=Fix(title="Continue the skip from the norm", applicability=Applicability.DISPLAY),
        )
