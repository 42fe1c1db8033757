"""ND313: a ReLU as the last operation."""

from __future__ import annotations

import re
from collections.abc import Iterator

from normdoctor.facts import LossFact, Node
from normdoctor.findings import Applicability, Confidence, Edit, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.chains import walk_back
from normdoctor.rules.layers import CONVS, DENSE, channels, number
from normdoctor.rules.losses import REGRESSION, TAKES_LOGITS, losses_on, sureness, values_of

_RELUS = frozenset({"relu", "relu6"})
_LAYERS = CONVS | DENSE


class ReluOnOutput(Rule):
    """The last operation in front of the output or the loss is a ReLU.

    ## What it does
    Finds a ReLU whose result goes into a loss that takes logits; and, with a regression loss or no known
    loss, a ReLU behind a small output layer: a linear layer or convolution with no norm behind it, from
    many features to a few.

    ## Why is this bad?
    Scores of all classes below zero become equal, and no gradient reaches an output that is zero: the
    class cannot be learned from the samples that need it most. A regression cannot reach values below
    zero, and an output that is zero for all samples stays so.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
        nn.ReLU(),  # ND313
    )
    inputs = torch.randn(8, 32)
    loss = nn.CrossEntropyLoss()
    ```

    ```python bad
    import torch
    from torch import nn


    class BoxHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(64, 64, 3, padding=1)
            self.size = nn.Conv2d(64, 4, 1)

        def forward(self, x):
            x = torch.relu(self.conv(x))
            return torch.relu(self.size(x)) * 16  # ND313


    model = BoxHead()
    inputs = torch.randn(2, 64, 16, 16)
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

    A feature extractor ends in the ReLU of its last block, and a rate is not negative:

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
    )
    inputs = torch.randn(2, 3, 32, 32)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 64),
        nn.ReLU(),
        nn.Linear(64, 4),
        nn.ReLU(),
    )
    inputs = torch.randn(8, 32)
    loss = nn.PoissonNLLLoss(log_input=False)
    ```

    ## When to ignore
    Where the target cannot be negative. The rule is silent where the loss says so (Poisson), where the
    labels that were given are not negative, for a single output (densities, depths and counts are written
    so) and for names such as `sigma` and `density`. Without a known loss, its findings have medium
    confidence. Softplus keeps such an output positive and its gradient alive.

    ## Fix safety
    Unsafe: the outputs may then be negative.

    ## References
    - torch.nn.CrossEntropyLoss: the input is expected to contain unnormalized logits.
    - hunkim/PyTorchZeroToAll pull request 4; ZJULearning/ttfnet issue 15 (a box size stuck at zero).
    """

    code = "ND313"
    name = "relu-on-output"
    category = "activation"
    severity = Severity.WARNING
    fixable = True

    class Options(RuleOptions, frozen=True):
        """What counts as a small output layer, where no loss tells that the ReLU is an output's."""

        max_outputs: int = 16
        """Channels or features at most; backbones end in tens or hundreds of them."""
        min_reduction: float = 4.0
        """Times as many come in as go out, at least."""

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at what each loss takes, then at what the model returns."""
        done: set[int] = set()
        for loss, node in self._under_losses(graph, TAKES_LOGITS):
            if node.index not in done:
                done.add(node.index)
                yield self._report(graph, node, loss, Severity.ERROR, sureness(graph, loss))
        settled = {node.index for one in graph.facts.losses for node in self._relus(graph, one.node)}
        for loss, node in self._under_losses(graph, REGRESSION):
            lowest = number(loss.config.get("target_min"))
            if node.index in done or (lowest is not None and lowest >= 0):
                continue
            if lowest is not None or self._is_head(graph, node):
                done.add(node.index)
                sure = sureness(graph, loss) if lowest is not None else Confidence.MEDIUM
                yield self._report(graph, node, loss, Severity.WARNING, sure)
        for output in graph.outputs:
            for node in self._relus(graph, output.index):
                if node.index not in done | settled and self._is_head(graph, node):
                    done.add(node.index)
                    yield self._report(graph, node, None, Severity.WARNING, Confidence.MEDIUM)

    @classmethod
    def _under_losses(cls, graph: Graph, kinds: frozenset[str]) -> Iterator[tuple[LossFact, Node]]:
        for loss, taken in losses_on(graph, kinds):
            for node in cls._relus(graph, taken.index):
                layer = _layer_of(graph, node)
                if loss.certain or layer is not None:
                    yield loss, node

    @staticmethod
    def _relus(graph: Graph, index: int) -> tuple[Node, ...]:
        """The ReLUs that computed the values of a node, `()` where anything else did too."""
        node = graph.nodes[index]
        while node.kind in ("mul", "div") and len(node.inputs) == 1 and "scalar" in node.config:
            node = graph.nodes[node.inputs[0]]
        found = values_of(graph, node)
        return found if all(one.kind in _RELUS for one in found) else ()

    def _is_head(self, graph: Graph, node: Node) -> bool:
        """Does the ReLU belong to a small output layer, whose target may be negative for all we know?"""
        layer = _layer_of(graph, node)
        width = channels(graph, layer) if layer is not None else None
        if layer is None or width is None:
            return False
        options = self.options
        small = 2 <= width[1] <= options.max_outputs and width[0] >= options.min_reduction * width[1]
        named = _NON_NEGATIVE.search(f"{graph.label(layer)} {graph.label(node)}".lower())
        return small and named is None

    def _report(
        self, graph: Graph, node: Node, loss: LossFact | None, severity: Severity, confidence: Confidence
    ) -> Finding:
        layer = _layer_of(graph, node)
        width = channels(graph, layer) if layer is not None else None
        into = f"goes into {loss.kind}" if loss is not None else "is the output"
        text = f"{graph.named(node)} {into}: no output can be negative, and one that is zero gets no gradient"
        if width is not None:
            text += f" ({width[0]} features to {width[1]} outputs)"
        return self.finding(
            graph,
            text,
            node=node,
            severity=severity,
            confidence=confidence,
            evidence={"features": width[0], "outputs": width[1]} if width is not None else {},
            related=(("the loss", loss.location),) if loss is not None else (),
            fix=Fix(
                title="Return what the layer computes",
                applicability=Applicability.UNSAFE,
                steps=(Edit.drop(),),
            ),
        )


_NON_NEGATIVE = re.compile(
    r"sigma|densit|depth|count|alpha|weight|dist|disparity|var|scale|rate|intensit|conf|feat|embed|bottleneck"
    r"|squeeze|reduce"
)


def _layer_of(graph: Graph, node: Node) -> Node | None:
    """The layer in front of a ReLU, with no norm between; None where there is something else."""
    source = walk_back(graph, node, graph.transparent).source
    return source if source is not None and source.kind in _LAYERS else None
