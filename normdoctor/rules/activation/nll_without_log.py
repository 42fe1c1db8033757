"""ND312: the negative log likelihood of what is no logarithm."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import LossFact, Node
from normdoctor.findings import Applicability, Edit, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import CONVS, DENSE, TRANSPOSED
from normdoctor.rules.losses import losses_on, sureness, values_of

_PROBABILITIES = frozenset({"softmax", "sigmoid"})
#: What is surely no logarithm of a probability: scores of a layer, and what is never negative.
_RAW = CONVS | DENSE | TRANSPOSED
_NEVER_NEGATIVE = frozenset({"relu", "relu6", "softplus"})


class NllWithoutLog(Rule):
    """`nll_loss` takes logarithms of probabilities, and gets probabilities or raw scores.

    ## What it does
    Finds a softmax, or the output of a layer with neither softmax nor logarithm behind it, that
    `nn.NLLLoss` or `F.nll_loss` takes.

    ## Why is this bad?
    `nll_loss` computes no logarithm, despite its name: it picks the entry of the right class and changes
    its sign. Of probabilities that gives minus the mean probability, between -1 and 0, whose gradient does
    not grow where the network is wrong. Of raw scores it gives a loss without a lower bound, which falls
    for ever by scaling the weights up.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 10),
        nn.Softmax(dim=1),  # ND312
    )
    inputs = torch.randn(8, 32)
    loss = nn.NLLLoss()
    ```

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 64),
        nn.ReLU(),
        nn.Linear(64, 10),  # ND312
    )
    inputs = torch.randn(8, 32)
    loss = nn.NLLLoss()
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 10),
        nn.LogSoftmax(dim=1),
    )
    inputs = torch.randn(8, 32)
    loss = nn.NLLLoss()
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 10),
        nn.Softmax(dim=1),
    )
    inputs = torch.randn(8, 32)


    def loss(output, labels):
        return nn.functional.nll_loss(torch.log(output + 1e-9), labels)
    ```

    ## When to ignore
    Policy gradients by hand (`-probability[action] * reward`) that borrow `nll_loss` to pick an entry.
    The rule is silent for arithmetic that it cannot judge, such as `x - x.logsumexp(1)`.

    ## Fix safety
    Unsafe: the model then returns log-probabilities instead of probabilities.

    ## References
    - torch.nn.NLLLoss: "The input given through a forward call is expected to contain log-probabilities".
    - midas-research/man-sf-emnlp issue 2: softmax probabilities into NLLLoss.
    """

    code = "ND312"
    name = "nll-without-log"
    category = "activation"
    severity = Severity.ERROR
    fixable = True
    requires = frozenset({"graph", "loss"})

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at what computed the values that each loss takes."""
        done: set[int] = set()
        for loss, taken in losses_on(graph, frozenset({"nll_loss"})):
            found = values_of(graph, taken)
            wrong = _PROBABILITIES | _RAW | _NEVER_NEGATIVE
            if not found or any(node.kind not in wrong for node in found):
                continue
            for node in found:
                if node.index not in done:
                    done.add(node.index)
                    yield self._report(graph, node, loss)

    def _report(self, graph: Graph, node: Node, loss: LossFact) -> Finding:
        if node.kind in _PROBABILITIES:
            what = "probabilities go in: the loss is minus their mean, between -1 and 0"
            softmax = node.kind == "softmax"
            fix = "Use log_softmax" if softmax else "Use logsigmoid"
            names = ("LogSoftmax", "log_softmax") if softmax else ("LogSigmoid", "logsigmoid")
            new = f"torch.nn.{names[0]}" if node.module is not None else f"torch.nn.functional.{names[1]}"
            step = Edit.swap(new)
        else:
            what = "no softmax and no logarithm comes before: the loss has no lower bound"
            fix = "Use cross_entropy, or log_softmax before nll_loss"
            step = Edit.swap("torch.nn.CrossEntropyLoss", old="torch.nn.NLLLoss", at=loss.location)
        where = " of the evaluation" if loss.path == "evaluation" else ""
        return self.finding(
            graph,
            f"{graph.named(node)} goes into nll_loss{where}, which takes log-probabilities; {what}",
            node=node,
            confidence=sureness(graph, loss),
            evidence={"kind": node.kind},
            related=(("the loss", loss.location),),
            fix=Fix(title=fix, applicability=Applicability.UNSAFE, steps=(step,)),
        )
