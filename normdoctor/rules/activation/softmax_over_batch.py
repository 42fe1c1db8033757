"""ND308: a softmax over the batch."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.attention import weighs
from normdoctor.rules.axes import shown, softmax_axis, words
from normdoctor.rules.base import Rule

_BATCH = frozenset({"batch", "batch*heads"})


class SoftmaxOverBatch(Rule):
    """A softmax that normalizes over the batch.

    ## What it does
    Finds a softmax whose axis is the batch, while what is computed from it still has a row for each
    sample.

    ## Why is this bad?
    The samples of a batch compete: the probabilities of one class sum to one over the batch, attention
    weights over the samples. A sample's output depends on which others are with it; with a batch of
    one all weights are 1, so that the model behaves differently in use than in training.

    ## Example
    ```python bad
    import torch
    from torch import nn

    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(50, 8)
            self.score = nn.Linear(8, 1)

        def forward(self, ids):
            x = self.embed(ids)
            weights = torch.softmax(self.score(x).squeeze(-1), dim=0)  # ND308
            return torch.einsum("bt,btc->bc", weights, x)

    model = Pool()
    inputs = torch.randint(0, 50, (4, 5))
    ```
    ```python good
    import torch
    from torch import nn

    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(50, 8)
            self.score = nn.Linear(8, 1)

        def forward(self, ids):
            x = self.embed(ids)
            weights = torch.softmax(self.score(x).squeeze(-1), dim=1)
            return torch.einsum("bt,btc->bc", weights, x)

    model = Pool()
    inputs = torch.randint(0, 50, (4, 5))
    ```
    ```python good
    import torch
    from torch import nn

    class Bag(nn.Module):
        # Attention over the instances of one bag: the first axis is summed, so it is no batch.
        def __init__(self):
            super().__init__()
            self.features = nn.Linear(20, 8)
            self.score = nn.Linear(8, 1)

        def forward(self, x):
            h = torch.relu(self.features(x))
            weights = torch.softmax(self.score(h), dim=0)
            return (weights * h).sum(dim=0)

    model = Bag()
    inputs = torch.randn(30, 20)
    ```

    ## When to ignore
    Where samples are meant to compete, as in a loss over pairs of a batch; a matrix of batch by batch
    is not reported. Where the model is used on single rows without a batch axis, give such a row with
    `--input`: the rule then knows that there is no batch. Confidence is medium where the inputs were
    guessed.

    ## References
    - PetrochukM/PyTorch-NLP#2: attention normalized over axis 0.
    - xmu-xiaoma666/External-Attention-pytorch#18: branches stacked in front, softmax over axis 1.
    """

    code = "ND308"
    name = "softmax-over-batch"
    category = "activation"
    severity = Severity.ERROR

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Report each softmax over the batch, unless it has no axis (ND306) or the batch is summed."""
        guessed = bool(graph.facts.inputs) and all(one.source == "inferred" for one in graph.facts.inputs)
        for node in graph.by_role("softmax"):
            axis = softmax_axis(graph, node)
            if axis is None or len(node.axes) != len(node.shape) or len(node.shape) < 2:
                continue
            if node.axes[axis] not in _BATCH or not node.inputs or _implicit(node):
                continue
            others = [label for place, label in enumerate(node.axes) if place != axis]
            if any("batch" in words(label) for label in others) or not _keeps_batch(graph, node):
                continue
            yield self.finding(
                graph,
                f"{graph.named(node)} normalizes over axis {axis} of "
                f"{shown(node.axes, node.shape)}, the batch: samples compete with each other",
                node=node,
                confidence=Confidence.MEDIUM if guessed else None,
                evidence={"axis": axis, "axes": list(node.axes), "shape": list(node.shape)},
            )


def _implicit(node: Node) -> bool:
    return node.kind != "gumbel_softmax" and "dim" in node.config and node.config["dim"] is None


def _keeps_batch(graph: Graph, node: Node) -> bool:
    """Does what the model returns, computed from this softmax, still have a row for each sample?"""
    start = weighs(graph, node) or node
    reached = {start.index}
    for later in graph.nodes[start.index + 1 :]:
        if any(index in reached for index in later.inputs):
            reached.add(later.index)
    ends = [one for one in graph.outputs if one.index in reached]
    ends = ends or [graph.nodes[loss.node] for loss in graph.facts.losses if loss.node in reached]
    return any("batch" in words(label) for one in ends for label in one.axes)
