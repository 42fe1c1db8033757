"""ND506: a frozen BatchNorm whose statistics still move."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import BATCH_NORMS


class FrozenNormLiveStats(Rule):
    """The parameters of a BatchNorm are frozen, its running statistics are not.

    ## What it does
    Finds BatchNorms in train mode whose parameters do not require gradients, in a model that has other
    parameters to train.

    ## Why is this bad?
    `requires_grad_(False)` stops the optimizer, not the statistics: in train mode every forward
    normalizes with those of the batch and moves the running ones towards the new data. What was meant to
    be frozen changes, in training by the batch's statistics and in evaluation by the new running ones.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),  # ND506
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
    )
    model[:3].requires_grad_(False)
    inputs = torch.randn(2, 3, 16, 16)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
    )
    model[:3].requires_grad_(False).eval()
    inputs = torch.randn(2, 3, 16, 16)
    ```

    ## When to ignore
    Where the statistics are meant to follow the new data and only the scales are to stay. The rule is
    silent for a model that is frozen as a whole: nothing says that it is meant to train.

    ## References
    - torch.nn.BatchNorm2d: running estimates are updated in every forward in train mode.
    - jfzhang95/pytorch-deeplab-xception issue 140; chemprop pull request 952.
    """

    code = "ND506"
    name = "frozen-norm-live-stats"
    category = "state"
    severity = Severity.WARNING
    requires = frozenset()

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Compare mode and requires_grad of every BatchNorm."""
        if not any(one.trainable and one.kind == "parameter" for one in graph.facts.parameters):
            return
        recorded = bool(graph.nodes)
        for module in graph.facts.modules:
            own = [graph.parameters[name] for name in module.parameters if name in graph.parameters]
            parameters = [one for one in own if one.kind == "parameter"]
            moving = any(one.kind == "buffer" and one.attribute == "running_mean" for one in own)
            if (
                module.base in BATCH_NORMS
                and module.training
                and moving
                and parameters
                and not any(one.trainable for one in parameters)
                and module.config.get("momentum") != 0
                and (module.calls or not recorded)
            ):
                yield self.finding(
                    graph,
                    "{modules} has frozen parameters and is in train mode: its running statistics move with "
                    "every batch",
                    module=module.path,
                    evidence={"training": True, "momentum": module.config.get("momentum")},
                    help="Call .eval() on it as well, also after each model.train().",
                )
