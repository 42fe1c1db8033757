"""ND118: a residual branch that can only add."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Applicability, Confidence, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.blocks import Branch, Residual, residuals, strip

_NONNEGATIVE = frozenset({"relu", "relu6", "sigmoid", "hardsigmoid", "softplus"})


class ReluBeforeAdd(Rule):
    """The branch of a residual block ends in a ReLU.

    ## What it does
    Finds residual sums one operand of which comes straight out of a ReLU (or another activation
    without negative values) at the end of the branch.

    ## Why is this bad?
    What the branch adds is never negative, so along the skip the values can only grow: no block can
    take back what an earlier one has added. In the experiments of He et al. a ReLU before the sum raised
    the error of ResNet-110 on CIFAR-10 from 6.61 to 7.84 percent.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            y = torch.relu(self.bn2(self.conv2(y)))  # ND118
            return x + y


    model = Block(8)
    inputs = torch.randn(2, 8, 8, 8)
    ```

    ```python good
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            y = self.bn2(self.conv2(y))
            return torch.relu(x + y)


    model = Block(8)
    inputs = torch.randn(2, 8, 8, 8)
    ```

    ## When to ignore
    In networks that were published so (SqueezeNet with bypass, VoVNet). The rule is silent for branches
    that begin with an activation or a norm (pre-activation blocks), and for activations that have
    negative values, as LeakyReLU in Darknet.

    ## References
    - He, Zhang, Ren and Sun, 2016, "Identity Mappings in Deep Residual Networks", section 4.1 and table 2:
      "ReLU before addition".
    """

    code = "ND118"
    name = "relu-before-add"
    category = "placement"
    severity = Severity.INFO
    confidence = Confidence.LOW

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at the end of every branch."""
        for residual in residuals(graph):
            for branch in residual.branches:
                last = strip(graph, branch.end)
                begun = residual.prenorm or _preactivated(branch)
                if last.kind in _NONNEGATIVE and last.index in branch.nodes and not begun:
                    yield self._report(graph, residual, last)

    def _report(self, graph: Graph, residual: Residual, last: Node) -> Finding:
        return self.finding(
            graph,
            f"the residual branch ends in {graph.named(last)}: what it adds is never negative",
            node=last,
            evidence={"activation": last.kind, "block": residual.scope},
            related=(("the sum", residual.add.location),),
            fix=Fix(title="Apply it to the sum instead", applicability=Applicability.DISPLAY),
        )


def _preactivated(branch: Branch) -> bool:
    return any(start.role in ("norm", "activation") for start in branch.starts)
