"""Rules for tests of everything around rules. They look at modules only, so facts are short."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Applicability, Confidence, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions

PAGE = """{summary}

## What it does
It looks for `{what}`.

## Why is this bad?
It is not; this is a sample.

## Example
```python bad
model = 1  # {code}
```

```python good
model = 2
```

## When to ignore
Always.

## References
None.
"""


def page(summary: str, what: str, code: str) -> str:
    return PAGE.format(summary=summary, what=what, code=code)


class LoudLinear(Rule):
    __doc__ = page("A linear layer.", "Linear", "TST101")
    code = "TST101"
    name = "loud-linear"
    category = "samples"
    fixable = True

    class Options(RuleOptions, frozen=True):
        at_most: int = 0
        label: str = "a linear layer"

    def check(self, graph: Graph) -> Iterator[Finding]:
        linears = [module for module in graph.facts.modules if module.type == "Linear"]
        for module in linears[self.options.at_most :]:
            yield self.finding(
                graph,
                f"{{modules}} is {self.options.label}",
                module=module.path,
                evidence={"features": module.config.get("features", 0)},
                fix=Fix(title="take it out", applicability=Applicability.SAFE, edits={"bias": "False"}),
            )


class QuietNorm(Rule):
    __doc__ = page("A norm.", "a norm", "TST102")
    code = "TST102"
    name = "quiet-norm"
    category = "samples"
    severity = Severity.INFO

    def check(self, graph: Graph) -> Iterator[Finding]:
        for module in graph.facts.modules:
            if module.role == "norm":
                yield self.finding(graph, "{modules} is a norm", module=module.path)


class NeedsLoss(Rule):
    __doc__ = page("A loss.", "a loss", "TST201")
    code = "TST201"
    name = "needs-loss"
    category = "samples"
    requires = frozenset({"graph", "loss"})

    def check(self, graph: Graph) -> Iterator[Finding]:
        yield from ()


class DoubtfulNorm(Rule):
    __doc__ = page("A norm, perhaps.", "a norm", "TST202")
    code = "TST202"
    name = "doubtful-norm"
    category = "samples"
    confidence = Confidence.LOW

    def check(self, graph: Graph) -> Iterator[Finding]:
        for module in graph.facts.modules:
            if module.role == "norm":
                yield self.finding(graph, "{modules} may be a norm", module=module.path)


class EarlyRule(Rule):
    __doc__ = page("A rule in preview.", "nothing", "TST301")
    code = "TST301"
    name = "early-rule"
    category = "samples"
    preview = True

    def check(self, graph: Graph) -> Iterator[Finding]:
        yield from ()
