"""ND708: non-iid-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.batchstats import norm_sites, ratio_of_batches
from normdoctor.rules.sites import Site


class NonIidBatches(base.Rule):
    """Batches that differ from each other by more than independent samples would.

    ## What it does
    Compares, for each channel that a BatchNorm takes, the variance of the batches' means with what it would
    be if the batches held independent samples: the variance of the means of single samples within a batch,
    divided by the batch size. The ratio is 1 for shuffled data (an F test). Reported is the first layer
    whose median ratio over the channels is above 4 and has a probability below 1e-4 under chance, from 4
    batches on; where batches differ in size, as the last one may, each counts by its size (a one-way
    analysis of variance). Later layers get their input through norms that take the batch's mean out again.

    It needs data of the check: in a watched training the weights move between the batches.

    ## Why is this bad?
    Each batch is then normalized by statistics of its own kind (one class, one recording, one length), which
    the network learns to rely on; in eval mode it gets the statistics of all kinds mixed. It is as if the
    batches were that many times smaller. The usual causes are data that are sorted and not shuffled, batches
    of neighbouring windows of one recording, and batches of one domain each.

    ## Example
    The samples are sorted by their brightness:

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16),  # ND708
        nn.ReLU(),
    )
    inputs = torch.randn(16, 3, 8, 8)
    images = torch.randn(128, 3, 8, 8) + torch.linspace(-1, 1, 128).reshape(128, 1, 1, 1)
    data = list(images.split(16))
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    inputs = torch.randn(16, 3, 8, 8)
    images = torch.randn(128, 3, 8, 8) + torch.linspace(-1, 1, 128).reshape(128, 1, 1, 1)
    data = list(images[torch.randperm(128)].split(16))
    ```

    ## When to ignore
    When each batch is meant to be a domain with statistics of its own.

    ## References
    - Wu and Johnson, Rethinking "Batch" in BatchNorm, https://arxiv.org/abs/2105.07576, section 5
    - The F distribution by the approximation of Wilson and Hilferty, 1931
    """

    code = "ND708"
    name = "non-iid-batches"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"batch_norm"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The ratio of variances that is reported, its probability under chance, and the least evidence."""

        ratio: float = 4.0
        probability: float = 1e-4
        batches: int = 4

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report the first layer that sees it."""
        for site in norm_sites(graph):
            if site.source == "watch" or site.batches < self.options.batches or not site.figures["freedom"]:
                continue
            ratio = ratio_of_batches(site)
            if ratio is None or ratio <= self.options.ratio:
                continue
            chance = f_tail(ratio, site.batches - 1, site.figures["freedom"])
            if chance < self.options.probability:
                yield self._finding(graph, site, ratio, chance)
                return

    def _finding(self, graph: Graph, site: Site, ratio: float, chance: float) -> Finding:
        return self.finding(
            graph,
            f"the means of {site.of_batches} at {{modules}} vary {ratio:.1f} times as much as those of "
            f"batches of independent samples would (p = {chance:.1g}): the batches are sorted, or their "
            f"samples are alike",
            node=site.node(graph),
            module=site.module,
            evidence={
                "ratio": round(ratio, 3),
                "probability": chance,
                "batches": site.batches,
                "batch_sizes": site.figures["batch_sizes"],
                "source": site.source,
            },
            help="Shuffle the samples (DataLoader(shuffle=True)), or mix recordings and classes in a batch.",
        )


def f_tail(ratio: float, first: int, second: int) -> float:
    """The probability that an F variable with these degrees of freedom exceeds `ratio`."""
    a, b = 2 / (9 * first), 2 / (9 * second)
    root = ratio ** (1 / 3)
    z = ((1 - b) * root - (1 - a)) / math.sqrt(b * root * root + a)
    return 0.5 * math.erfc(z / math.sqrt(2))
