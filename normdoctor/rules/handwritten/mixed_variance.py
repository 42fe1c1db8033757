"""ND909: a norm by hand that tracks another variance than the one it divides by."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.byhand import by_hand


class MixedVariance(Rule):
    """A norm by hand that tracks another variance than the one it divides by.

    ## What it does
    Finds hand-written norms that divide by the unbiased variance (n - 1) in training and keep a running
    average of the biased one (n) for eval. The module is run for one step to see it.

    ## Why is this bad?
    Train and eval then differ by sqrt(n / (n - 1)), 2 % for 32 samples of one value each, and the running
    variance is too small on top. torch's BatchNorm does the opposite, on purpose: it divides by the
    biased variance of the batch, and tracks the unbiased one, which estimates the variance of all data.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class BatchNorm(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(dim))
            self.register_buffer("mean", torch.zeros(dim))
            self.register_buffer("var", torch.ones(dim))

        def forward(self, x):
            mean, var = self.mean, self.var
            if self.training:
                mean, var = x.mean(0), x.var(0)
                self.mean = 0.9 * self.mean + 0.1 * mean.detach()
                self.var = 0.9 * self.var + 0.1 * x.var(0, unbiased=False).detach()
            return self.scale * (x - mean) / torch.sqrt(var + 1e-5)  # ND909


    model = nn.Sequential(nn.Linear(8, 16), BatchNorm(16), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(4, 8)
    ```

    ```python good
    import torch
    from torch import nn


    class BatchNorm(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(dim))
            self.register_buffer("mean", torch.zeros(dim))
            self.register_buffer("var", torch.ones(dim))

        def forward(self, x):
            mean, var = self.mean, self.var
            if self.training:
                mean, var = x.mean(0), x.var(0, unbiased=False)
                self.mean = 0.9 * self.mean + 0.1 * mean.detach()
                self.var = 0.9 * self.var + 0.1 * x.var(0).detach()
            return self.scale * (x - mean) / torch.sqrt(var + 1e-5)


    model = nn.Sequential(nn.Linear(8, 16), BatchNorm(16), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(4, 8)
    ```

    ## When to ignore
    With large batches, where n and n - 1 are the same for all purposes. The rule is silent where one
    variance serves both, and where they are mixed as torch mixes them.

    ## References
    - torch.nn.BatchNorm1d: the variance of the forward is biased, the one in the moving average unbiased.
    - Ioffe and Szegedy, 2015, "Batch Normalization", algorithm 2: Var[x] = m / (m - 1) E[var].
    """

    code = "ND909"
    name = "mixed-variance"
    category = "handwritten"
    severity = Severity.INFO

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Compare what is divided by with what is tracked."""
        for found in by_hand(graph):
            norm = found.norm
            if norm.unbiased and norm.tracked_unbiased is False:
                yield self.finding(
                    graph,
                    f"{found.label} divides by the unbiased variance and tracks the biased one",
                    module=found.module,
                    location=found.location,
                    evidence={"tracked": list(norm.tracked)},
                )
