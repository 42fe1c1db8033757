"""ND316: the slope of a leaky activation that turns or amplifies negative values."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.findings import Applicability, Finding, Fix, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import number

#: Kind to the setting that holds its slope, and torch's default.
_SLOPES = {"leaky_relu": ("negative_slope", "0.01"), "elu": ("alpha", "1.0"), "celu": ("alpha", "1.0")}


class BadSlope(Rule):
    """A leaky activation with a slope of one or more, or below zero.

    ## What it does
    Finds LeakyReLU with a negative slope that is at least 1 or below 0 (`nn.LeakyReLU(True)` sets the
    slope to 1: the first argument is not `inplace`), RReLU with such bounds, ELU with a negative alpha,
    CELU with an alpha of zero or below, and a ReLU that was given a slope (`nn.ReLU(0.2)` means
    `inplace=0.2`).

    ## Why is this bad?
    With a slope of 1 the activation is the identity, and the layers around it are one linear layer.
    With a slope above 1 negative values grow; below 0 the function turns around and is no longer
    monotonic.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.LeakyReLU(True),  # ND316
        nn.Linear(32, 4),
    )
    inputs = torch.randn(8, 16)
    ```

    ```python fixed
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),
        nn.LeakyReLU(negative_slope=0.01),  # ND316
        nn.Linear(32, 4),
    )
    inputs = torch.randn(8, 16)
    ```

    ```python bad
    import torch
    import torch.nn.functional as F
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 4)

        def forward(self, x):
            return self.down(F.leaky_relu(self.up(x), -0.2))  # ND316


    model = Net()
    inputs = torch.randn(8, 16)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(0.2, inplace=True), nn.Linear(32, 4), nn.ELU())
    inputs = torch.randn(8, 16)
    ```

    ## When to ignore
    Where the absolute value is meant: a slope of -1 is `torch.abs`, which says so.

    ## Fix safety
    Unsafe: the output changes. The fix sets torch's default.

    ## References
    - torch.nn.LeakyReLU(negative_slope=0.01, inplace=False); torch.nn.ELU(alpha=1.0, inplace=False).
    """

    code = "ND316"
    name = "bad-slope"
    category = "activation"
    severity = Severity.ERROR
    fixable = True

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at every activation with a slope."""
        for node in graph.by_role("activation"):
            found = self._wrong(node)
            if found is not None:
                setting, value, text, usual = found
                edits = {setting: usual} if usual else {}
                yield self.finding(
                    graph,
                    f"{graph.named(node)} has {setting}={value}: {text}",
                    node=node,
                    evidence={setting: value},
                    fix=Fix(
                        title=f"{setting}={usual}",
                        applicability=Applicability.UNSAFE,
                        edits=edits,
                        everywhere=True,
                    )
                    if usual
                    else None,
                )

    @staticmethod
    def _wrong(node: Node) -> tuple[str, object, str, str] | None:
        if node.kind == "rrelu":
            for setting in ("lower", "upper"):
                bound = number(node.config.get(setting))
                if bound is not None and (bound < 0 or bound >= 1):
                    return setting, bound, "a slope lies between 0 and 1", ""
            return None
        if node.kind in ("relu", "relu6", "selu", "silu"):
            given = node.config.get("inplace")
            slope = number(given)
            if slope is None or slope in (0, 1):
                return None
            return "inplace", given, "it has no slope, and works in place", "True"
        setting, usual = _SLOPES.get(node.kind, ("", ""))
        given = node.config.get(setting)
        value = float(given) if isinstance(given, bool) else number(given)
        if not setting or value is None:
            return None
        if node.kind == "leaky_relu":
            if value == 1:
                told = " (the first argument is the slope, not inplace)" if given is True else ""
                return setting, given, f"it is the identity{told}", usual
            if value > 1:
                return setting, given, "negative values are made larger", usual
            return (setting, given, "negative values change their sign", usual) if value < 0 else None
        if value < 0:
            return setting, given, "negative values change their sign", usual
        return (setting, given, "torch divides by it", usual) if value == 0 and node.kind == "celu" else None
