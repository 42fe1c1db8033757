"""ND202: a momentum in the convention of TensorFlow or Caffe."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import ModuleFact, Node
from normdoctor.findings import Applicability, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.layers import (
    BATCH_NORMS,
    INSTANCE_NORMS,
    as_built,
    in_training,
    number,
    tracks_statistics,
)


class BatchnormMomentum(Rule):
    """The momentum of a BatchNorm has the meaning of another framework.

    ## What it does
    Finds a norm with running statistics whose `momentum` is 0.9 or more, or outside of 0 to 1 (errors),
    0.5 or more, or 0 while it trains (warnings).

    ## Why is this bad?
    In PyTorch `running = (1 - momentum) * running + momentum * batch`; in TensorFlow, Keras and Caffe it
    is the other way round, and their 0.99 is PyTorch's 0.01. With momentum=0.9 the running statistics are
    those of the last 1.1 batches, and evaluation depends on which batches came last. With 0 they never
    move from mean 0 and variance 1. Above 1 they oscillate, and the running variance can become negative.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16, momentum=0.99),  # ND202
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, bias=False),
        nn.BatchNorm2d(16, momentum=0.5),  # ND202
        nn.ReLU(),
    )
    inputs = torch.randn(4, 3, 16, 16)
    ```

    `None` means the plain average over all batches; small values are slow but sound (MNASNet has 3e-4):

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16, momentum=0.01),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, bias=False),
        nn.BatchNorm2d(16, momentum=None),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, bias=False),
        nn.BatchNorm2d(16, momentum=3e-4),
        nn.InstanceNorm2d(16, momentum=0.9),
    )
    inputs = torch.randn(4, 3, 16, 16)
    ```

    ## When to ignore
    Where the running statistics are meant to be those of the last batch (momentum=1 before a
    recalibration). The rule is silent for norms without running statistics, and for frozen ones.

    ## Fix safety
    Unsafe: `momentum=1 - value` changes the running statistics of later training, never the outputs in
    training mode.

    ## References
    - torch.nn.BatchNorm2d, note on momentum: "this momentum argument is different from one used in
      optimizer classes and the conventional notion of momentum".
    - kazuto1011/deeplab-pytorch issue 79 (0.999), ludwig-ai/ludwig pull request 2100 (0.95),
      Cadene/pretrained-models.pytorch (0.9): ports that had to be mended. The average covers about
      1/momentum batches: 1.1 for 0.9, 2 for 0.5, 10 for the default 0.1.
    """

    code = "ND202"
    name = "batchnorm-momentum"
    category = "configuration"
    severity = Severity.ERROR
    requires = frozenset()
    fixable = True

    class Options(RuleOptions, frozen=True):
        """Where a large momentum becomes a warning and an error."""

        warn_from: float = 0.5
        error_from: float = 0.9

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at every module, executed or not, then at functional calls outside of them."""
        for module in graph.facts.modules:
            counts = module.training or not graph.facts.training
            tracking = counts and module.config.get("track_running_stats")
            if module.base in BATCH_NORMS | INSTANCE_NORMS and tracking:
                yield from self._judge(graph, module.config.get("momentum"), module.type, module=module)
        for node in graph.by_role("norm"):
            if node.kind not in ("batch_norm", "instance_norm") or as_built(graph, node, "momentum"):
                continue
            if tracks_statistics(graph, node) and in_training(graph, node):
                yield from self._judge(graph, node.config.get("momentum"), f"F.{node.kind}", node=node)

    def _judge(
        self,
        graph: Graph,
        setting: object,
        what: str,
        *,
        module: ModuleFact | None = None,
        node: Node | None = None,
    ) -> Iterator[Finding]:
        momentum = number(setting)
        if momentum is None or (momentum == 0 and not graph.facts.training):
            return
        if 0 < momentum < self.options.warn_from:
            return
        wrong = momentum < 0 or momentum >= self.options.error_from
        yield self.finding(
            graph,
            f"{what} {{modules}} has momentum={momentum:g}: {self._effect(momentum)}",
            node=node,
            module=module.path if module is not None else None,
            severity=Severity.ERROR if wrong else Severity.WARNING,
            evidence={"momentum": momentum},
            fix=self._fix(momentum) if module is None or module.leaf else None,
        )

    @staticmethod
    def _effect(momentum: float) -> str:
        if momentum < 0 or momentum > 1:
            return "outside of 0 to 1 the running statistics are no average, and the variance can be negative"
        if momentum == 0:
            return "the running statistics never move from their initial values"
        return f"in PyTorch the running statistics then cover about {1 / momentum:.3g} batches"

    def _fix(self, momentum: float) -> Fix:
        value = f"{1 - momentum:.6g}" if 0 < 1 - momentum < min(momentum, self.options.warn_from) else ""
        return Fix(
            title=f"Set momentum={value}" if value else "Leave momentum at its default 0.1",
            applicability=Applicability.UNSAFE,
            edits={"momentum": value},
            everywhere=True,
        )
