"""ND611: clipped-units."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.signals import Signals, clipped_units, saturated_units
from normdoctor.rules.sites import Site


class ClippedUnits(base.Rule):
    """Units of a ReLU6 or hardtanh that are cut off at the upper bound.

    ## What it does
    Counts how often each unit of a ReLU6 or hardtanh is at its upper bound. A unit is clipped when that
    is so in more than half of the observations in which it is above zero. Reported is a layer of which more
    than a quarter of the units are. Gates (`x * relu6(x + 3) / 6`) are left out, and so are layers that ND603
    reports, whose units are at either of the bounds nearly always.

    ## Why is this bad?
    Beyond the bound the derivative is zero and all values are the same: the unit is a switch, and the
    layers before it get no gradient from what it lets through. The bound of a ReLU6 fits
    activations of unit variance, as behind a norm.

    ## Example

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.ReLU6(),  # ND611
        nn.Linear(32, 4),
    )
    with torch.no_grad():
        model[0].weight.mul_(100.0)
    inputs = torch.randn(64, 16)
    data = [torch.randn(64, 16) for _ in range(4)]
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU6(), nn.Linear(32, 4))
    inputs = torch.randn(64, 16)
    data = [torch.randn(64, 16) for _ in range(4)]
    ```

    ## When to ignore
    When the output is to be binary, or the bound has a physical meaning.

    ## References
    - Howard et al., MobileNets, https://arxiv.org/abs/1704.04861
    - Krizhevsky, Convolutional Deep Belief Networks on CIFAR-10, 2010 (ReLU6)
    """

    code = "ND611"
    name = "clipped-units"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"units"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """How often a unit must be clipped, the fraction of units, and the least evidence."""

        clipped: float = 0.5
        units: float = 0.25
        values: int = 1000

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge every hidden ReLU6 and hardtanh that is no gate."""
        signals = Signals(graph)
        for site in signals.of_role("activation"):
            if site.kind not in ("relu6", "hardtanh") or site.units * site.observations < self.options.values:
                continue
            units = clipped_units(site, self.options.clipped)
            if len(units) <= self.options.units * site.units or len(saturated_units(site)) > site.units / 4:
                continue
            if signals.hidden(site) and signals.stirred(site) and not signals.gate(site):
                yield self._finding(signals, site, units)

    def _finding(self, signals: Signals, site: Site, units: list[int]) -> Finding:
        high, active = site.figures["high"], site.figures["active"]
        share = sum(high) / max(sum(active), 1e-9)
        return self.finding(
            signals.graph,
            f"{len(units)} of {site.units} units of {signals.named(site)} are clipped: {share:.0%} of the "
            f"values above zero are at the upper bound {site.figures['maximum']:.3g} "
            f"({site.observations} observations over {site.of_batches})",
            node=signals.node(site),
            module=site.module,
            evidence={
                "units": site.units,
                "clipped": len(units),
                "share": round(share, 4),
                "observations": site.observations,
                "batches": site.batches,
                "source": site.source,
            },
            help="Normalize before it, start with smaller weights, or use an activation without a bound.",
        )
