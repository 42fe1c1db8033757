"""ND206: a GroupNorm over few elements."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions


class TinyGroups(Rule):
    """A GroupNorm whose groups hold few elements.

    ## What it does
    Finds GroupNorm that takes mean and variance over fewer than 16 elements, and GroupNorm with as many
    groups as channels, which is InstanceNorm. Groups of one or two elements are ND114.

    ## Why is this bad?
    The variance of n elements has a relative error of sqrt(2/n): 35 % for 16. Normalizing by so noisy a
    number adds that noise to the activations, and removes what the group has to say: in a group of four
    two degrees of freedom are lost.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(32, 64), nn.GroupNorm(16, 64), nn.ReLU())  # ND206
    inputs = torch.randn(4, 32)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.GroupNorm(8, 32), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 6 * 6, 64), nn.GroupNorm(4, 64), nn.ReLU(),
    )
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ## When to ignore
    Where only this input is small, or instance normalization is meant.

    ## References
    - Wu and He, 2018, "Group Normalization", table 3: 16 channels a group are best, one is worst.
    - The standard error of a variance: sqrt(2/(n - 1)) for normal values.
    """

    code = "ND206"
    name = "tiny-groups"
    category = "configuration"
    severity = Severity.INFO
    confidence = Confidence.MEDIUM

    class Options(RuleOptions, frozen=True):
        """From which size on a group is large enough."""

        least: int = 16

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report each GroupNorm by the size of its groups in the recorded forward."""
        seen: set[object] = set()
        for node in graph.by_role("norm"):
            before = graph.input_tensor(node)
            groups = node.config.get("num_groups")
            if node.kind != "group_norm" or before is None or not isinstance(groups, int):
                continue
            if len(before.shape) < 2 or groups < 1 or (graph.label(node), node.location) in seen:
                continue
            seen.add((graph.label(node), node.location))
            batch, channels = before.shape[:2]
            elements = before.size // max(batch * groups, 1)
            if elements <= 2:
                continue
            name = graph.named(node)
            if groups == channels > 1:
                text = f"{name} has as many groups as channels ({groups}): it is instance normalization"
            elif elements < self.options.least:
                text = f"{name} normalizes over {elements} elements: {channels} channels in {groups} groups"
            else:
                continue
            evidence = {"elements": elements, "groups": groups, "channels": channels}
            yield self.finding(graph, text, node=node, evidence=evidence)
