"""ND310: probabilities where cross entropy expects logits."""

from __future__ import annotations

import math
from collections.abc import Iterator

from normdoctor.facts import LossFact, Node
from normdoctor.findings import Applicability, Edit, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import number
from normdoctor.rules.losses import described, losses_on, sureness
from normdoctor.rules.mixtures import mixture, softmax_axis

#: Scores that were multiplied by this or more are logits again, with a bound of no weight.
_SCALED = 5.0
_LOSSES = frozenset({"cross_entropy", "nll_loss"})


class SoftmaxBeforeCrossEntropy(Rule):
    """The output of a softmax goes into cross entropy, which applies a softmax itself.

    ## What it does
    Finds a softmax over the class axis whose output is what `nn.CrossEntropyLoss` or `F.cross_entropy`
    takes, or an average of several such outputs, or their product with one-hot rows (whose rows sum to
    one as well); and log_softmax of a softmax in front of `nn.NLLLoss`, or in a loss that is written by
    hand. A log_softmax in front of cross entropy is an information: applied twice it changes nothing.

    ## Why is this bad?
    Cross entropy takes logits and applies log_softmax to them. Probabilities differ by 1 at most, so for C
    classes the largest probability that it can see is e / (e + C - 1), and the loss cannot fall below
    ln(1 + (C - 1)/e): 0.744 for 4 classes, 1.461 for 10, 5.909 for 1000. The gradient passes through both
    softmaxes and nearly vanishes where the network is sure, wrongly or rightly. It learns, slowly and to a
    worse end, so this is rarely noticed.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
        nn.Softmax(dim=1),  # ND310
    )
    inputs = torch.randn(8, 32)
    loss = nn.CrossEntropyLoss()
    ```

    ```python bad
    import torch
    import torch.nn.functional as F
    from torch import nn


    class Ensemble(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(32, 10)
            self.second = nn.Linear(32, 10)

        def forward(self, x):
            one = F.softmax(self.first(x), dim=-1)  # ND310
            two = F.softmax(self.second(x), dim=-1)  # ND310
            return (one + two) / 2


    model = Ensemble()
    inputs = torch.randn(8, 32)
    loss = nn.CrossEntropyLoss()
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    inputs = torch.randn(8, 32)
    loss = nn.CrossEntropyLoss()
    ```

    A softmax inside of the network, as in attention, is no output:

    ```python good
    import torch
    from torch import nn


    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Linear(32, 1)
            self.out = nn.Linear(32, 10)

        def forward(self, x):
            weight = torch.softmax(self.score(x), dim=1)
            return self.out((weight * x).sum(1))


    model = Attend()
    inputs = torch.randn(8, 5, 32)
    loss = nn.CrossEntropyLoss()
    ```

    A logarithm in between makes log-probabilities, which are logits as good as any:

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 10),
        nn.Softmax(dim=1),
    )
    inputs = torch.randn(8, 32)


    def loss(output, labels):
        return nn.functional.nll_loss(torch.log(output), labels)
    ```

    ## When to ignore
    Where the loss that was found in the source belongs to another model. Such findings have medium
    confidence; pass `loss=` and the rule knows. It is silent for a softmax over another axis than the
    classes, and for one that only an output which the loss does not take goes through.

    ## Fix safety
    Unsafe: the model then returns logits. Whoever reads probabilities from it has to apply softmax
    there; the class with the largest score is the same.

    ## References
    - torch.nn.CrossEntropyLoss: "The input is expected to contain the unnormalized logits for each class".
    - The bound: with one probability 1 and C - 1 zeros, -ln(e / (e + C - 1)) = ln(1 + (C - 1)/e).
    - ariecattan/SciCo issue 2: four classes, and a loss that stays above 0.74.
    """

    code = "ND310"
    name = "softmax-before-cross-entropy"
    category = "activation"
    severity = Severity.ERROR
    fixable = True
    requires = frozenset({"graph", "loss", "weights"})  # the values tell one-hot rows

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Walk back from what each loss takes."""
        done: set[int] = set()
        for loss, taken in losses_on(graph, _LOSSES):
            axis = _class_axis(loss, taken)
            for node, severity, gain in self._found(graph, taken, axis, loss.kind):
                if node.index not in done:
                    done.add(node.index)
                    yield self._report(graph, node, loss, severity, gain)

    @classmethod
    def _found(
        cls, graph: Graph, taken: Node, axis: int, kind: str
    ) -> Iterator[tuple[Node, Severity, float | None]]:
        """Each softmax in what the loss takes, how wrong that is, and the weight of all together."""
        mix = mixture(graph, taken, axis)
        if mix is None or (mix.gain or 0) > _SCALED:
            return
        for node, place in mix.parts:
            if node.kind == "softmax" and kind == "cross_entropy":
                yield node, Severity.ERROR, mix.gain
            elif node.kind == "log_softmax":
                inner = mixture(graph, graph.nodes[node.inputs[0]], place)
                doubled = [one for one, _ in inner.parts if one.kind == "softmax"] if inner else []
                yield from ((one, Severity.ERROR, inner.gain if inner else None) for one in doubled)
                if not doubled and kind == "cross_entropy":
                    yield node, Severity.INFO, None

    def _report(
        self, graph: Graph, node: Node, loss: LossFact, severity: Severity, gain: float | None
    ) -> Finding:
        axis = softmax_axis(graph, node)
        classes = node.shape[axis] if axis is not None else 0
        evidence: dict[str, float] = {"classes": classes}
        takes = "log_softmax and nll_loss" if loss.kind == "nll_loss" else described(loss)
        if severity is Severity.INFO:
            text = (
                f"{graph.named(node)} goes into cross entropy, which applies it again: that changes nothing"
            )
        else:
            text = f"{graph.named(node)} goes into {takes}, where logits are expected"
            if gain is not None:
                least = _least_loss(classes, gain, number(loss.config.get("label_smoothing")) or 0.0)
                evidence["least_loss"] = round(least, 4)
                text += f": with {classes} classes the loss cannot fall below {least:.3f}"
        return self.finding(
            graph,
            text,
            node=node,
            severity=severity,
            confidence=sureness(graph, loss),
            evidence=evidence,
            related=(("the loss", loss.location),),
            fix=Fix(
                title="Drop it and let the loss take the logits",
                applicability=Applicability.UNSAFE,
                steps=(Edit.drop(),),
            ),
        )


def _class_axis(loss: LossFact, taken: Node) -> int:
    """The axis of the classes: torch's losses have them second, logarithms by hand say which."""
    rank = len(taken.shape)
    if "by_hand" in loss.config:
        dim = loss.config.get("dim", -1)
        return dim % rank if isinstance(dim, int) and rank else 0
    return 1 if rank > 1 else 0


def _least_loss(classes: int, gain: float, smoothing: float) -> float:
    """The cross entropy of the best scores that a softmax, scaled by `gain`, can give for C classes.

    With the smoothed label q = 1 - s + s/C for the right class: ln(e^g + C - 1) - g q.
    """
    wanted = 1 - smoothing + smoothing / max(classes, 1)
    return gain * (1 - wanted) + math.log1p((classes - 1) * math.exp(-gain))
