"""ND301: two linear layers with nothing nonlinear between them."""

from __future__ import annotations

import math
from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Applicability, Confidence, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.chains import SHUFFLES, Chain, follow_axis, walk_back
from normdoctor.rules.layers import (
    CONVS,
    DENSE,
    TRANSPOSED,
    beside,
    channel_axis,
    channels,
    groups_of,
    kernel_of,
    owner,
    strided,
)

_LAYERS = CONVS | TRANSPOSED | DENSE


class LinearAfterLinear(Rule):
    """Two linear layers in a row, with nothing nonlinear between them.

    ## What it does
    Finds a linear layer or full convolution that gets the output of another one directly, or through
    BatchNorm, dropout and reshapes only, where the pair is no low-rank factorization.

    ## Why is this bad?
    The composition of two linear maps is a linear map. Two layers from 784 to 512 and from 512 to 10
    features hold 407,050 parameters and can express what one layer of 7,850 parameters can; the depth
    that was meant is not there. Most often an activation was forgotten, or was built and never called.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(784, 512)
            self.fc2 = nn.Linear(512, 10)  # ND301

        def forward(self, x):
            return self.fc2(self.fc1(x.flatten(1)))


    model = Net()
    inputs = torch.randn(4, 1, 28, 28)
    ```

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(16, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.Conv2d(16, 16, 3, padding=1, bias=False),  # ND301
        nn.BatchNorm2d(16),
        nn.ReLU(),
    )
    inputs = torch.randn(4, 16, 8, 8)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )
    inputs = torch.randn(4, 1, 28, 28)
    ```

    A pair whose inner width is smaller than both ends is a low-rank map with fewer parameters, and
    meant: linear bottlenecks, LoRA, factorized projections. So are depthwise and pointwise pairs.

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(256, 16, bias=False),
        nn.Linear(16, 256),
        nn.ReLU(),
        nn.Unflatten(1, (16, 4, 4)),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.Conv2d(16, 32, 1),
    )
    inputs = torch.randn(4, 256)
    ```

    ## When to ignore
    In deep linear networks, which are studied for their training dynamics, and in factorizations by
    intent. The rule is silent for low-rank pairs, grouped and asymmetric convolutions, strided ones without
    a BatchNorm between (patch embeddings, upsampling), blocks around a depthwise convolution, a bare 1x1
    convolution that does not widen in front of a spatial one (pyramids), embeddings, everything that
    passes through an attention, a sum, a product or a concatenation, and where another reader sees the
    tensor between.

    ## References
    - nutonomy/nuscenes-devkit pull request 730: an activation between two linear layers that was missing.
    - toandaominh1997/EfficientDet.Pytorch issue 123: a head builds its ReLU and never calls it.
    - Sandler, Howard, Zhu, Zhmoginov and Chen, 2018, "MobileNetV2": linear bottlenecks, which are meant.
    """

    code = "ND301"
    name = "linear-after-linear"
    category = "activation"
    severity = Severity.WARNING
    confidence = Confidence.MEDIUM

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Walk back from each linear layer to the one in front of it."""
        pairs: dict[tuple[str, str], tuple[Node, Node, tuple[int, int, int]]] = {}
        sources: dict[str, set[str]] = {}
        weights: dict[tuple[str, str], str] = {}
        targets: dict[str, set[str]] = {}
        tied = {alias: one.name for one in graph.facts.parameters for alias in one.aliases}
        for second in graph.by_role("linear"):
            if second.kind not in _LAYERS:
                continue
            chain = walk_back(graph, second, lambda node: self._linear(graph, node))
            first = chain.source
            sources.setdefault(graph.label(second), set()).add(graph.label(first) if first else "")
            if first is None or first.kind not in _LAYERS:
                continue
            weight = next((tied.get(name, name) for name in first.parameters), graph.label(first))
            targets.setdefault(weight, set()).add(graph.label(second))
            key = (graph.label(first), graph.label(second))
            sizes = self._sizes(graph, first, second, chain)
            if key not in pairs and sizes and not self._meant(graph, first, second, chain, sizes):
                pairs[key] = (first, second, sizes)
                weights[key] = weight
        for key, (first, second, sizes) in pairs.items():
            # A layer that several share, on either side, cannot be merged with one of them.
            shared = owner(graph, second) is not None and len(sources[key[1]]) > 1
            if not shared and (owner(graph, first) is None or len(targets[weights[key]]) == 1):
                yield self._report(graph, first, second, sizes)

    @staticmethod
    def _linear(graph: Graph, node: Node) -> bool:
        """Is this a linear function of its input (in the mode that counts)?"""
        if node.kind in SHUFFLES:
            return False
        if graph.transparent(node) or node.kind == "batch_norm" or node.role == "dropout":
            return True
        return node.kind in ("add", "sub", "mul", "div") and len(node.inputs) == 1 and not node.parameters

    @staticmethod
    def _sizes(graph: Graph, first: Node, second: Node, chain: Chain) -> tuple[int, int, int] | None:
        """(in, inner, out) of the pair; None where the second does not contract what the first wrote."""
        one, two = channels(graph, first), channels(graph, second)
        before, between = graph.input_tensor(first), graph.input_tensor(second)
        if one is None or two is None or before is None or between is None:
            return None
        if one[1] == two[0]:
            axis = follow_axis(first, channel_axis(first), chain.passed)
            wanted = channel_axis(second) % len(between.shape)
            return (one[0], one[1], two[1]) if axis == wanted else None
        whole = math.prod(first.shape[1:])
        if first.kind in CONVS and second.kind in DENSE and whole == two[0]:
            return math.prod(before.shape[1:]), whole, two[1]
        return None

    @classmethod
    def _meant(
        cls, graph: Graph, first: Node, second: Node, chain: Chain, sizes: tuple[int, int, int]
    ) -> bool:
        """Is the pair one of the factorizations that people build on purpose?"""
        into, inner, out = sizes
        if inner < min(into, out):
            return True
        if owner(graph, first) is owner(graph, second) is not None:
            return True
        if any(groups_of(node) > 1 or len(set(kernel_of(graph, node))) > 1 for node in (first, second)):
            return True
        bare = all(node.kind != "batch_norm" for node in chain.passed)
        if (strided(first) or strided(second)) and (bare or cls._shrinks(graph, first, second)):
            return True
        reduces = inner <= into and set(kernel_of(graph, first)) == {1} != set(kernel_of(graph, second))
        if first.kind in CONVS and second.kind in CONVS and bare and reduces:
            return True
        # An expansion is no factorization, whatever stands beside it.
        return inner < 2 * max(into, out) and cls._beside_depthwise(graph, first, second)

    @staticmethod
    def _shrinks(graph: Graph, first: Node, second: Node) -> bool:
        """Are there fewer values between the two than in front of them and behind them?"""
        sizes = [
            math.prod(one.shape) for one in (graph.input_tensor(first), first, second) if one is not None
        ]
        return len(sizes) == 3 and sizes[1] < min(sizes[0], sizes[2])

    @staticmethod
    def _beside_depthwise(graph: Graph, first: Node, second: Node) -> bool:
        """Does a grouped convolution stand in front of the pair or behind it (MBConv blocks)?"""

        def light(node: Node) -> bool:
            return graph.transparent(node) or node.role in ("norm", "activation", "gate", "dropout")

        before = walk_back(graph, first, light, alone=False).source
        if before is not None and before.kind in CONVS and groups_of(before) > 1:
            return True
        stack, seen = [second], set()
        while stack:
            for reader in graph.users(stack.pop()):
                if reader.kind in CONVS and groups_of(reader) > 1:
                    return True
                if reader.index not in seen and light(reader):
                    seen.add(reader.index)
                    stack.append(reader)
        return False

    def _report(self, graph: Graph, first: Node, second: Node, sizes: tuple[int, int, int]) -> Finding:
        into, inner, out = sizes
        name = beside(graph, first, second)
        return self.finding(
            graph,
            f"nothing nonlinear stands between `{name}` ({into} to {inner}) and {{modules}} "
            f"({inner} to {out}): together they are one linear map",
            node=second,
            evidence={"first": graph.label(first), "in": into, "inner": inner, "out": out},
            related=(("the layer in front of it", graph.where(first)),),
            fix=Fix(title="Put an activation between the two", applicability=Applicability.DISPLAY),
        )
