"""ND107: a pre-norm block whose skip carries the normalized tensor."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Applicability, Confidence, Finding, Fix, Severity
from normdoctor.graph import Graph, Norm
from normdoctor.rules.base import Rule
from normdoctor.rules.blocks import Residual, attends, inside, light_readers, residuals, strip, weighted
from normdoctor.rules.layers import CONVS, groups_of

_KINDS = frozenset({"batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm"})
_PARTS = frozenset("getitem chunk split narrow select unbind slice".split())


class SkipFromNormed(Rule):
    """The skip of a pre-norm block starts behind its norm.

    ## What it does
    Finds `n = norm(x)` and `n + f(n)` in the forward of one block, where x is what the block was given, or
    the sum of a pre-norm sublayer before, and where nothing else reads x.

    ## Why is this bad?
    A pre-norm block adds to x: `x + f(norm(x))`. There the identity path leads from the first block to
    the last, untouched, and so do the gradients. With the normalized tensor on the skip, the norm stands on
    that path, once in each block: what earlier blocks have added is rescaled every time, and the depth
    that pre-norm allows is lost. It is an easy slip (`x = self.norm(x)` as the first line), and the
    network trains, only worse.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.norm1 = nn.LayerNorm(d)  # ND107
            self.attn = nn.MultiheadAttention(d, 4, batch_first=True)
            self.norm2 = nn.LayerNorm(d)
            self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

        def forward(self, x):
            x = self.norm1(x)
            x = x + self.attn(x, x, x)[0]
            return x + self.mlp(self.norm2(x))


    model = Block(16)
    inputs = torch.randn(2, 6, 16)
    ```

    ```python good
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.norm1 = nn.LayerNorm(d)
            self.attn = nn.MultiheadAttention(d, 4, batch_first=True)
            self.norm2 = nn.LayerNorm(d)
            self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

        def forward(self, x):
            n = self.norm1(x)
            x = x + self.attn(n, n, n)[0]
            return x + self.mlp(self.norm2(x))


    model = Block(16)
    inputs = torch.randn(2, 6, 16)
    ```

    A post-norm block normalizes the sum, and its next skip starts there by design:

    ```python good
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.norm1 = nn.LayerNorm(d)
            self.attn = nn.MultiheadAttention(d, 4, batch_first=True)
            self.norm2 = nn.LayerNorm(d)
            self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

        def forward(self, x):
            x = self.norm1(x + self.attn(x, x, x)[0])
            return self.norm2(x + self.mlp(x))


    model = Block(16)
    inputs = torch.randn(2, 6, 16)
    ```

    ## When to ignore
    A chain of such blocks computes what a chain of post-norm blocks does (norm, then add), so a network
    that was trained this way is not broken. The rule is silent for norms outside of the block (of
    embeddings, between stages), for blocks that use x elsewhere, where the sum is normalized again
    (post-norm), where f is a depthwise convolution (a position encoding) or takes only some of the tokens
    (class attention), where the skip carries a factor (DeepNorm), and in the forward of a whole model,
    where the norm may be that of the input.

    ## References
    - Xiong et al., 2020, "On Layer Normalization in the Transformer Architecture", figure 1.
    - Howuhh/faster-trajectory-transformer issue 3: `n = norm(x); return n + attn(n)`.
    - SHI-Labs/Compact-Transformers issue 25: the second half of a pre-norm block continues from the norm.
    """

    code = "ND107"
    name = "skip-from-normed"
    category = "placement"
    severity = Severity.WARNING
    confidence = Confidence.MEDIUM

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at the source of every identity skip."""
        found = residuals(graph)
        sums = {residual.add.index: residual for residual in found}
        wrong: set[int] = set()
        for residual in found:
            norm = self._norm(graph, residual)
            if norm is None or norm.input is None or self._scaled(graph, residual):
                continue
            before = sums.get(strip(graph, norm.input).index)
            if before is not None and self._together(before, residual):
                slip = bool(before.prenorm) or before.add.index in wrong
            else:
                slip = self._given(graph, norm, residual, found)
            if slip and not self._postnorm(residual, found) and self._counts(graph, residual):
                wrong.add(residual.add.index)
                yield self._report(graph, norm, residual)

    @staticmethod
    def _norm(graph: Graph, residual: Residual) -> Norm | None:
        """The norm of the block whose output is the skip, if nothing else reads its input."""
        norm = graph.norm_at(strip(graph, residual.source))
        if residual.skip or residual.prenorm or norm is None or norm.kind not in _KINDS:
            return None
        if norm.input is None or not _beside(graph, norm, residual):
            return None
        own = {norm.output.index, *(norm.handwritten.nodes if norm.handwritten else ())}
        return norm if all(one.index in own for one in light_readers(graph, norm.input)) else None

    @staticmethod
    def _scaled(graph: Graph, residual: Residual) -> bool:
        """Does the skip carry a factor of its own (DeepNorm)? Whoever weighs it knows what it starts from."""
        for operand in graph.inputs(residual.add):
            inner = operand.index == residual.source.index  # the scale of a hand-written norm
            factor = operand.kind in ("mul", "div") and not inner
            if factor and strip(graph, operand).index == strip(graph, residual.source).index:
                return True
        return False

    @staticmethod
    def _together(before: Residual, residual: Residual) -> bool:
        """Are these two sublayers of one block?"""
        same = residual.scope != before.scope or residual.add.call == before.add.call
        return inside(residual.scope, before.scope) and same

    @staticmethod
    def _given(graph: Graph, norm: Norm, residual: Residual, found: tuple[Residual, ...]) -> bool:
        """Is the norm's input what the block was given from outside?"""
        assert norm.input is not None
        made = strip(graph, norm.input)
        if residual.scope:
            return not inside(graph.label(made), residual.scope) or made.call != residual.add.call
        flat = [one for one in found if one.scope == ""]
        # A whole model may normalize its input; only a model that is a single block may not.
        return made.role == "input" and len(flat) <= 2 and norm.kind in ("layer_norm", "rms_norm")

    @staticmethod
    def _postnorm(residual: Residual, found: tuple[Residual, ...]) -> bool:
        """Does the block end in a norm? Then its first norm is one more in front of post-norm halves."""
        last = [one for one in found if one.scope == residual.scope and one.add.call == residual.add.call][-1]
        return last.postnorm is not None and inside(last.postnorm.output.scope, residual.scope)

    @staticmethod
    def _counts(graph: Graph, residual: Residual) -> bool:
        """Is this a sublayer of a pre-norm block?"""
        if any(start.kind in _PARTS for branch in residual.branches for start in branch.starts):
            return False
        layers = weighted(graph, residual.nodes)
        return attends(graph, residual.nodes) or any(
            not (layer.kind in CONVS and groups_of(layer) > 1) for layer in layers
        )

    def _report(self, graph: Graph, norm: Norm, residual: Residual) -> Finding:
        name = norm.output.module or norm.output.scope
        own = norm.handwritten is not None and norm.handwritten.module != residual.scope
        built = graph.modules[name].origin if own and name in graph.modules else None
        return self.finding(
            graph,
            f"the skip starts behind {graph.named(norm.output)}, and nothing reads its input: "
            "the block computes n + f(n) with n = norm(x)",
            node=norm.output,
            location=built,
            evidence={"norm": name, "kind": norm.kind, "block": residual.scope},
            related=(("the sum", residual.add.location),),
            fix=Fix(title="Add to the block's input: x + f(norm(x))", applicability=Applicability.DISPLAY),
        )


def _beside(graph: Graph, norm: Norm, residual: Residual) -> bool:
    """Is the norm called in the block that adds?"""
    node: Node = norm.output
    scope = node.scope
    if norm.handwritten is not None and norm.handwritten.module != residual.scope:
        scope = norm.handwritten.module.rpartition(".")[0]
    elif node.module is None and scope != residual.scope and (around := graph.modules.get(scope)):
        scope = scope.rpartition(".")[0] if around.base else scope
    return scope == residual.scope
