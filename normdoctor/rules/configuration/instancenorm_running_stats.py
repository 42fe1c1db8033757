"""ND205: an InstanceNorm that uses running statistics in evaluation."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Applicability, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import INSTANCE_NORMS


class InstancenormRunningStats(Rule):
    """An InstanceNorm that normalizes by running statistics in eval mode.

    ## What it does
    Finds InstanceNorm layers built with `track_running_stats=True`.

    ## Why is this bad?
    In training the layer normalizes each sample by its own statistics; in eval mode it uses averages
    over the training samples, as BatchNorm does. That is another function than the one that was
    trained: what instance normalization is used for, the removal of each sample's own contrast, does
    not happen any more.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.InstanceNorm2d(8, affine=True, track_running_stats=True),  # ND205
        nn.ReLU(),
    )
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ```python fixed
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.InstanceNorm2d(8, affine=True),  # ND205
        nn.ReLU(),
    )
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.ReLU())
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ## When to ignore
    Where a published checkpoint holds these statistics (the pix2pix of 2017 does).

    ## Fix safety
    Unsafe: the output in eval mode changes, and the state_dict loses three keys.

    ## References
    - Ulyanov, Vedaldi and Lempitsky, 2016, "Instance Normalization": applied "at test time as well".
    """

    code = "ND205"
    name = "instancenorm-running-stats"
    category = "configuration"
    severity = Severity.INFO
    fixable = True

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report each InstanceNorm module that tracks statistics and is called."""
        for module in graph.facts.modules:
            if module.base in INSTANCE_NORMS and module.calls and module.config.get("track_running_stats"):
                yield self.finding(
                    graph,
                    "{modules} uses running statistics in eval mode, each sample's own in training",
                    module=module.path,
                    fix=Fix(title="track_running_stats=False", applicability=Applicability.UNSAFE,
                            edits={"track_running_stats": ""}, everywhere=True),
                )  # fmt: skip
