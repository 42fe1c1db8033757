"""ND504: running statistics that were never updated, beside trained weights."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.running import running_norms
from normdoctor.rules.weights import all_uses, looks_trained, values_of


class UntrainedRunningStats(Rule):
    """Running statistics are at their initial values, while the weights are trained.

    ## What it does
    Finds a BatchNorm with running mean 0 and running variance 1 in all channels, in a model whose weights
    come from a checkpoint, or match no initialization.

    ## Why is this bad?
    In eval mode a BatchNorm subtracts the running mean and divides by the root of the running variance.
    With 0 and 1 it does nothing, though the weights behind it were trained on normalized inputs: the
    model is accurate in train mode and useless in eval mode. Buffers get lost where only parameters are
    saved, copied or averaged, where keys are filtered by name, and where a model was trained with its
    norms in eval mode.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, bias=False),
        nn.BatchNorm2d(32),  # ND504
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, bias=False),
        nn.BatchNorm2d(32),  # ND504
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )
    trained = {name: torch.randn_like(value) ** 3 / 20 for name, value in model.named_parameters()}
    model.load_state_dict(trained, strict=False)
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ## When to ignore
    Where the statistics are estimated anew before the model is used. The rule is silent for untrained
    models, for layers that the forward does not run, and for fewer than three weights of 256 values or
    more, unless they come from a checkpoint.

    ## References
    - torch.optim.swa_utils.update_bn, which estimates the running statistics of averaged weights.
    - CuriousAI/mean-teacher issue 9: the averaged model has the parameters, and not the buffers.
    """

    code = "ND504"
    name = "untrained-running-stats"
    category = "state"
    severity = Severity.WARNING
    requires = frozenset({"graph", "weights"})

    class Options(RuleOptions, frozen=True):
        """`share`: of the weights that must match no initialization, for a model without a checkpoint."""

        share: float = 0.7

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at the running statistics of each norm, where the weights are trained."""
        if not graph.facts.weights or not self._trained(graph):
            return
        for norm in running_norms(graph):
            if norm.untrained and norm.module.calls:
                yield self.finding(
                    graph,
                    "the running statistics of {modules} are at their initial values, mean 0 and variance 1, "
                    "while the weights of the model are trained",
                    module=norm.module.path,
                    evidence={"channels": norm.mean.count},
                    help="Load the buffers too, or estimate them with torch.optim.swa_utils.update_bn.",
                )

    def _trained(self, graph: Graph) -> bool:
        if graph.facts.checkpoint:
            return True
        judged = {
            use.parameter.name
            for use in all_uses(graph)
            if (value := values_of(graph, use.parameter.name)) is not None and value.count >= 256
        }
        return len(judged) >= 3 and looks_trained(graph, most=self.options.share)
