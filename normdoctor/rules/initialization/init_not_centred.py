"""ND404: weights that are drawn around a mean that is not zero."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import WeightFact
from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.weights import Use, all_uses, looks_trained, origin_of, values_of


class InitNotCentred(Rule):
    """Weights are drawn around a mean that is not zero, such as `torch.rand`.

    ## What it does
    Finds a trainable weight of a linear layer, convolution or product whose values match a uniform or
    normal distribution with a mean of more than half of its standard deviation.

    ## Why is this bad?
    A mean m of n weights adds `m * sum(x)` to every unit: the same number for all of them. Against the
    part that differs between units it grows with the root of n. With `torch.rand` and 512 inputs that
    are never negative, all units of the layer are nearly copies of one another, 20 times too large, and
    the next layers make that worse: the output overflows or saturates within a few layers.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Mix(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(64, 32))  # ND404
            self.bias = nn.Parameter(torch.zeros(32))

        def forward(self, x):
            return x @ self.weight + self.bias


    model = nn.Sequential(Mix(), nn.ReLU(), nn.Linear(32, 10))
    inputs = torch.randn(8, 64)
    ```

    ```python good
    import torch
    from torch import nn


    class Mix(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(64, 32).uniform_(-0.1, 0.1))
            self.bias = nn.Parameter(torch.rand(32))

        def forward(self, x):
            return x @ self.weight + self.bias


    model = nn.Sequential(Mix(), nn.ReLU(), nn.Linear(32, 10))
    inputs = torch.randn(8, 64)
    ```

    ## When to ignore
    In networks that are built to have no negative weights (monotone networks, matrix factorization).
    The rule is silent for frozen weights, weights from a checkpoint, biases, norms, embeddings, weights
    that are computed from the parameter, kernels that match no distribution, such as those of bilinear
    upsampling, and for fewer than 64 values.

    ## References
    - AdaptInfer/Contextualized issue 33: weights from `torch.rand`, all positive, of mean 0.5.
    - LeCun, Bottou, Orr and Mueller, 1998, "Efficient BackProp", section 4.6: weights of zero mean.
    """

    code = "ND404"
    name = "init-not-centred"
    category = "initialization"
    severity = Severity.ERROR
    requires = frozenset({"graph", "weights"})

    class Options(RuleOptions, frozen=True):
        """`ratio`: of mean and standard deviation (1.73 for `torch.rand`). `values`: fewest to judge."""

        ratio: float = 0.5
        values: int = 64

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at each weight that the graph multiplies with."""
        if graph.facts.checkpoint or not graph.facts.weights or looks_trained(graph):
            return
        done: set[str] = set()
        for use in all_uses(graph):
            value = values_of(graph, use.parameter.name)
            if use.parameter.name in done or value is None or not use.direct:
                continue
            done.add(use.parameter.name)
            if self._off_centre(use, value):
                yield self._report(graph, use, value)

    def _off_centre(self, use: Use, value: WeightFact) -> bool:
        drawn = value.init is not None and value.init.distribution in (
            "uniform",
            "normal",
            "truncated_normal",
        )
        learned = use.parameter.trainable and use.parameter.kind != "buffer"
        # A depthwise kernel that smooths is positive by design; it reads one channel.
        wide = use.fan_in >= 16 and use.units > 1
        large = value.count >= self.options.values and abs(value.mean) > self.options.ratio * value.std
        return drawn and learned and wide and large

    def _report(self, graph: Graph, use: Use, value: WeightFact) -> Finding:
        parameter = use.parameter
        rand = value.init is not None and value.init.distribution == "uniform" and value.minimum >= 0
        drawn = f"uniform in [{value.minimum:.2g}, {value.maximum:.2g}]" if rand else "random"
        return self.finding(
            graph,
            f"the values of `{parameter.attribute}` of {{modules}} are {drawn}, with a mean of "
            f"{value.mean:.3g} and a standard deviation of {value.std:.3g}: all {use.units:,} units start "
            f"alike and {abs(value.mean) / value.std * use.fan_in**0.5:.0f} times too large",
            module=parameter.module,
            location=origin_of(graph, parameter) or use.node.location,
            evidence={
                "parameter": parameter.name,
                "mean": value.mean,
                "std": value.std,
                "fan_in": use.fan_in,
            },
            help="Centre it, for example with nn.init.kaiming_uniform_ or uniform_(-b, b).",
        )
