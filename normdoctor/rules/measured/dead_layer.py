"""ND602: dead-layer."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.signals import Signals, passes_dead
from normdoctor.rules.sites import Site


class DeadLayer(base.Rule):
    """A layer of which no unit is ever active.

    ## What it does
    Reports a rectifier (ReLU, ReLU6, threshold) none of whose outputs was above zero over all batches, and
    a smooth one (GELU, SiLU, Mish, Hardswish) whose outputs were all within 1e-6 of zero. What stands
    behind it is constant as a consequence and is not reported again.

    It is silent where everything that comes in is exactly zero (a layer or a norm that starts at zero, an
    expert that got nothing), and where the rectifier is a gate (`x * relu6(x + 3) / 6`).

    ## Why is this bad?
    Nothing passes. The layers before it get no gradient through it, and those behind it see the same
    numbers for every sample. It cannot recover: the derivative is zero everywhere. Usual causes are a step
    of the optimizer that was far too large, a large negative bias, and inputs without a common scale.

    ## Example

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.ReLU(),  # ND602
        nn.Linear(32, 4),
    )
    with torch.no_grad():
        model[0].bias.fill_(-20.0)
    inputs = torch.randn(64, 16)
    data = [torch.randn(64, 16) for _ in range(4)]
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    inputs = torch.randn(64, 16)
    data = [torch.randn(64, 16) for _ in range(4)]
    ```

    ## When to ignore
    When a part of the model is switched off on purpose, by other means than a zero.

    ## References
    - Lu, Shin, Su and Karniadakis, Dying ReLU and Initialization, https://arxiv.org/abs/1903.06733
    - Hanley and Lippman-Hand, If nothing goes wrong, is everything all right?, JAMA 1983 (the bound 3/n)
    """

    code = "ND602"
    name = "dead-layer"
    category = "measured"
    severity = Severity.ERROR
    requires = frozenset[str]()
    needs = frozenset({"units"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The least evidence: values that were looked at, over all units of the layer."""

        values: int = 1000

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge every rectifier."""
        signals = Signals(graph)
        for site in signals.of_role("activation"):
            if site.units * site.observations >= self.options.values and passes_dead(signals, site):
                yield self._finding(signals, site)

    def _finding(self, signals: Signals, site: Site) -> Finding:
        n = site.units * site.observations
        return self.finding(
            signals.graph,
            f"none of the {site.units} units of {signals.named(site)} was active in {site.observations} "
            f"observations of each over {site.of_batches} (rate below {3 / n:.2g} at 95 %)",
            node=signals.node(site),
            module=site.module,
            severity=Severity.WARNING if site.synthetic else Severity.ERROR,
            evidence={
                "units": site.units,
                "observations": site.observations,
                "batches": site.batches,
                "rate_below": 3 / n,
                "maximum": site.figures["maximum"],
                "source": site.source,
            },
            help="Lower the learning rate or warm it up, start biases at zero, or normalize before it.",
        )
