"""ND405: a parameter that nobody wrote."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import ParameterFact, WeightFact
from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import CONVS, DENSE, TRANSPOSED, count, weight_of
from normdoctor.rules.weights import all_uses, origin_of


class UninitializedParameter(Rule):
    """A parameter holds whatever was in memory, since nobody initialized it.

    ## What it does
    Builds the model while torch fills new memory with NaN, and reports each parameter that still holds
    the fill. For a model that was built before, only values that are NaN or infinite can tell.

    ## Why is this bad?
    `torch.empty`, `torch.Tensor(n, m)` and `new_empty` return memory as it is. Often that is zeros, which
    looks fine; sometimes it is what another tensor left, up to 1e38, or NaN. The model then fails in some
    runs and on some machines, and no seed makes it repeatable.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Attend(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.query = nn.Parameter(torch.empty(width, width))  # ND405
            self.value = nn.Linear(width, width)

        def forward(self, x):
            weight = torch.softmax(x @ self.query @ x.transpose(1, 2), dim=-1)
            return weight @ self.value(x)


    model = nn.Sequential(
        nn.Linear(8, 16),
        Attend(16),
    )
    inputs = torch.randn(2, 5, 8)
    ```

    A tensor that is no parameter counts where the forward multiplies by it:

    ```python bad
    import torch
    from torch import nn


    class Project(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = torch.FloatTensor(8, 16)  # ND405
            self.head = nn.Linear(16, 4)

        def forward(self, x):
            return self.head(x @ self.matrix)


    model = Project()
    inputs = torch.randn(2, 8)
    ```

    ```python good
    import torch
    from torch import nn


    class Attend(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.query = nn.Parameter(torch.empty(width, width))
            self.value = nn.Linear(width, width)
            nn.init.xavier_uniform_(self.query)

        def forward(self, x):
            weight = torch.softmax(x @ self.query @ x.transpose(1, 2), dim=-1)
            return weight @ self.value(x)


    model = nn.Sequential(
        nn.Linear(8, 16),
        Attend(16),
    )
    inputs = torch.randn(2, 5, 8)
    ```

    ## When to ignore
    Where the parameter is always loaded from a checkpoint before it is used. The rule is silent for
    frozen parameters that are infinite, which are masks, and for buffers and plain tensors that the
    forward writes itself or reads by no product, convolution or linear layer: caches and queues.

    ## References
    - torch.empty: "Returns a tensor filled with uninitialized data".
    - torch.utils.deterministic.fill_uninitialized_memory, which makes such memory visible as NaN.
    - sauradip/STALE issue 16: `nn.Parameter(torch.empty(1, 512))`, and NaN in the backward of some runs.
    """

    code = "ND405"
    name = "uninitialized-parameter"
    category = "initialization"
    severity = Severity.ERROR
    requires = frozenset({"weights"})

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at the values of every parameter."""
        factors = {use.parameter.name for use in all_uses(graph)}
        # Kernels that are plain tensors are no weights to other rules, but layers multiply by them.
        layers = [node for node in graph.nodes if node.kind in CONVS | TRANSPOSED | DENSE and node.inputs]
        factors |= {weight.name for node in layers if (weight := weight_of(graph, node)) is not None}
        for name, value in sorted((graph.facts.weights or {}).items()):
            parameter = graph.parameters.get(name)
            if parameter is None or not value.count:
                continue
            if parameter.kind != "parameter" and (parameter.updated or name not in factors):
                continue
            broken = not value.finite and parameter.trainable and parameter.kind == "parameter"
            if value.uninitialized or broken:
                yield self._report(graph, parameter, value)

    def _report(self, graph: Graph, parameter: ParameterFact, value: WeightFact) -> Finding:
        noun = "tensor" if parameter.kind == "attribute" else parameter.kind
        size = count(value.count, "value")
        text = (
            f"the {noun} `{parameter.attribute}` of {{modules}} ({size}) is never initialized: it holds "
            "whatever was in memory"
            if value.uninitialized
            else f"the parameter `{parameter.attribute}` of {{modules}} ({size}) is not finite everywhere"
        )
        return self.finding(
            graph,
            text,
            module=parameter.module,
            location=origin_of(graph, parameter),
            evidence={"parameter": parameter.name, "count": value.count},
            help="Initialize it where it is made, for example with nn.init.xavier_uniform_.",
        )
