"""ND501: a module with parameters that the forward never runs."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import ModuleFact
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import count, parent
from normdoctor.rules.usage import Use


class UnreachedModule(Rule):
    """A module with parameters is not executed by the forward.

    ## What it does
    Finds the topmost modules with trainable parameters that neither ran in the recorded forward nor had
    their parameters read by it, while the module that holds them ran. Norms are ND109's.

    ## Why is this bad?
    Its parameters get no gradient, take memory, appear in the state_dict and in the optimizer, and make
    DistributedDataParallel wait for gradients that never come. Often a line of the forward was lost, or
    the attribute was overwritten by a newer layer.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(16, 32)
            self.second = nn.Linear(32, 32)  # ND501
            self.head = nn.Linear(32, 4)

        def forward(self, x):
            x = torch.relu(self.first(x))
            return self.head(x)


    model = Net()
    inputs = torch.randn(8, 16)
    ```

    Parameters that are read by a function are used:

    ```python good
    import torch
    import torch.nn.functional as F
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(32, 16)
            self.head = nn.Linear(16, 32)
            self.attend = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, ids):
            x = self.embed(ids)
            x = x + self.attend(x, x, x)[0]
            return F.linear(x, self.head.weight)


    model = Net()
    inputs = torch.randint(0, 32, (2, 5))
    ```

    ## When to ignore
    Where the module belongs to another path: a head that only training uses, a second modality, a cache.
    The rule is silent for a model that was recorded in eval mode, for members of a ModuleList or
    ModuleDict of which others ran, and for frozen modules.

    ## References
    - torch.nn.parallel.DistributedDataParallel: `find_unused_parameters`.
    """

    code = "ND501"
    name = "unreached-module"
    category = "state"
    severity = Severity.INFO
    confidence = Confidence.MEDIUM

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at what every module that ran holds directly."""
        if not graph.facts.training:
            return
        use = Use(graph)
        trained: dict[str, int] = {}
        for one in graph.facts.parameters:
            if one.kind == "parameter" and one.trainable and not one.aliases:
                path = one.module
                while True:
                    trained[path] = trained.get(path, 0) + one.tensor.size
                    if not path:
                        break
                    path = path.rpartition(".")[0]
        for module in graph.facts.modules:
            size = trained.get(module.path, 0)
            if not module.path or not size or use.ran(module) or use.is_norm(module):
                continue
            if self._left_out(graph, use, module):
                yield self.finding(
                    graph,
                    f"{{modules}} ({module.type}, {count(size, 'parameter')}) is not executed by the forward",
                    module=module.path,
                    evidence={"parameters": size},
                )

    @staticmethod
    def _left_out(graph: Graph, use: Use, module: ModuleFact) -> bool:
        """Did the module around it run, and is it no element of a collection that was used in part?"""
        holder = parent(graph, module.path)
        if holder is None or holder.leaf or not module.registered or not use.ran(holder):
            return False
        return holder.type not in ("ModuleList", "ModuleDict", "ParameterList", "ParameterDict")
