"""ND509: a norm whose parameters no optimizer trains."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.layers import count, parents
from normdoctor.rules.normparameters import norm_modules


class ParameterNotOptimized(Rule):
    """A trainable parameter of a norm is in no group of the optimizer.

    ## What it does
    Finds norms whose parameters require gradients and lie in no parameter group, while those of the
    layers around them do.

    ## Why is this bad?
    The scale and shift stay at one and zero for the whole training. The gradients are computed and thrown
    away. This happens where groups are picked by name or type (`if "weight" in name`, only convolutions
    and linear layers), and where layers were added or replaced after the optimizer had been made.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.LayerNorm(32),  # ND509
        nn.GELU(),
        nn.Linear(32, 4),
    )
    inputs = torch.randn(8, 16)
    layers = [one for one in model if isinstance(one, nn.Linear)]
    optimizer = torch.optim.AdamW(value for layer in layers for value in layer.parameters())
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.LayerNorm(32),
        nn.GELU(),
        nn.Linear(32, 4),
    )
    inputs = torch.randn(8, 16)
    optimizer = torch.optim.AdamW(model.parameters())
    ```

    Training only the head is a decision:

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.GELU()),
        nn.Linear(32, 4),
    )
    inputs = torch.randn(8, 16)
    optimizer = torch.optim.AdamW(model[1].parameters())
    ```

    ## When to ignore
    Where the norm is meant to keep its values; `requires_grad_(False)` says so and saves its gradients.
    The rule is silent where less than three quarters of the parameters around the norm are optimized.

    ## References
    - torch.optim: "params: an iterable of torch.Tensors or dicts. Specifies what Tensors should be
      optimized".
    """

    code = "ND509"
    name = "parameter-not-optimized"
    category = "state"
    severity = Severity.WARNING
    requires = frozenset({"optimizer"})

    class Options(RuleOptions, frozen=True):
        """When the layers around a norm count as trained."""

        min_share: float = 0.75
        """Of their parameters; a training of the head alone, or of the last layers, stays below it."""

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Compare each norm with what lies in the nearest module around it that has other layers."""
        optimized = {
            name for one in graph.facts.optimizers for group in one.groups for name in group.parameters
        }
        norms = norm_modules(graph)
        inside_norms = {name for module in norms.values() for name in module.parameters}
        for path, module in norms.items():
            left_out = [
                name
                for name in module.parameters
                if graph.parameters[name].kind == "parameter"
                and graph.parameters[name].trainable
                and not optimized.intersection((name, *graph.parameters[name].aliases))
            ]
            if not left_out or not module.registered:
                continue
            around = self._around(graph, path, inside_norms)
            trained = [name for name in around if name in optimized]
            if around and len(trained) >= self.options.min_share * len(around):
                yield self.finding(
                    graph,
                    f"{{modules}} ({module.type}): {count(len(left_out), 'parameter')} in no group of the "
                    f"optimizer, which trains {len(trained)} of the {len(around)} around it",
                    module=path,
                    evidence={"parameters": left_out, "around": len(around), "trained": len(trained)},
                    help="Hand model.parameters() to the optimizer, or freeze it with requires_grad_(False).",
                )

    @staticmethod
    def _around(graph: Graph, path: str, norms: set[str]) -> list[str]:
        """The trainable parameters of other layers in the nearest module that has some."""
        for holder in parents(graph, path):
            inside = f"{holder.path}." if holder.path else ""
            found = [
                one.name
                for one in graph.facts.parameters
                if one.kind == "parameter" and one.trainable and one.name.startswith(inside)
                and one.name not in norms
            ]  # fmt: skip
            if found:
                return found
        return []
