"""ND407: scales of norms that start at zero, below zero or far above one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from normdoctor.facts import Node, ParameterFact, WeightFact
from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.layers import count, scale_and_shift
from normdoctor.rules.weights import destinations, is_direct, looks_trained, origin_of, values_of

_PASSED = frozenset({"dropout", "pool", "reshape"})


class _Scale(NamedTuple):
    node: Node
    parameter: ParameterFact
    value: WeightFact


class NormInit(Rule):
    """The scales of a norm start at zero everywhere, below zero, or far above one.

    ## What it does
    Looks at the scale (gamma) of every norm before training: an error where all norms of a model start
    at zero, a warning where three in ten scales of a norm are negative or one is above 10.

    ## Why is this bad?
    A norm multiplies what it has normalized by its scale. Zero on the last norm of a residual branch
    makes the block start as the identity, which is wanted. Zero on all norms lets nothing through: the
    output does not depend on the input, and layers in front of the norms get no gradient. Scales drawn
    around zero turn the sign of half of the channels and shrink the signal, which happens where an
    initialization meant for weights (`normal_(0, 0.02)`) is applied to norms too.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16),  # ND407
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, bias=False),
    )
    for layer in model:
        if hasattr(layer, "weight"):
            nn.init.normal_(layer.weight, 0.0, 0.02)
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ```python good
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
            self.norm1 = nn.BatchNorm2d(16)
            self.conv2 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
            self.norm2 = nn.BatchNorm2d(16)
            nn.init.normal_(self.norm1.weight, 1.0, 0.02)
            nn.init.zeros_(self.norm2.weight)

        def forward(self, x):
            out = torch.relu(self.norm1(self.conv1(x)))
            return torch.relu(x + self.norm2(self.conv2(out)))


    model = Block()
    inputs = torch.randn(4, 16, 8, 8)
    ```

    ## When to ignore
    Where the scales are written before the first forward. The rule is silent for trained models and
    weights from a checkpoint, for norms that add one to their scale, for zeros on some norms only, and for
    a few negative scales (RepVGG draws them with mean 0.1 and standard deviation 0.1).

    ## References
    - Goyal et al., 2017, "Accurate, Large Minibatch SGD", section 5.1: gamma = 0 on the last norm of each
      residual block.
    - Radford, Metz and Chintala, 2016, "DCGAN": weights of mean 0, norm scales of mean 1.
    """

    code = "ND407"
    name = "norm-init"
    category = "initialization"
    severity = Severity.WARNING
    requires = frozenset({"graph", "weights"})

    class Options(RuleOptions, frozen=True):
        """`high`: scales above it are reported. `negative`: the share of scales below zero to report."""

        high: float = 10.0
        negative: float = 0.3

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at the scale of each norm."""
        if graph.facts.checkpoint or not graph.facts.weights or looks_trained(graph):
            return
        scales = list(self._scales(graph))
        zero = [scale for scale in scales if scale.value.minimum == 0 == scale.value.maximum]
        if zero and len(zero) == len(scales) and self._blocking(graph, zero):
            for scale in zero:
                yield self._dead(graph, scale, len(zero))
            return
        for scale in scales:
            values = scale.value.values
            negative = sum(one < 0 for one in values) / max(len(values), 1)
            if negative > self.options.negative or scale.value.maximum > self.options.high:
                yield self._strange(graph, scale)

    @staticmethod
    def _scales(graph: Graph) -> Iterator[_Scale]:
        """The scale of each norm whose parameter is the factor itself."""
        done: set[str] = set()
        for norm in graph.norms:
            if norm.handwritten is not None:
                continue
            _, shift = scale_and_shift(norm.output)
            for name in norm.output.parameters:
                parameter, value = graph.parameters.get(name), values_of(graph, name)
                if parameter is None or value is None or parameter.kind != "parameter" or name in done:
                    continue
                if (
                    name == shift
                    or parameter.attribute.endswith("bias")
                    or not is_direct(graph, norm.output, parameter)
                ):
                    continue
                done.add(name)
                yield _Scale(norm.output, parameter, value)

    @staticmethod
    def _blocking(graph: Graph, zero: list[_Scale]) -> bool:
        """Does one of them stand where a signal has no other way: not at the end of a branch?"""
        return any(not destinations(graph, scale.node, _PASSED) & {"add", "gate"} for scale in zero)

    def _dead(self, graph: Graph, scale: _Scale, total: int) -> Finding:
        return self.finding(
            graph,
            f"the scale `{scale.parameter.attribute}` of {{modules}} is zero, as those of all "
            f"{count(total, 'norm')} of the model are: no signal passes",
            module=scale.parameter.module,
            location=origin_of(graph, scale.parameter) or scale.node.location,
            severity=Severity.ERROR,
            evidence={"parameter": scale.parameter.name, "norms": total},
            help="Start at one; zero only on the last norm of each residual branch.",
        )

    def _strange(self, graph: Graph, scale: _Scale) -> Finding:
        value = scale.value
        negative = sum(one < 0 for one in value.values)
        some = f"{negative:,} of {value.count:,} are negative" if negative else f"up to {value.maximum:.3g}"
        return self.finding(
            graph,
            f"the scales `{scale.parameter.attribute}` of {{modules}} start with a mean of {value.mean:.2g} "
            f"and a standard deviation of {value.std:.2g}; {some}",
            module=scale.parameter.module,
            location=origin_of(graph, scale.parameter) or scale.node.location,
            evidence={"parameter": scale.parameter.name, "mean": value.mean, "std": value.std},
            help="Start norms at one.",
        )
