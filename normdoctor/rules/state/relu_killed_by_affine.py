"""ND512: a ReLU that the norm in front of it keeps shut."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.layers import count, scale_and_shift

_SHUT = frozenset({"relu", "relu6"})


class ReluKilledByAffine(Rule):
    """A channel whose gamma and beta keep the ReLU behind it at zero, whatever the data.

    ## What it does
    Finds norms whose only reader is a ReLU, with channels in which beta + 4 |gamma| is zero or below.

    ## Why is this bad?
    What a norm puts out has mean beta and standard deviation |gamma|: at four standard deviations below
    zero 3 values of 100,000 pass the ReLU. The channel is dead, and hardly gets a gradient to
    wake up. With gamma = beta = 0 it never does: the ReLU's gradient at 0 is 0. That is why the
    zero-gamma of residual nets belongs to a norm that goes straight into the sum.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),  # ND512
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
    )
    nn.init.zeros_(model[1].weight)
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ```python good
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(8)
            nn.init.zeros_(self.norm.weight)

        def forward(self, x):
            return torch.relu(x + self.norm(self.conv(x)))


    model = Block()
    inputs = torch.randn(4, 8, 8, 8)
    ```

    ## When to ignore
    Where channels were pruned this way.

    ## Options
    - `deviations`: how many standard deviations below zero count as dead (4).

    ## References
    - The normal distribution: P(z > 4) = 3.2e-5.
    - Goyal et al., 2017, "Accurate, Large Minibatch SGD", section 5.1: gamma = 0 for the last norm of a
      residual branch.
    """

    code = "ND512"
    name = "relu-killed-by-affine"
    category = "state"
    requires = frozenset({"graph", "weights"})

    class Options(RuleOptions, frozen=True):
        """How far below zero a channel counts as dead."""

        deviations: float = 4.0

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at gamma and beta of each norm in front of a ReLU."""
        weights = graph.facts.weights or {}
        done: set[str] = set()
        for norm in graph.norms:
            reader = graph.reader(norm.output)
            gamma, beta = scale_and_shift(norm.output)
            known, shift = weights.get(gamma or ""), weights.get(beta or "")
            if reader is None or reader.kind not in _SHUT or known is None or gamma is None or gamma in done:
                continue
            done.add(gamma)
            if not known.values or (shift is not None and len(shift.values) != len(known.values)):
                continue
            shifts = shift.values if shift is not None else (1.0,) * len(known.values)
            limit = self.options.deviations
            dead = sum(b + limit * abs(g) <= 0 for g, b in zip(known.values, shifts, strict=True))
            if dead:
                yield self.finding(
                    graph,
                    f"{graph.named(norm.output)} keeps {count(dead, 'channel')} of {len(shifts)} at zero "
                    f"behind its {reader.kind}: beta + {limit:g} |gamma| is not above 0",
                    node=norm.output,
                    evidence={"dead": dead, "channels": len(shifts)},
                )
