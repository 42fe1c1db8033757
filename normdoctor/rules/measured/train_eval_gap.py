"""ND702: train-eval-gap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.sites import Site


class TrainEvalGap(base.Rule):
    """Outputs that differ between batch statistics and running statistics.

    ## What it does
    Runs the model in eval mode twice on the same batch: once with every BatchNorm on its running statistics,
    once on those of the batch, and compares the outputs. The statistics of a batch differ from another's by
    chance; how much that moves the outputs is measured by normalizing each half of the batch by itself. A
    gap above a quarter of the outputs' standard deviation and above three times that noise is reported. The
    layers go over to the batch's statistics one after the other, from the first to the last; the finding
    stands at the one with which the gap falls most.

    Networks with running statistics that are initial, or hold a part of their initial values still (fewer
    than 100 batches at the usual momentum), are silent.

    ## Why is this bad?
    What was trained is the network on batch statistics, and what is used is the one on running statistics:
    where they are two functions, the accuracy in training says nothing about that in use. Causes are stale
    statistics (ND703 names them), batches whose samples depend on each other (ND708), and batches that are
    too small (ND701).

    ## Example
    The weights in front of the norm grew after the statistics had been taken:

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32, bias=False),
        nn.BatchNorm1d(32),  # ND702
        nn.ReLU(),
        nn.Linear(32, 4),
    )
    for _ in range(100):
        model(torch.randn(256, 16))
    with torch.no_grad():
        model[0].weight.mul_(4.0)
    inputs = torch.randn(256, 16)
    data = [torch.randn(256, 16) for _ in range(4)]
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(16, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    for _ in range(100):
        model(torch.randn(256, 16))
    inputs = torch.randn(256, 16)
    data = [torch.randn(256, 16) for _ in range(4)]
    ```

    ## When to ignore
    When the data of the check are not those that the model is for.

    ## References
    - Wu and Johnson, Rethinking "Batch" in BatchNorm, https://arxiv.org/abs/2105.07576 (train-test
      inconsistency)
    - Ioffe, Batch Renormalization, https://arxiv.org/abs/1702.03275
    """

    code = "ND702"
    name = "train-eval-gap"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"train_eval_gap"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The gap that is reported, in standard deviations of the outputs and in units of batch noise."""

        gap: float = 0.25
        noise: float = 3.0

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge the model as a whole; the finding stands at the layer that contributes most."""
        measurements = graph.facts.measurements or {}
        found = measurements.get("train_eval_gap", {}).get("model")
        if found and found["gap"] > max(self.options.gap, self.options.noise * found["noise"]):
            yield self._finding(graph, found, measurements.get("run", {}).get("source", "data"))

    def _finding(self, graph: Graph, found: dict[str, Any], source: str) -> Finding:
        first = found["layers"][0]
        site = Site("", first, source)
        return self.finding(
            graph,
            f"with batch statistics in place of running ones the outputs change by {found['gap']:.2g} of "
            f"their standard deviation, where batch noise explains {found['noise']:.2g}; most of it "
            f"({first['gap']:.2g}) arises at {{modules}}",
            node=site.node(graph),
            module=site.module,
            evidence={
                "gap": found["gap"],
                "noise": found["noise"],
                "batches": found["batches"],
                "batch_size": found["batch_size"],
                "layers": {layer["module"]: layer["gap"] for layer in found["layers"]},
                "source": source,
            },
            help="Take exact statistics with normdoctor.recalibrate(model, data), and compare again.",
        )
