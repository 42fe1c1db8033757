"""ND903: a norm whose train and eval behaviour follows the recording of gradients."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Applicability, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.byhand import by_hand


class ModeFromGradFlag(Rule):
    """A norm whose train and eval behaviour follows the recording of gradients.

    ## What it does
    Finds hand-written norms that take the statistics of the batch while gradients are recorded and
    running statistics otherwise, whatever `train()` and `eval()` say. The module is run by itself in
    all four combinations to see it.

    ## Why is this bad?
    `model.eval()` then has no effect. A saliency map, an adversarial attack or a fine-tuning of later
    layers in eval mode runs with batch statistics and overwrites the running ones; a forward under
    `no_grad` in train mode (a momentum encoder, the first pass of checkpointing, recalibration) silently
    takes running statistics.

    ## Example
    ```python bad
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
            mean, var = self.mean, self.var
            if torch.is_grad_enabled():
                mean, var = x.mean(0), x.var(0, unbiased=False)
                self.mean = 0.9 * self.mean + 0.1 * mean.detach()
                self.var = 0.9 * self.var + 0.1 * var.detach()
            return self.scale * (x - mean) / torch.sqrt(var + 1e-5) + self.shift  # ND903


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
            self.shift = nn.Parameter(torch.zeros(dim))
            self.register_buffer("mean", torch.zeros(dim))
            self.register_buffer("var", torch.ones(dim))

        def forward(self, x):
            mean, var = self.mean, self.var
            if self.training:
                mean, var = x.mean(0), x.var(0, unbiased=False)
                self.mean = 0.9 * self.mean + 0.1 * mean.detach()
                self.var = 0.9 * self.var + 0.1 * var.detach()
            return self.scale * (x - mean) / torch.sqrt(var + 1e-5) + self.shift


    model = nn.Sequential(nn.Linear(8, 16), BatchNorm(16), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(4, 8)
    ```

    ## When to ignore
    Where every forward without gradients is an evaluation, and every evaluation runs without gradients.

    ## References
    - Zhang, Lipton, Li and Smola, "Dive into Deep Learning", section 8.5, whose BatchNorm from scratch tells
      the modes apart by `torch.is_grad_enabled()`; many copies keep it.
    - torch.nn.Module.train, torch.nn.Module.eval: the flag that torch's own layers follow.
    """

    code = "ND903"
    name = "mode-from-grad-flag"
    category = "handwritten"
    severity = Severity.ERROR

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Compare the four modes of each confirmed norm that was run by itself."""
        for found in by_hand(graph):
            modes = found.norm.modes
            with_grad = {modes.get("train"), modes.get("eval")}
            without = {modes.get("train, no_grad"), modes.get("eval, no_grad")}
            if len(with_grad) == len(without) == 1 and with_grad == {"batch"} and without == {"running"}:
                yield self.finding(
                    graph,
                    f"{found.label} takes batch statistics while gradients are recorded and running ones "
                    "otherwise: train() and eval() change nothing",
                    module=found.module,
                    location=found.location,
                    evidence={"modes": modes},
                    fix=Fix(
                        title="Ask self.training instead of torch.is_grad_enabled()",
                        applicability=Applicability.DISPLAY,
                    ),
                )
