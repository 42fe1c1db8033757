"""ND409: weights that match no known initialization."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.weights import all_uses, origin_of, values_of


class UnknownInit(Rule):
    """The values of a weight match none of the distributions that weights are drawn from.

    ## What it does
    Compares the values of each weight with the uniform, the normal, the truncated normal and the
    orthogonal distribution, by range, moments and the distance of Kolmogorov and Smirnov, and names
    those that match none. A preview: it runs only when it is asked for.

    ## Why is this bad?
    In a model that is said to be new, such weights were trained, damaged, or drawn by code that does
    something else than what was meant. In a model that was trained it is as it should be, and the rule
    says which layers training has reached.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(64, 64),  # ND409
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(64, 64) ** 3 / 20)
    inputs = torch.randn(4, 64)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    nn.init.orthogonal_(model[0].weight)
    inputs = torch.randn(4, 64)
    ```

    ## When to ignore
    For trained models, and for initializations by data or by construction (wavelets, DCT, state-space
    models). The rule is silent for weights from a checkpoint and for fewer than 256 values.

    ## References
    - Kolmogorov's distribution: a distance of 2.2 / sqrt(n) is exceeded by one sample in 8,000.
    - `normdoctor show` prints for each weight the initialization that it matches.
    """

    code = "ND409"
    name = "unknown-init"
    category = "initialization"
    severity = Severity.INFO
    confidence = Confidence.LOW
    requires = frozenset({"graph", "weights"})
    preview = True

    class Options(RuleOptions, frozen=True):
        """`values`: fewest to judge."""

        values: int = 256

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at each weight that the graph multiplies with."""
        if graph.facts.checkpoint or not graph.facts.weights:
            return
        done: set[str] = set()
        for use in all_uses(graph):
            parameter, value = use.parameter, values_of(graph, use.parameter.name)
            if parameter.name in done or value is None or value.init is None:
                continue
            done.add(parameter.name)
            if value.init.distribution or value.count < self.options.values or parameter.kind != "parameter":
                continue
            yield self.finding(
                graph,
                f"the {value.count:,} values of `{parameter.attribute}` of {{modules}} (mean "
                f"{value.mean:.2g}, standard deviation {value.std:.2g}) match no known initialization",
                module=parameter.module,
                location=origin_of(graph, parameter) or use.node.location,
                evidence={"parameter": parameter.name, "mean": value.mean, "std": value.std},
            )
