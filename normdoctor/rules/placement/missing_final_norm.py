"""ND112: a pre-norm trunk that reaches the head without a norm."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Applicability, Confidence, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.blocks import Residual, attends, trunks
from normdoctor.rules.layers import CONVS, DENSE, kernel_of


class MissingFinalNorm(Rule):
    """A trunk of pre-norm residual blocks has no norm in front of the head.

    ## What it does
    Finds two or more pre-norm residual blocks in a row, `x + f(norm(x))`, whose last sum reaches a linear
    layer and then the output, with no norm anywhere behind it.

    ## Why is this bad?
    In a pre-norm trunk nothing normalizes the sum itself: each block adds to it, and its variance grows
    with depth, about linearly. Every block is protected by the norm at its start; the head, without
    one, takes the raw sum, whose scale depends on the depth and drifts during training. All pre-norm
    networks in use, GPT-2, ViT and ResNet v2 among them, put one more norm there.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.norm = nn.LayerNorm(d)
            self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

        def forward(self, x):
            return x + self.mlp(self.norm(x))


    model = nn.Sequential(
        Block(16),
        Block(16),
        Block(16),
        nn.Linear(16, 10),  # ND112
    )
    inputs = torch.randn(2, 16)
    ```

    ```python good
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.norm = nn.LayerNorm(d)
            self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

        def forward(self, x):
            return x + self.mlp(self.norm(x))


    model = nn.Sequential(Block(16), Block(16), Block(16), nn.LayerNorm(16), nn.Linear(16, 10))
    inputs = torch.randn(2, 16)
    ```

    ## When to ignore
    Where the head copes with any scale. The rule is silent for trunks that are an output themselves (a
    backbone), behind which a norm stands anywhere (in the head, behind a pooling, in the next stage), whose
    head is a spatial convolution (image restoration networks end so) or one convolution of several outputs
    (the neck of a pyramid), and for post-norm blocks, whose sums
    are normalized.

    ## References
    - Radford et al., 2019, "Language Models are Unsupervised Multitask Learners", section 2.3: "an additional
      layer normalization was added after the final self-attention block".
    - Xiong et al., 2020, "On Layer Normalization in the Transformer Architecture", section 3: the final norm
      of the pre-norm form, and the growth of its sum.
    """

    code = "ND112"
    name = "missing-final-norm"
    category = "placement"
    severity = Severity.WARNING
    confidence = Confidence.MEDIUM

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Walk forward from the end of each trunk."""
        for trunk in trunks(graph):
            run = self._prenorm(trunk)
            if self._blocks(graph, run) < 2:
                continue
            head = self._head(graph, run[-1].add)
            if head is not None:
                yield self._report(graph, run, head)

    @staticmethod
    def _blocks(graph: Graph, run: list[Residual]) -> int:
        """How many blocks these are: in one forward, an attention and what follows it count as one."""
        blocks = {(residual.scope, residual.add.call) for residual in run}
        if len(blocks) != 1:
            return len(blocks)
        return sum(attends(graph, residual.nodes) for residual in run) or len(run)

    @staticmethod
    def _prenorm(trunk: list[Residual]) -> list[Residual]:
        """The pre-norm blocks at the end of a trunk."""
        run: list[Residual] = []
        for residual in reversed(trunk):
            if not residual.prenorm or residual.postnorm is not None:
                break
            run.append(residual)
        return run[::-1]

    @classmethod
    def _head(cls, graph: Graph, last: Node) -> Node | None:
        """The linear layer that reads the sum; None where a norm or anything else lies behind it."""
        layers: list[Node] = []
        stack, seen = [last], {last.index}
        while stack:
            for reader in graph.users(stack.pop()):
                if cls._normalizes(graph, reader):
                    return None
                if reader.role in ("linear", "attention"):
                    layers.append(reader)
                if reader.index not in seen:
                    seen.add(reader.index)
                    stack.append(reader)
        head = min(layers, key=lambda node: node.index, default=None)
        return head if head is not None and cls._reads_features(graph, head) else None

    @staticmethod
    def _normalizes(graph: Graph, node: Node) -> bool:
        """Is this part of a norm, or of code that may be one?"""
        if node.role == "norm" or any(node.index in norm.nodes for norm in graph.facts.handwritten):
            return True
        scope = graph.modules.get(node.scope)
        return scope is not None and "norm" in scope.type.lower()

    @staticmethod
    def _reads_features(graph: Graph, head: Node) -> bool:
        if head.kind in DENSE:
            return True
        # Several outputs of a convolutional model are the levels of a pyramid.
        one_output = len(graph.outputs) == 1
        return one_output and head.kind in CONVS and set(kernel_of(graph, head)) == {1}

    def _report(self, graph: Graph, run: list[Residual], head: Node) -> Finding:
        kinds = sorted({norm.kind for residual in run for norm in residual.prenorm})
        name = run[-1].scope
        return self.finding(
            graph,
            f"{graph.named(head)} reads the sum of {len(run)} pre-norm residual branches, which nothing "
            "normalizes",
            node=head,
            evidence={"branches": len(run), "norms": kinds, "last": name},
            related=(("the last sum of the trunk", run[-1].add.location),),
            fix=Fix(title="Put a norm in front of the head", applicability=Applicability.DISPLAY),
        )
