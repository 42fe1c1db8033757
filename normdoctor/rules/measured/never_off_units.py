"""ND604: never-off-units."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.signals import Signals, still
from normdoctor.rules.sites import RELUS


class NeverOffUnits(base.Rule):
    """A ReLU that is never off, so that its layer is linear.

    ## What it does
    Reports a ReLU behind a layer or norm of which more than 90 % of the units were above zero in every
    observation. It is silent on gates, and on a ReLU that only sees what another activation or the model's
    input made non-negative.

    ## Why is this bad?
    A ReLU that is never off hands its input on unchanged. The layer before it and the one behind it
    are one linear map then, and the depth between them is spent for nothing. Usual causes are a large
    positive bias and inputs far from zero.

    ## Example

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.ReLU(),  # ND604
        nn.Linear(32, 4),
    )
    with torch.no_grad():
        model[0].bias.fill_(20.0)
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
    When the ReLU only guards against rounding, for quantities that are positive by their nature.

    ## References
    - Montufar, Pascanu, Cho and Bengio, On the Number of Linear Regions of Deep Neural Networks,
      https://arxiv.org/abs/1402.1869
    """

    code = "ND604"
    name = "never-off-units"
    category = "measured"
    severity = Severity.INFO
    requires = frozenset[str]()
    needs = frozenset({"units"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The fraction of a layer's units, and the least evidence."""

        share: float = 0.9
        observations: int = 1000

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge every ReLU that was observed often enough."""
        signals = Signals(graph)
        for site in signals.of_role("activation"):
            if site.kind not in RELUS or site.observations < self.options.observations:
                continue
            shares = zip(site.figures["active"], site.figures["high"], strict=True)
            # A ReLU6 that cuts at its upper bound does something: ND611.
            count = sum(active == 1 and high < 1 - self.options.share for active, high in shares)
            if count <= self.options.share * site.units or signals.gate(site):
                continue
            learned = [one for one in signals.sources(site) if one.role in ("linear", "norm", "norm_input")]
            if any(not still(one) for one in learned):
                yield self.finding(
                    graph,
                    f"{count} of {site.units} units of {signals.named(site)} were above zero in all of "
                    f"{site.observations} observations over {site.of_batches}: it does nothing, the layers "
                    "around it are linear",
                    node=signals.node(site),
                    module=site.module,
                    evidence={
                        "units": site.units,
                        "never_off": count,
                        "observations": site.observations,
                        "batches": site.batches,
                        "minimum": site.figures["minimum"],
                        "source": site.source,
                    },
                    help="Look for a large bias or inputs far from zero; normalize before it.",
                )
