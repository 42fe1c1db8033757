"""ND209: an eps above the variance that a trained layer has seen."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.layers import number


class NormalizationEpsilonDominates(Rule):
    """An eps that is larger than the variance of many channels.

    ## What it does
    Compares the eps of a BatchNorm with its own running variance, and reports layers where eps is the
    larger one in more than a tenth of the channels. Layers whose running variance is still that of a
    new layer say nothing.

    ## Why is this bad?
    Such a channel is divided by the root of eps, not by its own deviation: it is not normalized. Its
    output is smaller than meant, by any factor, and that factor changes with the scale of the input.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8, eps=1e-3),  # ND209
        nn.ReLU(),
    )
    model[1].running_var.copy_(torch.tensor([1e-5, 2e-5, 3e-4, 0.1, 0.2, 0.1, 0.4, 0.3]))
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU())
    model[1].running_var.copy_(torch.tensor([0.5, 0.2, 0.3, 0.1, 0.2, 0.1, 0.4, 0.3]))
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ## When to ignore
    Where the channels in question are dead and meant to be.

    ## Options
    - `share`: the share of channels that is too much (0.1).

    ## References
    - Ioffe and Szegedy, 2015, "Batch Normalization", algorithm 1: eps is there for numerical stability.
    """

    code = "ND209"
    name = "normalization-epsilon-dominates"
    category = "configuration"
    requires = frozenset({"weights"})

    class Options(RuleOptions, frozen=True):
        """Which share of channels is too much."""

        share: float = 0.1

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Compare eps with running_var, layer by layer."""
        weights = graph.facts.weights or {}
        for module in graph.facts.modules:
            eps = number(module.config.get("eps"))
            known = weights.get(f"{module.path}.running_var" if module.path else "running_var")
            if eps is None or known is None or not known.values or known.minimum == known.maximum:
                continue
            below = sum(0 <= value < eps for value in known.values)
            if below > self.options.share * len(known.values):
                yield self.finding(
                    graph,
                    f"eps {eps:g} of {{modules}} exceeds the running variance in {below} of "
                    f"{len(known.values)} channels: they are not normalized",
                    module=module.path,
                    evidence={"eps": eps, "channels": len(known.values), "below": below},
                )
