"""ND314: an output whose range is another one than the loss expects."""

from __future__ import annotations

import math
from collections.abc import Iterator

from normdoctor.facts import LossFact, Node
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import number
from normdoctor.rules.losses import REGRESSION, losses_on, sureness, values_of

#: Bounds of activations.
_BOUNDS = {
    "sigmoid": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
}
_BINARY = frozenset({"binary_cross_entropy", "binary_cross_entropy_with_logits"})


class OutputLossMismatch(Rule):
    """The last activation and the loss do not belong together.

    ## What it does
    Finds a sigmoid or tanh in front of cross entropy over classes, a softmax in front of binary cross
    entropy, tanh in front of binary cross entropy, and a bounded output in front of a regression loss
    whose labels lie outside of its bounds.

    ## Why is this bad?
    Cross entropy takes scores without bounds. Between 0 and 1, the probability of the right class
    cannot exceed e / (e + C - 1), and the loss of C classes cannot fall below ln(1 + (C - 1)/e), 1.461
    for 10. A softmax in front of binary cross entropy couples outputs that the loss treats as independent:
    with several labels per sample the loss has no way to its minimum. A tanh gives binary cross entropy
    values below 0, where it raises or gives NaN. Labels outside of the bounds cannot be reached.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
        nn.Sigmoid(),  # ND314
    )
    inputs = torch.randn(8, 32)
    loss = nn.CrossEntropyLoss()
    ```

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 10),
        nn.Softmax(dim=1),  # ND314
    )
    inputs = torch.randn(8, 32)
    loss = nn.BCEWithLogitsLoss()
    ```

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 4),
        nn.Tanh(),  # ND314
    )
    inputs = torch.randn(8, 32)
    loss = nn.MSELoss()
    labels = torch.linspace(0, 10, 32).view(8, 4)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
        nn.Sigmoid(),
    )
    inputs = torch.randn(8, 32)
    loss = nn.BCELoss()
    ```

    ## When to ignore
    A softmax with binary cross entropy over two exclusive classes works, if clumsily. For a bounded output
    in front of a regression loss whose labels are not known (images in [-1, 1] behind a tanh are common
    and right) there is an information of low confidence only.

    ## References
    - torch.nn.CrossEntropyLoss and torch.nn.BCELoss: what each expects of its input.
    """

    code = "ND314"
    name = "output-loss-mismatch"
    category = "activation"
    severity = Severity.WARNING
    confidence = Confidence.MEDIUM
    requires = frozenset({"graph", "loss"})

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at the last activation in front of each loss."""
        done: set[int] = set()
        for loss, taken in losses_on(graph, _BINARY | REGRESSION | {"cross_entropy"}):
            found = values_of(graph, taken)
            if not found or any(node.kind not in _BOUNDS for node in found):
                continue
            for node in found:
                if node.index not in done and (finding := self._judged(graph, node, loss, taken)):
                    done.add(node.index)
                    yield finding

    def _judged(self, graph: Graph, node: Node, loss: LossFact, taken: Node) -> Finding | None:
        sure = min(sureness(graph, loss), Confidence.MEDIUM, key=lambda one: one.rank)
        if loss.kind == "cross_entropy":
            return None if node.kind == "softmax" else self._bounded_scores(graph, node, loss, taken, sure)
        if loss.kind in REGRESSION:
            return self._bounded_values(graph, node, loss)
        negative = _BOUNDS[node.kind][0] < 0 and loss.kind == "binary_cross_entropy"
        classes = taken.shape[1] if len(taken.shape) > 1 else 0
        if node.kind != "softmax" and not negative:
            return None
        if node.kind == "softmax" and (classes <= 2 or taken.index != graph.through(taken).index):
            return None  # two exclusive classes, or one of them picked
        what = (
            "which takes values in [0, 1]" if negative else "which takes outputs that do not exclude others"
        )
        text = f"{graph.named(node)} goes into {loss.kind}, {what}"
        return self._made(graph, node, loss, text, sure, {"outputs": classes})

    def _bounded_scores(
        self, graph: Graph, node: Node, loss: LossFact, taken: Node, sure: Confidence
    ) -> Finding | None:
        classes = taken.shape[1] if len(taken.shape) > 1 else 0
        if classes < 2 or (taken.index != graph.through(taken).index and taken.kind in ("mul", "div")):
            return None
        low, high = _BOUNDS[node.kind]
        least = math.log1p((classes - 1) * math.exp(low - high))
        text = (
            f"{graph.named(node)} goes into cross entropy, which takes scores without bounds: with scores in "
            f"[{low:g}, {high:g}] and {classes} classes the loss cannot fall below {least:.3f}"
        )
        return self._made(graph, node, loss, text, sure, {"classes": classes, "least_loss": round(least, 4)})

    def _bounded_values(self, graph: Graph, node: Node, loss: LossFact) -> Finding | None:
        low, high = _BOUNDS[node.kind]
        least, most = number(loss.config.get("target_min")), number(loss.config.get("target_max"))
        if least is None or most is None:
            bounds = f"[{low:g}, {high:g}]"
            text = f"{graph.named(node)} goes into {loss.kind}: targets outside {bounds} are out of reach"
            return self._made(
                graph, node, loss, text, Confidence.LOW, {"low": low, "high": high}, Severity.INFO
            )
        if low <= least and most <= high:
            return None
        text = (
            f"{graph.named(node)} goes into {loss.kind} and lies in [{low:g}, {high:g}], the labels in "
            f"[{least:.4g}, {most:.4g}]"
        )
        evidence = {"low": low, "high": high, "target_min": least, "target_max": most}
        return self._made(graph, node, loss, text, sureness(graph, loss), evidence)

    def _made(
        self,
        graph: Graph,
        node: Node,
        loss: LossFact,
        text: str,
        confidence: Confidence,
        evidence: dict[str, float],
        severity: Severity = Severity.WARNING,
    ) -> Finding:
        return self.finding(
            graph,
            text,
            node=node,
            severity=severity,
            confidence=confidence,
            evidence=evidence,
            related=(("the loss", loss.location),),
        )
