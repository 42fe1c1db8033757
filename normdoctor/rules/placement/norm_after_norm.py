"""ND103: a norm of what is normalized already."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Applicability, Finding, Fix, Severity
from normdoctor.graph import Graph, Norm
from normdoctor.rules.base import Rule
from normdoctor.rules.blocks import light_readers, norms_on
from normdoctor.rules.layers import beside

_KINDS = frozenset({"batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm"})


class NormAfterNorm(Rule):
    """The output of a norm goes straight into another norm.

    ## What it does
    Finds a norm whose output is read by a second norm and by nothing else.

    ## Why is this bad?
    It is redundant, not wrong. Where both normalize over the same axes, the second one only undoes part
    of the scale and shift that the first one has learned: the two together can do little more than one.
    It often is a sign of a norm too many: a post-norm block inside of a stack that ends in a norm of its
    own, or a block that was switched from pre-norm to post-norm and kept its last norm.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.LayerNorm(32),
        nn.LayerNorm(32),  # ND103
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    inputs = torch.randn(4, 16)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.LayerNorm(32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.LayerNorm(32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    inputs = torch.randn(4, 16)
    ```

    ## When to ignore
    In DETR and in the default of `nn.Transformer`, whose post-norm stacks end in one more norm; and where
    published weights have both. The rule is silent for `F.normalize`, which changes the length only, and
    where something else reads what the first norm returns (a skip around the second).

    ## References
    - k2-fsa/snowfall pull request 184: with normalize_before=False a conformer layer ends in two norms.
    - pytorch/pytorch issue 50086: the default nn.Transformer has a norm behind the norm of its last layer.
    """

    code = "ND103"
    name = "norm-after-norm"
    category = "placement"
    severity = Severity.INFO

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at what reads each norm."""
        for first in graph.norms:
            if first.kind not in _KINDS:
                continue
            found = norms_on(graph, first.output)
            if len(found) == 1 and found[0].kind in _KINDS and self._alone(graph, first, found[0]):
                yield self._report(graph, first, found[0])

    @staticmethod
    def _alone(graph: Graph, first: Norm, second: Norm) -> bool:
        own = {second.output.index, *(second.handwritten.nodes if second.handwritten else ())}
        readers = light_readers(graph, first.output)
        return bool(readers) and all(reader.index in own for reader in readers)

    def _report(self, graph: Graph, first: Norm, second: Norm) -> Finding:
        name = beside(graph, first.output, second.output)
        same = first.kind == second.kind
        what = "has normalized the same way" if same else f"({first.kind}) has normalized"
        return self.finding(
            graph,
            f"{graph.named(second.output)} normalizes what `{name}` {what} just before",
            node=second.output,
            evidence={"first": graph.label(first.output), "kinds": [first.kind, second.kind]},
            related=(("the first norm", graph.where(first.output)),),
            fix=Fix(title="Drop one of the two", applicability=Applicability.DISPLAY),
        )
