"""ND907: squares that overflow in float16."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Applicability, Finding, Fix
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import number

_ROOTS = frozenset({"sqrt", "rsqrt"})


class OverflowsInHalf(Rule):
    """A norm by hand that squares its input in float16.

    ## What it does
    Finds a square of a float16 tensor whose mean or sum goes into a square root: a norm written by
    hand without a cast to float32.

    ## Why is this bad?
    The largest float16 is 65504, and 256 squared is 65536: one value above 255 makes the square
    infinite, the norm of its row zero or NaN. Activations of that size are usual in deep transformers.
    torch's own norms compute in float32 inside.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class RMSNorm(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(dim))

        def forward(self, x):
            mean_square = x.pow(2).mean(-1, keepdim=True)  # ND907
            return self.weight * x * torch.rsqrt(mean_square + 1e-5)


    model = nn.Sequential(nn.Linear(8, 16), RMSNorm(16)).half()
    inputs = torch.randn(4, 8).half()
    ```

    ```python good
    import torch
    from torch import nn


    class RMSNorm(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(dim))

        def forward(self, x):
            y = x.float()
            mean_square = y.pow(2).mean(-1, keepdim=True)
            return self.weight * (y * torch.rsqrt(mean_square + 1e-5)).to(x.dtype)


    model = nn.Sequential(nn.Linear(8, 16), RMSNorm(16)).half()
    inputs = torch.randn(4, 8).half()
    ```

    ## When to ignore
    Where the values are bounded well below 255 by construction.

    ## References
    - IEEE 754 binary16: the largest finite number is 65504.
    - pytorch/pytorch pull request 133085: RMSNorm in half precision.
    """

    code = "ND907"
    name = "overflows-in-half"
    category = "handwritten"

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at every square of a float16 tensor."""
        for node in graph.nodes:
            if node.outputs and node.outputs[0].dtype == "float16" and self._squares(node):
                summed = [one for one in graph.readers(node) if one.kind in ("mean", "sum")]
                if any(self._rooted(graph, one) for one in summed):
                    yield self.finding(
                        graph,
                        f"{graph.named(node)} squares a float16 tensor: the result is infinite above 255",
                        node=node,
                        evidence={"dtype": "float16", "limit": 255.9},
                        fix=Fix(title="Cast to float32 first", applicability=Applicability.DISPLAY),
                    )

    @staticmethod
    def _squares(node: Node) -> bool:
        if node.kind == "pow":
            exponent = node.config.get("exponent", node.config.get("scalar", 2))
            return number(exponent) == 2 and len(node.inputs) == 1
        operands = node.config.get("operands")
        twice = isinstance(operands, list) and len(operands) == 2 and operands[0] == operands[1]
        return node.kind == "mul" and (twice or node.inputs[:1] * 2 == node.inputs)

    @staticmethod
    def _rooted(graph: Graph, node: Node) -> bool:
        """Does a mean go into a root, through sums and clamps at most?"""
        stack, seen = [node], set()
        while stack:
            for reader in graph.readers(stack.pop()):
                if reader.kind in _ROOTS:
                    return True
                if reader.kind == "pow" and abs(number(reader.config.get("exponent")) or 0) == 0.5:
                    return True
                if reader.kind in ("add", "clamp", "mul", "div") and reader.index not in seen:
                    seen.add(reader.index)
                    stack.append(reader)
        return False
