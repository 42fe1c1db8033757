"""ND902: a norm by hand that takes its statistics over the batch in eval mode too."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.axes import words
from normdoctor.rules.base import Rule
from normdoctor.rules.byhand import ByHand, by_hand, reaches_output


class NormOverBatch(Rule):
    """A norm by hand that takes its statistics over the batch in eval mode too.

    ## What it does
    Finds hand-written norms that reduce the batch axis and go on doing so in eval mode, since they keep
    no running statistics or do not use them. The module is run by itself in both modes to see it.

    ## Why is this bad?
    A sample's output then depends on the samples beside it. Predictions change with the size and the
    order of the batches, and a batch of one sample gives zeros or NaN. Often the axis is a slip: a
    LayerNorm that takes `dim=0` for the features.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class LayerNorm(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(dim))
            self.shift = nn.Parameter(torch.zeros(dim))

        def forward(self, x):
            mean = x.mean(0, keepdim=True)
            std = x.std(0, keepdim=True)
            return self.scale * (x - mean) / (std + 1e-6) + self.shift  # ND902


    model = nn.Sequential(nn.Linear(8, 16), LayerNorm(16), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(4, 8)
    ```

    ```python good
    import torch
    from torch import nn


    class LayerNorm(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(dim))
            self.shift = nn.Parameter(torch.zeros(dim))

        def forward(self, x):
            mean = x.mean(-1, keepdim=True)
            std = x.std(-1, keepdim=True)
            return self.scale * (x - mean) / (std + 1e-6) + self.shift


    model = nn.Sequential(nn.Linear(8, 16), LayerNorm(16), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(4, 8)
    ```

    A BatchNorm with running statistics does not depend on the batch in eval mode:

    ```python good
    import torch
    from torch import nn


    class BatchNorm(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(dim))
            self.shift = nn.Parameter(torch.zeros(dim))
            self.register_buffer("mean", torch.zeros(dim))
            self.register_buffer("var", torch.ones(dim))

        def forward(self, x):
            if self.training:
                mean, var = x.mean(0), x.var(0, unbiased=False)
                with torch.no_grad():
                    self.mean.lerp_(mean, 0.1)
                    self.var.lerp_(var, 0.1)
            else:
                mean, var = self.mean, self.var
            return self.scale * (x - mean) / torch.sqrt(var + 1e-5) + self.shift


    model = nn.Sequential(nn.Linear(8, 16), BatchNorm(16), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(4, 8)
    ```

    ## When to ignore
    Where whole batches are meant to be standardized together. The rule is silent where the batch axis
    is not known for certain, where the result only goes into a loss that the model computes (the
    standardized features of Barlow Twins and VICReg), and where it is returned without scale and shift.

    ## References
    - Ioffe and Szegedy, 2015, "Batch Normalization", section 3.1: inference takes population statistics.
    - Ba, Kiros and Hinton, 2016, "Layer Normalization": statistics over the features of one sample.
    """

    code = "ND902"
    name = "norm-over-batch"
    category = "handwritten"
    severity = Severity.ERROR

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at the axes of each confirmed norm, and at what it does in eval mode."""
        for found in by_hand(graph):
            norm = found.norm
            if norm.frozen or norm.inverted or not self._over_batch(found):
                continue
            if not self._stays(graph, found) or not reaches_output(graph, found.output):
                continue
            bare = not norm.scales and not norm.shifts
            if bare and any(reader.op == "output" for reader in graph.readers(found.output)):
                continue
            aside = norm.kind == "normalize" or (bare and graph.through(found.input).op == "placeholder")
            size = found.input.shape[0]
            yield self.finding(
                graph,
                f"{found.label} takes its statistics over the batch (axis 0, {size} samples) in eval mode "
                "too: each sample's output depends on the others",
                module=found.module,
                location=found.location,
                severity=Severity.WARNING if aside else None,
                evidence={"reduced": list(norm.reduced), "batch": size, "modes": norm.modes},
                help="Reduce the features' axes, or keep running statistics and use them in eval mode.",
            )

    @staticmethod
    def _over_batch(found: ByHand) -> bool:
        """Is a reduced axis certainly that of the batch?"""
        axes = found.input.axes
        return any("batch" in words(axes[axis]) for axis in found.norm.reduced if axis < len(axes))

    @staticmethod
    def _stays(graph: Graph, found: ByHand) -> bool:
        """Are the statistics those of the batch in eval mode, whether gradients are recorded or not?"""
        modes = found.norm.modes
        if modes:
            return modes.get("eval") == modes.get("eval, no_grad") == "batch"
        return not graph.facts.training
