"""ND905: a norm by hand without an epsilon, or with one outside the root."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.byhand import NAMES, by_hand, in_a_loss


class EpsMisplaced(Rule):
    """A norm by hand without an epsilon, or with one outside the root.

    ## What it does
    Finds hand-written norms that divide by a root to which no eps is added (a warning), and those that
    add eps behind the root instead of under it (an info).

    ## Why is this bad?
    Without eps a constant input, such as a padded token or an image of one colour, is divided by zero:
    the output is NaN, and with it every gradient of the step. Behind the root, eps acts otherwise than in
    torch's layers: 1e-6 beside a standard deviation is what 1e-12 is beside a variance. Weights move to
    torch's layers, or back, with small differences, and the gradient of the root is still infinite at
    zero.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class LayerNorm(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(dim))

        def forward(self, x):
            return self.scale * (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)  # ND905


    model = nn.Sequential(nn.Linear(8, 16), LayerNorm(16), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(4, 8)
    ```

    ```python bad
    import torch
    from torch import nn


    class RMSNorm(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(dim))

        def forward(self, x):
            rms = x.pow(2).mean(-1, keepdim=True).sqrt()
            return self.weight * x / (rms + 1e-6)  # ND905


    model = nn.Sequential(nn.Linear(8, 16), RMSNorm(16), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(4, 8)
    ```

    ```python good
    import torch
    from torch import nn


    class RMSNorm(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(dim))

        def forward(self, x):
            return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


    model = nn.Sequential(nn.Linear(8, 16), RMSNorm(16), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(4, 8)
    ```

    ## When to ignore
    Where a published model is reproduced that has eps outside. The rule is silent on division by the L2
    norm alone (`x / x.norm(dim=-1, keepdim=True)`), which many models do without eps, and on a lower bound
    (`clamp`), which serves as well.

    ## References
    - Ba, Kiros and Hinton, 2016, "Layer Normalization"; Zhang and Sennrich, 2019, "Root Mean Square Layer
      Normalization". torch.nn.LayerNorm and torch.nn.RMSNorm add eps under the root.
    - allenai/OLMo issue 281: eps outside the root of an RMSNorm.
    """

    code = "ND905"
    name = "eps-misplaced"
    category = "handwritten"

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at where eps stands in each confirmed norm."""
        for found in by_hand(graph):
            norm = found.norm
            if norm.kind == "normalize" or norm.frozen or norm.inverted or in_a_loss(graph, found):
                continue
            what = NAMES[norm.kind]
            zero = "zeros" if norm.kind == "rms_norm" else "a constant input"
            if norm.eps_place == "none" and not self._guarded(graph, norm.nodes):
                told = f"{found.label} adds no eps: {what} of {zero} divides by zero"
                grave = bool(norm.kind)
            elif norm.eps_place == "outside":
                told = f"{found.label} adds eps {norm.eps:g} behind the root; torch's layers add it under it"
                grave = False
            else:
                continue
            yield self.finding(
                graph,
                told,
                module=found.module,
                location=found.location,
                severity=Severity.WARNING if grave else Severity.INFO,
                evidence={"eps": norm.eps, "place": norm.eps_place},
            )

    @staticmethod
    def _guarded(graph: Graph, nodes: tuple[int, ...]) -> bool:
        """Is something else done about a zero?"""
        return any(graph.nodes[one].kind in ("nan_to_num", "clamp", "maximum", "max") for one in nodes)
