"""ND701: small-batch-statistics."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.batchstats import effective, error_of_mean, norm_sites, smallest_batch, usual_batch
from normdoctor.rules.sites import Site
from normdoctor.rules.smallbatch import ERROR, WARNING, advice


class SmallBatchStatistics(base.Rule):
    """A BatchNorm whose batches are too small to know their own mean.

    ## What it does
    Measures how many independent values a batch is worth to a BatchNorm that normalizes by it: n_eff = B
    Var(x) / Var(mean of one sample), the median over the channels. The positions of one sample are
    correlated, so n_eff is far below B x height x width in deep layers. The mean of the batch is then off by
    1/sqrt(n_eff) standard deviations, and its variance by sqrt(2/n_eff) of itself. Above 0.18 (fewer than
    31 values) this is a warning, above 0.30 (fewer than 11) an error.

    The figures hold for batches drawn at random, with the layers in front of it held fixed. Each layer is
    judged by itself: early ones pass with few samples, deep ones need many. It asks for data of yours, or a
    watched training: nothing is said of made-up batches. BatchNorms that use running statistics (eval mode,
    frozen) pass. `normdoctor check --data ... --select ND701` prints the figures for batches of 1 to 256.

    ## Why is this bad?
    The error of the mean and of the variance is noise on every activation, new in each batch, and running
    statistics that are averaged over such batches do not describe what the layers behind learned from. On
    digits, a network evaluated with the statistics of batches of 8 (n_eff 10) lost 4.6 % of accuracy, with
    those of 4 already 11 %; ResNet-50 on ImageNet loses 3.7 % with 4 images a device and 11 % with 2.

    ## Example
    Four images, pooled to one value a channel, are four values:

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 32, bias=False),
        nn.BatchNorm1d(32),  # ND701
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    inputs = torch.randn(4, 3, 32, 32)
    data = [torch.randn(4, 3, 32, 32) for _ in range(8)]
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 32, bias=False),
        nn.LayerNorm(32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    inputs = torch.randn(4, 3, 32, 32)
    data = [torch.randn(4, 3, 32, 32) for _ in range(8)]
    ```

    ## When to ignore
    When the batches of the check are smaller than those of the training (state its size with `batch_size=`),
    when ranks share their statistics (SyncBatchNorm), or when the noise is wanted as regularization.

    ## References
    - Wu and He, Group Normalization, https://arxiv.org/abs/1803.08494 (table 4: error by batch size)
    - Wu and Johnson, Rethinking "Batch" in BatchNorm, https://arxiv.org/abs/2105.07576 (32 to 128 are best)
    - Ioffe, Batch Renormalization, https://arxiv.org/abs/1702.03275
    - The standard error of a mean of correlated values: Kish, Survey Sampling, 1965 (design effect)
    """

    code = "ND701"
    name = "small-batch-statistics"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"batch_norm"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """Standard errors of the batch mean, in standard deviations, and the least evidence."""

        warning: float = WARNING
        error: float = ERROR
        samples: int = 8

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge every BatchNorm that normalized by its batches."""
        run = (graph.facts.measurements or {}).get("run", {})
        for site in norm_sites(graph):
            per_sample = effective(site)
            if not site.figures["training"] or site.synthetic or per_sample is None:
                continue
            batch = usual_batch(site, run)
            if error_of_mean(per_sample, batch) > self.options.warning and self._known(site):
                yield self._finding(graph, site, per_sample, batch)

    def _known(self, site: Site) -> bool:
        return bool(site.observations >= self.options.samples)

    def _finding(self, graph: Graph, site: Site, per_sample: float, batch: int) -> Finding:
        n_eff, error = per_sample * batch, error_of_mean(per_sample, batch)
        positions, needed = site.figures["positions"], smallest_batch(per_sample, self.options.warning)
        values = f"{batch} x {positions} values" if positions > 1 else f"{batch} values"
        level = Severity.ERROR if error > self.options.error else Severity.WARNING
        return self.finding(
            graph,
            f"{{modules}} normalizes by batches of {batch}, whose {values} a channel are worth "
            f"{n_eff:.1f} independent ones: the batch mean is off by {error:.2f} standard deviations, its "
            f"variance by {(2 / n_eff) ** 0.5:.0%}; a batch of {needed} would pass "
            f"({error_of_mean(per_sample, needed):.2f})",
            node=site.node(graph),
            module=site.module,
            severity=level,
            evidence={
                "batch": batch,
                "positions": positions,
                "n_eff": round(n_eff, 3),
                "n_eff_per_sample": round(per_sample, 4),
                "error_of_mean": round(error, 4),
                "passes": needed,
                "samples": site.observations,
                "source": site.source,
            },
            help=advice(site, batch, needed),
        )
