"""ND117: a norm without shift in front of an activation."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Applicability, Confidence, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import of_one_sample, owner

_ACTIVATIONS = frozenset(
    "relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish hardswish hardtanh sigmoid "
    "hardsigmoid tanh softplus".split()
)


class NoShiftLeft(Rule):
    """A norm without scale and shift feeds an activation: nothing can move its input.

    ## What it does
    Finds BatchNorm and InstanceNorm without affine parameters whose output goes into an activation.

    ## Why is this bad?
    The norm sets the mean of each channel to zero and its deviation to one, and the activation sees just
    that: a ReLU then passes about half of the values of every channel, whatever the network would learn.
    A bias in front of the norm does not help, since the norm subtracts it. The shift of the norm is what
    takes the place of that bias.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16, affine=False),  # ND117
        nn.ReLU(),
        nn.Conv2d(16, 8, 3),
    )
    inputs = torch.randn(4, 3, 16, 16)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 8, 3),
    )
    inputs = torch.randn(4, 3, 16, 16)
    ```

    Where scale and shift come from elsewhere, the norm itself has none by design:

    ```python good
    import torch
    from torch import nn


    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3, bias=False)
            self.norm = nn.BatchNorm2d(16, affine=False)
            self.style = nn.Conv2d(3, 16, 3)

        def forward(self, x):
            return torch.relu(self.norm(self.conv(x)) + self.style(x))


    model = Conditional()
    inputs = torch.randn(4, 3, 16, 16)
    ```

    ## When to ignore
    In searches over architectures, which leave scale and shift out while they compare operations. For
    InstanceNorm, of which torch's default has no scale and shift, the finding is an information of low
    confidence, and the rule is silent where all InstanceNorms of the model are so (CycleGAN, pix2pix).

    ## Fix safety
    Unsafe: `affine=True` adds parameters, so the state_dict gets new keys. At their initial values, one and
    zero, the outputs are the same.

    ## References
    - Ioffe and Szegedy, 2015, "Batch Normalization", section 3: scale and shift "restore the representation
      power of the network".
    """

    code = "ND117"
    name = "no-shift-left"
    category = "placement"
    severity = Severity.WARNING
    confidence = Confidence.MEDIUM
    fixable = True

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at what reads each norm without a shift."""
        instances = [node for node in graph.by_role("norm") if self._kind(graph, node) == "instance_norm"]
        plain = all(not self._shifted(graph, node) for node in instances)
        done: set[str] = set()
        for norm in graph.by_role("norm"):
            kind = self._kind(graph, norm)
            if kind not in ("batch_norm", "instance_norm") or self._shifted(graph, norm):
                continue
            if kind == "instance_norm" and plain:
                continue
            readers = graph.readers(norm)
            name = graph.label(norm)
            if readers and all(reader.kind in _ACTIVATIONS for reader in readers) and name not in done:
                done.add(name)
                yield self._report(graph, norm, readers[0])

    @staticmethod
    def _kind(graph: Graph, norm: Node) -> str:
        """The kind of a norm; a BatchNorm of samples that lie in the channels is an InstanceNorm."""
        folded = norm.kind == "batch_norm" and bool(norm.inputs) and of_one_sample(graph, norm)
        return "instance_norm" if folded else norm.kind

    @staticmethod
    def _shifted(graph: Graph, norm: Node) -> bool:
        return bool(norm.config.get("bias")) or any(
            graph.parameters[name].kind == "parameter" for name in norm.parameters if name in graph.parameters
        )

    def _report(self, graph: Graph, norm: Node, activation: Node) -> Finding:
        module = owner(graph, norm)
        what = module.type if module is not None else norm.kind
        batch = self._kind(graph, norm) == "batch_norm"
        edit = module is not None and module.leaf
        return self.finding(
            graph,
            f"{what} {{modules}} has no scale and shift, and a {activation.kind} follows: nothing can move "
            "the mean of its input from zero",
            node=norm,
            severity=Severity.WARNING if batch else Severity.INFO,
            confidence=Confidence.MEDIUM if batch else Confidence.LOW,
            evidence={"activation": activation.kind},
            related=(("the activation", graph.where(activation)),),
            fix=Fix(
                title="Build the norm with affine=True",
                applicability=Applicability.UNSAFE if edit else Applicability.DISPLAY,
                edits={"affine": "" if module.base.startswith("Batch") else "True"}
                if edit and module
                else {},
            ),
        )
