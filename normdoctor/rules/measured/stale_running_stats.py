"""ND703: stale-running-stats."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.batchstats import YOUNG
from normdoctor.rules.sites import Site
from normdoctor.rules.stalestats import (
    RATIO,
    SHARE,
    SHIFT,
    Deviation,
    Z,
    comparable_sites,
    deviations,
    stale_channels,
)
from normdoctor.rules.young import young_norms


class StaleRunningStats(base.Rule):
    """Running statistics that are not those of the data.

    ## What it does
    Compares the running mean and variance of each BatchNorm with the mean and variance of what it takes, over
    several batches. A channel is stale where the means differ by more than 5 standard errors of a batch's
    mean, sigma/sqrt(n_eff), and by half a standard deviation; or where the variances differ by a factor of
    2 and by five times their standard error. Reported is a layer with more than a quarter of such channels.

    In train mode a layer that was never trained (initial statistics) is silent, and a young one nearly: the
    part that is still the initial value, (1 - momentum)^n after n batches, is taken out first, and since
    weights still move fast, 2 standard deviations or a factor of 8 are asked. A counter of batches that
    stands at zero beside other statistics says nothing (old checkpoints have none). In eval mode a layer
    behind a young or stale one is not judged, since what it takes comes through that one.

    A model in eval mode runs on these statistics. Where more than 10 % of them are initial values still (up
    to 22 batches with a momentum of 0.1, up to 230 with 0.01) and a norm therefore hands on less than a
    hundredth or more than a hundred times of what it should, no rule judges the signals behind such layers
    (ND601 to ND607, ND609 to ND614): they are those of no trained network. Of fewer than 100 batches one
    finding of severity info says so; after that the layers are judged as all others.

    ## Why is this bad?
    In eval mode the layer subtracts a mean and divides by a deviation that its input does not have, so the
    layers behind see what they were never trained on. The usual causes are a momentum that is too small
    for the length of the training, weights that changed after the last update of the statistics (averaging,
    loading, pruning, folding), and data of another domain or another preprocessing.

    ## Example
    The weights were replaced after the statistics had been taken:

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32, bias=False),
        nn.BatchNorm1d(32),  # ND703
        nn.ReLU(),
        nn.Linear(32, 4),
    )
    for _ in range(100):
        model(torch.randn(64, 16))
    with torch.no_grad():
        model[0].weight.mul_(4.0)
    inputs = torch.randn(64, 16)
    data = [torch.randn(64, 16) for _ in range(4)]
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(16, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    for _ in range(100):
        model(torch.randn(64, 16))
    inputs = torch.randn(64, 16)
    data = [torch.randn(64, 16) for _ in range(4)]
    ```

    ## When to ignore
    When the data of the check are not those that the model is for.

    ## References
    - Wu and Johnson, Rethinking "Batch" in BatchNorm, https://arxiv.org/abs/2105.07576 (exact statistics)
    - Izmailov and others, Averaging Weights Leads to Wider Optima, https://arxiv.org/abs/1803.05407
      (recompute the statistics after weights were averaged)
    - Li and others, Revisiting Batch Normalization For Practical Domain Adaptation,
      https://arxiv.org/abs/1603.04779
    """

    code = "ND703"
    name = "stale-running-stats"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"batch_norm"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """When a channel is stale, the share of such channels, and the least evidence."""

        z: float = Z
        shift: float = SHIFT
        ratio: float = RATIO
        share: float = SHARE
        batches: int = 2

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge every BatchNorm with running statistics, up to the first stale one in eval mode."""
        options = self.options
        young = [(site, share) for site, share in young_norms(graph) if _batches(site) < YOUNG]
        if young:
            yield self._young(graph, young)
        known = {site.name for site, _ in young}
        for site in comparable_sites(graph):
            if site.batches < options.batches or site.name in known:
                continue
            judged = list(deviations(site))
            stale = stale_channels(site, options.z, options.shift, options.ratio)
            if judged and len(stale) > options.share * len(judged):
                yield self._finding(graph, site, judged, stale)
                if not site.figures["training"]:
                    return

    def _young(self, graph: Graph, young: list[tuple[Site, float]]) -> Finding:
        first, share = max(young, key=lambda one: one[1])
        seen = _batches(first)
        modules = list(dict.fromkeys(site.module for site, _ in young))
        count = f" and {len(modules) - 1} further norms" if len(modules) > 1 else ""
        after = f" after {seen} batches" if seen else ""
        still = f"{share:.0%} of " if share < 1 else ""
        return self.finding(
            graph,
            f"the model runs on the running statistics of {{modules}}{count}, which{after} still hold {still}"
            "their initial values (mean 0, variance 1): signals behind them are not judged",
            node=first.node(graph),
            module=first.module,
            severity=Severity.INFO,
            evidence={
                "layers": modules,
                "initial": {site.module: round(own, 4) for site, own in young},
                "momentum": first.figures["momentum"],
                "batches_tracked": seen,
                "source": first.source,
            },
            help="Train on, take exact statistics with normdoctor.recalibrate(model, data), or check in train"
            " mode.",
        )

    def _finding(self, graph: Graph, site: Site, judged: list[Deviation], stale: list[Deviation]) -> Finding:
        shift, z = median(one.shift for one in stale), median(one.z for one in stale)
        logarithm = median(one.log_ratio for one in stale)
        counted = site.figures.get("batches_tracked")
        count = counted[0 if site.source != "watch" else 1] if counted else 0
        after = f" after {count} batches" if count else ""
        return self.finding(
            graph,
            f"the running statistics of {{modules}}{after} are off in {len(stale)} of {len(judged)} "
            f"channels: the mean of {site.of_batches} lies {shift:.2g} standard deviations ({z:.3g} "
            f"standard errors) away, the variance is {math.exp(logarithm):.3g} times as large",
            node=site.node(graph),
            module=site.module,
            evidence={
                "channels": site.units,
                "stale": len(stale),
                "shift": round(shift, 4),
                "z": round(z, 3),
                "variance_ratio": round(math.exp(logarithm), 5),
                "momentum": site.figures["momentum"],
                "batches_tracked": counted[0] if counted else None,
                "batches": site.batches,
                "source": site.source,
            },
            help="Take exact statistics: normdoctor.recalibrate(model, data), over 1e3 to 1e4 samples.",
        )


def _batches(site: Site) -> int:
    """How many batches moved its running statistics; zero where nobody counted."""
    counted = site.figures.get("batches_tracked")
    return int(counted[1]) if counted else 0
