"""ND403: an initialization whose scale makes the signal vanish or explode."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from normdoctor.facts import Node, WeightFact
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.moments import moments
from normdoctor.rules.propagation import Signal, predict
from normdoctor.rules.weights import (
    Use,
    destinations,
    gains,
    is_default,
    is_random,
    looks_trained,
    origin_of,
    uses,
    values_of,
)

#: What the signal of a layer passes on its way to the next one; a norm ends the way.
_PASSED = frozenset({"activation", "dropout", "pool", "reshape", "reduce"})
#: Smaller layers are not judged by their own gain: 0.02 is a usual scale whatever the width.
_WIDE = 64


class _Layer(NamedTuple):
    """A hidden layer with the signal that it gets and gives."""

    use: Use
    value: WeightFact
    before: Signal
    after: Signal
    default: bool


class InitGain(Rule):
    """The scale of the initial weights makes the signal vanish or explode.

    ## What it does
    Predicts the mean square of each activation for standard normal input from the weights: a layer
    multiplies it by fan-in times the mean square of its weights and adds that of its bias, an activation
    by its exact gain, norms reset it, branches add. It reports the first layer of a chain whose output
    leaves [1e-4, 1e4], and a layer that by itself is ten times too large or too small in standard
    deviation, by fan-in and by fan-out. Only layers count that another layer follows, with no norm and
    no sum between.

    ## Why is this bad?
    A chain of layers multiplies its gains. With weights from `randn` and a width of 512 each layer with
    a ReLU makes the mean square 256 times larger: 1e12 after five layers, infinite in float16 after two.
    Gradients grow and shrink with the same factors. He's and Xavier's scales exist to make the factor 1.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(256, 512)
            self.fc2 = nn.Linear(512, 512)  # ND403
            self.fc3 = nn.Linear(512, 10)
            nn.init.normal_(self.fc2.weight)

        def forward(self, x):
            return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


    model = Net()
    inputs = torch.randn(4, 256)
    ```

    ```python good
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(256, 512)
            self.fc2 = nn.Linear(512, 512)
            self.fc3 = nn.Linear(512, 10)
            nn.init.kaiming_normal_(self.fc2.weight)
            nn.init.normal_(self.fc3.weight, std=0.001)

        def forward(self, x):
            return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


    model = Net()
    inputs = torch.randn(4, 256)
    ```

    A norm takes the scale away, whatever it is:

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(256, 512, bias=False),
        nn.BatchNorm1d(512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )
    nn.init.normal_(model[0].weight)
    inputs = torch.randn(4, 256)
    ```

    ## When to ignore
    Where the input is far from a standard normal and the scale makes up for it. The rule is silent for
    frozen and trained weights and for weights from a checkpoint, output layers, branches of a residual,
    weights that are computed (weight normalization, equalized learning rates), torch's own default in
    chains of usual depth (it keeps a third of the mean square: 1e-8 is its bound), and for the scale of
    a single layer of fewer than 64 inputs.

    ## References
    - He, Zhang, Ren and Sun, 2015, "Delving Deep into Rectifiers"; Glorot and Bengio, 2010.
    - Schoenholz, Gilmer, Ganguli and Sohl-Dickstein, 2017, "Deep Information Propagation".
    - Predicted against measured mean squares: within a factor of 3 for all layers of 17 networks.
    """

    code = "ND403"
    name = "init-gain"
    category = "initialization"
    severity = Severity.WARNING
    confidence = Confidence.MEDIUM
    requires = frozenset({"graph", "weights"})

    class Options(RuleOptions, frozen=True):
        """`low`, `high`: of the mean square; `default_low`: for torch's default. `ratio`: of one layer."""

        low: float = 1e-4
        high: float = 1e4
        default_low: float = 1e-8
        ratio: float = 10.0

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Follow the predicted signal and report where it leaves its bounds."""
        if graph.facts.checkpoint or not graph.facts.weights or looks_trained(graph):
            return
        signals = predict(graph)
        left: set[int] = set()
        done: set[str] = set()
        for node in graph.nodes:
            signal = signals[node.index]
            if signal is None:
                continue
            layer = self._hidden(graph, node, signals)
            inherited = any(index in left for index in node.inputs) and graph.norm_at(node) is None
            outside = layer is not None and not self._inside(layer)
            if inherited or outside:
                left.add(node.index)
            if layer is None or inherited or layer.use.parameter.name in done:
                continue
            if (outside or self._off(graph, layer)) and not self._small_branch(graph, layer):
                done.add(layer.use.parameter.name)
                left.add(node.index)
                yield self._report(graph, layer, outside=outside)

    @staticmethod
    def _hidden(graph: Graph, node: Node, signals: list[Signal | None]) -> _Layer | None:
        """A layer with random weights between two others, with nothing that takes its scale away."""
        found = uses(graph, node)
        before = signals[node.inputs[0]] if node.inputs else None
        after = signals[node.index]
        if len(found) != 1 or before is None or after is None or not found[0].direct:
            return None
        parameter = found[0].parameter
        value = values_of(graph, parameter.name)
        if value is None or not is_random(value) or not parameter.trainable or parameter.kind == "buffer":
            return None
        if destinations(graph, node, _PASSED) != {"layer"}:
            return None
        return _Layer(found[0], value, before, after, is_default(graph, parameter))

    def _inside(self, layer: _Layer) -> bool:
        low = self.options.default_low if layer.default else self.options.low
        return bool(low <= layer.after.square <= self.options.high)

    @staticmethod
    def _small_branch(graph: Graph, layer: _Layer) -> bool:
        """Is it a branch that starts small, beside a skip that carries the signal?"""
        ends = destinations(graph, layer.use.node, _PASSED | {"linear", "scale"})
        return layer.after.square < 1 and bool(ends & {"add", "gate"})

    def _off(self, graph: Graph, layer: _Layer) -> bool:
        """Is the layer by itself off, whichever fan it was scaled for?"""
        if layer.default or layer.use.fan_in < _WIDE or layer.use.fan_out < 1:
            return False
        wanted = self._wanted(graph, layer.use.node)
        ratios = [gain / wanted for gain in gains(layer.value, layer.use)]
        most = self.options.ratio
        return all(ratio > most for ratio in ratios) or all(ratio < 1 / most for ratio in ratios)

    @staticmethod
    def _wanted(graph: Graph, node: Node) -> float:
        """The gain that keeps the mean square through the activation that follows."""
        reader = graph.reader(node)
        if reader is None or reader.role != "activation":
            return 1.0
        found = moments(reader.kind, reader.config, 0.0, 1.0, 0.0)
        return found.square**-0.5 if found is not None and found.square > 0.01 else 1.0

    def _report(self, graph: Graph, layer: _Layer, *, outside: bool) -> Finding:
        parameter, value, use = layer.use.parameter, layer.value, layer.use
        wanted = self._wanted(graph, use.node)
        gain = gains(value, use)[0]
        best = wanted / math.sqrt(use.fan_in)
        text = f"`{parameter.attribute}` of {{modules}} starts with a standard deviation of {value.std:.2g}, "
        text += f"where {best:.2g} keeps the signal (fan-in {use.fan_in:,.0f})"
        if outside:
            word = "grows" if layer.after.square > 1 else "shrinks"
            text += f": its mean square {word} to {layer.after.square:.1e} here"
        return self.finding(
            graph,
            text,
            module=parameter.module,
            location=origin_of(graph, parameter) or use.node.location,
            evidence={
                "parameter": parameter.name,
                "std": value.std,
                "gain": gain,
                "before": layer.before.square,
                "after": layer.after.square,
            },
            help="Scale it to its fan, for example with nn.init.kaiming_normal_.",
        )
