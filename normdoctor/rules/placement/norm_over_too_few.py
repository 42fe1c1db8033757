"""ND114: a norm that reduces over one or two elements."""

from __future__ import annotations

import math
from collections.abc import Iterator

from normdoctor.facts import HandwrittenNorm, Node
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph, Norm
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import frozen, owner, uses_batch_statistics


class NormOverTooFew(Rule):
    """A norm takes mean and variance over one or two elements.

    ## What it does
    Computes from the recorded shapes how many elements each norm reduces over, and reports one (an
    error) and two (a warning). A batch size that normdoctor chose itself is never blamed.

    ## Why is this bad?
    The mean of one element is the element. The difference is 0, and the output is the norm's bias
    whatever the input: the layer cuts the network off, silently. RMSNorm over one element leaves its
    sign. Over two elements a, b the output is +1 and -1 or -1 and +1, up to eps: it tells which of the
    two is larger and nothing else.

    ## Example
    GroupNorm with as many groups as channels on a vector normalizes each value by itself:

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.GroupNorm(32, 32),  # ND114
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    inputs = torch.randn(8, 16)
    ```

    ```python bad
    import torch
    from torch import nn


    class Scorer(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Linear(16, 1)
            self.norm = nn.LayerNorm(1)  # ND114

        def forward(self, x):
            return self.norm(self.score(x))


    model = Scorer()
    inputs = torch.randn(8, 16)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.GroupNorm(8, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    inputs = torch.randn(8, 16)
    ```

    ## When to ignore
    Where the shapes of the recorded input are not those of real use (a spatial size that is smaller, a
    batch that is only an example).

    ## References
    - pytorch/pytorch issue 45687: GroupNorm over one element gives zeros without an error, while BatchNorm
      and InstanceNorm raise in training.
    - The figures follow from the formula: for a, b the mean is (a+b)/2 and the standard deviation |a-b|/2,
      so (a - mean) / std is the sign of a - b.
    """

    code = "ND114"
    name = "norm-over-too-few"
    category = "placement"
    severity = Severity.ERROR

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Count the reduced elements of each call; the smallest count of a module is reported."""
        inferred = any(one.source == "inferred" for one in graph.facts.inputs)
        worst: dict[str, tuple[int, Confidence, Norm]] = {}
        for norm in graph.norms:
            node = norm.output
            if frozen(graph, node) or norm.kind == "normalize":
                continue
            if norm.handwritten is not None:
                size, sure = self._by_hand(graph, norm, norm.handwritten, inferred)
            else:
                size, sure = self._reduced(graph, node, inferred)
            if size is None or size > (1 if norm.kind == "rms_norm" else 2):
                continue
            label = graph.label(node)
            if label not in worst or size < worst[label][0]:
                worst[label] = (size, sure, norm)
        for size, sure, norm in worst.values():
            yield self._report(graph, norm, size, sure)

    @classmethod
    def _reduced(cls, graph: Graph, node: Node, inferred: bool) -> tuple[int | None, Confidence]:
        """How many elements the norm reduces over, and how sure it is that the model says so."""
        tensor = graph.input_tensor(node)
        unknown = (None, Confidence.LOW)
        if tensor is None or len(tensor.shape) < 1 or 0 in tensor.shape:
            return unknown
        shape = tensor.shape
        if node.kind in ("layer_norm", "rms_norm"):
            normalized = node.config.get("normalized_shape")
            axes = len(normalized) if isinstance(normalized, list | tuple) else 1
            return math.prod(shape[len(shape) - axes :]), Confidence.HIGH
        space = math.prod(shape[2:])
        sure = Confidence.HIGH
        if inferred and len(shape) > 2 and not cls._pooled(graph, graph.nodes[node.inputs[0]]):
            sure = Confidence.LOW
        groups = node.config.get("num_groups")
        if node.kind == "group_norm" and isinstance(groups, int) and len(shape) > 1 and groups > 0:
            return shape[1] // groups * space, sure
        if node.kind == "instance_norm" and len(shape) > 2 and uses_batch_statistics(graph, node):
            return space, sure
        if node.kind == "batch_norm" and len(shape) > 1 and not inferred:
            # An example batch may be smaller than the batches of training.
            return (shape[0] * space, Confidence.LOW) if uses_batch_statistics(graph, node) else unknown
        return unknown

    @classmethod
    def _by_hand(
        cls, graph: Graph, norm: Norm, found: HandwrittenNorm, inferred: bool
    ) -> tuple[int | None, Confidence]:
        shape = norm.input.shape if norm.input is not None else ()
        if not found.reduced or 0 in found.reduced or max(found.reduced) >= len(shape):
            return None, Confidence.LOW  # the batch of an example may be smaller than that of training
        features = found.reduced == (len(shape) - 1,)
        guessed = inferred and not features and norm.input is not None and not cls._pooled(graph, norm.input)
        return math.prod(shape[axis] for axis in found.reduced), (
            Confidence.LOW if guessed else Confidence.HIGH
        )

    @staticmethod
    def _pooled(graph: Graph, node: Node) -> bool:
        """Was this map pooled to a fixed size, whatever the input's?"""
        while True:
            if node.kind.startswith("adaptive_") or node.role == "reduce":
                return True
            if node.role not in ("linear", "activation", "dropout", "reshape") or not node.inputs:
                return False
            node = graph.nodes[node.inputs[0]]

    def _report(self, graph: Graph, norm: Norm, size: int, sure: Confidence) -> Finding:
        node = norm.output
        module = owner(graph, node)
        what = module.type if module is not None else norm.kind
        figures = norm.input.shape if norm.input is not None else ()
        result = (
            "its output is only the sign of its input"
            if norm.kind == "rms_norm"
            else "its output is its bias, whatever the input"
            if size == 1
            else "its output only tells which of the two is larger"
        )
        number = "one element" if size == 1 else "two elements"
        return self.finding(
            graph,
            f"{what} {{modules}} reduces over {number} of its input {figures}: {result}",
            node=node,
            severity=Severity.ERROR if size == 1 else Severity.WARNING,
            confidence=sure,
            evidence={"elements": size, "input": list(figures)},
            help="Normalize over more: fewer groups, more features, or no norm behind a global pooling.",
        )
