"""ND802: exploding-gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.training import matrices, place_of, profiles, spread_over, trained


class ExplodingGradient(base.Rule):
    """A gradient far above all others, or far above what it was.

    ## What it does
    Judges, in a watched training, the gradients as the optimizer gets them:

    - the root mean square of one layer's gradient is above 1e4 times that of each of the last
      quarter of the layers, and of the lower quartile of all, in each of the last three looks;
    - the norm of the whole gradient is above 100 times its median over the earlier looks, in each of the
      last two looks.

    The backward comes from the last layers, so a gradient that explodes is small there. The median of all
    layers is no measure: most of them may stand in branches that start near zero (LayerScale).

    ## Why is this bad?
    One step along such a gradient undoes what was learned, or ends in NaN. Within a network, gradients that
    grow from layer to layer towards the input say that the layers amplify: their weights are too large.

    ## Example
    A learning rate at which each step overshoots by more than it corrects:

    ```python bad
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 4))  # ND802


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
        for _ in range(10):
            x = torch.randn(32, 16)
            loss = nn.functional.mse_loss(model(x), x[:, :4])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    ```

    ```python good
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 4))


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(10):
            x = torch.randn(32, 16)
            loss = nn.functional.mse_loss(model(x), x[:, :4])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    ```

    ## When to ignore
    When rare batches are known to have a large loss and the gradient is clipped anyway.

    ## References
    - Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013
    - Philipp, Song and Carbonell, The exploding gradient problem demystified, https://arxiv.org/abs/1712.05577
    """

    code = "ND802"
    name = "exploding-gradient"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"gradients"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """Multiples of the median and of earlier looks, and the least evidence."""

        times: float = 1e4
        growth: float = 100.0
        looks: int = 3
        earlier: int = 4
        layers: int = 5

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge each layer beside the others, and the whole beside its past."""
        yield from self._layers(graph)
        yield from self._growth(graph)

    def _layers(self, graph: Graph) -> Iterator[Finding]:
        weights = matrices(graph, self.options.looks)
        looks = profiles(weights)[-self.options.looks :]
        if len(weights) < self.options.layers or len(looks) < self.options.looks:
            return
        large = [
            place
            for place in range(len(weights))
            if all(look.values[place] > self.options.times * max(look.low, look.top) for look in looks)
        ]
        if not large:
            return
        values, usual = looks[-1].values, max(looks[-1].low, looks[-1].top)
        place = large[-1]  # the backward reaches it first
        one = weights[place]
        finding = self.finding(
            graph,
            f"the gradient of `{one.name}` explodes: its RMS is {values[place]:.2g}, "
            f"{values[place] / usual:.1g} times what is usual in the {len(weights)} layers at the last looks",
            module=one.module,
            location=place_of(graph, one),
            evidence={
                "rms": values[place],
                "usual": usual,
                "looks": one.looks,
                "profile": {other.name: value for other, value in zip(weights, values, strict=True)},
            },
            help="Check the init and the scale of this layer; normalize, or clip the gradient.",
        )
        yield spread_over(finding, [one.module, *(weights[other].module for other in reversed(large))])

    def _growth(self, graph: Graph) -> Iterator[Finding]:
        rows = zip(*(one.figures["norms"] for one in trained(graph)), strict=True)
        totals = [math.sqrt(sum(value * value for value in row if value is not None)) for row in rows]
        totals = [value for value in totals if value > 0]
        if len(totals) < self.options.earlier + 2 or not all(math.isfinite(value) for value in totals):
            return
        *earlier, before, last = totals
        usual = median(earlier)
        if min(before, last) <= max(self.options.growth * usual, *totals[: len(totals) // 2]):
            return
        yield self.finding(
            graph,
            f"the gradient has grown from {usual:.2g} (median of {len(earlier)} earlier looks) to {last:.2g}",
            module="",
            location=graph.modules[""].origin if "" in graph.modules else None,
            evidence={"norm": last, "usual": usual, "growth": last / usual, "looks": len(totals)},
            help="Lower the learning rate or warm it up, and clip the gradient.",
        )
