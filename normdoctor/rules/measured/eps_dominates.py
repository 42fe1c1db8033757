"""ND704: eps-dominates."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.batchstats import live_channels
from normdoctor.rules.sites import Site
from normdoctor.rules.stalestats import comparable_sites


class EpsDominates(base.Rule):
    """A BatchNorm whose input varies by far less than its eps.

    ## What it does
    Compares the measured variance of each channel with eps. A channel with variance v leaves the norm with a
    standard deviation of sqrt(v/(v + eps)), before the scale: 0.71 at v = eps, 0.10 at v = eps/100.
    Reported is the first layer where v < eps/100 in more than 10 % of the channels that vary at all; what it
    hands on is too small as well, so that norms behind it may follow.

    ## Why is this bad?
    The layer then divides by sqrt(eps), a constant, and does not normalize: its output keeps the scale of its
    input, which the layers behind have to live with. It comes from inputs that are scaled down far too
    much, from weights that weight decay has shrunk, or from an eps that was meant for another scale.

    ## Example
    Images in units of a thousandth give variances around 1e-8:

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16),  # ND704
        nn.ReLU(),
    )
    inputs = 1e-4 * torch.randn(32, 3, 8, 8)
    data = [1e-4 * torch.randn(32, 3, 8, 8) for _ in range(2)]
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    inputs = torch.randn(32, 3, 8, 8)
    data = [torch.randn(32, 3, 8, 8) for _ in range(2)]
    ```

    ## When to ignore
    When channels are meant to fade out, as under a sparsity penalty on the layer in front.

    ## References
    - Ioffe and Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167 (eps is there for stability)
    - torch.nn.BatchNorm2d, y = (x - mean) / sqrt(var + eps)
    """

    code = "ND704"
    name = "eps-dominates"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"batch_norm"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """A channel is dominated where its variance is below `factor` times eps; reported is a share of them.

        The factor is 0.01, where the output is at most 0.1: at 10 eps it is but 5 % too small, and depthwise
        convolutions in front of an eps of 1e-3 (MobileNetV3, EfficientNet) start between eps/20 and eps.
        """

        factor: float = 0.01
        share: float = 0.10

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Name the first BatchNorm of those whose input is that of a training or of a trained network."""
        found = []
        for site in comparable_sites(graph):
            variances = [site.figures["variance"][channel] for channel in live_channels(site)]
            low = [one for one in variances if one < self.options.factor * site.figures["eps"]]
            if low and len(low) > self.options.share * len(variances):
                found.append((site, len(variances), low))
        if found:
            yield self._finding(graph, *found[0], [site.module for site, *_ in found[1:]])

    def _finding(
        self, graph: Graph, site: Site, channels: int, low: list[float], behind: list[str]
    ) -> Finding:
        eps, variance = site.figures["eps"], median(low)
        leaves = (variance / (variance + eps)) ** 0.5
        return self.finding(
            graph,
            f"{len(low)} of {channels} channels of {{modules}} vary by far less than its eps ({eps:.3g}): "
            f"their variance is {variance:.2g}, so they leave it with a standard deviation of {leaves:.2g}, "
            "not 1" + (f" ({len(behind)} norms behind it have the same)" if behind else ""),
            node=site.node(graph),
            module=site.module,
            evidence={
                "channels": channels,
                "dominated": len(low),
                "variance": variance,
                "eps": eps,
                "std_of_output": round(leaves, 5),
                "behind": behind,
                "source": site.source,
            },
            help="Scale the inputs or the weights in front of it up, or lower eps.",
        )
