"""ND319: dropout of the outputs themselves."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import LossFact, Node
from normdoctor.findings import Applicability, Confidence, Edit, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.layers import DENSE, channels, number
from normdoctor.rules.losses import REGRESSION, TAKES_LOGITS, losses_on, sureness


class DropoutOnOutput(Rule):
    """Dropout is applied to the outputs, or drops nearly everything.

    ## What it does
    Finds an active dropout that is the last operation in front of a loss, or behind the output layer of a
    model whose loss is not known, also where a sigmoid or a softmax follows; and dropouts with p of 0.9
    and above, wherever they stand.

    ## Why is this bad?
    A dropped logit is 0, which is a score like any other: the loss punishes the network for it, and pushes
    the logits of the right class up and down at random. What is not dropped is scaled by 1 / (1 - p), so
    the loss in training is not that of any prediction. A p of 0.9 and above is mostly the probability to
    keep, as older frameworks had it; with p = 1 nothing passes and no gradient flows.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
        nn.Dropout(0.5),  # ND319
    )
    inputs = torch.randn(8, 32)
    loss = nn.CrossEntropyLoss()
    ```

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 64),
        nn.ReLU(),
        nn.Dropout(0.95),  # ND319
        nn.Linear(64, 10),
    )
    inputs = torch.randn(8, 32)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 64),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(64, 10),
    )
    inputs = torch.randn(8, 32)
    loss = nn.CrossEntropyLoss()
    ```

    Inside of a larger model the end of a block is no output:

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 128),
        nn.GELU(),
        nn.Linear(128, 32),
        nn.Dropout(0.1),
    )
    inputs = torch.randn(8, 5, 32)
    ```

    ## When to ignore
    Where the model that is checked is a part of another one. Without a known loss the rule speaks only of
    one vector per sample, from a linear layer that has fewer outputs than inputs and another width than
    the model's input.

    ## Fix safety
    Unsafe: training is another one without it.

    ## References
    - Srivastava et al. 2014, Dropout: it is applied to inputs and hidden units.
    - torch.nn.Dropout: p is the probability of an element to be zeroed.
    """

    code = "ND319"
    name = "dropout-on-output"
    category = "activation"
    severity = Severity.WARNING
    fixable = True

    class Options(RuleOptions, frozen=True):
        """From where on a dropout drops too much."""

        max_p: float = 0.9
        """The keep probability of older frameworks is seldom below it."""

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at every dropout; its place counts before its rate."""
        on_output: dict[int, LossFact | None] = {}
        for loss, taken in losses_on(graph, TAKES_LOGITS | REGRESSION | {"binary_cross_entropy", "nll_loss"}):
            if (dropout := self._behind(graph, taken)) is not None:
                on_output.setdefault(dropout.index, loss)
        if not graph.facts.losses:
            for output in graph.outputs:
                dropout = self._behind(graph, output)
                if dropout is not None and self._is_head(graph, dropout):
                    on_output.setdefault(dropout.index, None)
        for node in graph.by_role("dropout"):
            p = number(node.config.get("p"))
            if p is None or node.scope.startswith("<loss>"):
                continue
            if node.index in on_output:
                yield self._report(graph, node, p, on_output[node.index])
            elif p >= self.options.max_p:
                yield self._too_much(graph, node, p)

    @staticmethod
    def _behind(graph: Graph, node: Node) -> Node | None:
        """The active dropout that a tensor comes from, or the scores of which it is the probabilities."""
        squashed = False
        while node.inputs and (graph.transparent(node) or (node.kind in _SQUASHING and not squashed)):
            squashed = squashed or node.kind in _SQUASHING
            node = graph.nodes[node.inputs[0]]
        return node if node.role == "dropout" and node.config.get("p") and node.inputs else None

    @staticmethod
    def _is_head(graph: Graph, dropout: Node) -> bool:
        """Does it stand behind what looks like the output layer of a whole model?"""
        layer = graph.source(dropout)
        if layer is None or layer.kind not in DENSE or len(dropout.shape) != 2:
            return False
        width = channels(graph, layer)
        given = {fact.tensor.shape[-1] for fact in graph.facts.inputs if fact.tensor.shape}
        return width is not None and width[1] < width[0] and width[1] not in given

    def _report(self, graph: Graph, node: Node, p: float, loss: LossFact | None) -> Finding:
        behind = next((user.kind for user in graph.users(node) if user.kind in _SQUASHING), "")
        before = behind or (loss.kind if loss is not None else "")
        into = f"is the last operation before {before}" if before else "is the last operation"
        return self.finding(
            graph,
            f"{graph.named(node)} {into}: in training {p:.0%} of the outputs are 0, the others scaled",
            node=node,
            severity=Severity.ERROR if p >= 1 else Severity.WARNING,
            confidence=sureness(graph, loss) if loss is not None else Confidence.MEDIUM,
            evidence={"p": p},
            related=(("the loss", loss.location),) if loss is not None else (),
            fix=_FIX,
        )

    def _too_much(self, graph: Graph, node: Node, p: float) -> Finding:
        rest = "nothing passes" if p >= 1 else f"1 value in {1 / (1 - p):.3g} passes"
        return self.finding(
            graph,
            f"{graph.named(node)} has p = {p:g}: {rest} in training",
            node=node,
            severity=Severity.ERROR if p >= 1 else Severity.WARNING,
            evidence={"p": p},
            help=f"p is the probability to drop; to keep {p:g} of the values, it is {1 - p:.3g}.",
        )


_SQUASHING = {"sigmoid", "softmax", "log_softmax", "logsigmoid"}
_FIX = Fix(
    title="Drop it, or move it in front of the output layer",
    applicability=Applicability.UNSAFE,
    steps=(Edit.drop(),),
)
