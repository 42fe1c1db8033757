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
#: Smaller layers are not judged by their own gain: standard normal weights are usual in small ones.
_WIDE = 64
#: Variances of the input for which an activation's share is taken: a usual one and a small one.
_VARIANCES = (1.0, 1e-4)
#: Activations that saturate, and the mean square in front of which 42 % of the values are beyond 4.
_BOUNDED = frozenset({"tanh", "sigmoid", "hardtanh", "hardsigmoid", "softsign"})
_SATURATED = 25.0
#: A layer that makes the mean square so many times larger is named as the first of those that do.
_GROWS = 4.0


class _Layer(NamedTuple):
    """A hidden layer with the signals that it gets and gives, and the share of it that it keeps.

    `last` is true of an output layer, which is judged only as the end of a chain that grows.
    `share` is the part of the mean square that weights and activation pass on, without the bias, which
    carries nothing of the input; of fan-in and fan-out the one that keeps more.
    """

    use: Use
    value: WeightFact
    before: Signal | None
    after: Signal | None
    default: bool
    share: float
    last: bool


class _Loss(NamedTuple):
    """Layers of one chain that lose the signal, first to last, and what is left of its mean square."""

    layers: tuple[_Layer, ...]
    left: float


class InitGain(Rule):
    """The scale of the initial weights makes the signal vanish or explode.

    ## What it does
    Predicts the mean square of each activation for standard normal input from the weights: a layer
    multiplies it by fan-in times the mean square of its weights and adds that of its bias, an activation
    by its exact gain, norms reset it, branches add. Only layers count that another layer follows, with
    no norm and no sum between.

    A signal that grows is reported where the mean square of a layer's output is above 1e4, and at a layer
    that by itself is ten times too large in standard deviation, by fan-in and by fan-out; an output layer
    is judged with the chain in front of it. Two layers in front of a tanh or sigmoid are too large where
    they give values of a mean square above 25, at which the activation saturates.

    A signal that shrinks is reported where a chain loses it, since small weights in one to four layers are
    how many heads start, and they train. A layer keeps the share fan-in times the mean square of its
    weights, times the gain of the activation. It takes five layers that keep less than a quarter each and
    1e-4 together, three that keep less than 1e-3 each, one that keeps less than 1e-7, or a predicted
    signal below 1e-8 for which the four smallest layers are not needed.

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

    A standard deviation of 0.01 loses the signal of ten layers, and not that of a detector's head of four:

    ```python bad
    import torch
    from torch import nn


    def stack(depth):
        layers = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU()]  # ND403
        for _ in range(depth - 1):
            layers += [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
        for layer in layers[::2]:
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


    model = stack(10)
    inputs = torch.randn(2, 3, 16, 16)
    ```

    ```python good
    import torch
    from torch import nn


    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU())
            self.tower = nn.ModuleList(nn.Conv2d(64, 64, 3, padding=1) for _ in range(4))
            self.score = nn.Conv2d(64, 9, 3, padding=1)
            for layer in (*self.tower, self.score):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

        def forward(self, x):
            x = self.stem(x)
            for layer in self.tower:
                x = torch.relu(layer(x))
            return self.score(x)


    model = Head()
    inputs = torch.randn(2, 3, 16, 16)
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
    frozen and trained weights and for weights from a checkpoint, output layers alone, branches of a residual,
    weights that are computed (weight normalization, equalized learning rates), torch's own default in
    chains of usual depth (it keeps a third of the mean square), layers in front of a sine or a cosine, and
    the scale of a single layer of fewer than 64 inputs.

    ## References
    - He, Zhang, Ren and Sun, 2015, "Delving Deep into Rectifiers"; Glorot and Bengio, 2010.
    - Schoenholz, Gilmer, Ganguli and Sohl-Dickstein, 2017, "Deep Information Propagation".
    - Small weights that train: Simonyan and Zisserman, 2015 (0.01 in two hidden layers of VGG's classifier);
      Lin et al., 2017, "Focal Loss" (0.01 in four layers); Dong et al., 2014 (0.001 in two layers of SRCNN).
    - Predicted against measured mean squares: within a factor of 3 for all layers of 17 networks.
    """

    code = "ND403"
    name = "init-gain"
    category = "initialization"
    severity = Severity.WARNING
    confidence = Confidence.MEDIUM
    requires = frozenset({"graph", "weights"})

    class Options(RuleOptions, frozen=True):
        """`high`, `low`: of the mean square. `ratio`: of one layer's scale. `loss`: of a chain's mean square.

        `small` is the share below which a layer loses some, `layers` how many of them make a fault; more
        than the four of published towers.
        """

        low: float = 1e-8
        high: float = 1e4
        ratio: float = 10.0
        loss: float = 1e-4
        small: float = 0.25
        layers: int = 5

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Follow the predicted signal and report where it leaves its bounds."""
        if graph.facts.checkpoint or not graph.facts.weights or looks_trained(graph):
            return
        signals = predict(graph)
        chains: dict[int, tuple[_Layer, ...]] = {}
        left: set[int] = set()
        done: set[str] = set()
        for node in graph.nodes:
            layer = self._hidden(graph, node, signals)
            if layer is not None:
                chains[node.index] = (*chains.get(node.inputs[0], ()), layer)
            elif len(node.inputs) == 1 and self._passes(graph, node):
                chains[node.index] = chains.get(node.inputs[0], ())
            inherited = any(index in left for index in node.inputs) and graph.norm_at(node) is None
            if inherited:
                left.add(node.index)
            if layer is None or inherited or layer.use.parameter.name in done:
                continue
            grown = [one for one in chains[node.index] if not one.default and one.share > _GROWS]
            large = layer.after is not None and layer.after.square > self.options.high
            large = large and not self._periodic(graph, layer)
            if layer.last and not (large and grown[:-1] and grown[-1] is layer):
                continue
            full = self._saturated(graph, chains[node.index])
            wrong = large or bool(full) or self._too_large(graph, layer)
            loss = None if wrong else self._lost(chains[node.index])
            if wrong or (loss and not self._small_branch(graph, layer)):
                left.add(node.index)
                first = loss.layers[0] if loss else next(iter(full or (grown if large else ())), layer)
                if first.use.parameter.name not in done:
                    yield self._report(graph, first, loss, layer if large else None)
                done |= {layer.use.parameter.name, first.use.parameter.name}

    @staticmethod
    def _passes(graph: Graph, node: Node) -> bool:
        return graph.norm_at(node) is None and (node.role in _PASSED or graph.transparent(node))

    @classmethod
    def _hidden(cls, graph: Graph, node: Node, signals: list[Signal | None]) -> _Layer | None:
        """A layer with random weights between two others, with nothing that takes its scale away."""
        found = uses(graph, node)
        if len(found) != 1 or not node.inputs or not found[0].direct:
            return None
        parameter = found[0].parameter
        value = values_of(graph, parameter.name)
        module = graph.modules.get(node.module or "")
        if value is None or not is_random(value) or not parameter.trainable or parameter.kind == "buffer":
            return None
        if module is not None and module.reparametrized:
            return None
        ends = destinations(graph, node, _PASSED)
        if ends not in ({"layer"}, {"output"}):
            return None
        before, after = signals[node.inputs[0]], signals[node.index]
        share = cls._kept(graph, node) * max(gains(value, found[0])) ** 2
        return _Layer(found[0], value, before, after, is_default(graph, parameter), share, "output" in ends)

    @staticmethod
    def _kept(graph: Graph, node: Node) -> float:
        """The share of the mean square that the activation behind a layer passes on, at most 1."""
        reader = graph.reader(node)
        if reader is None or reader.role != "activation":
            return 1.0
        found = [(moments(reader.kind, reader.config, 0.0, size, 0.0), size) for size in _VARIANCES]
        return min(max(1.0 if got is None else got.square / size for got, size in found), 1.0)

    def _lost(self, chain: tuple[_Layer, ...]) -> _Loss | None:
        """The layers of a chain that lose the signal, if the last one completes the loss."""
        last, most = chain[-1], self.options.loss
        shares = [layer.share for layer in chain]
        if last.share < most * 1e-3:
            return _Loss((last,), last.share)
        chosen = tuple(layer for layer in chain if not layer.default and layer.share < self.options.small)
        worse = tuple(layer for layer in chosen if layer.share < most * 10)
        if len(worse) >= self.options.layers - 2:
            return _Loss(worse, math.prod(shares))
        if len(chosen) >= self.options.layers and math.prod(shares) < most:
            return _Loss(chosen, math.prod(shares))
        rest = math.prod(sorted(shares)[self.options.layers - 1 :])
        gone = last.after is not None and last.after.square < self.options.low
        return _Loss(chain, math.prod(shares)) if gone and rest < most else None

    @staticmethod
    def _saturated(graph: Graph, chain: tuple[_Layer, ...]) -> list[_Layer]:
        """Two layers or more in a row whose activations are saturated for nearly half of their input."""
        found = []
        for layer in chain:
            reader = graph.reader(layer.use.node)
            bounded = reader is not None and reader.kind in _BOUNDED
            large = layer.after is not None and layer.after.square > _SATURATED
            if bounded and large and layer.use.fan_in >= _WIDE and not layer.default:
                found.append(layer)
        return found if len(found) > 1 else []

    @staticmethod
    def _small_branch(graph: Graph, layer: _Layer) -> bool:
        """Is it a branch that starts small, beside a skip that carries the signal?"""
        ends = destinations(graph, layer.use.node, _PASSED | {"linear", "scale"})
        return bool(ends & {"add", "gate"})

    @staticmethod
    def _periodic(graph: Graph, layer: _Layer) -> bool:
        """Does a sine or a cosine follow, which a large input does not saturate?"""
        reader = graph.reader(layer.use.node)
        return reader is not None and reader.kind in ("sin", "cos")

    def _too_large(self, graph: Graph, layer: _Layer) -> bool:
        """Is the layer by itself too large, whichever fan it was scaled for, and its output too?"""
        if layer.default or layer.use.fan_in < _WIDE or layer.use.fan_out < 1 or layer.after is None:
            return False
        if self._periodic(graph, layer):
            return False
        wanted, most = self._wanted(graph, layer.use.node), self.options.ratio
        return bool(layer.after.square > most and min(gains(layer.value, layer.use)) > most * wanted)

    @staticmethod
    def _wanted(graph: Graph, node: Node) -> float:
        """The gain that keeps the mean square through the activation that follows."""
        reader = graph.reader(node)
        if reader is None or reader.role != "activation":
            return 1.0
        found = moments(reader.kind, reader.config, 0.0, 1.0, 0.0)
        return found.square**-0.5 if found is not None and found.square > 0.01 else 1.0

    def _report(self, graph: Graph, layer: _Layer, loss: _Loss | None, outside: _Layer | None) -> Finding:
        parameter, value, use = layer.use.parameter, layer.value, layer.use
        best = self._wanted(graph, use.node) / math.sqrt(use.fan_in)
        text = f"`{parameter.attribute}` of {{modules}} starts with a standard deviation of {value.std:.2g}, "
        text += f"where {best:.2g} keeps the signal (fan-in {use.fan_in:,.0f})"
        evidence = {"parameter": parameter.name, "std": value.std, "gain": gains(value, use)[0]}
        last = loss.layers[-1] if loss is not None else outside or layer
        if loss is not None and len(loss.layers) > 1:
            text += (
                f": {len(loss.layers)} layers, the last one `{last.use.parameter.name}`, "
                f"leave {loss.left:.1e} of its mean square"
            )
        elif loss is not None:
            text += f": {loss.left:.1e} of its mean square is left"
        elif outside is not None and outside.after is not None:
            place = "here" if outside is layer else f"at `{outside.use.parameter.name}`"
            text += f": its mean square grows to {outside.after.square:.1e} {place}"
        if layer.before is not None and last.after is not None:
            evidence |= {"before": layer.before.square, "after": last.after.square}
        if loss is not None:
            evidence |= {"layers": len(loss.layers), "left": loss.left}
        return self.finding(
            graph,
            text,
            module=parameter.module,
            location=origin_of(graph, parameter) or use.node.location,
            evidence=evidence,
            help="Scale it to its fan, for example with nn.init.kaiming_normal_.",
        )
