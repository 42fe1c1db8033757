"""ND709: accumulation-small-batch."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.batchstats import effective, error_of_mean, norm_sites, smallest_batch, usual_batch
from normdoctor.rules.smallbatch import WARNING
from normdoctor.rules.training import modes


class AccumulationSmallBatch(base.Rule):
    """Gradients are accumulated over batches that are too small for BatchNorm.

    ## What it does
    Says, in a watched training with several forwards to one step of the optimizer, which BatchNorms
    normalize by micro-batches whose mean is off by more than 0.18 standard deviations (ND701).

    ## Why is this bad?
    Accumulation makes the gradient that of a large batch, and nothing else. Each forward is normalized by the
    statistics of its micro-batch alone: to BatchNorm the batch is as small as it was.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(8, 16, bias=False),
        nn.BatchNorm1d(16),  # ND709
        nn.ReLU(),
        nn.Linear(16, 2),
    )


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(8):
            optimizer.zero_grad()
            for _ in range(8):
                x = torch.randn(4, 8)
                loss = nn.functional.cross_entropy(model(x), (x.sum(1) > 0).long()) / 8
                loss.backward()
            optimizer.step()
            watch.step(loss)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 2))


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(8):
            optimizer.zero_grad()
            for _ in range(8):
                x = torch.randn(4, 8)
                loss = nn.functional.cross_entropy(model(x), (x.sum(1) > 0).long()) / 8
                loss.backward()
            optimizer.step()
            watch.step(loss)
    ```

    ## When to ignore
    When the forwards of one step are no accumulation: the real and the made-up batch of a discriminator.

    ## References
    - Wu and He, Group Normalization, https://arxiv.org/abs/1803.08494
    """

    code = "ND709"
    name = "accumulation-small-batch"
    category = "measured"
    severity = Severity.INFO
    requires = frozenset[str]()
    needs = frozenset({"batch_norm", "modes"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The standard error of the batch mean, in standard deviations, and the least evidence."""

        error: float = WARNING
        samples: int = 8
        steps: int = 3

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge every BatchNorm, where steps are made of several forwards."""
        run = modes(graph)
        counts = {int(count): steps for count, steps in (run or {}).get("forwards", {}).items()}
        if not counts:
            return
        usual = max(counts, key=lambda count: (counts[count], count))
        if usual < 2 or counts[usual] < self.options.steps:
            return
        measured = (graph.facts.measurements or {}).get("run", {})
        for site in norm_sites(graph):
            per_sample = effective(site)
            if not site.figures["training"] or per_sample is None or site.observations < self.options.samples:
                continue
            batch = usual_batch(site, measured)
            error = error_of_mean(per_sample, batch)
            if error > self.options.error:
                needed = smallest_batch(per_sample, self.options.error)
                yield self.finding(
                    graph,
                    f"{{modules}} normalizes by micro-batches of {batch}, {usual} to a step: their mean "
                    f"is off by {error:.2f} standard deviations; accumulation does not help, a "
                    f"micro-batch of {needed} would",
                    node=site.node(graph),
                    module=site.module,
                    evidence={"batch": batch, "forwards": usual, "error_of_mean": error, "passes": needed},
                    help="Use GroupNorm or LayerNorm, or freeze its statistics.",
                )
