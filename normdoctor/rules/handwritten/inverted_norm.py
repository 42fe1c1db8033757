"""ND906: a norm by hand that multiplies where it should divide."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.byhand import NAMES, by_hand


class InvertedNorm(Rule):
    """A norm by hand that multiplies where it should divide.

    ## What it does
    Finds code that centres its input, or takes its mean square with an eps, and then multiplies by the
    root instead of dividing by it: `(x - mean) / torch.rsqrt(var + eps)` or `x * torch.sqrt(ms + eps)`. It
    was run in float64 and equals `(x - mean) * sqrt(var + eps)`.

    ## Why is this bad?
    Instead of bringing every input to one scale it squares the differences between scales: a layer that
    is twice as large comes out four times as large, and a stack of such layers explodes or dies out.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class LayerNorm(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(dim))

        def forward(self, x):
            mean = x.mean(-1, keepdim=True)
            var = x.var(-1, keepdim=True, unbiased=False)
            return self.scale * (x - mean) / torch.rsqrt(var + 1e-5)  # ND906


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

        def forward(self, x):
            mean = x.mean(-1, keepdim=True)
            var = x.var(-1, keepdim=True, unbiased=False)
            return self.scale * (x - mean) * torch.rsqrt(var + 1e-5)


    model = nn.Sequential(nn.Linear(8, 16), LayerNorm(16), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(4, 8)
    ```

    ## When to ignore
    Where a gate by the norm of its input is what you want. The rule is silent on `x * x.std()`, which
    neither centres its input nor adds an eps.

    ## References
    - Ba, Kiros and Hinton, 2016, "Layer Normalization", equation 3: the factor is 1 / sigma.
    """

    code = "ND906"
    name = "inverted-norm"
    category = "handwritten"
    severity = Severity.ERROR

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report each norm whose numbers fit the inverted formula."""
        for found in by_hand(graph):
            norm = found.norm
            if norm.inverted:
                name = NAMES[norm.kind]
                yield self.finding(
                    graph,
                    f"{found.label} multiplies by the root of the variance where {name} divides by it",
                    module=found.module,
                    location=found.location,
                    evidence={"reduced": list(norm.reduced), "eps": norm.eps, "centred": norm.centred},
                )
