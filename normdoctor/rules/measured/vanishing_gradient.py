"""ND801: vanishing-gradient."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.training import Profile, Trained, matrices, place_of, profiles, spread_over


class VanishingGradient(base.Rule):
    """The gradient fades on its way back to the first layers.

    ## What it does
    Compares, in a watched training, the root mean square of the gradient of every layer's weight with the
    median over all layers, or over the last quarter of them if that is larger. Says so where the first
    layers, without a gap from the input on, stay below 1e-4 of it in each of the last three looks.
    Gradients are read as the optimizer gets them; a common factor (a `GradScaler`, clipping by norm) plays
    no part.

    Layers in the middle whose gradient is small while the first ones learn are not judged: branches behind
    a LayerScale or a gamma that starts at zero are meant to be so. An exact zero is ND803.

    ## Why is this bad?
    Each layer multiplies the gradient by its weights and by the slope of its activation. Where that product
    is below one, the gradient falls geometrically with depth: layers that get a ten-thousandth of the others'
    gradient stay at their random values with SGD, and follow rounding noise with Adam.

    ## Example
    A sigmoid has a slope of at most 1/4:

    ```python bad
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 16),  # ND801
        *[layer for _ in range(12) for layer in (nn.Sigmoid(), nn.Linear(16, 16))],
        nn.Linear(16, 2),
    )


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(8):
            x = torch.randn(32, 16)
            loss = nn.functional.cross_entropy(model(x), (x.sum(1) > 0).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    ```

    ```python good
    import torch
    from torch import nn

    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(16, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU()) for _ in range(12)]
    model = nn.Sequential(*blocks, nn.Linear(16, 2))


    def train(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(8):
            x = torch.randn(32, 16)
            loss = nn.functional.cross_entropy(model(x), (x.sum(1) > 0).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    ```

    ## When to ignore
    When the first layers are pretrained and a small gradient suits them.

    ## References
    - Hochreiter, Untersuchungen zu dynamischen neuronalen Netzen, 1991
    - Bengio, Simard and Frasconi, Learning long-term dependencies with gradient descent is difficult, 1994
    - Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010
    """

    code = "ND801"
    name = "vanishing-gradient"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"gradients"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The share of the median, and the least evidence."""

        share: float = 1e-4
        looks: int = 3
        layers: int = 5

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge the first layers together."""
        weights = matrices(graph, self.options.looks)
        looks = profiles(weights)[-self.options.looks :]
        if len(weights) < self.options.layers or len(looks) < self.options.looks:
            return
        faint: list[Trained] = []
        for place, one in enumerate(weights):
            if not all(0 < look.values[place] < self.options.share * reference(look) for look in looks):
                break
            faint.append(one)
        if faint:
            yield self._finding(graph, weights, faint, looks[-1])

    def _finding(self, graph: Graph, weights: list[Trained], faint: list[Trained], look: Profile) -> Finding:
        values, usual = look.values, reference(look)
        first = faint[0]
        others = f" (and of {len(faint) - 1} more layers behind it)" if len(faint) > 1 else ""
        finding = self.finding(
            graph,
            f"the gradient of `{first.name}`{others} fades: its RMS is {values[0]:.2g}, "
            f"{values[0] / usual:.1g} of what is usual in the {len(weights)} layers at the last looks",
            module=first.module,
            location=place_of(graph, first),
            evidence={
                "rms": values[0],
                "usual": usual,
                "layers": len(faint),
                "looks": first.looks,
                "profile": {one.name: value for one, value in zip(weights, values, strict=True)},
            },
            help="Use ReLU-like activations, normalization or residual connections, and an init that keeps "
            "the variance.",
        )
        return spread_over(finding, [one.module for one in faint])


def reference(look: Profile) -> float:
    """What a gradient is compared with: where most layers are faint, the last ones are not."""
    return max(look.median, look.tail)
