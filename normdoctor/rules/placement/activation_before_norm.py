"""ND121: a norm behind the activation, in a network that has it in front."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Applicability, Confidence, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.chains import preserves, walk_back
from normdoctor.rules.layers import CONVS, DENSE, TRANSPOSED

_NORMS = frozenset({"batch_norm", "instance_norm", "group_norm"})
_RELUS = frozenset({"relu", "relu6", "leaky_relu", "prelu"})


class ActivationBeforeNorm(Rule):
    """A norm stands behind a ReLU and in front of no activation.

    ## What it does
    Finds BatchNorm, InstanceNorm and GroupNorm that take what a ReLU has cut off, with no activation
    behind, in networks most of whose norms stand in front of their activation.

    ## Why is this bad?
    It is an order that works, and not the usual one. The statistics are those of values that are
    half zeros, and the next layer sees no zeros at all: the sparsity of the ReLU is undone by the shift.
    In a network that has the other order everywhere else, it is rather a slip.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.BatchNorm2d(8),  # ND121
        nn.Conv2d(8, 8, 3),
    )
    inputs = torch.randn(4, 3, 16, 16)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.GELU(),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3),
        nn.GELU(),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3),
    )
    inputs = torch.randn(4, 3, 16, 16)
    ```

    ## When to ignore
    Where the order is meant. The rule is silent where as many norms of a network stand behind the
    activation as in front (ConvMixer and others), for LayerNorm and RMSNorm, which stand at the start of
    pre-norm branches, and where something else reads the activation.

    ## References
    - Ioffe and Szegedy, 2015, "Batch Normalization", section 3.2: the norm goes "immediately before the
      nonlinearity"; the output of another nonlinearity "is likely to change" its shape of distribution.
    """

    code = "ND121"
    name = "activation-before-norm"
    category = "placement"
    severity = Severity.INFO
    confidence = Confidence.LOW

    class Options(RuleOptions, frozen=True, kw_only=True):
        """How many norms must stand in front of an activation for each that stands behind one."""

        ratio: float = 2.0

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Count both orders, then report the rarer one."""
        behind: list[tuple[Node, Node]] = []
        front: set[str] = set()
        for norm in graph.norms:
            if norm.kind not in _NORMS:
                continue
            if any(reader.role == "activation" for reader in graph.readers(norm.output)):
                front.add(graph.label(norm.output))
            elif (activation := self._behind(graph, norm.output)) is not None:
                behind.append((norm.output, activation))
        if len(front) < self.options.ratio * len({graph.label(norm) for norm, _ in behind}):
            return
        for norm_node, activation in behind:
            yield self._report(graph, norm_node, activation)

    @staticmethod
    def _behind(graph: Graph, norm: Node) -> Node | None:
        """The ReLU in front of the norm, where a layer with weights stands in front of that and behind."""
        activation = walk_back(graph, norm, preserves(graph)).source
        if activation is None or activation.kind not in _RELUS:
            return None
        layer = walk_back(graph, activation, preserves(graph)).source
        return activation if layer is not None and layer.kind in CONVS | TRANSPOSED | DENSE else None

    def _report(self, graph: Graph, norm: Node, activation: Node) -> Finding:
        return self.finding(
            graph,
            f"{graph.named(norm)} stands behind a {activation.kind}; the other norms of this network stand "
            "in front of the activation",
            node=norm,
            evidence={"activation": activation.kind},
            related=(("the activation", graph.where(activation)),),
            fix=Fix(title="Swap the two", applicability=Applicability.DISPLAY),
        )
