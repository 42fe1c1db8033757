"""ND804: update-ratio."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.training import Trained, place_of, spread_over, trained

_NEAR = "About 1e-3 is usual: change the learning rate by that factor."
_FAR = "About 1e-3 is usual; no learning rate makes up for that: look for where the gradient is lost (ND801)."


class UpdateRatio(base.Rule):
    """Steps that are far too large or far too small for the weights that they change.

    ## What it does
    Takes, in a watched training, a sample of each layer's weight before and after the optimizer's step and
    compares norm(update) with norm(weight). About 1e-3 is usual. Says so where the median over ten looks or
    more is above 0.1 or below 1e-6. Weights that do not move at all are ND805.

    ## Why is this bad?
    A step of a tenth of the weight replaces the weight in ten steps: the learning rate is too high for this
    layer. A step of a millionth needs a million steps to change it.

    ## Example
    ```python bad
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 16),  # ND804
        nn.ReLU(),
        nn.Linear(16, 2),  # ND804
    )


    def train(watch):
        optimizer = torch.optim.Adam(model.parameters(), lr=1.0)
        for _ in range(15):
            x = torch.randn(32, 8)
            loss = nn.functional.cross_entropy(model(x), torch.randint(2, (32,)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    ```

    ```python good
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))


    def train(watch):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(15):
            x = torch.randn(32, 8)
            loss = nn.functional.cross_entropy(model(x), torch.randint(2, (32,)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    ```

    ## When to ignore
    During warm-up, at the end of a schedule, and for weights in front of a norm, whose scale plays no part.

    ## References
    - Karpathy, CS231n: Neural Networks Part 3, ratio of weights and updates ("somewhere around 1e-3").
    """

    code = "ND804"
    name = "update-ratio"
    category = "measured"
    severity = Severity.INFO
    requires = frozenset[str]()
    needs = frozenset({"updates"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """Bounds of norm(update) / norm(weight), and the least evidence."""

        low: float = 1e-6
        high: float = 1e-1
        looks: int = 10

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge the weights of all layers."""
        high, low = [], []
        for one in trained(graph, "updates"):
            ratios = [ratio for ratio in one.figures["ratios"] if ratio is not None]
            if not one.is_matrix or len(ratios) < self.options.looks:
                continue
            middle = median(ratios)
            if middle > self.options.high:
                high.append((one, middle))
            elif 0 < middle < self.options.low and one.figures["rate"] != 0:
                low.append((one, middle))
        for found, word in ((high, "above"), (low, "below")):
            yield from (self._finding(graph, one, ratio, word) for one, ratio in found)

    def _finding(self, graph: Graph, one: Trained, ratio: float, word: str) -> Finding:
        bound = self.options.high if word == "above" else self.options.low
        rate = one.figures["rate"]
        small = rate is not None and rate < self.options.low
        finding = self.finding(
            graph,
            f"a step changes the weight of {{modules}} by {ratio:.2g} of its norm, {word} {bound:g}"
            + (f" (learning rate {rate:g})" if rate is not None else ""),
            module=one.module,
            location=place_of(graph, one),
            evidence={"ratio": ratio, "rate": rate, "looks": one.looks},
            help=_FAR if ratio < self.options.low / 100 and not small else _NEAR,
        )
        return spread_over(finding, [one.module])
