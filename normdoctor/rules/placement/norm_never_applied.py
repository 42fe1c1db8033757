"""ND109: a norm that is built and never used."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import ModuleFact
from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import NORMS, count
from normdoctor.rules.usage import Use


class NormNeverApplied(Rule):
    """A norm is built, its module runs, and the norm does not.

    ## What it does
    Finds a norm with parameters that is never executed although the module that holds it is, and whose
    parameters are not used otherwise; and a class derived from a norm whose own forward never
    normalizes.

    ## Why is this bad?
    The network that was meant has a norm there, the network that runs has none. Nothing fails: the
    parameters stay at their initial values, appear in the state_dict, are counted and are handed to the
    optimizer. Typical causes are a line that got lost, or a `norm1` that is called where `norm2` was
    meant.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.norm1 = nn.LayerNorm(width)
            self.norm2 = nn.LayerNorm(width)  # ND109
            self.mix = nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x):
            x = x + self.mix(self.norm1(x))
            return x + self.mlp(x)


    model = Block(32)
    inputs = torch.randn(2, 5, 32)
    ```

    ```python bad
    import torch
    from torch import nn


    class NormAct(nn.BatchNorm2d):
        def __init__(self, channels):
            super().__init__(channels)
            self.act = nn.ReLU()

        def forward(self, x):
            return self.act(x)


    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        NormAct(8),  # ND109
    )
    inputs = torch.randn(2, 3, 8, 8)
    ```

    Using the parameters by hand is use:

    ```python good
    import torch
    import torch.nn.functional as F
    from torch import nn


    class ChannelsFirst(nn.LayerNorm):
        def forward(self, x):
            x = x.permute(0, 2, 3, 1)
            x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
            return x.permute(0, 3, 1, 2)


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.norm = ChannelsFirst(8)
            self.scale = nn.LayerNorm(8)

        def forward(self, x):
            x = self.norm(self.conv(x)).mean((2, 3))
            return F.layer_norm(x, (8,), self.scale.weight)


    model = Net()
    inputs = torch.randn(2, 3, 8, 8)
    ```

    ## When to ignore
    Where the norm belongs to a path that this call does not take. The rule is silent where the forward names
    the norm (so a path of it has a use for it), where a layer beside the norm did not run either (a
    cross-attention without a context), where part of a ModuleList ran, and where the module around the
    norm did not run. Where a norm beside it runs in its place, ND110
    norm-reused reports it.

    ## References
    - feinanshan/FANet issue 5: a subclass of BatchNorm2d whose forward returns only the activation.
    """

    code = "ND109"
    name = "norm-never-applied"
    category = "placement"
    severity = Severity.ERROR

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at every norm of the module tree."""
        use = Use(graph)
        for module in use.forgotten():
            if use.stand_in(module) is None:  # otherwise ND110
                yield self._report(graph, module, "is built and never called")
        for module in graph.facts.modules:
            own = [name for name in module.parameters if graph.parameters[name].kind == "parameter"]
            if module.base not in NORMS or not own or module.leaf or not module.calls:
                continue
            if not use.parameters.intersection(module.parameters) and not use.normalizes(module.path):
                yield self._report(graph, module, "runs, but its forward never normalizes")

    def _report(self, graph: Graph, module: ModuleFact, what: str) -> Finding:
        own = [graph.parameters[name] for name in module.parameters]
        size = sum(one.tensor.size for one in own if one.kind == "parameter")
        return self.finding(
            graph,
            f"{{modules}} ({module.type}, {count(size, 'parameter')}) {what}",
            module=module.path,
            evidence={"parameters": size, "calls": module.calls},
            help="Call it where it is meant to stand, or remove it.",
        )
