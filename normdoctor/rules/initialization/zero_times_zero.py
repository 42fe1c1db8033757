"""ND402: a product of two parameters that are both zero."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node, ParameterFact
from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import scale_and_shift
from normdoctor.rules.weights import origin_of, values_of
from normdoctor.rules.zeros import zero_factors


class ZeroTimesZero(Rule):
    """Two factors of one branch are both zero: neither gets a gradient.

    ## What it does
    Follows what parameters of zeros make of the signal: weights and convolutions of zeros, gammas,
    gates and layer scales. It reports the place where a second zero factor is multiplied to a first.

    ## Why is this bad?
    The derivative of `a * b` is `b` for a and `a` for b. With one of them zero the branch starts as
    nothing and learns, since the zero factor gets the other one as its gradient. With both zero, both
    gradients are zero in every step: the branch stays zero for ever, whatever the optimizer.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Adapter(nn.Module):
        def __init__(self, width, rank):
            super().__init__()
            self.base = nn.Linear(width, width)
            self.down = nn.Linear(width, rank, bias=False)
            self.up = nn.Linear(rank, width, bias=False)  # ND402
            nn.init.zeros_(self.down.weight)
            nn.init.zeros_(self.up.weight)

        def forward(self, x):
            return self.base(x) + self.up(self.down(x))


    model = nn.Sequential(Adapter(16, 4), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(2, 16)
    ```

    ```python good
    import torch
    from torch import nn


    class Adapter(nn.Module):
        def __init__(self, width, rank):
            super().__init__()
            self.base = nn.Linear(width, width)
            self.down = nn.Linear(width, rank, bias=False)
            self.up = nn.Linear(rank, width, bias=False)
            nn.init.zeros_(self.up.weight)

        def forward(self, x):
            return self.base(x) + self.up(self.down(x))


    model = nn.Sequential(Adapter(16, 4), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(2, 16)
    ```

    ```python bad
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.fc1 = nn.Linear(width, width)
            self.fc2 = nn.Linear(width, width)
            self.scale = nn.Parameter(torch.zeros(width))  # ND402
            nn.init.zeros_(self.fc2.weight)
            nn.init.zeros_(self.fc2.bias)

        def forward(self, x):
            return x + self.scale * self.fc2(torch.relu(self.fc1(x)))


    model = nn.Sequential(Block(16), nn.Linear(16, 4))
    inputs = torch.randn(2, 16)
    ```

    ## When to ignore
    Where one of the two is written before training starts. The rule is silent for frozen factors, for
    weights from a checkpoint, and where a bias or another term of a sum is not zero.

    ## References
    - Hu et al., 2022, "LoRA": B starts at zero and A does not, so that the update starts at zero.
    - Bachlechner et al., 2021, "ReZero is all you need": one zero factor in front of a random branch.
    """

    code = "ND402"
    name = "zero-times-zero"
    category = "initialization"
    severity = Severity.ERROR
    requires = frozenset({"graph", "weights"})

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report the node at which the second zero factor comes in."""
        if graph.facts.checkpoint or not graph.facts.weights:
            return
        orders = zero_factors(graph)
        for node in graph.nodes:
            before = max((orders[index] for index in node.inputs), default=0)
            if orders[node.index] > 1 and before < 2:
                yield self._report(graph, node)

    def _report(self, graph: Graph, node: Node) -> Finding:
        parameter = self._factor(graph, node)
        if parameter is None:
            return self.finding(
                graph,
                f"{graph.named(node)} multiplies two branches that are both zero: neither gets a gradient",
                node=node,
            )
        return self.finding(
            graph,
            f"`{parameter.attribute}` of {{modules}} is zero, and so is the factor in front of it: neither "
            "gets a gradient, and the branch stays zero",
            module=parameter.module,
            location=origin_of(graph, parameter) or node.location,
            evidence={"parameter": parameter.name},
            help="Draw one of the two from a distribution.",
        )

    @staticmethod
    def _factor(graph: Graph, node: Node) -> ParameterFact | None:
        """The zero parameter that this node multiplies with; a bias of zeros is none."""
        shift = scale_and_shift(node)[1] if node.role == "norm" else None
        for name in node.parameters:
            parameter, value = graph.parameters.get(name), values_of(graph, name)
            zero = value is not None and value.minimum == 0 == value.maximum
            if parameter is None or parameter.kind != "parameter" or name == shift:
                continue
            if zero and not parameter.attribute.endswith("bias"):
                return parameter
        return None
