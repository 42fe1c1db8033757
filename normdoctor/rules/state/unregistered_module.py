"""ND502: modules and parameters that torch does not know of."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import ModuleFact, ParameterFact
from normdoctor.findings import Applicability, Edit, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import count


class UnregisteredModule(Rule):
    """Modules or parameters in a plain list, tuple or dict are registered nowhere.

    ## What it does
    Finds modules with parameters or buffers, dropouts, and parameters that lie in a plain Python list,
    tuple or dict of a module and are registered nowhere else in the model.

    ## Why is this bad?
    `nn.Module` registers what is assigned to its attributes, and does not look into plain containers. The
    hidden parameters are missing from `parameters()`, so no optimizer trains them; from `state_dict()`, so
    they are lost when the model is saved; and from `.to(device)`, `.train()` and `.eval()`. The forward
    runs all the same.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = [nn.Linear(16, 16) for _ in range(4)]  # ND502
            self.head = nn.Linear(16, 10)

        def forward(self, x):
            for block in self.blocks:
                x = torch.relu(block(x))
            return self.head(x)


    model = Net()
    inputs = torch.randn(2, 16)
    ```

    ```python fixed
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(16, 16) for _ in range(4)])  # ND502
            self.head = nn.Linear(16, 10)

        def forward(self, x):
            for block in self.blocks:
                x = torch.relu(block(x))
            return self.head(x)


    model = Net()
    inputs = torch.randn(2, 16)
    ```

    A list of modules that are registered besides is a convenient second name, and functions of
    activations have nothing to register:

    ```python good
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(16, 16)
            self.second = nn.Linear(16, 16)
            self.blocks = [self.first, self.second]
            self.acts = {"relu": nn.ReLU(), "tanh": nn.Tanh()}

        def forward(self, x):
            for block, name in zip(self.blocks, self.acts):
                x = self.acts[name](block(x))
            return x


    model = Net()
    inputs = torch.randn(2, 16)
    ```

    ## When to ignore
    Where a module is hidden on purpose, to keep it out of the state_dict (a teacher, a perceptual loss).
    The rule is silent where all that is hidden is frozen.

    ## Fix safety
    `nn.ModuleList(...)` keeps the function of the model. The state_dict gets the keys that were missing.

    ## References
    - torch.nn.ModuleList: "modules it contains are properly registered, and will be visible by all Module
      methods".
    - ikostrikov/pytorch-meta-optimizer issue 11; twitter/the-algorithm-ml pull request 136.
    """

    code = "ND502"
    name = "unregistered-module"
    category = "state"
    severity = Severity.ERROR
    fixable = True
    requires = frozenset()

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Group what is hidden by the container that hides it."""
        hidden: dict[str, list[ModuleFact]] = {}
        for module in graph.facts.modules:
            if not module.registered and module.container and self._is_top(module):
                hidden.setdefault(module.container, []).append(module)
        for container, modules in hidden.items():
            yield from self._modules(graph, container, modules)
        loose: dict[str, list[ParameterFact]] = {}
        for parameter in graph.facts.parameters:
            name, bracket, _ = parameter.attribute.partition("[")
            if parameter.kind == "attribute" and parameter.trainable and bracket and "." not in name:
                loose.setdefault(f"{parameter.module}.{name}".lstrip("."), []).append(parameter)
        for container, parameters in loose.items():
            yield self._parameters(graph, container, parameters)

    @staticmethod
    def _is_top(module: ModuleFact) -> bool:
        """Does it lie in the container itself, and not inside a module that does?"""
        rest = module.path[len(module.container) :]
        return module.path.startswith(f"{module.container}[") and "." not in rest.rpartition("]")[2]

    def _modules(self, graph: Graph, container: str, modules: list[ModuleFact]) -> Iterator[Finding]:
        counts = {module.path: self._hidden_parameters(graph, module) for module in modules}
        total = sum(trainable for trainable, _ in counts.values())
        frozen = sum(other for _, other in counts.values())
        dropouts = [m for m in modules if m.base.startswith("Dropout") and m.config.get("p")]
        if total == 0 and not (dropouts and frozen == 0):
            return
        amount = f"{count(total, 'parameter')} in all" if total else "train() and eval() do not reach them"
        place = next((module.origin for module in modules if module.origin is not None), None)
        for module in modules:
            if counts[module.path][0] or module in dropouts:
                yield self.finding(
                    graph,
                    f"{{modules}}: the plain container `{container}` hides {count(len(modules), 'module')} "
                    f"from torch ({amount})",
                    module=module.path,
                    location=place,
                    evidence={"container": container, "modules": len(modules), "parameters": total},
                    fix=_fix(container),
                    help="Optimizer, state_dict and .to() do not see them.",
                )

    @staticmethod
    def _hidden_parameters(graph: Graph, module: ModuleFact) -> tuple[int, int]:
        """How many trainable and other values lie in the module and below it."""
        inside = f"{module.path}."
        trainable = other = 0
        for one in graph.facts.parameters:
            if one.module == module.path or one.module.startswith(inside):
                if one.trainable and one.kind == "parameter":
                    trainable += one.tensor.size
                else:
                    other += one.tensor.size
        return trainable, other

    def _parameters(self, graph: Graph, container: str, parameters: list[ParameterFact]) -> Finding:
        total = sum(parameter.tensor.size for parameter in parameters)
        return self.finding(
            graph,
            f"the plain container `{container}` of {{modules}} hides {count(len(parameters), 'parameter')} "
            f"from torch ({count(total, 'value')})",
            module=parameters[0].module,
            evidence={"container": container, "parameters": len(parameters), "values": total},
            fix=_fix(container),
            help="Optimizer, state_dict and .to() do not see them.",
        )


def _fix(container: str) -> Fix:
    return Fix(
        title="Use nn.ModuleList, nn.ModuleDict or nn.ParameterList",
        applicability=Applicability.SAFE,
        steps=(Edit.contain(container),),
        everywhere=True,
    )
