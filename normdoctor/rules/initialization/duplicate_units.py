"""ND406: units of a layer that hold the same weights."""

from __future__ import annotations

import math
from collections.abc import Iterator

from normdoctor.facts import WeightFact
from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.layers import count
from normdoctor.rules.weights import Use, all_uses, origin_of, values_of


class DuplicateUnits(Rule):
    """Two or more units of a layer hold exactly the same weights.

    ## What it does
    Compares the rows or filters of each trainable weight of a linear layer, convolution or product, and
    counts those that equal another one bit for bit and are not all zero.

    ## Why is this bad?
    Units with equal weights compute equal outputs. Unless the next layer treats them differently they
    get equal gradients and stay equal: the layer is narrower than it is paid for. Two random rows of
    eight values are equal by chance once in 10^50 draws, so something copied them: `expand` or
    `repeat` of one row, a loop that draws one filter, a bad merge of checkpoints.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(1, 32).repeat(64, 1) / 6)  # ND406
            self.head = nn.Linear(64, 10)

        def forward(self, x):
            return self.head(torch.relu(nn.functional.linear(x, self.weight)))


    model = Net()
    inputs = torch.randn(4, 32)
    ```

    ```python good
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(64, 32) / 6)
            self.head = nn.Linear(64, 10)

        def forward(self, x):
            return self.head(torch.relu(nn.functional.linear(x, self.weight)))


    model = Net()
    inputs = torch.randn(4, 32)
    ```

    ## When to ignore
    Where units are copied by design before noise is added to them (Net2Net). The rule is silent for
    frozen weights, constant weights (ND401), pruned units of zeros, rows of fewer than eight values,
    embeddings and layers that share their weight with one, convolutions in front of a pixel shuffle
    (ICNR starts with equal sub-kernels), and units that read different channels (depthwise).

    ## References
    - Goodfellow, Bengio and Courville, 2016, "Deep Learning", section 8.4: breaking symmetry.
    - Aitken et al., 2017, "Checkerboard artifact free sub-pixel convolution": equal sub-kernels by design.
    """

    code = "ND406"
    name = "duplicate-units"
    category = "initialization"
    severity = Severity.ERROR
    requires = frozenset({"graph", "weights"})

    class Options(RuleOptions, frozen=True):
        """`length`: fewest values of a unit; shorter ones may be equal by chance once quantized."""

        length: int = 8

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at each weight that the graph multiplies with."""
        if not graph.facts.weights:
            return
        embedded = {name for node in graph.nodes if node.kind == "embedding" for name in node.parameters}
        done: set[str] = set(embedded)
        for use in all_uses(graph):
            value = values_of(graph, use.parameter.name)
            if use.parameter.name in done or value is None or not use.parameter.trainable:
                continue
            done.add(use.parameter.name)
            copies = self._copies(use, value)
            if copies and not self._shuffled(graph, use):
                yield self._report(graph, use, copies)

    def _copies(self, use: Use, value: WeightFact) -> int:
        shape = use.parameter.tensor.shape
        if not use.direct or use.axis < 0 or use.units < 2 or use.parameter.kind != "parameter":
            return 0
        if math.prod(shape) // max(shape[use.axis], 1) < self.options.length:
            return 0
        return value.duplicate_rows if use.axis == 0 else value.duplicate_columns

    @staticmethod
    def _shuffled(graph: Graph, use: Use) -> bool:
        """Does a pixel shuffle follow?"""
        stack, seen = [use.node], set()
        while stack:
            for reader in graph.users(stack.pop()):
                if reader.kind == "pixel_shuffle":
                    return True
                if reader.index not in seen and (reader.role == "activation" or graph.transparent(reader)):
                    seen.add(reader.index)
                    stack.append(reader)
        return False

    def _report(self, graph: Graph, use: Use, copies: int) -> Finding:
        parameter = use.parameter
        total = parameter.tensor.shape[use.axis]
        return self.finding(
            graph,
            f"{copies:,} of the {count(total, 'unit')} in `{parameter.attribute}` of {{modules}} hold the "
            "weights of another unit",
            module=parameter.module,
            location=origin_of(graph, parameter) or use.node.location,
            evidence={"parameter": parameter.name, "duplicates": copies, "units": total},
            help="Draw each unit by itself.",
        )
