"""ND806: half-gradient-underflow."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.training import Trained, nothing_left, place_of, rounded, spread_over, trained


class HalfGradientUnderflow(base.Rule):
    """Gradients that fp16 rounds to zero.

    ## What it does
    Looks, in a watched training in fp16, at up to 1024 entries of each layer's gradient. Says so where in
    three looks or more most of them are zero, and most of the others are below 6.1e-5, the least normal
    number of fp16, and whole multiples of 6.0e-8, its least positive one: they were rounded to that grid, and
    the zeros were rounded away. Zeros of other causes (dead units, rows of a table that were not used)
    stand beside gradients of any size and are not meant. Layers with nothing but zeros are named beside
    such layers, or where no parameter of the model has a gradient at all.

    ## Why is this bad?
    What is below 3e-8 is lost. In fp32 those entries would not be zero.

    ## Example
    ```python bad
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 16),  # ND806
        nn.Tanh(),
        nn.Linear(16, 2),
    )


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(8):
            x = torch.randn(32, 8)
            with torch.autocast("cpu", dtype=torch.float16):
                output = model(x)
            loss = 2e-6 * output.float().pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    ```

    ```python good
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu")
        for _ in range(8):
            x = torch.randn(32, 8)
            with torch.autocast("cpu", dtype=torch.float16):
                output = model(x)
            loss = 2e-6 * output.float().pow(2).mean()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            watch.step(loss)
    ```

    ## When to ignore
    Never with fp16: scale the loss.

    ## References
    - Micikevicius et al., Mixed Precision Training, https://arxiv.org/abs/1710.03740 (loss scaling)
    """

    code = "ND806"
    name = "half-gradient-underflow"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"gradients"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """Shares of zeros, and of numbers on the grid among the others; the least evidence."""

        zeros: float = 0.5
        grid: float = 0.5
        looks: int = 3

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge the weights of all layers."""
        weights = [one for one in trained(graph) if one.is_matrix and one.figures.get("zeros")]
        shares = {one.name: rounded(one, self.options.looks) for one in weights}
        lost = [one for one in weights if shares[one.name][0] == 1]
        for one in weights:
            zeros, grid = shares[one.name]
            if self.options.zeros < zeros < 1 and grid > self.options.grid:
                yield self._finding(graph, one, zeros, grid)
        # Behind a rounded gradient there may be none at all; or nothing but zero comes from the loss.
        some = any(grid > self.options.grid for _, grid in shares.values())
        if lost and (some or nothing_left(graph, self.options.looks)):
            for one in lost if some else lost[-1:]:
                yield self._finding(graph, one, 1.0, 0.0)

    def _finding(self, graph: Graph, one: Trained, zeros: float, grid: float) -> Finding:
        told = (
            f"{zeros:.0%} of the gradient of {{modules}} are zero and {grid:.0%} of the rest are among the "
            "smallest numbers of fp16: the others were rounded to zero"
        )
        finding = self.finding(
            graph,
            told if zeros < 1 else "the gradient of {modules} is zero throughout in fp16",
            confidence=self.confidence if zeros < 1 else Confidence.MEDIUM,
            module=one.module,
            location=place_of(graph, one),
            evidence={"zeros": zeros, "grid": grid, "looks": one.looks, "parameter": one.name},
            help="Scale the loss with torch.amp.GradScaler, or use bfloat16.",
        )
        return spread_over(finding, [one.module])
