"""ND603: saturated-units."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.signals import Signals, saturated_units
from normdoctor.rules.sites import Site

_AT = {"sigmoid": "abs(z) > 6", "tanh": "abs(z) > 3"}


class SaturatedUnits(base.Rule):
    """Units of a bounded activation that sit at its ends.

    ## What it does
    Counts, for each unit of a hidden sigmoid, tanh, hardsigmoid or hardtanh, how often it is saturated: its
    input z has abs(z) > 6 for a sigmoid, abs(z) > 3 for a tanh, and lies at or beyond the bounds of a hard
    one. A unit counts as saturated when that holds in more than 90 % of its observations. A warning is
    given where more than a quarter of the units are, an error above three quarters.

    The message also gives the measure of Rakitianskaia and Engelbrecht: outputs are scaled to [-1, 1] and
    put into bins, and phi = sum(abs(mean of bin) * count) / sum(count). With an even number of bins, none
    lies on both sides of zero, so phi is the mean of abs(output), which is what is computed here: 0.5 for
    outputs that use the range evenly, 1 for saturated ones.

    It is silent on gates (a sigmoid or tanh whose output is multiplied onto another activation), which
    open and close on purpose, and on the model's output, where a confident answer is no fault.

    ## Why is this bad?
    A sigmoid's derivative is below 1 % of its largest for abs(z) > 6, a tanh's is below 1 % for abs(z) > 3,
    and beyond the bounds of a hard activation it is zero. Layers before a saturated one learn very slowly
    or not at all.

    ## Example

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.Tanh(),  # ND603
        nn.Linear(32, 4),
    )
    with torch.no_grad():
        model[0].weight.mul_(500.0)
    inputs = torch.randn(256, 16)
    data = [torch.randn(256, 16) for _ in range(4)]
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
    inputs = torch.randn(256, 16)
    data = [torch.randn(256, 16) for _ in range(4)]
    ```

    ## When to ignore
    Where the activation is meant to be binary: hashing, discrete codes, a straight-through estimator.

    ## References
    - Rakitianskaia and Engelbrecht, Measuring Saturation in Neural Networks, IEEE SSCI 2015
    - Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010
    """

    code = "ND603"
    name = "saturated-units"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"units"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """Fractions of a layer's units, how often a unit must be saturated, and the least evidence."""

        warning: float = 0.25
        error: float = 0.75
        observed: float = 0.9
        values: int = 1000

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge every hidden bounded activation that is no gate."""
        signals = Signals(graph)
        for site in signals.of_role("activation"):
            units = saturated_units(site, self.options.observed)
            if len(units) <= self.options.warning * site.units:
                continue
            if site.units * site.observations < self.options.values or not signals.stirred(site):
                continue
            if signals.hidden(site) and not signals.gate(site):
                yield self._finding(signals, site, len(units))

    def _finding(self, signals: Signals, site: Site, count: int) -> Finding:
        share, level = count / site.units, site.figures["level"]
        severe = share > self.options.error and not site.synthetic
        at = _AT.get(site.kind, "at its bounds")
        return self.finding(
            signals.graph,
            f"{count} of {site.units} units of {signals.named(site)} ({share:.0%}) are saturated ({at} in "
            f"more than {self.options.observed:.0%} of {site.observations} observations over "
            f"{site.of_batches}); Rakitianskaia-Engelbrecht measure {level:.2f}",
            node=signals.node(site),
            module=site.module,
            severity=Severity.ERROR if severe else Severity.WARNING,
            evidence={
                "units": site.units,
                "saturated": count,
                "share": round(share, 4),
                "phi": level,
                "observations": site.observations,
                "batches": site.batches,
                "source": site.source,
            },
            help="Normalize before it, or start with smaller weights: Xavier with the activation's gain.",
        )
