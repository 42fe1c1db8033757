"""ND120: norms of which torch has a better form."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Applicability, Edit, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule


class LegacyNorm(Rule):
    """LocalResponseNorm, and the old forms of weight and spectral normalization.

    ## What it does
    Finds LocalResponseNorm, and layers under `torch.nn.utils.weight_norm` or
    `torch.nn.utils.spectral_norm`, which torch replaced by `torch.nn.utils.parametrizations`.

    ## Why is this bad?
    Local response normalization takes more time than it earns: Simonyan and Zisserman found no gain
    from it in 2014. The old weight reparametrizations set a plain attribute in a forward hook: the
    weight is stale until the next forward, deepcopy fails while a graph is alive, and torch warns that
    `weight_norm` is deprecated.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.ReLU(),
        nn.LocalResponseNorm(5),  # ND120
        nn.utils.spectral_norm(nn.Conv2d(16, 16, 3)),  # ND120
    )
    inputs = torch.randn(4, 3, 16, 16)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(16, 16, 3)),
    )
    inputs = torch.randn(4, 3, 16, 16)
    ```

    ## When to ignore
    Where the weights of a published model are loaded: the names in the state_dict differ between the
    two forms (torch converts those of `weight_norm` while loading).

    ## Fix safety
    Unsafe: the names of parameters change, and the new spectral_norm starts from another estimate. For
    LocalResponseNorm no fix is offered.

    ## References
    - Simonyan and Zisserman, 2014, "Very Deep Convolutional Networks", section 2.3.
    - torch.nn.utils.weight_norm: "deprecated in favor of torch.nn.utils.parametrizations.weight_norm".
    """

    code = "ND120"
    name = "legacy-norm"
    category = "placement"
    severity = Severity.INFO
    fixable = True

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report the layers, wherever they stand."""
        for norm in graph.norms:
            if norm.kind == "local_response_norm":
                yield self.finding(
                    graph,
                    f"{graph.named(norm.output)}: local response normalization, which brought no gain",
                    node=norm.output,
                )
        for module in graph.facts.modules:
            for parameter, way in module.reparametrized.items():
                if way in ("weight_norm", "spectral_norm"):
                    yield self.finding(
                        graph,
                        f"`{parameter}` of {{modules}} is under the old torch.nn.utils.{way}",
                        module=module.path,
                        fix=Fix(
                            title=f"torch.nn.utils.parametrizations.{way}",
                            applicability=Applicability.UNSAFE,
                            steps=(
                                Edit.swap(
                                    f"torch.nn.utils.parametrizations.{way}", old=f"torch.nn.utils.{way}"
                                ),
                            ),
                            everywhere=True,
                        ),
                    )
