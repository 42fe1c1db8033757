"""ND615: unscaled-input."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.signals import Signals
from normdoctor.rules.sites import Site

#: What may stand between an input and the layer that it is fed to.
_BETWEEN = frozenset("pad dropout cat stack getitem chunk split expand repeat unfold slice narrow".split())


class UnscaledInput(base.Rule):
    """The data that the model is fed are not scaled.

    ## What it does
    Measures the model's own inputs. Reported is one that a layer with weights takes as it is, if its
    standard deviation is above 10, or abs(mean)/std above 5. Inputs that a norm takes first, that the
    forward scales itself, and constant ones are left out. Made-up data say nothing of this.

    ## Why is this bad?
    Initializations assume inputs with mean zero and variance one. Pixels from 0 to 255 make the first
    layer's outputs and gradients a hundred times too large; with a mean far from zero all units of
    the first layer move together, and its loss surface is badly conditioned.

    ## Example

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),  # ND615
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 4),
    )
    inputs = torch.rand(16, 3, 8, 8)
    data = [torch.randint(256, (16, 3, 8, 8)).float() for _ in range(4)]
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    inputs = torch.rand(16, 3, 8, 8)
    data = [torch.randint(256, (16, 3, 8, 8)).float() / 255 for _ in range(4)]
    ```

    ## When to ignore
    When the first layer was trained or initialized for data of this scale.

    ## References
    - LeCun, Bottou, Orr and Muller, Efficient BackProp, 1998, section 4.3
    """

    code = "ND615"
    name = "unscaled-input"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset({"graph"})
    needs = frozenset({"units"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The largest standard deviation, and the largest ratio of mean and standard deviation."""

        std: float = 10.0
        ratio: float = 5.0

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge every input of floating point numbers."""
        signals = Signals(graph)
        for site in signals.of_role("input"):
            mean, std = site.figures["mean"], site.figures["std"]
            if (
                site.synthetic
                or std == 0
                or (std <= self.options.std and abs(mean) <= self.options.ratio * std)
            ):
                continue
            place = signals.node(site)
            layer = _layer(graph, place) if place is not None else None
            if place is not None and layer is not None:
                yield self._finding(graph, site, place, layer)

    def _finding(self, graph: Graph, site: Site, place: Node, layer: Node) -> Finding:
        mean, std = site.figures["mean"], site.figures["std"]
        return self.finding(
            graph,
            f"the input `{place.name}` has mean {mean:.4g} and standard deviation {std:.4g} over "
            f"{site.of_batches}, from {site.figures['minimum']:.4g} to {site.figures['maximum']:.4g}, and "
            f"{graph.named(layer)} takes it as it is",
            node=layer,
            evidence={
                "mean": mean,
                "std": std,
                "ratio": abs(mean) / std,
                "minimum": site.figures["minimum"],
                "maximum": site.figures["maximum"],
                "batches": site.batches,
                "source": site.source,
            },
            help="Subtract the mean and divide by the standard deviation of the training data.",
        )


def _layer(graph: Graph, place: Node) -> Node | None:
    """The layer with weights that takes an input unscaled; None where a norm or arithmetic comes first."""
    stack, seen = [place], {place.index}
    while stack:
        for reader in graph.readers(stack.pop()):
            if reader.role == "linear" and reader.kind not in ("embedding", "embedding_bag"):
                return reader
            if reader.kind in _BETWEEN and reader.index not in seen:
                seen.add(reader.index)
                stack.append(reader)
    return None
