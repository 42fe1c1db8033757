"""ND115: an InstanceNorm that takes a batch for one sample."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.axes import shown, words
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import INSTANCE_NORMS, owner


class InstancenormUnbatched(Rule):
    """An InstanceNorm that takes a batch for one sample.

    ## What it does
    Finds an InstanceNorm1d, 2d or 3d whose input has one axis less than a batch of such samples, while
    its first axis is the batch: (N, C) into InstanceNorm1d, (N, H, W) into InstanceNorm2d.

    ## Why is this bad?
    torch reads an input with one axis less as a single sample without a batch, (C, L) or (C, H, W). The
    batch becomes the channels: InstanceNorm1d on (N, C) subtracts the mean over the features of each
    sample, and its affine parameters, if their number fits, belong to samples. Nothing warns of it but
    a size that does not fit.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(8, 16),
        nn.InstanceNorm1d(16),  # ND115
        nn.ReLU(),
        nn.Linear(16, 2),
    )
    inputs = torch.randn(16, 8)
    ```
    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv1d(8, 16, 3),
        nn.InstanceNorm1d(16),
        nn.ReLU(),
        nn.Conv1d(16, 2, 3),
    )
    inputs = torch.randn(16, 8, 20)
    ```
    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv1d(8, 16, 3), nn.InstanceNorm1d(16), nn.ReLU())
    inputs = torch.randn(8, 20)
    ```

    ## When to ignore
    Where the first axis is not a batch: a single sample, (C, L), is not reported, since the layer in
    front of it says so.

    ## References
    - PyTorch, `torch.nn.InstanceNorm1d`: input of shape (N, C, L) or (C, L).
    """

    code = "ND115"
    name = "instancenorm-unbatched"
    category = "placement"
    severity = Severity.ERROR

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report each InstanceNorm whose channel axis is the batch because an axis is missing."""
        for node in graph.by_role("norm"):
            module = owner(graph, node)
            if node.kind != "instance_norm" or module is None or module.base not in INSTANCE_NORMS:
                continue
            if not node.inputs:
                continue
            before = graph.nodes[node.inputs[0]]
            dims = int(module.base[-2])
            if len(before.shape) != dims + 1 or len(before.axes) != dims + 1:
                continue
            if "batch" not in words(before.axes[0]):
                continue
            yield self.finding(
                graph,
                f"{module.type} {{modules}} reads {shown(before.axes, before.shape)} as one sample without "
                f"a batch: the batch of {before.shape[0]} is taken for the channels",
                node=node,
                evidence={"shape": list(before.shape), "axes": list(before.axes)},
            )
