"""ND113: a deep chain of layers that nothing keeps in scale."""

from __future__ import annotations

import math
from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.layers import CONVS, DENSE, TRANSPOSED, kernel_of, owner, weight_of

_LAYERS = CONVS | TRANSPOSED | DENSE
#: What hands the signal on along a chain; anything else (sums, products, norms, joins) ends it.
_BETWEEN = frozenset({"activation", "pool", "dropout", "reshape"})
_SELF_NORMALIZING = frozenset({"selu", "alpha_dropout"})


class DeepWithoutNorm(Rule):
    """A deep chain of layers with neither norm nor skip, at torch's default initialization.

    ## What it does
    Finds chains of more than 20 convolutions and linear layers with only activations, pooling, dropout and
    reshapes between them, whose weights are not scaled to keep the variance.

    ## Why is this bad?
    Each layer multiplies the variance of its signal by fan_in * var(W), and a ReLU halves it. Torch's
    default draws weights with variance 1/(3 fan_in): the signal shrinks to a sixth in every layer, to
    1e-15 over 20 layers, and the gradients with it. What is left at the end are the biases. A norm in each
    layer, a skip, or an initialization with var(W) = 2/fan_in keeps the scale.

    ## Example
    ```python bad
    import torch
    from torch import nn

    layers = []
    for _ in range(24):
        layers += [nn.Linear(32, 32), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(32, 10))  # ND113
    inputs = torch.randn(4, 32)
    ```

    ```python good
    import torch
    from torch import nn

    layers = []
    for _ in range(24):
        layers += [nn.Linear(32, 32), nn.LayerNorm(32), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(32, 10))
    inputs = torch.randn(4, 32)
    ```

    ```python good
    import torch
    from torch import nn

    layers = []
    for _ in range(24):
        layer = nn.Linear(32, 32)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        layers += [layer, nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(32, 10))
    inputs = torch.randn(4, 32)
    ```

    ## When to ignore
    For trained networks: the rule is silent where weights were loaded. It is silent too under weight
    normalization or another reparametrization, with SELU, and where the weights of the chain have a
    geometric mean of fan_in * var(W) above `least_gain` (0.8, half way on a log scale between torch's
    default, 1/3, and what He asks for, 2).

    ## References
    - He, Zhang, Ren and Sun, 2015, "Delving Deep into Rectifiers", section 2.2: 22 layers converge with
      either initialization, 30 layers only with var(W) = 2/fan_in.
    - Simonyan and Zisserman, 2014: 19 layers without norm, the deepest of them started from a shallow
      network that was trained before.
    """

    code = "ND113"
    name = "deep-without-norm"
    category = "placement"
    severity = Severity.INFO
    confidence = Confidence.MEDIUM
    requires = frozenset({"graph", "weights"})

    class Options(RuleOptions, frozen=True, kw_only=True):
        """The longest chain that is taken, and the mean gain of a layer that keeps the scale."""

        layers: int = 20
        least_gain: float = 0.8

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Follow each chain to its end."""
        if graph.facts.checkpoint or graph.facts.weights is None:
            return
        chains: dict[int, list[Node]] = {}
        for node in graph.by_role("linear"):
            if node.kind in _LAYERS and weight_of(graph, node) is not None:
                chains[node.index] = [*self._before(graph, chains, node), node]
        inner = {node.index for chain in chains.values() for node in chain[:-1]}
        for index, chain in chains.items():
            if index in inner or len(chain) <= self.options.layers:
                continue
            gain = self._gain(graph, chain)
            if gain is not None and gain < self.options.least_gain:
                yield self._report(graph, chain, gain)

    @staticmethod
    def _before(graph: Graph, chains: dict[int, list[Node]], node: Node) -> list[Node]:
        """The chain that ends in front of a layer; empty where something else starts or keeps the scale."""
        module = owner(graph, node)
        if module is not None and module.reparametrized:
            return []
        current = node
        while current.inputs:
            current = graph.nodes[current.inputs[0]]
            if current.index in chains:
                return chains[current.index]
            plain = current.role in _BETWEEN and len(current.inputs) == 1
            if not plain or current.kind in _SELF_NORMALIZING:
                return []
        return []

    @staticmethod
    def _gain(graph: Graph, chain: list[Node]) -> float | None:
        """The geometric mean of fan_in * var(W) over the chain, None where values are not known."""
        weights = graph.facts.weights or {}
        logs: list[float] = []
        for node in chain:
            weight = weight_of(graph, node)
            values = weights.get(weight.name) if weight is not None else None
            if weight is None or values is None or not values.finite or values.std <= 0:
                return None
            shape = weight.tensor.shape
            if node.kind in TRANSPOSED:
                fan_in = shape[0] * math.prod(kernel_of(graph, node))
            else:
                fan_in = math.prod(shape[1:])
            logs.append(math.log(fan_in * values.std**2))
        return math.exp(sum(logs) / len(logs)) if logs else None

    def _report(self, graph: Graph, chain: list[Node], gain: float) -> Finding:
        last = chain[-1]
        return self.finding(
            graph,
            f"{{modules}} is the end of a chain of {len(chain)} layers without norm or skip, each of which "
            f"multiplies the variance by {gain:.2g} before its activation",
            node=last,
            evidence={"layers": len(chain), "gain": round(gain, 4), "first": graph.label(chain[0])},
            related=(("the first layer of the chain", graph.where(chain[0])),),
            help="Put a norm into each layer, add skips, or draw the weights with variance 2/fan_in.",
        )
