"""ND411: a frozen part of a model whose weights are still random."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.census import within
from normdoctor.facts import ModuleFact, ParameterFact, WeightFact
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.layers import count
from normdoctor.rules.weights import is_default, is_random, values_of

_BASES = ("Linear", "Conv1d", "Conv2d", "Conv3d")


class FrozenAtRandomInit(Rule):
    """A part of the model is frozen while all of its weights are random.

    ## What it does
    Finds a module with at least three linear layers or convolutions, none of whose parameters is
    trainable, all of whose weights match a random initialization, and which the forward runs.

    ## Why is this bad?
    A network is frozen to keep what it has learned: features for a perceptual loss, a teacher, a
    backbone. With random weights there is nothing to keep. The loss goes down all the same, since random
    features carry some of the input, and the mistake stays: `vgg16()` where `vgg16(weights=...)` was
    meant, or a checkpoint whose names did not match and were skipped.

    ## Example
    ```python bad
    import torch
    from torch import nn


    def features():
        return nn.Sequential(  # ND411
            nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3)
        )


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = features().requires_grad_(False)
            self.head = nn.Linear(32, 10)

        def forward(self, x):
            return self.head(self.backbone(x).mean((2, 3)))


    model = Net()
    inputs = torch.randn(2, 3, 16, 16)
    ```

    A copy that follows a trainable twin is frozen by design:

    ```python good
    import copy

    import torch
    from torch import nn


    class Teacher(nn.Module):
        def __init__(self):
            super().__init__()
            self.online = nn.Sequential(
                nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8)
            )
            self.target = copy.deepcopy(self.online).requires_grad_(False)

        def forward(self, x):
            return self.online(x), self.target(x)


    model = Teacher()
    inputs = torch.randn(2, 16)
    ```

    ## When to ignore
    In methods that want random features: random network distillation, reservoirs, random projections.
    For a model that is frozen as a whole, and whose layers no library built, the confidence is low: it
    may be looked at as it is deployed, before weights are loaded. The rule is silent for weights from a
    checkpoint, and where weights are equal to those of a trainable part.

    ## References
    - avinashpaliwal/Super-SloMo issue 54: a VGG-16 without weights as perceptual loss.
    - Johnson, Alahi and Fei-Fei, 2016, "Perceptual Losses": the loss network is pretrained.
    """

    code = "ND411"
    name = "frozen-at-random-init"
    category = "initialization"
    severity = Severity.WARNING
    confidence = Confidence.MEDIUM
    requires = frozenset({"graph", "weights"})

    class Options(RuleOptions, frozen=True):
        """`layers`: fewest layers with weights in a part."""

        layers: int = 3

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at the outermost frozen modules."""
        if graph.facts.checkpoint or not graph.facts.weights:
            return
        every = [one for one in graph.facts.parameters if one.kind == "parameter"]
        whole = not any(one.trainable for one in every)
        below: dict[str, list[ParameterFact]] = {}
        for one in every:
            path = one.module
            while path:
                below.setdefault(path, []).append(one)
                path = path.rpartition(".")[0]
        found: list[str] = []
        for module in graph.facts.modules:
            if not module.path or any(within(module.path, path) for path in found):
                continue
            inside = below.get(module.path, [])
            if not inside or any(one.trainable for one in inside):
                continue
            layers = self._layers(graph, inside)
            if len(layers) < self.options.layers:
                continue
            found.append(module.path)
            if self._random(graph, layers):
                size = sum(one.tensor.size for one in inside)
                sure = not whole or self._foreign(graph, layers)
                yield self._report(graph, module, len(layers), size, sure=sure)

    @staticmethod
    def _layers(graph: Graph, inside: list[ParameterFact]) -> list[ParameterFact]:
        """The weights of the linear layers and convolutions that the forward runs."""
        found = []
        for one in inside:
            module = graph.modules.get(one.module)
            used = module is not None and module.base in _BASES and module.calls > 0
            if used and len(one.tensor.shape) >= 2 and one.tensor.size >= 32:
                found.append(one)
        return found

    @staticmethod
    def _foreign(graph: Graph, layers: list[ParameterFact]) -> bool:
        """Were the layers built in an installed library, and the model was not?"""
        root = graph.modules[""].origin if "" in graph.modules else None
        places = [module.origin for one in layers if (module := graph.modules.get(one.module)) is not None]
        installed = all(place is not None and "site-packages" in place.file for place in places)
        return installed and root is not None and "site-packages" not in root.file

    @staticmethod
    def _random(graph: Graph, layers: list[ParameterFact]) -> bool:
        """Do all weights match an initialization, and none those of a trainable layer?"""
        known = graph.facts.weights or {}

        def print_of(value: WeightFact) -> tuple[object, ...]:
            return value.count, value.minimum, value.maximum, value.mean, value.std

        trainable = {
            print_of(known[one.name])
            for one in graph.facts.parameters
            if one.trainable and one.kind == "parameter" and one.name in known
        }
        for one in layers:
            value = values_of(graph, one.name)
            if value is None or not (is_random(value) or is_default(graph, one)):
                return False
            if abs(value.mean) > 0.5 * value.std:
                return False  # Drawn around zero or not at all; weights from `torch.rand` are ND404's.
            if print_of(value) in trainable:
                return False
        return True

    def _report(self, graph: Graph, module: ModuleFact, layers: int, size: int, *, sure: bool) -> Finding:
        return self.finding(
            graph,
            f"{{modules}} is frozen ({count(size, 'parameter')}) while all of its {count(layers, 'layer')} "
            "hold random weights: nothing was loaded into it",
            module=module.path,
            confidence=Confidence.MEDIUM if sure else Confidence.LOW,
            evidence={"layers": layers, "parameters": size},
            help="Load weights into it, or let it train.",
        )
