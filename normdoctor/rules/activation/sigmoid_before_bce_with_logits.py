"""ND311: probabilities where binary cross entropy expects logits."""

from __future__ import annotations

import math
from collections.abc import Iterator

from normdoctor.facts import LossFact, Node
from normdoctor.findings import Applicability, Edit, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.losses import losses_on, sureness, values_of

_LOSSES = frozenset({"binary_cross_entropy_with_logits", "multilabel_soft_margin_loss"})
_SIGMOIDS = frozenset({"sigmoid", "hardsigmoid"})


class SigmoidBeforeBceWithLogits(Rule):
    """The output of a sigmoid goes into a loss that applies a sigmoid itself.

    ## What it does
    Finds a sigmoid whose output, or a part or an average of it, is what `nn.BCEWithLogitsLoss`,
    `F.binary_cross_entropy_with_logits` or `nn.MultiLabelSoftMarginLoss` takes; also `logsigmoid` in a
    loss that is written by hand.

    ## Why is this bad?
    The loss applies the sigmoid again. Its input lies in (0, 1), so the probability that it sees lies
    between 0.5 and 0.731: the loss of a negative cannot fall below ln 2 = 0.693, that of a positive not
    below ln(1 + 1/e) = 0.313, and the gradient is multiplied by both sigmoids' derivatives. The network
    learns, slowly, and a threshold of 0.5 on what the loss sees calls everything positive.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 64),
        nn.ReLU(),
        nn.Linear(64, 1),
        nn.Sigmoid(),  # ND311
    )
    inputs = torch.randn(8, 32)
    loss = nn.BCEWithLogitsLoss()
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 64),
        nn.ReLU(),
        nn.Linear(64, 1),
    )
    inputs = torch.randn(8, 32)
    loss = nn.BCEWithLogitsLoss()
    ```

    A sigmoid with the loss that expects probabilities, and one on a path that the loss does not take:

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 1),
        nn.Sigmoid(),
    )
    inputs = torch.randn(8, 32)
    loss = nn.BCELoss()
    ```

    ```python good
    import torch
    from torch import nn


    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(32, 4)

        def forward(self, x):
            logits = self.fc(x)
            return logits, torch.sigmoid(logits)


    model = Head()
    inputs = torch.randn(8, 32)


    def loss(output, labels):
        return nn.functional.binary_cross_entropy_with_logits(output[0], labels)
    ```

    ## When to ignore
    Where the loss that was found in the source belongs to another model. Such findings have medium
    confidence; pass `loss=` and the rule knows. Where the loss takes a part of a concatenation that
    cannot be told, the rule is silent unless every part went through a sigmoid.

    ## Fix safety
    Unsafe: the model then returns logits. Whoever reads probabilities from it has to apply the sigmoid
    there, on the path that decodes.

    ## References
    - torch.nn.BCEWithLogitsLoss: "This loss combines a Sigmoid layer and the BCELoss in one single class".
    - argusswift/YOLOv4-pytorch issue 89: a head that applies the sigmoid, and BCEWithLogitsLoss.
    """

    code = "ND311"
    name = "sigmoid-before-bce-with-logits"
    category = "activation"
    severity = Severity.ERROR
    fixable = True
    requires = frozenset({"graph", "loss"})

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Walk back from what each loss takes."""
        done: set[int] = set()
        for loss, taken in losses_on(graph, _LOSSES):
            found = values_of(graph, taken)
            if not found or any(node.kind not in _SIGMOIDS for node in found):
                continue
            for node in found:
                if node.index not in done:
                    done.add(node.index)
                    yield self._report(graph, node, loss)

    def _report(self, graph: Graph, node: Node, loss: LossFact) -> Finding:
        positive, negative = math.log1p(math.exp(-1)), math.log(2)
        where = " of the evaluation" if loss.path == "evaluation" else ""
        return self.finding(
            graph,
            f"{graph.named(node)} goes into {loss.kind}{where}, which applies a sigmoid itself: the loss of "
            f"a negative cannot fall below {negative:.3f}, that of a positive not below {positive:.3f}",
            node=node,
            confidence=sureness(graph, loss),
            evidence={"least_loss_negative": round(negative, 4), "least_loss_positive": round(positive, 4)},
            related=(("the loss", loss.location),),
            fix=Fix(
                title="Drop it and let the loss take the logits",
                applicability=Applicability.UNSAFE,
                steps=(Edit.drop(),),
            ),
        )
