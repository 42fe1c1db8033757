"""ND613: constant-gate."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.signals import GATES, Signals, still
from normdoctor.rules.sites import Site


class ConstantGate(base.Rule):
    """A gate that weights its branch by the same number for every sample.

    ## What it does
    Looks at each softmax, sigmoid, tanh and their hard variants whose output is multiplied onto another
    activation. It reports those whose output never changed over all batches, although what they are
    computed from did.

    It is silent where what comes in is constant as well, as behind a layer that starts at zero, and on a
    softmax over an axis of size one, which ND307 reports.

    ## Why is this bad?
    The gate does not select anything: its layers have no influence on the output, and mostly
    get no gradient either. A softmax over two branches that are the same gives 0.5 for each. A sigmoid
    that is far out gives exactly 1.

    ## Example
    Both branches of the softmax are the same tensor:

    ```python bad
    import torch
    from torch import nn


    class Selective(nn.Module):
        def __init__(self):
            super().__init__()
            self.small = nn.Conv2d(8, 8, 3, padding=1)
            self.large = nn.Conv2d(8, 8, 5, padding=2)
            self.fc = nn.Linear(8, 8)

        def forward(self, x):
            branches = torch.stack([self.small(x), self.large(x)], dim=1)
            score = self.fc(branches.sum(dim=1).mean(dim=(2, 3)))
            weights = torch.softmax(torch.stack([score, score], dim=1), dim=1)  # ND613
            return (branches * weights[:, :, :, None, None]).sum(dim=1)


    model = Selective()
    inputs = torch.randn(16, 8, 8, 8)
    data = [torch.randn(16, 8, 8, 8) for _ in range(4)]
    ```

    ```python good
    import torch
    from torch import nn


    class Selective(nn.Module):
        def __init__(self):
            super().__init__()
            self.small = nn.Conv2d(8, 8, 3, padding=1)
            self.large = nn.Conv2d(8, 8, 5, padding=2)
            self.fc = nn.Linear(8, 16)

        def forward(self, x):
            branches = torch.stack([self.small(x), self.large(x)], dim=1)
            score = self.fc(branches.sum(dim=1).mean(dim=(2, 3)))
            weights = torch.softmax(score.view(-1, 2, 8), dim=1)
            return (branches * weights[:, :, :, None, None]).sum(dim=1)


    model = Selective()
    inputs = torch.randn(16, 8, 8, 8)
    data = [torch.randn(16, 8, 8, 8) for _ in range(4)]
    ```

    ## When to ignore
    When the gate is held open or closed for a while on purpose.

    ## References
    - Li, Wang, Hu and Yang, Selective Kernel Networks, https://arxiv.org/abs/1903.06586
    """

    code = "ND613"
    name = "constant-gate"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset({"graph"})
    needs = frozenset({"units"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The least evidence: observations of each unit."""

        observations: int = 30

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge every gate whose input varies."""
        signals = Signals(graph)
        for site in signals.of_role("activation", "softmax"):
            if site.kind not in GATES or site.observations < self.options.observations or not still(site):
                continue
            node = signals.node(site)
            if node is None or _over_one(node) or all(still(one) for one in signals.sources(site)):
                continue
            if signals.gate(site):
                yield self._finding(signals, site, node)

    def _finding(self, signals: Signals, site: Site, node: Node) -> Finding:
        value = site.figures["mean"]
        apart = site.figures["maximum"] - site.figures["minimum"] > 1e-6 * abs(value)
        amount = "one constant for each unit" if apart else f"{value:.4g}"
        return self.finding(
            signals.graph,
            f"the gate {signals.named(site)} was {amount} in all of {site.observations} observations over "
            f"{site.of_batches}, although its input varies",
            node=node,
            module=site.module,
            evidence={
                "value": value,
                "units": site.units,
                "observations": site.observations,
                "batches": site.batches,
                "source": site.source,
            },
            help="Compute the weight of each branch from values of its own, in a moderate range.",
        )


def _over_one(node: Node) -> bool:
    """Is it a softmax over an axis of size one?"""
    axis = node.config.get("dim")
    if node.role != "softmax" or not isinstance(axis, int) or not -len(node.shape) <= axis < len(node.shape):
        return False
    return node.shape[axis] == 1
