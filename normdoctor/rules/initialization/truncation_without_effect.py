"""ND410: a truncated normal whose bounds lie far outside of its values."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.weights import origin_of


class TruncationWithoutEffect(Rule):
    """A truncated normal is drawn with bounds that no value reaches.

    ## What it does
    Notes the arguments of `nn.init.trunc_normal_` while the model is built, and names weights whose
    bounds lie more than six standard deviations from the mean. A preview: it runs only when it is asked
    for.

    ## Why is this bad?
    The bounds `a` and `b` are absolute, not multiples of `std`. With `std=0.02` and the default bounds of
    -2 and 2 the normal is cut at 100 standard deviations: nothing is truncated, and the largest weights
    of a layer are more than twice as large as a cut at 2 `std` allows. That seldom matters for training,
    but it differs from what papers and other frameworks mean by a truncated normal.

    ## Example
    ```python bad
    import torch
    from torch import nn


    def build():
        model = nn.Sequential(
            nn.Linear(64, 64),  # ND410
            nn.ReLU(),
            nn.Linear(64, 10),
        )
        nn.init.trunc_normal_(model[0].weight, std=0.02)
        return model


    model = build()
    inputs = torch.randn(4, 64)
    ```

    ```python good
    import torch
    from torch import nn


    def build():
        model = nn.Sequential(
            nn.Linear(64, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )
        nn.init.trunc_normal_(model[0].weight, std=0.02, a=-0.04, b=0.04)
        return model


    model = build()
    inputs = torch.randn(4, 64)
    ```

    ## When to ignore
    Where the untruncated normal is as good, which is the rule rather than the exception: vision
    transformers are trained so. Values alone cannot tell such a call from `normal_`; a model that was
    built before is not judged.

    ## References
    - torch.nn.init.trunc_normal_: "a: the minimum cutoff value".
    - google-research/algorithmic-efficiency pull request 819: bounds of -2 and 2 with a std of 0.02.
    """

    code = "ND410"
    name = "truncation-without-effect"
    category = "initialization"
    severity = Severity.INFO
    requires = frozenset({"weights"})
    preview = True

    class Options(RuleOptions, frozen=True):
        """`deviations`: bounds further out than this are out of reach (one value in 5e8 lies beyond 6)."""

        deviations: float = 6.0

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at the arguments that were noted."""
        if graph.facts.checkpoint:
            return
        for name, value in sorted((graph.facts.weights or {}).items()):
            parameter = graph.parameters.get(name)
            if parameter is None or value.truncation is None:
                continue
            low, high = value.truncation
            if min(-low, high) > self.options.deviations:
                yield self.finding(
                    graph,
                    f"the truncated normal of `{parameter.attribute}` of {{modules}} is cut at {low:.3g} and "
                    f"{high:.3g} standard deviations: nothing is cut",
                    module=parameter.module,
                    location=origin_of(graph, parameter),
                    evidence={"parameter": name, "low": low, "high": high, "std": value.std},
                    help="The bounds are absolute: pass a=-2 * std and b=2 * std.",
                )
