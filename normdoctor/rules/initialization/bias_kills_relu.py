"""ND408: a bias so negative that the ReLU behind it is never active."""

from __future__ import annotations

import math
from collections.abc import Iterator

from normdoctor.facts import Node, ParameterFact, WeightFact
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.layers import CONVS, DENSE, TRANSPOSED, bias_of
from normdoctor.rules.propagation import Signal, predict
from normdoctor.rules.weights import looks_trained, origin_of, uses, values_of

#: Zero, or nearly flat, below the second number.
_FLOORS = {"relu": 0.0, "relu6": 0.0, "gelu": -3.0, "silu": -4.0, "mish": -4.0, "hardswish": -3.0}
_LAYERS = CONVS | TRANSPOSED | DENSE


class BiasKillsRelu(Rule):
    """The bias of a hidden layer is so negative that its activation starts dead.

    ## What it does
    Compares the bias of each layer in front of a ReLU, GELU or SiLU with the predicted standard
    deviation of what the weights give, and reports a layer whose units are active for less than one
    input in 1,000. It warns of a hidden layer whose biases all equal one number below -2, also in front
    of a norm, which takes the bias away.

    ## Why is this bad?
    A ReLU that is never active gives zero and passes no gradient, so that nothing moves the bias either.
    The usual cause is the bias for rare classes, -ln((1 - p) / p) = -4.6 for p = 0.01, which belongs on
    the last layer of a detector's classification head and was set on every layer by a condition that is
    always true.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(16, 16, 3, padding=1)  # ND408
            self.conv2 = nn.Conv2d(16, 16, 3, padding=1)  # ND408
            self.score = nn.Conv2d(16, 9, 3, padding=1)
            for name, parameter in self.named_parameters():
                if ("score" or "class") and parameter.dim() > 1:
                    nn.init.normal_(parameter, std=0.01)
                elif "score" or "class" in name:
                    nn.init.constant_(parameter, -4.6)

        def forward(self, x):
            return self.score(torch.relu(self.conv2(torch.relu(self.conv1(x)))))


    model = Head()
    inputs = torch.randn(2, 16, 8, 8)
    ```

    ```python good
    import torch
    from torch import nn


    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(16, 16, 3, padding=1)
            self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
            self.score = nn.Conv2d(16, 9, 3, padding=1)
            nn.init.constant_(self.score.bias, -4.6)

        def forward(self, x):
            return self.score(torch.relu(self.conv2(torch.relu(self.conv1(x)))))


    model = Head()
    inputs = torch.randn(2, 16, 8, 8)
    ```

    ## When to ignore
    Where the input is so large that it outweighs the bias. The rule is silent for output layers, gates
    (sigmoid, tanh, softplus), trained models and weights from a checkpoint.

    ## References
    - Lin, Goyal, Girshick, He and Dollar, 2017, "Focal Loss", section 4.1: the prior on the last layer.
    - zylo117/Yet-Another-EfficientDet-Pytorch issue 722: `if 'a' or 'b' in name` is always true.
    """

    code = "ND408"
    name = "bias-kills-relu"
    category = "initialization"
    severity = Severity.ERROR
    requires = frozenset({"graph", "weights"})

    class Options(RuleOptions, frozen=True):
        """`rate`: of activity, below which a unit counts as dead. `bias`: constants below it are reported."""

        rate: float = 1e-3
        bias: float = -2.0

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at each layer with a bias that an activation or a norm follows."""
        if graph.facts.checkpoint or not graph.facts.weights or looks_trained(graph):
            return
        signals = predict(graph)
        done: set[str] = set()
        for node in graph.nodes:
            bias = bias_of(graph, node) if node.kind in _LAYERS else None
            value = values_of(graph, bias.name) if bias is not None else None
            if bias is None or value is None or bias.name in done or value.mean >= 0:
                continue
            done.add(bias.name)
            reader = graph.reader(node)
            if reader is None:
                continue
            rate = self._rate(graph, node, reader, value, signals) if reader.kind in _FLOORS else None
            if rate is not None and rate < self.options.rate:
                yield self._dead(graph, bias, value, reader, rate)
            elif self._prior(graph, value, reader):
                yield self._misplaced(graph, bias, value, reader)

    @staticmethod
    def _rate(
        graph: Graph, node: Node, reader: Node, value: WeightFact, signals: list[Signal | None]
    ) -> float | None:
        """How often a unit is above the floor, on average over units, None where it cannot be predicted."""
        found = uses(graph, node)
        before = signals[node.inputs[0]] if node.inputs else None
        weight = values_of(graph, found[0].parameter.name) if len(found) == 1 and found[0].direct else None
        if before is None or weight is None or not value.values:
            return None
        spread = math.sqrt(found[0].fan_in * weight.mean_square * before.square)
        if spread == 0:
            return None
        floor = _FLOORS[reader.kind]
        biases = value.values[:1] if value.constant else value.values
        rates = [0.5 * math.erfc((floor - one) / spread / math.sqrt(2)) for one in biases]
        return sum(rates) / len(rates)

    def _prior(self, graph: Graph, value: WeightFact, reader: Node) -> bool:
        """Is it the constant that belongs on an output, in front of a norm or an activation?"""
        hidden = reader.kind in _FLOORS or graph.norm_at(reader) is not None
        return bool(value.constant and value.minimum < self.options.bias and hidden)

    def _dead(
        self, graph: Graph, bias: ParameterFact, value: WeightFact, reader: Node, rate: float
    ) -> Finding:
        often = f"{rate:.1g} of the time" if rate > 1e-12 else "never"
        return self.finding(
            graph,
            f"`{bias.attribute}` of {{modules}} starts at {value.mean:.3g}: the {reader.kind} behind it is "
            f"predicted to be active {often}",
            module=bias.module,
            location=origin_of(graph, bias),
            evidence={"parameter": bias.name, "bias": value.mean, "rate": rate},
            help="Start hidden biases at zero; set the prior on the output layer only.",
        )

    def _misplaced(self, graph: Graph, bias: ParameterFact, value: WeightFact, reader: Node) -> Finding:
        return self.finding(
            graph,
            f"all values of `{bias.attribute}` of {{modules}} are {value.minimum:.3g}, a prior for outputs, "
            f"but {reader.kind} follows: this is a hidden layer",
            module=bias.module,
            location=origin_of(graph, bias),
            severity=Severity.WARNING,
            confidence=Confidence.MEDIUM,
            evidence={"parameter": bias.name, "bias": value.minimum},
            help="Start hidden biases at zero; set the prior on the output layer only.",
        )
