"""ND104: a BatchNorm whose output is the model's."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph, Norm
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.chains import preserves, walk_back
from normdoctor.rules.layers import CONVS, DENSE, TRANSPOSED, frozen, owner, tracks_statistics

#: What may stand between the norm and the output: the last word is still the norm's.
_SQUASHED = frozenset({"softmax", "log_softmax", "sigmoid", "tanh", "logsigmoid", "interpolate"})
#: Losses that take the output as it is. Contrastive losses normalize it or compare it.
_LOSSES = frozenset(
    "cross_entropy nll_loss binary_cross_entropy binary_cross_entropy_with_logits mse_loss l1_loss "
    "smooth_l1_loss huber_loss poisson_nll_loss gaussian_nll_loss multi_margin_loss".split()
)


class BatchnormOnOutput(Rule):
    """A BatchNorm is the last operation in front of the output.

    ## What it does
    Finds a BatchNorm with scale and shift whose result is an output of the model, or becomes one by a
    softmax, sigmoid or tanh alone.

    ## Why is this bad?
    In training each output then depends on the rest of the batch: logits have mean beta and standard
    deviation gamma over every batch, whatever is in it. A classifier cannot be sure of a whole batch, a
    regression loses the level of a sample relative to other batches, and a generator shifts colours with
    the batch. In evaluation the running statistics take over and the outputs move.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 64, bias=False),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Linear(64, 10),
        nn.BatchNorm1d(10),  # ND104
    )
    inputs = torch.randn(8, 32)
    ```

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 3, 4, 2, 1, bias=False),
        nn.BatchNorm2d(3),  # ND104
        nn.Tanh(),
    )
    inputs = torch.randn(4, 16, 8, 8)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 64, bias=False),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    inputs = torch.randn(8, 32)
    ```

    Embeddings that a contrastive or metric loss compares are meant to be so, above all without scale and
    shift (SimSiam, BYOL, BNNeck):

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(32, 64, bias=False),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Linear(64, 48, bias=False),
        nn.BatchNorm1d(48, affine=False),
    )
    inputs = torch.randn(8, 32)
    ```

    ## When to ignore
    Where the output is an embedding. Without a known loss the rule takes an output for one if its width
    is a power of two from `embedding` (32) up, or if it is a map of that many channels. With a loss that
    takes the output as it is (cross entropy, mean squared error, ...) every width counts; with one of
    another kind none. A map of fewer channels that ends in the norm itself has low confidence: blocks
    and small backbones return such.

    ## References
    - Radford, Metz and Chintala, 2016, "DCGAN": BatchNorm in all layers led to oscillation and instability,
      "avoided by not applying batchnorm to the generator output layer".
    - Chen and He, 2021, "SimSiam", section 4.4: BatchNorm on the output of the prediction head makes the
      training unstable, on that of the projection head it helps.
    """

    code = "ND104"
    name = "batchnorm-on-output"
    category = "placement"
    severity = Severity.WARNING
    confidence = Confidence.MEDIUM

    class Options(RuleOptions, frozen=True, kw_only=True):
        """The least width at which an output may be an embedding."""

        embedding: int = 32

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Walk back from each output."""
        done: set[int] = set()
        for output in graph.outputs:
            last = self._last(graph, output)
            norm = graph.norm_at(last)
            if norm is None or norm.kind != "batch_norm" or norm.handwritten or last.index in done:
                continue
            if not tracks_statistics(graph, last) or frozen(graph, last) or not self._learns(graph, last):
                continue
            confidence = self._meant(graph, output, norm)
            if confidence is not None:
                done.add(last.index)
                yield self._report(graph, last, confidence)

    @staticmethod
    def _last(graph: Graph, output: Node) -> Node:
        """What computed an output, through what only squashes or resizes it."""
        node = graph.through(output)
        while node.kind in _SQUASHED and node.inputs and not node.parameters:
            before = graph.nodes[node.inputs[0]]
            if len(graph.readers(before)) > 1:
                break
            node = graph.through(before)
        return node

    @staticmethod
    def _learns(graph: Graph, norm: Node) -> bool:
        """Has it a scale that is trained?"""
        read = [graph.parameters[name] for name in norm.parameters if name in graph.parameters]
        return any(one.kind == "parameter" and one.trainable for one in read)

    def _meant(self, graph: Graph, output: Node, norm: Norm) -> Confidence | None:
        """How sure it is that this output is no embedding; None where it may be one."""
        made = walk_back(graph, norm.output, preserves(graph)).source
        if made is None or made.kind not in DENSE | CONVS | TRANSPOSED:
            return None
        losses = [loss for loss in graph.facts.losses if 0 <= loss.node < len(graph.nodes)]
        taken = [loss for loss in losses if loss.node == output.index or graph.nodes[loss.node] is output]
        if taken:
            sure = any(loss.kind in _LOSSES and loss.certain for loss in taken)
            known = any(loss.kind in _LOSSES for loss in taken)
            return Confidence.HIGH if sure else Confidence.MEDIUM if known else None
        if graph.facts.losses:
            return None
        width = norm.output.shape[1] if len(norm.output.shape) > 1 else 0
        wide = width >= self.options.embedding
        if wide and (made.kind not in DENSE or width & (width - 1) == 0):
            return None
        if made.kind not in DENSE and graph.through(output) is norm.output:
            return Confidence.LOW  # a feature map, as blocks and backbones return it
        return Confidence.MEDIUM

    def _report(self, graph: Graph, norm: Node, confidence: Confidence) -> Finding:
        module = owner(graph, norm)
        what = module.type if module is not None else "batch norm"
        width = norm.shape[1] if len(norm.shape) > 1 else 0
        return self.finding(
            graph,
            f"{what} {{modules}} is the last operation: in training its {width} outputs have a fixed mean "
            "and standard deviation over every batch",
            node=norm,
            confidence=confidence,
            evidence={"width": width, "output": list(norm.shape)},
            help="End with the linear layer, with a bias.",
        )
