"""ND511: channels that a trained norm has switched off."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.layers import NORMS, count


class DeadScale(Rule):
    """Scales of a norm that are all but zero beside their neighbours.

    ## What it does
    Finds channels of a norm whose gamma is below a thousandth of the median gamma of the layer, where
    the others differ from one another, as those of a trained layer do.

    ## Why is this bad?
    Such a channel hands on its bias and nothing else: the layer has fewer channels than it was built
    with, and weight decay on gamma (ND508) may have taken them. It is what pruning looks for.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),  # ND511
        nn.ReLU(),
    )
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.9, 1.1, 1e-6, 0.7, 1.3, 0.8, 1e-7, 1.2]))
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ## When to ignore
    Where channels were pruned on purpose.

    ## Options
    - `share`: the share of the median below which a scale counts as zero (0.001).

    ## References
    - Liu et al., 2017, "Learning Efficient Convolutional Networks through Network Slimming".
    """

    code = "ND511"
    name = "dead-scale"
    category = "state"
    severity = Severity.INFO
    requires = frozenset({"weights"})

    class Options(RuleOptions, frozen=True):
        """Which share of the median counts as zero."""

        share: float = 0.001

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at gamma of every norm."""
        weights = graph.facts.weights or {}
        for module in graph.facts.modules:
            known = weights.get(f"{module.path}.weight" if module.path else "weight")
            if module.base not in NORMS or known is None or not known.finite or len(known.values) < 4:
                continue
            if known.init is not None and known.init.distribution in ("uniform", "normal"):
                continue  # drawn, not trained
            sizes = [abs(value) for value in known.values]
            usual = median(sizes)
            dead = sum(size < self.options.share * usual for size in sizes)
            if dead and len({size for size in sizes if size > 0}) > 2:
                yield self.finding(
                    graph,
                    f"{module.type} {{modules}} has switched off {count(dead, 'channel')} of {len(sizes)}: "
                    f"gamma is below {self.options.share:g} of the median {usual:.3g}",
                    module=module.path,
                    evidence={"dead": dead, "channels": len(sizes), "median": usual},
                )
