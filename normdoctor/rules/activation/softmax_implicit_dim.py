"""ND306: a softmax that leaves its axis to torch."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Applicability, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.axes import implicit_axis, words
from normdoctor.rules.base import Rule


class SoftmaxImplicitDim(Rule):
    """A softmax that leaves its axis to torch.

    ## What it does
    Finds a softmax, log_softmax or softmin that is called, or built, without `dim`. Where the axis that
    torch then takes is known to be the batch, the finding is an error.

    ## Why is this bad?
    Without `dim`, torch takes axis 0 of a tensor with 0, 1 or 3 axes and axis 1 of any other, and warns
    that this is deprecated. The choice depends on the number of axes alone: the same code normalizes
    over the classes of a batch of rows and over the batch of a batch of sequences. Weights that should
    sum to one in each sequence then sum to one over the batch.

    ## Example
    ```python bad
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Linear(8, 1)

        def forward(self, x):
            weights = F.softmax(self.score(x).squeeze(-1))  # ND306
            return torch.einsum("bt,btc->bc", weights, x)

    model = Pool()
    inputs = torch.randn(4, 5, 8)
    ```
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(8, 4),
        nn.Softmax(),  # ND306
    )
    inputs = torch.randn(4, 8)
    ```
    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(8, 4),
        nn.Softmax(dim=-1),
    )
    inputs = torch.randn(4, 8)
    ```

    ## When to ignore
    Where the number of axes never changes and the axis that torch takes is the right one. Even then the
    axis should be said: the default is deprecated.

    ## Fix safety
    The fix writes down the axis that torch takes for the recorded input, which changes nothing. It is not
    offered where that axis is the batch.

    ## References
    - PyTorch, `torch.nn.functional.softmax`: "dim: A dimension along which softmax will be computed";
      `_get_softmax_dim` in torch/nn/functional.py has the choice for `None`.
    """

    code = "ND306"
    name = "softmax-implicit-dim"
    category = "activation"
    severity = Severity.WARNING
    fixable = True

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report each softmax without an axis."""
        for node in graph.by_role("softmax"):
            if node.kind in ("softmax", "log_softmax", "softmin") and self._implicit(graph, node):
                yield self._report(graph, node)

    @staticmethod
    def _implicit(graph: Graph, node: Node) -> bool:
        module = graph.module_of(node)
        if module is not None:
            return module.leaf and "dim" in module.config and module.config["dim"] is None
        called = node.op in ("call_function", "call_method") and node.location is not None
        return called and node.config.get("dim") is None and "_of_output" not in node.name

    def _report(self, graph: Graph, node: Node) -> Finding:
        rank = len(node.shape)
        axis = implicit_axis(rank)
        label = node.axes[axis] if axis < len(node.axes) else ""
        batch = "batch" in words(label) and rank > 1
        size = node.shape[axis] if rank else 1
        plain = not batch
        fix = Fix(
            title=f"Say the axis: dim={axis}" if not batch else "Say the axis",
            applicability=Applicability.SAFE if plain else Applicability.DISPLAY,
            edits={"dim": str(axis)} if plain else {},
            everywhere=True,
        )
        return self.finding(
            graph,
            f"{graph.named(node)} has no dim: for this input of {rank} axes torch takes axis {axis}"
            + (f", the {label}" if label else "")
            + f" of size {size}",
            node=node,
            severity=Severity.ERROR if batch else None,
            evidence={"axes": rank, "axis": axis, "size": size, "label": label},
            fix=fix,
        )
