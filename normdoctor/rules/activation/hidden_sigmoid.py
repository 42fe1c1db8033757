"""ND304: a sigmoid as the activation of a hidden layer."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Location
from normdoctor.findings import Applicability, Confidence, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.hidden import hidden_chains, layer_before, layers_behind

#: From this length on ND303 speaks of the chain.
_CHAIN = 3


class HiddenSigmoid(Rule):
    """A sigmoid is the activation of a hidden layer.

    ## What it does
    Finds a sigmoid that gets the output of a linear layer or convolution and feeds another one, and
    nothing else. Three and more of them in a chain are ND303.

    ## Why is this bad?
    Its derivative is 0.25 at most and vanishes for large inputs, and its output is never negative with a
    mean near 0.5. ReLU, GELU and tanh train faster as a rule.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.Sigmoid(),  # ND304
        nn.Linear(32, 1),
    )
    inputs = torch.randn(8, 16)
    ```

    A gate multiplies, and an output is no hidden layer:

    ```python good
    import torch
    from torch import nn


    class Excite(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Linear(16, 4), nn.Linear(4, 16)
            self.head = nn.Linear(16, 1)

        def forward(self, x):
            x = x * torch.sigmoid(self.up(torch.relu(self.down(x))))
            return torch.sigmoid(self.head(x))


    model = Excite()
    inputs = torch.randn(8, 16)
    ```

    ## When to ignore
    In small networks, in models of probabilities (Boltzmann machines, autoencoders with codes between 0
    and 1), and where values in [0, 1] are what the next layer is meant to see.

    ## References
    - LeCun, Bottou, Orr and Mueller, 1998, "Efficient BackProp", section 4.4: symmetric sigmoids such as
      tanh converge faster than the logistic function, whose outputs are all positive.
    """

    code = "ND304"
    name = "hidden-sigmoid"
    category = "activation"
    severity = Severity.INFO
    confidence = Confidence.MEDIUM

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report each hidden sigmoid that ND303 does not speak of."""
        sigmoid = frozenset({"sigmoid"})
        chained = {
            one.index for chain, _ in hidden_chains(graph, sigmoid) if len(chain) >= _CHAIN for one in chain
        }
        done: set[tuple[str, Location | None]] = set()
        for node in graph.by_role("activation"):
            if node.kind != "sigmoid" or node.index in chained or not layers_behind(graph, node):
                continue
            layer, _ = layer_before(graph, node)
            place = graph.label(node), node.location
            if layer is None or place in done:
                continue
            done.add(place)
            yield self.finding(
                graph,
                f"{graph.named(node)} is the activation of a hidden layer: its slope is 0.25 at most",
                node=node,
                evidence={"layer": graph.label(layer)},
                fix=Fix(title="ReLU, GELU or tanh in its place", applicability=Applicability.DISPLAY),
            )
