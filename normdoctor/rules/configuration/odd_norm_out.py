"""ND208: one norm that is set up unlike all its siblings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from normdoctor.facts import ModuleFact
from normdoctor.findings import Confidence, Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule, RuleOptions
from normdoctor.rules.layers import BATCH_NORMS, NORMS


class OddNormOut(Rule):
    """A norm whose eps or momentum differs from all its siblings.

    ## What it does
    Among the norms of one type, finds the single one whose eps or momentum is unlike that of all
    others, where there are at least four others and these agree.

    ## Why is this bad?
    Nothing is wrong with either value. But a value that stands once among many is rarely meant: a
    default that was forgotten, or a line that was copied from another model.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),  # ND208
        nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU(),
    )
    inputs = torch.randn(4, 3, 16, 16)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
    )
    inputs = torch.randn(4, 3, 16, 16)
    ```

    ## When to ignore
    Where the one is meant: the final norm of some transformers has an eps of its own.

    ## References
    - Engler et al., 2001, "Bugs as Deviant Behavior": what deviates from all else is likely a mistake.
    """

    code = "ND208"
    name = "odd-norm-out"
    category = "configuration"
    severity = Severity.INFO
    confidence = Confidence.LOW

    @property
    def _needed(self) -> int:
        return int(self.options.siblings)

    class Options(RuleOptions, frozen=True):
        """How many siblings must agree."""

        siblings: int = 4

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Compare the norms of each type, setting by setting."""
        families: dict[str, list[ModuleFact]] = {}
        for module in graph.facts.modules:
            if module.base in NORMS and module.calls:
                families.setdefault(module.type, []).append(module)
        for members in families.values():
            for setting in ("eps", "momentum") if members[0].base in BATCH_NORMS else ("eps",):
                yield from self._odd(graph, members, setting)

    def _odd(self, graph: Graph, members: list[ModuleFact], setting: str) -> Iterator[Finding]:
        values = Counter(repr(module.config.get(setting)) for module in members)
        if len(values) != 2 or min(values.values()) != 1 or len(members) <= self._needed:
            return
        usual = values.most_common(1)[0][0]
        for module in members:
            if repr(module.config.get(setting)) != usual:
                yield self.finding(
                    graph,
                    f"{{modules}} has {setting}={module.config.get(setting)}, "
                    f"its {len(members) - 1} siblings of type {module.type} have {usual}",
                    module=module.path,
                    evidence={"setting": setting, "value": module.config.get(setting), "siblings": usual},
                )
