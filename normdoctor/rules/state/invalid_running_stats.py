"""ND505: running statistics that no batch can have."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import WeightFact
from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules.base import Rule
from normdoctor.rules.layers import count


class InvalidRunningStats(Rule):
    """Running statistics that are not finite, or a running variance of zero or below.

    ## What it does
    Finds `running_mean` and `running_var` buffers with NaN or infinite values, and running variances
    that are negative or zero.

    ## Why is this bad?
    A single batch with a NaN makes the moving average NaN for ever: training goes on, since it uses the
    statistics of each batch, and every evaluation is NaN. A negative variance has no root. A variance
    of zero divides by the root of eps: the channel is multiplied by 316.

    ## Example
    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),  # ND505
        nn.ReLU(),
    )
    model[1].running_var[2] = float("nan")
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    inputs = torch.randn(4, 3, 8, 8)
    ```

    ## When to ignore
    Zero variance stands where a channel was pruned: it is a warning then, not an error.

    ## References
    - torch.nn.functional.batch_norm divides by sqrt(running_var + eps); 1 / sqrt(1e-5) = 316.
    """

    code = "ND505"
    name = "invalid-running-stats"
    category = "state"
    severity = Severity.ERROR
    requires = frozenset({"weights"})

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Look at the running statistics of every module."""
        weights = graph.facts.weights or {}
        for parameter in graph.facts.parameters:
            if parameter.attribute not in ("running_mean", "running_var") or parameter.kind == "parameter":
                continue
            known = weights.get(parameter.name)
            found = self._wrong(parameter.attribute, known) if known is not None else None
            if found is not None:
                text, severity = found
                yield self.finding(
                    graph,
                    f"{parameter.attribute} of {{modules}} {text}",
                    module=parameter.module,
                    severity=severity,
                    evidence={"buffer": parameter.attribute},
                )

    @staticmethod
    def _wrong(attribute: str, known: WeightFact) -> tuple[str, Severity] | None:
        if not known.finite:
            return "is not finite: every evaluation is NaN or infinite", Severity.ERROR
        if attribute == "running_mean" or known.minimum > 0:
            return None
        if known.minimum < 0:
            return f"is negative (down to {known.minimum:.3g}): it has no square root", Severity.ERROR
        zeros = sum(value == 0 for value in known.values)
        channels = count(zeros, "channel") if zeros else "some channels"
        return f"is zero in {channels}: they are divided by the root of eps", Severity.WARNING
