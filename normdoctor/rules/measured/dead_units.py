"""ND601: dead-units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from normdoctor.facts import Node
from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base

RELU_KINDS = frozenset({"relu", "relu_", "relu6", "relu6_", "hardtanh"})


class DeadUnits(base.Rule):
    """Units of a ReLU that no input switches on.

    ## What it does
    Counts, over the batches of `data=` or of a watched training, how often each unit of a ReLU is above zero.
    A unit is a channel of a convolution or a feature of a linear layer; each position and each sample is one
    observation of it. A unit that was never above zero in n observations is called dead: with 95 %
    confidence it is on in fewer than 3/n of all cases.

    ## Why is this bad?
    Where a ReLU is off, its derivative is zero. A unit that is off for every input gets no gradient, so it
    can neither contribute nor recover: the layer is narrower than it was paid for. Usual causes are a
    learning rate that was too high in the first steps, a large negative bias, and off-centre inputs.

    ## Example
    A bias of -20 keeps all but the strongest inputs below zero:

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.ReLU(),  # ND601
        nn.Linear(32, 4),
    )
    with torch.no_grad():
        model[0].bias[:20] = -20.0
    inputs = torch.randn(512, 16)
    data = [torch.randn(512, 16) for _ in range(4)]
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    inputs = torch.randn(512, 16)
    data = [torch.randn(512, 16) for _ in range(4)]
    ```

    ## When to ignore
    When the batches do not cover what the model will see, or when units are meant to be detectors of rare
    events. Pruned layers have dead units on purpose.

    ## References
    - Maas, Hannun and Ng, Rectifier Nonlinearities Improve Neural Network Acoustic Models, 2013
    - Lu, Shin, Su and Karniadakis, Dying ReLU and Initialization, https://arxiv.org/abs/1903.06733
    - Hanley and Lippman-Hand, If nothing goes wrong, is everything all right?, JAMA 1983 (the bound 3/n)
    """

    code = "ND601"
    name = "dead-units"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"dead_units"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """Fractions of a layer's units, and the least evidence."""

        warning: float = 0.10
        error: float = 0.40
        observations: int = 1000
        batches: int = 2

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge every site that was observed often enough."""
        for figures in (graph.facts.measurements or {})["dead_units"].values():
            dead, units = figures["dead"], figures["units"]
            if (
                figures["observations"] < self.options.observations
                or figures["batches"] < self.options.batches
            ):
                continue
            if dead > self.options.warning * units:
                yield self._finding(graph, figures, dead / units)

    def _finding(self, graph: Graph, figures: dict[str, Any], share: float) -> Finding:
        synthetic = figures["source"] == "synthetic"
        severe = share > self.options.error and not synthetic
        n, batches = figures["observations"], figures["batches"]
        bound, kind = 3 / n, "synthetic batches" if synthetic else "batches"
        node = site_node(graph, figures["module"], figures["call"])
        return self.finding(
            graph,
            f"{figures['dead']} of {figures['units']} units of {{modules}} ({share:.0%}) were never active "
            f"in {n} observations over {batches} {kind} "
            f"(rate below {bound:.2g} at 95 %)",
            node=node,
            module=figures["module"],
            severity=Severity.ERROR if severe else Severity.WARNING,
            evidence={
                "units": figures["units"],
                "dead": figures["dead"],
                "share": round(share, 4),
                "observations": n,
                "batches": batches,
                "rate_below": bound,
                "source": figures["source"],
            },
            help="Lower the learning rate or warm it up, start biases at zero, or normalize before the ReLU.",
        )


def site_node(graph: Graph, path: str, call: int) -> Node | None:
    """The recorded ReLU that a measured site stands for: the call-th below the module at `path`."""
    nodes = [n for n in graph.nodes if graph.label(n) == path and n.kind in RELU_KINDS]
    return nodes[call] if call < len(nodes) else None
