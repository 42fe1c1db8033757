"""ND204: a BatchNorm whose evaluation depends on the batch."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import ModuleFact, Node
from normdoctor.findings import Applicability, Finding, Fix
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import of_one_sample, owner, tracks_statistics


class BatchnormWithoutRunningStats(Rule):
    """A BatchNorm that keeps no running statistics.

    ## What it does
    Finds BatchNorm layers built with `track_running_stats=False`, calls of `F.batch_norm` without
    running statistics on an activation, and calls that have them and say `training=True` in eval mode too.

    ## Why is this bad?
    Such a layer normalizes with the statistics of the batch in eval mode too. What the model says of
    one sample then depends on the other samples of its batch, a batch of one value a channel raises an
    error, and the accuracy changes with the batch size of the evaluation.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8, track_running_stats=False),  # ND204
        nn.ReLU(),
    )
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ```python bad
    import torch
    import torch.nn.functional as F
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(16, 32, bias=False)
            self.gamma = nn.Parameter(torch.ones(32))
            self.beta = nn.Parameter(torch.zeros(32))

        def forward(self, x):
            x = F.batch_norm(self.fc(x), None, None, self.gamma, self.beta, training=True)  # ND204
            return F.relu(x)


    model = Net()
    inputs = torch.randn(8, 16)
    ```

    A norm of each sample by itself, written with the batch folded into the channels, needs no running
    statistics, and neither does InstanceNorm:

    ```python good
    import torch
    import torch.nn.functional as F
    from torch import nn


    class Instance(nn.Module):
        def forward(self, x):
            folded = x.reshape(1, -1, *x.shape[2:])
            return F.batch_norm(folded, None, None, training=True).view_as(x)


    model = nn.Sequential(nn.Conv2d(3, 8, 3), Instance(), nn.ReLU())
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.InstanceNorm2d(8, affine=True),
        nn.ReLU(),
    )
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ## When to ignore
    Where the batch of the evaluation is as large and as mixed as that of the training by design: some
    generators, meta-learning with transductive BatchNorm, adaptation at test time.

    ## Fix safety
    Unsafe: the output in eval mode changes, and running statistics have to be learned before it can be used.

    ## References
    - torch.nn.BatchNorm2d: with `track_running_stats=False` the layer "always uses batch statistics in
      both training and eval modes".
    - pytorch/pytorch issue 16793.
    """

    code = "ND204"
    name = "batchnorm-without-running-stats"
    category = "configuration"
    fixable = True

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report each BatchNorm of an activation without running statistics, once."""
        seen: set[object] = set()
        for node in graph.by_role("norm"):
            if node.kind != "batch_norm" or not node.inputs or of_one_sample(graph, node):
                continue
            tracking = tracks_statistics(graph, node)
            if tracking and not node.config.get("active_in_eval"):
                continue
            module = owner(graph, node)
            key = module.path if module is not None else (node.scope, node.location)
            if key in seen:
                continue
            seen.add(key)
            yield self._report(graph, node, module, tracking=tracking)

    def _report(self, graph: Graph, node: Node, module: ModuleFact | None, *, tracking: bool) -> Finding:
        plain = module is not None and module.leaf
        why = "says training=True in eval mode too" if tracking else "keeps no running statistics"
        fix = Fix(
            title="track_running_stats=True",
            applicability=Applicability.UNSAFE,
            edits={"track_running_stats": ""},
        )
        if tracking and module is None:
            fix = Fix(
                title="training=self.training",
                applicability=Applicability.UNSAFE,
                edits={"training": "self.training"},
            )
        return self.finding(
            graph,
            f"{graph.named(node)} {why}: the output for one sample depends on the rest of its batch",
            node=node,
            evidence={"running_statistics": tracking},
            fix=fix if plain is not tracking else None,
        )
