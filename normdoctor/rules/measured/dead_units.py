"""ND601: dead-units."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.signals import Signals, spoilt
from normdoctor.rules.sites import RELUS, Site


class DeadUnits(base.Rule):
    """Units of a ReLU that no input switches on.

    ## What it does
    Counts, over the batches of `data=` or of a watched training, how often each unit of a ReLU is above zero.
    A unit is a channel of a convolution or a feature of a linear layer; each position and each sample is one
    observation of it. A unit that was never above zero in n observations is called dead: with 95 %
    confidence it is on in fewer than 3/n of all cases. A layer of which no unit is ever on is the matter of
    ND602; behind it, nothing more is reported.

    Reported are more than 10 % of a layer's units, and at least four: in a narrow layer, one or two are on
    or off by the chance of their start. Silent is what gates are computed from, as the squeeze of a
    squeeze-and-excitation: it reads averages of what is above zero, so at the start some of its units are
    on for every sample, and some for none. On synthetic data a share of up to 40 % has low confidence:
    noise does not hold what a unit may look for.

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
    needs = frozenset({"units"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """Fractions of a layer's units, the least number of them, and the least evidence."""

        warning: float = 0.10
        error: float = 0.40
        units: int = 4
        observations: int = 1000
        batches: int = 2

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge every ReLU that was observed often enough, unless nothing that varies comes in."""
        signals = Signals(graph)
        for site in signals.of_role("activation"):
            if site.kind not in RELUS or site.observations < self.options.observations or spoilt(site):
                continue
            dead = [unit for unit, share in enumerate(site.figures["active"]) if share == 0]
            if site.batches < self.options.batches or len(dead) <= self.options.warning * site.units:
                continue
            # All of them: ND602, or zero by design.
            if not self.options.units <= len(dead) < site.units or not signals.stirred(site):
                continue
            if not signals.gate(site) and not signals.steers(site):
                yield self._finding(signals, site, dead)

    def _finding(self, signals: Signals, site: Site, dead: list[int]) -> Finding:
        place = signals.named(site) if signals.layer(site) else "{modules}"
        n, share = site.observations, len(dead) / site.units
        many = share > self.options.error
        return self.finding(
            signals.graph,
            f"{len(dead)} of {site.units} units of {place} ({share:.0%}) were never active "
            f"in {n} observations over {site.of_batches} (rate below {3 / n:.2g} at 95 %)",
            node=signals.node(site),
            module=site.module,
            severity=Severity.ERROR if many and not site.synthetic else Severity.WARNING,
            confidence=Confidence.LOW if site.synthetic and not many else Confidence.HIGH,
            evidence={
                "units": site.units,
                "dead": len(dead),
                "share": round(share, 4),
                "observations": n,
                "batches": site.batches,
                "rate_below": 3 / n,
                "source": site.source,
            },
            help="Lower the learning rate or warm it up, start biases at zero, or normalize before the ReLU.",
        )
