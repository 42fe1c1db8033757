"""ND201: an eps that looks like a momentum or a channel count."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import ModuleFact, Node
from normdoctor.findings import Applicability, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.layers import BATCH_NORMS, INSTANCE_NORMS, as_built, number


class BatchnormEps(Rule):
    """The eps of a BatchNorm is far too large, or not positive.

    ## What it does
    Finds a BatchNorm or InstanceNorm whose `eps` is 0.1 or more, or not positive (errors), or more than
    0.01 (a warning).

    ## Why is this bad?
    The second positional argument of `nn.BatchNorm2d` is eps, not momentum and not a number of channels.
    eps is added to the variance: with a variance of 1 the output has the standard deviation
    1/sqrt(1 + eps), which is 0.75 for eps = 0.8 and 0.12 for eps = 64, and where the variance is smaller
    than eps the layer hardly normalizes at all. An eps of 0 divides by zero where a channel is constant.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, bias=False),
        nn.BatchNorm2d(64, 64),  # ND201
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, bias=False),
        nn.BatchNorm2d(64, 0.8),  # ND201
        nn.ReLU(),
    )
    inputs = torch.randn(4, 3, 16, 16)
    ```

    The value 1e-3 of TensorFlow, which Inception and EfficientNet keep, is all right:

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, bias=False),
        nn.BatchNorm2d(64, eps=1e-3, momentum=0.01),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, bias=False),
        nn.BatchNorm2d(64, momentum=0.2),
        nn.ReLU(),
    )
    inputs = torch.randn(4, 3, 16, 16)
    ```

    ## When to ignore
    Where a large eps is meant to damp channels of small variance, and the model was trained with it: eps
    is part of a trained model, and changing it changes the outputs.

    ## Fix safety
    Unsafe: the outputs change. A value between 0 and 1 was most likely meant as a momentum in the
    convention of Keras (`momentum=1 - value` in PyTorch) or PyTorch; other values are dropped.

    ## References
    - torch.nn.BatchNorm2d: `BatchNorm2d(num_features, eps=1e-05, momentum=0.1, ...)`.
    - Defaults in use: 1e-5 (PyTorch, Caffe), 1e-3 (Keras, TensorFlow, and ports of Inception, EfficientNet,
      MobileNetV3). The threshold 0.01 is ten times the largest of them; 0.1 is PyTorch's default momentum.
    """

    code = "ND201"
    name = "batchnorm-eps"
    category = "configuration"
    severity = Severity.ERROR
    requires = frozenset()
    fixable = True

    class Options(RuleOptions, frozen=True):
        """Where a large eps becomes a warning and an error."""

        warn_above: float = 0.01
        error_from: float = 0.1

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at every module, executed or not, then at functional calls outside of them."""
        for module in graph.facts.modules:
            if module.base in BATCH_NORMS | INSTANCE_NORMS:
                yield from self._judge(graph, module.config.get("eps"), module.type, module=module)
        for node in graph.by_role("norm"):
            if node.kind in ("batch_norm", "instance_norm") and not as_built(graph, node, "eps"):
                yield from self._judge(graph, node.config.get("eps"), f"F.{node.kind}", node=node)

    def _judge(
        self,
        graph: Graph,
        setting: object,
        what: str,
        *,
        module: ModuleFact | None = None,
        node: Node | None = None,
    ) -> Iterator[Finding]:
        eps = number(setting)
        if eps is None or 0 < eps <= self.options.warn_above:
            return
        wrong = eps <= 0 or eps >= self.options.error_from
        size = module.config.get("num_features") if module is not None else None
        if eps <= 0:
            effect = "a constant channel gives 0/0" if eps == 0 else "a small variance gives NaN"
        else:
            effect = f"it turns a standard deviation of 1 into {(1 + eps) ** -0.5:.2g}"
        guess = " (its number of channels)" if size is not None and eps == size else ""
        if not guess and 0.5 <= eps < 1:
            guess = " (a momentum?)"
        yield self.finding(
            graph,
            f"{what} {{modules}} has eps={eps:g}{guess}: {effect}",
            node=node,
            module=module.path if module is not None else None,
            severity=Severity.ERROR if wrong else Severity.WARNING,
            evidence={"eps": eps, "num_features": size},
            fix=self._fix(eps) if module is None or module.leaf else None,
        )

    @staticmethod
    def _fix(eps: float) -> Fix:
        edits = {"eps": ""}
        title = "Set eps to its default 1e-5"
        if 0.1 < eps < 1 and eps != 0.5:
            momentum = f"{1 - eps if eps >= 0.5 else eps:.6g}"
            edits["momentum"] = momentum
            title = f"Set momentum={momentum} and leave eps at its default 1e-5"
        return Fix(title=title, applicability=Applicability.UNSAFE, edits=edits, everywhere=True)
