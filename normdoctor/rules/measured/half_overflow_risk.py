"""ND609: half-overflow-risk."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.signals import Signals, magnitude
from normdoctor.rules.sites import Site

#: The largest finite number of float16.
LARGEST = 65504.0


class HalfOverflowRisk(base.Rule):
    """Activations near the end of the range of float16.

    ## What it does
    Reports the first places where the largest absolute value of an activation is above half of what
    float16 can hold (65504): one more doubling gives infinity. Where the values are float16 this is a
    warning; where they are float32 it is a note on what would happen in float16 or under autocast to it,
    and a warning with the option `asked`. bfloat16 has the range of float32 and is not judged.

    ## Why is this bad?
    An infinity becomes NaN in the next norm or softmax, and the step, or the whole run, is lost. A loss
    scaler does not help: it scales gradients, not activations.

    ## Example

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),  # ND609
        nn.ReLU(),
        nn.Linear(32, 4),
    )
    with torch.no_grad():
        model[0].weight.mul_(1e5)
    inputs = torch.randn(64, 16)
    data = [torch.randn(64, 16) for _ in range(4)]
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    inputs = torch.randn(64, 16)
    data = [torch.randn(64, 16) for _ in range(4)]
    ```

    ## When to ignore
    When the model never runs in float16.

    ## References
    - Micikevicius et al., Mixed Precision Training, https://arxiv.org/abs/1710.03740
    """

    code = "ND609"
    name = "half-overflow-risk"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"units"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The fraction of float16's range, and whether other dtypes are judged as if they were float16."""

        share: float = 0.5
        asked: bool = False

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Find the first sites with such values."""
        signals = Signals(graph)
        limit = self.options.share * LARGEST
        large = [
            site
            for site in signals.sites
            if magnitude(site) > limit and self._judged(site) and signals.judged(site)
        ]
        for site in signals.first(large):
            yield self._finding(signals, site)

    def _judged(self, site: Site) -> bool:
        return site.figures["dtype"] in ("float16", "float32") or self.options.asked

    def _finding(self, signals: Signals, site: Site) -> Finding:
        most, dtype = magnitude(site), site.figures["dtype"]
        half = dtype == "float16"
        fate = "may overflow" if most < LARGEST else "overflows"
        part = most / LARGEST
        extent = f"{part:.0%} of" if part < 10 else f"{part:.3g} times"
        tail = "" if half else f"; in {dtype} that is no harm, in float16 it {fate}"
        return self.finding(
            signals.graph,
            f"values of {signals.named(site)} reach {most:.4g}, {extent} the range of float16 "
            f"(over {site.of_batches}){tail}",
            node=signals.node(site),
            module=site.module,
            severity=Severity.WARNING if half or self.options.asked else Severity.INFO,
            evidence={
                "magnitude": most,
                "range": LARGEST,
                "dtype": dtype,
                "batches": site.batches,
                "source": site.source,
            },
            help="Use bfloat16, or scale or normalize the values before this place.",
        )
