"""ND712: padding-in-statistics."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.sites import Site, sites


class PaddingInStatistics(base.Rule):
    """A BatchNorm counts padding: its statistics change with the length of a batch.

    ## What it does
    Looks for padding in the data: along one axis, samples end with the same position repeated, some with
    more of it than others. It then makes such a batch longer by half with more of the same, masks included,
    and compares the batch statistics of each BatchNorm with those before. The longer batch is normalized by
    the statistics of the shorter one, so that each norm is judged by itself. A norm is reported where, in
    the median channel, the mean moves by more than 5 % of a standard deviation or the variance by more than
    10 %. The padding that a convolution sees at the end of a sample moves both by less.

    Silent where nothing is padded (images on a plain ground are not: they have it on all sides), where the
    model takes no longer batch, and where the data are synthetic. The finding stands at the first such norm
    and names how many more there are.

    ## Why is this bad?
    The same sample is normalized in one way beside short samples and in another beside long ones. The
    running statistics are those of data and padding, in proportions of the training's batches; in use, with
    other lengths or one sample at a time, they are wrong. The more padding, the further mean and variance
    go towards those of the padding.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv1d(4, 8, 3, padding=1),
        nn.BatchNorm1d(8),  # ND712
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
    )
    lengths = torch.randint(5, 21, (32, 1, 1))
    x = torch.randn(32, 4, 20) * (torch.arange(20) < lengths)
    inputs = x
    data = [x]
    ```

    Statistics of the valid positions alone, with `normdoctor.layers.MaskedBatchNorm` or by selecting them:

    ```python good
    import torch
    from torch import nn


    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(4, 8, 3, padding=1)
            self.norm = nn.BatchNorm1d(8)

        def forward(self, x, mask):
            x = self.conv(x).transpose(1, 2)
            y = torch.zeros_like(x)
            y[mask] = self.norm(x[mask])
            return torch.relu(y).sum(1)


    model = Masked()
    mask = torch.arange(20) < torch.randint(5, 21, (32, 1))
    inputs = (torch.randn(32, 4, 20) * mask.unsqueeze(1), mask)
    data = [inputs]
    ```

    ## When to ignore
    When equal values at the end of samples are data, or every batch is padded to one fixed length that the
    model is always used with.

    ## References
    - Ioffe and Szegedy, Batch Normalization, https://arxiv.org/abs/1502.03167 (statistics over the values of
      a batch)
    - Shen and others, PowerNorm, https://arxiv.org/abs/2003.07845 (batch statistics of padded sequences vary)
    """

    code = "ND712"
    name = "padding-in-statistics"
    category = "measured"
    severity = Severity.WARNING
    confidence = Confidence.MEDIUM
    requires = frozenset[str]()
    needs = frozenset({"padding"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """How far mean and variance may move: in standard deviations, and as a share of the variance."""

        shift: float = 0.05
        ratio: float = 0.1

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Name the first BatchNorm that counts padding."""
        found = [site for site in sites(graph, need="padding") if self._moves(site)]
        if found:
            yield self._finding(graph, found[0], [site.module for site in found[1:]])

    def _moves(self, site: Site) -> bool:
        figures = site.figures
        return bool(
            figures["shift"] > self.options.shift
            or not 1 - self.options.ratio < figures["ratio"] < 1 + self.options.ratio
        )

    def _finding(self, graph: Graph, site: Site, others: list[str]) -> Finding:
        figures = site.figures
        more = f" ({len(others)} further norms as well)" if others else ""
        return self.finding(
            graph,
            f"{site.named(graph)} counts padding: when the batch has {figures['longer']:.0%} of it in place "
            f"of {figures['share']:.0%}, the mean moves by {figures['shift']:.2g} standard deviations and "
            f"the variance to {figures['ratio']:.2g} of what it was{more}",
            node=site.node(graph),
            module=site.module,
            evidence={
                "shift": figures["shift"],
                "variance_ratio": figures["ratio"],
                "padding": figures["share"],
                "padding_of_longer": figures["longer"],
                "positions": figures["positions"],
                "added": figures["added"],
                "others": others,
                "source": site.source,
            },
            help="Normalize the valid positions alone: normdoctor.layers.MaskedBatchNorm(x, mask), or "
            "LayerNorm, which has no statistics over positions.",
        )
