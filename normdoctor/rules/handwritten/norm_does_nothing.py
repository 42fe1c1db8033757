"""ND908: a module that is a norm by its class and normalizes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator

from normdoctor.census import within
from normdoctor.facts import ModuleFact, Node
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import NORMS

#: Names of norms. Those that say that they are none (FakeNorm, NoNorm, ActNorm, FrozenBatchNorm2d) are not.
_NAMED = re.compile(r"(Batch|Layer|Group|Instance|RMS|Rms)Norm([123]d)?")
#: What cannot normalize: acts on each element, moves elements, or drops some.
_HARMLESS_ROLES = frozenset("activation dropout reshape add gate input parameter output".split())
_HARMLESS_KINDS = frozenset("mul div rdiv neg clamp abs".split())


class NormDoesNothing(Rule):
    """A module that is a norm by its class and normalizes nothing.

    ## What it does
    Finds modules whose class derives from a norm of torch's, or is named as one, whose forward runs and
    computes no statistic, calls no norm and reads no running statistics: each element of its output comes
    from one element of its input.

    ## Why is this bad?
    A forward that was overwritten and forgot `super().forward(x)` drops the norm without a word. The layer
    prints as a BatchNorm, has its parameters and buffers, and the network trains without normalization;
    gamma and beta never get a gradient.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class BatchNorm2d(nn.BatchNorm2d):
        def __init__(self, channels):
            super().__init__(channels)
            self.activation = nn.ReLU()

        def forward(self, x):
            return self.activation(x)


    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        BatchNorm2d(8),  # ND908
        nn.Conv2d(8, 8, 3),
    )
    inputs = torch.randn(4, 3, 16, 16)
    ```

    ```python good
    import torch
    from torch import nn


    class BatchNorm2d(nn.BatchNorm2d):
        def __init__(self, channels):
            super().__init__(channels)
            self.activation = nn.ReLU()

        def forward(self, x):
            return self.activation(super().forward(x))


    model = nn.Sequential(nn.Conv2d(3, 8, 3), BatchNorm2d(8), nn.Conv2d(8, 8, 3))
    inputs = torch.randn(4, 3, 16, 16)
    ```

    ## When to ignore
    Where norms are switched off on purpose, by an argument. Where only the name says that it is a norm,
    the finding has medium confidence; classes whose names say that they are none (`NoNorm`, `ActNorm`,
    `FakeNorm`) are left alone, and so is whatever calls functions that normdoctor cannot look into.

    ## References
    - feinanshan/FANet issue 5: a BatchNorm2d with an activation, whose forward returned the activation of
      the raw input.
    """

    code = "ND908"
    name = "norm-does-nothing"
    category = "handwritten"
    severity = Severity.ERROR

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look into every module that ran and claims to be a norm."""
        for module in graph.facts.modules:
            derived = module.base in NORMS
            if module.leaf or not module.calls or not (derived or _NAMED.fullmatch(module.type)):
                continue
            nodes = [one for one in graph.nodes if self._inside(one, module)]
            if not nodes or not all(self._harmless(graph, one) for one in nodes):
                continue
            what = f"derives from {module.base}" if derived else "is named as a norm"
            unused = [name for name in module.parameters if not any(name in one.parameters for one in nodes)]
            yield self.finding(
                graph,
                f"{module.type} {{modules}} {what}, but its forward normalizes nothing",
                module=module.path,
                confidence=Confidence.HIGH if derived and unused else Confidence.MEDIUM,
                evidence={"calls": [one.kind for one in nodes][:12], "unused": unused},
                help="Return the activation of `super().forward(x)`." if derived else None,
            )

    @staticmethod
    def _inside(node: Node, module: ModuleFact) -> bool:
        return node.scope == module.path or within(node.scope, module.path)

    @staticmethod
    def _harmless(graph: Graph, node: Node) -> bool:
        """Does it hand elements on one by one, without running statistics?"""
        held = (graph.parameters.get(name) for name in node.parameters)
        if any(one is not None and one.kind != "parameter" for one in held):
            return False
        if node.index in {one for norm in graph.facts.handwritten for one in norm.nodes}:
            return False
        return node.role in _HARMLESS_ROLES or node.kind in _HARMLESS_KINDS
