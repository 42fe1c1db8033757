"""ND614: off-centre-input."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.signals import Signals, constant_units
from normdoctor.rules.sites import Site


class OffCentreInput(base.Rule):
    """The input of a norm lies so far from zero that its variance loses digits.

    ## What it does
    Compares mean and standard deviation of what each norm takes. For batch and instance norm that is done
    for every channel, and reported where abs(mean)/std > 100 in more than 10 % of the channels (constant
    ones are left out); for layer and group norm it is done over all values. RMSNorm does not subtract
    a mean and is left out.

    ## Why is this bad?
    A variance that is computed in one pass, as mean(x^2) - mean(x)^2, loses about two digits for each
    factor of ten in abs(mean)/std: at 100, four of the seven digits of float32, in bfloat16 all of them.
    Fused kernels and hand-written norms often work like that. Running statistics that lag behind a mean
    this large shift the output in eval by many standard deviations.

    ## Example

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.BatchNorm1d(32),  # ND614
        nn.ReLU(),
        nn.Linear(32, 4),
    )
    with torch.no_grad():
        model[0].bias.fill_(1000.0)
    inputs = torch.randn(64, 16)
    data = [torch.randn(64, 16) for _ in range(4)]
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    inputs = torch.randn(64, 16)
    data = [torch.randn(64, 16) for _ in range(4)]
    ```

    ## When to ignore
    When the norm runs in float64.

    ## References
    - Chan, Golub and LeVeque, Algorithms for Computing the Sample Variance, 1983
    """

    code = "ND614"
    name = "off-centre-input"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"units"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The ratio of mean and standard deviation, and the fraction of channels that must exceed it."""

        ratio: float = 100.0
        channels: float = 0.1

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge the input of every norm that subtracts a mean."""
        signals = Signals(graph)
        by_name = {site.name: site for site in signals.sites}
        for site in signals.sites:
            taken = by_name.get(site.figures.get("norm_input", ""))
            if site.role != "norm" or site.kind == "rms_norm" or taken is None or not signals.judged(taken):
                continue
            each = site.kind in ("batch_norm", "instance_norm") and taken.units == site.units
            ratios = _by_channel(taken) if each else _overall(taken)
            far = [ratio for ratio in ratios if ratio > self.options.ratio]
            if len(far) > self.options.channels * len(ratios):
                yield self._finding(signals, site, taken, ratios, each=each)

    def _finding(
        self, signals: Signals, site: Site, taken: Site, ratios: list[float], *, each: bool
    ) -> Finding:
        far = sum(ratio > self.options.ratio for ratio in ratios)
        where = f" in {far} of {taken.units} channels" if each else ""
        return self.finding(
            signals.graph,
            f"what {signals.named(site)} takes is far from zero: abs(mean)/std is up to {max(ratios):.3g}"
            f"{where} (over {site.of_batches})",
            node=signals.node(site),
            module=site.module,
            evidence={
                "ratio": max(ratios),
                "mean": taken.figures["mean"],
                "std": taken.figures["std"],
                "channels": far if each else None,
                "input": taken.name,
                "batches": site.batches,
                "source": site.source,
            },
            help="Subtract a constant before the norm, or remove the large bias in front of it.",
        )


def _by_channel(site: Site) -> list[float]:
    """abs(mean)/std of each channel that is not constant."""
    exact = set(site.figures["constant"]) | {
        u for u in constant_units(site) if site.figures["unit_mean"][u] == 0
    }
    pairs = zip(site.figures["unit_mean"], site.figures["unit_std"], strict=True)
    return [abs(mean) / std for unit, (mean, std) in enumerate(pairs) if unit not in exact and std > 0]


def _overall(site: Site) -> list[float]:
    mean, std = site.figures["mean"], site.figures["std"]
    return [abs(mean) / std] if std > 0 else []
