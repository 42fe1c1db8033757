"""ND305: a softmax as the activation of a hidden layer."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Location, Node
from normdoctor.findings import Applicability, Confidence, Finding, Fix
from normdoctor.graph import Graph
from normdoctor.rules.attention import attention_at
from normdoctor.rules.base import Rule
from normdoctor.rules.hidden import layer_before, layers_behind
from normdoctor.rules.layers import DENSE, bias_of, channel_axis, kernel_of
from normdoctor.rules.mixtures import softmax_axis


class HiddenSoftmax(Rule):
    """A softmax is the activation of a hidden layer.

    ## What it does
    Finds a softmax over the features of a linear layer or convolution whose output feeds another such
    layer, and nothing else.

    ## Why is this bad?
    A softmax makes its features compete: they sum to one, so their mean is 1/n (0.002 for 512 features),
    and one of them grows at the expense of all others. The layer passes on little more than which of
    its features is the largest, at a small scale.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(784, 512),
        nn.Softmax(dim=1),  # ND305
        nn.Linear(512, 10),
    )
    inputs = torch.randn(8, 784)
    ```

    Attention, gates and mixtures multiply something by a softmax. A softmax in front of a layer without a
    bias is a weighted mean of the rows of its weight, such as a memory that is read:

    ```python good
    import torch
    from torch import nn


    class Mixture(nn.Module):
        def __init__(self):
            super().__init__()
            self.route = nn.Linear(16, 4)
            self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
            self.key, self.memory = nn.Linear(16, 64), nn.Linear(64, 16, bias=False)

        def forward(self, x):
            weight = self.route(x).softmax(-1)
            x = sum(weight[:, i : i + 1] * expert(x) for i, expert in enumerate(self.experts))
            return self.memory(self.key(x).softmax(-1))


    model = Mixture()
    inputs = torch.randn(8, 16)
    ```

    ## When to ignore
    Where the features stand for classes or clusters whose probabilities the next layer is meant to see.
    The rule is silent for a softmax over another axis than the one that the next layer contracts, for
    one that is read by anything else too, and in front of linear layers and 1x1 convolutions without
    a bias and a norm.

    ## References
    - Goodfellow, Bengio and Courville, 2016, "Deep Learning", section 6.2.2.3: softmax is used inside of a
      model only to choose between options.
    """

    code = "ND305"
    name = "hidden-softmax"
    category = "activation"
    confidence = Confidence.MEDIUM

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report each softmax between two layers."""
        done: set[tuple[str, Location | None]] = set()
        for node in graph.by_role("softmax"):
            place = graph.label(node), node.location
            if node.kind not in ("softmax", "log_softmax") or place in done or attention_at(graph, node):
                continue
            behind = layers_behind(graph, node)
            before, _ = layer_before(graph, node)
            if before is None or not behind or not all(self._hidden(graph, node, one) for one in behind):
                continue
            if softmax_axis(graph, node) != channel_axis(before) % len(node.shape):
                continue
            done.add(place)
            count = node.shape[channel_axis(before)]
            yield self.finding(
                graph,
                f"{graph.named(node)} is the activation of a hidden layer: its {count} features sum to one",
                node=node,
                evidence={"features": count, "layer": graph.label(before), "next": graph.label(behind[0])},
                fix=Fix(title="ReLU or GELU in its place", applicability=Applicability.DISPLAY),
            )

    @staticmethod
    def _hidden(graph: Graph, node: Node, layer: Node) -> bool:
        """Does the layer contract the features that sum to one, and is it more than a table to read?"""
        axis = softmax_axis(graph, node)
        tensor = graph.input_tensor(layer)
        if axis is None or tensor is None:
            return False
        contracted = channel_axis(layer) % len(tensor.shape)
        if len(tensor.shape) == len(node.shape):
            if axis != contracted:
                return False
        elif axis != 1:
            return False  # flattened in between: only channels first stay features
        if bias_of(graph, layer) is not None:
            return True
        read = layer.kind in DENSE or set(kernel_of(graph, layer)) <= {1}
        return not read or any(reader.role == "norm" for reader in graph.readers(layer))
