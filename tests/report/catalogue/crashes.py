"""A rule that raises where a module is called Bomb."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule


class BrokenRule(Rule):
    """A rule that raises.

    ## What it does
    It raises.

    ## Why is this bad?
    Rules must not raise.

    ## Example
    ```python bad
    model = 1  # TST401
    ```

    ```python good
    model = 2
    ```

    ## When to ignore
    Never.

    ## References
    None.
    """

    code = "TST401"
    name = "broken-rule"
    category = "samples"

    def check(self, graph: Graph) -> Iterator[Finding]:
        if any(module.type == "Bomb" for module in graph.facts.modules):
            raise ZeroDivisionError("division by zero")
        yield from ()
