"""ND401: a weight whose values are all equal."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node, ParameterFact, WeightFact
from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import CONVS, RECURRENT, WEIGHTED, groups_of
from normdoctor.rules.weights import destinations, is_direct, origin_of
from normdoctor.rules.zeros import zero_factors

#: What a hidden signal passes on its way to the next layer.
_PASSED = frozenset({"norm", "activation", "dropout", "pool", "reshape", "reduce"})
#: Where something else carries the signal; but for the skip of a block that reads this layer alone.
_JOINS = frozenset({"add", "concat", "gate"})


class ConstantInit(Rule):
    """All values of a weight are equal, so its units cannot become different.

    ## What it does
    Finds a trainable weight of a linear layer, convolution or recurrent layer that starts with one value
    in all places, where another layer follows. Where the layer is the output of the model and its value
    is not zero, it is an information.

    ## Why is this bad?
    Units with equal weights compute the same output. They get gradients that differ only by the weights
    of the next layer, and none at all where those are equal too: a layer of 512 such units can learn no
    more than a few. With all weights 0 nothing of the input passes, and no gradient reaches the layers
    in front; with a ReLU behind it the layer stays dead.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(16, 64)  # ND401
            self.fc2 = nn.Linear(64, 10)
            nn.init.constant_(self.fc1.weight, 0.01)

        def forward(self, x):
            return self.fc2(torch.relu(self.fc1(x)))


    model = Net()
    inputs = torch.randn(4, 16)
    ```

    ```python good
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(16, 64)
            self.fc2 = nn.Linear(64, 10)
            nn.init.kaiming_normal_(self.fc1.weight)
            nn.init.zeros_(self.fc1.bias)

        def forward(self, x):
            return self.fc2(torch.relu(self.fc1(x)))


    model = Net()
    inputs = torch.randn(4, 16)
    ```

    Zeros are right where something else carries the signal: the last layer of a residual branch, of a
    gate or of the model.

    ```python good
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.up = nn.Linear(width, 4 * width)
            self.down = nn.Linear(4 * width, width)
            nn.init.zeros_(self.down.weight)
            nn.init.zeros_(self.down.bias)

        def forward(self, x):
            return x + self.down(torch.relu(self.up(x)))


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 1, 16))
            self.block = Block(16)
            self.head = nn.Linear(16, 10)
            nn.init.zeros_(self.head.weight)

        def forward(self, x):
            x = torch.cat((self.token.expand(len(x), -1, -1), x), dim=1)
            return self.head(self.block(x)[:, 0])


    model = Net()
    inputs = torch.randn(4, 5, 16)
    ```

    ## When to ignore
    Where the constant is part of a construction that another random factor makes uneven. The rule is
    silent for frozen weights, weights from a checkpoint, single units, depthwise convolutions, a model
    with one layer of weights, and parameters that are no factor of a product (tokens, position tables,
    layer scales, temperatures).

    ## References
    - Goodfellow, Bengio and Courville, 2016, "Deep Learning", section 8.4: initial parameters "need to
      break symmetry between different units".
    - Zhang, Dauphin and Ma, 2019, "Fixup Initialization"; Peebles and Xie, 2023, adaLN-Zero; Hu et al.,
      2022, "LoRA": zeros that are right.
    """

    code = "ND401"
    name = "constant-init"
    category = "initialization"
    severity = Severity.ERROR
    requires = frozenset({"graph", "weights"})

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at each weight that a layer multiplies its input with."""
        values = graph.facts.weights
        if graph.facts.checkpoint or values is None:
            return
        layers = [node for node in graph.nodes if node.kind in WEIGHTED]
        matrices = {node.index: self._matrices(graph, node) for node in layers}
        if len({one.name for found in matrices.values() for one in found}) < 2:
            return
        done: set[str] = set()
        for node in layers:
            for parameter in matrices[node.index]:
                value = values.get(parameter.name)
                if parameter.name in done or value is None or not parameter.trainable:
                    continue
                done.add(parameter.name)
                if self._constant(value) and self._several(node, parameter):
                    yield from self._judge(graph, node, parameter, value)

    @staticmethod
    def _matrices(graph: Graph, node: Node) -> list[ParameterFact]:
        """The weights of a layer; not the scale of each unit that a reparametrized weight has besides."""
        read = [graph.parameters[name] for name in node.parameters if name in graph.parameters]
        found = [one for one in read if one.kind == "parameter" and len(one.tensor.shape) >= 2]
        found = [one for one in found if is_direct(graph, node, one)]
        largest = max((one.tensor.size for one in found), default=0)
        return [one for one in found if one.tensor.size == largest or one.tensor.size > max(one.tensor.shape)]

    @staticmethod
    def _constant(value: WeightFact) -> bool:
        """All equal; a parameter that nobody wrote is ND405's."""
        return value.finite and not value.uninitialized and value.minimum == value.maximum

    @staticmethod
    def _several(node: Node, parameter: ParameterFact) -> bool:
        """Has the layer two units or more that read the same input?"""
        shape = parameter.tensor.shape
        if node.kind in CONVS and groups_of(node) > 1 and groups_of(node) == shape[0]:
            return False
        units = shape[1] * groups_of(node) if node.kind.startswith("conv_transpose") else shape[0]
        return units > 1 and parameter.tensor.size > 1

    def _judge(
        self, graph: Graph, node: Node, parameter: ParameterFact, value: WeightFact
    ) -> Iterator[Finding]:
        zero = value.minimum == 0
        if node.kind == "matmul" and zero:
            return
        ends = destinations(graph, node, _PASSED, _JOINS if zero else frozenset())
        if zero and ("layer" not in ends or ends - {"layer"} or node.kind in RECURRENT):
            return
        output = ends == {"output"} and node.kind not in RECURRENT
        shape = " x ".join(str(length) for length in parameter.tensor.shape)
        effect = (
            "its outputs start equal"
            if output
            else "nothing passes the layer"
            if zero
            else "all its units compute the same"
        )
        if zero and max(zero_factors(graph), default=0) > 1:
            return  # ND402 says more
        yield self.finding(
            graph,
            f"all values of the {parameter.attribute} of {{modules}} ({shape}) are {value.minimum:g}: "
            f"{effect}",
            module=parameter.module,
            location=origin_of(graph, parameter) or node.location,
            severity=Severity.INFO if output else Severity.ERROR,
            evidence={"parameter": parameter.name, "value": value.minimum, "count": value.count},
            help="Draw it from a distribution, for example with nn.init.kaiming_normal_.",
        )
