"""ND203: an eps that is zero in half precision."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Applicability, Edit, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.layers import number, owner

#: Half of the smallest subnormal number of float16, 2**-24: what is smaller rounds to zero.
_ROUNDS_TO_ZERO = 2.0**-25
_DIVIDES = frozenset({"sqrt", "rsqrt", "div", "reciprocal", "pow", "log"})
#: torch computes the statistics of these in float32, whatever the dtype of the input.
_UPCAST = frozenset({"layer_norm", "batch_norm", "group_norm", "instance_norm", "rms_norm"})


class EpsBelowPrecision(Rule):
    """An eps that rounds to zero where the arithmetic runs in float16.

    ## What it does
    Finds `F.normalize`, and sums in front of a root, a division or a logarithm, that add an eps below
    the precision of float16 to a float16 tensor. For torch's own norms, which compute in float32
    inside, it says so as an info.

    ## Why is this bad?
    The smallest positive float16 is 6e-8; an eps of 1e-12 or 1e-8 is zero there. A row of zeros (a padded
    token, a dead channel) is then divided by zero, and one NaN in the forward is a NaN in every
    gradient of the step.

    ## Example
    ```python bad
    import torch
    import torch.nn.functional as F
    from torch import nn


    class Embedder(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(32, 16)

        def forward(self, x):
            return F.normalize(self.fc(x), dim=-1)  # ND203


    model = Embedder().half()
    inputs = torch.randn(4, 32).half()
    ```

    ```python good
    import torch
    import torch.nn.functional as F
    from torch import nn


    class Embedder(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(32, 16)

        def forward(self, x):
            z = self.fc(x)
            return F.normalize(z.float(), dim=-1) + F.normalize(z, dim=-1, eps=1e-4)


    model = Embedder().half()
    inputs = torch.randn(4, 32).half()
    ```

    ## When to ignore
    Where the input can never be zero.

    ## Options
    - `least`: the smallest eps that is enough in float16 (1e-7; 2**-24 is the smallest number).

    ## Fix safety
    Unsafe: numbers change where the input is small.

    ## References
    - pytorch/pytorch issue 32137: F.normalize of a float16 row of zeros is NaN.
    - IEEE 754 binary16: the smallest positive subnormal number is 2**-24 = 5.96e-8.
    """

    code = "ND203"
    name = "eps-below-precision"
    category = "configuration"
    severity = Severity.ERROR
    fixable = True

    class Options(RuleOptions, frozen=True):
        """From which eps on float16 is precise enough."""

        least: float = 1e-7

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at every norm and every sum of a float16 tensor."""
        for node in graph.nodes:
            before = graph.input_tensor(node)
            eps = self._eps(graph, node)
            if before is None or before.dtype != "float16" or eps is None or not 0 < eps < self.options.least:
                continue
            zero = eps < _ROUNDS_TO_ZERO
            told = "is zero" if zero else "is below the precision"
            inside = node.kind in _UPCAST
            text = f"{graph.named(node)}: eps {eps:g} {told} in float16"
            if inside:
                text += ", which is harmless as long as torch computes this norm in float32"
            yield self.finding(
                graph,
                text,
                node=node,
                severity=Severity.INFO if inside else Severity.ERROR if zero else Severity.WARNING,
                evidence={"eps": eps, "dtype": before.dtype},
                fix=self._fix(graph, node, eps),
            )

    @staticmethod
    def _fix(graph: Graph, node: Node, eps: float) -> Fix:
        title, unsafe = "eps=1e-5, or compute in float32", Applicability.UNSAFE
        if node.kind in ("add", "clamp"):
            return Fix(title=title, applicability=unsafe, steps=(Edit.constant(eps, "1e-05"),))
        module = owner(graph, node)
        plain = module is None or module.leaf
        return Fix(
            title=title, applicability=unsafe, edits={"eps": "1e-05"} if plain else {}, everywhere=True
        )

    @staticmethod
    def _eps(graph: Graph, node: Node) -> float | None:
        """What the node adds so that nothing divides by zero."""
        if node.kind in _UPCAST or node.kind == "normalize":
            usual = 1e-12 if node.kind == "normalize" else None
            return number(node.config.get("eps", usual))
        found = None
        if node.kind == "add" and len(node.inputs) == 1:
            found = number(node.config.get("scalar"))
        elif node.kind == "clamp":
            found = number(node.config.get("min"))
        divides = any(reader.kind in _DIVIDES for reader in graph.readers(node))
        return found if divides else None
