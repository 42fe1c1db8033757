"""ND610: massive-activation."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.signals import Signals, magnitude
from normdoctor.rules.sites import Site


class MassiveActivation(base.Rule):
    """A few values that are a thousand times larger than the rest.

    ## What it does
    Reports the first places where the largest absolute value of an activation is above 100 and more than
    1000 times what is usual there: the median over its units of their root mean square. That is close
    to the median of all absolute values, since massive ones lie in a few units, and costs nothing more.

    ## Why is this bad?
    Massive activations act as biases that do not depend on the input, draw attention to single tokens,
    and ruin quantization and float16, whose steps are then set by them. In large language models they are
    common and often harmless, so this is a note.

    ## Example

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 32),  # ND610
        nn.GELU(),
        nn.Linear(32, 4),
    )
    with torch.no_grad():
        model[0].weight[3].mul_(10000.0)
    inputs = torch.randn(64, 16)
    data = [torch.randn(64, 16) for _ in range(4)]
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    inputs = torch.randn(64, 16)
    data = [torch.randn(64, 16) for _ in range(4)]
    ```

    ## When to ignore
    In pretrained language models, unless they are to be quantized.

    ## References
    - Sun, Chen, Kolter and Liu, Massive Activations in Large Language Models,
      https://arxiv.org/abs/2402.17762 (the bounds 100 and 1000)
    """

    code = "ND610"
    name = "massive-activation"
    category = "measured"
    severity = Severity.INFO
    requires = frozenset[str]()
    needs = frozenset({"units"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The least magnitude, its least multiple of the usual one, and the least number of units."""

        magnitude: float = 100.0
        multiple: float = 1000.0
        units: int = 8

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Find the first sites with such values."""
        signals = Signals(graph)
        sites = signals.of_role("linear", "norm", "norm_input", "activation")
        massive = [site for site in sites if site.units >= self.options.units and self._massive(site)]
        for site in signals.first(massive):
            most, usual = magnitude(site), _usual(site)
            yield self.finding(
                graph,
                f"values of {signals.named(site)} reach {most:.4g}, {most / usual:.3g} times the usual "
                f"{usual:.3g} (over {site.of_batches})",
                node=signals.node(site),
                module=site.module,
                evidence={
                    "magnitude": most,
                    "usual": usual,
                    "multiple": most / usual,
                    "units": _units(site),
                    "batches": site.batches,
                    "source": site.source,
                },
                help="Keep these units in higher precision when the model is quantized.",
            )

    def _massive(self, site: Site) -> bool:
        most = magnitude(site)
        return bool(most > self.options.magnitude and most > self.options.multiple * _usual(site) > 0)


def _sizes(site: Site) -> list[float]:
    """The root mean square of each unit."""
    means, spreads = site.figures["unit_mean"], site.figures["unit_std"]
    return [(mean * mean + std * std) ** 0.5 for mean, std in zip(means, spreads, strict=True)]


def _usual(site: Site) -> float:
    return statistics.median([size for size in _sizes(site) if size > 0] or [0.0])


def _units(site: Site) -> list[int]:
    """The largest units, at most three."""
    sizes = _sizes(site)
    return sorted(range(len(sizes)), key=lambda unit: -sizes[unit])[:3]
