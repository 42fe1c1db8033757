"""ND605: constant-units."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.signals import Signals, constant_units, lively, passes_dead, saturated_units, still
from normdoctor.rules.sites import RELUS, Site


class ConstantUnits(base.Rule):
    """Units whose value is the same for every sample, although what comes in varies.

    ## What it does
    Reports a layer, norm or activation of which more than 10 % of the units never changed over all batches,
    positions and samples, while its input did. A unit that is constant already where the signal comes from
    is not counted again, so that only the first place is reported.

    It is silent on layers and branches that are zero throughout, as they start on purpose, on units that a
    ReLU behind them never lets through (ND601), on single units of a norm, whose scale is zero then
    (ND511), on units at the bounds of their activation (ND603, ND611),
    on gates (ND613), where no measured input varies (position embeddings, learned queries), and behind a
    mask or a product, which may have made the input constant (an expert that got no token). A whole
    layer that is constant is reported only where an activation, a norm or a layer reads it directly: one
    that is added or multiplied to something starts like that on purpose.

    ## Why is this bad?
    A constant unit carries no information and only acts as a bias. Usual causes are weights that are
    zero beside a bias, a norm over a single element, and inputs that were lost on the way.

    ## Example
    A LayerNorm over one feature gives its bias for every input:

    ```python bad
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Linear(16, 1),
        nn.LayerNorm(1),  # ND605
        nn.Linear(1, 4),
    )
    with torch.no_grad():
        model[1].bias.fill_(0.3)
    inputs = torch.randn(256, 16)
    data = [torch.randn(256, 16) for _ in range(4)]
    ```

    ```python good
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(16, 8), nn.LayerNorm(8), nn.Linear(8, 4))
    inputs = torch.randn(256, 16)
    data = [torch.randn(256, 16) for _ in range(4)]
    ```

    ## When to ignore
    When units were pruned by setting their weights to zero and keeping their bias.

    ## References
    - Morcos, Barrett, Rabinowitz and Botvinick, On the importance of single directions for generalization,
      https://arxiv.org/abs/1803.06959
    """

    code = "ND605"
    name = "constant-units"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset[str]()
    needs = frozenset({"units"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """The fraction of a layer's units, and the least evidence: observations of each."""

        share: float = 0.1
        observations: int = 30

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge every layer, norm and activation whose input varies."""
        signals = Signals(graph)
        readers = _readers(signals)
        for site in signals.of_role("linear", "norm", "activation"):
            if site.observations < self.options.observations:
                continue
            units = _unexplained(signals, site)
            for reader in readers.get(site.name, ()):
                units -= _off(signals, reader, site)
            if len(units) <= self.options.share * site.units or signals.gate(site):
                continue
            if still(site) and (
                signals.masked(site) or (site.role == "linear" and not _chained(signals, site))
            ):
                continue
            yield self._finding(signals, site, sorted(units))

    def _finding(self, signals: Signals, site: Site, units: list[int]) -> Finding:
        value = site.figures["unit_mean"][units[0]]
        return self.finding(
            signals.graph,
            f"{len(units)} of {site.units} units of {signals.named(site)} have the same value in all of "
            f"{site.observations} observations over {site.of_batches} (unit {units[0]}: {value:.3g}), "
            "although the input varies",
            node=signals.node(site),
            module=site.module,
            evidence={
                "units": site.units,
                "constant": len(units),
                "first": units[:8],
                "value": value,
                "observations": site.observations,
                "batches": site.batches,
                "source": site.source,
            },
            help="Look at the weights of these units, and at what the layer reduces over.",
        )


def _unexplained(signals: Signals, site: Site) -> set[int]:
    """The constant units that do not start at zero, are at no bound, and vary in what comes in."""
    units, whole = constant_units(site), still(site)
    if not whole and site.role == "norm":
        return set()  # a gamma of zero: ND511
    means = site.figures["unit_mean"]
    if whole or site.role != "linear":
        units = {unit for unit in units if means[unit] != 0}
    units -= set(saturated_units(site))
    if site.kind == "relu6":
        units = {unit for unit in units if means[unit] < 6}
    before = signals.sources(site)
    if not units or not signals.stirred(site) or not any(lively(one) for one in before):
        return set()
    for one in before:
        if one.units == site.units:
            units -= constant_units(one)
    return units


def _off(signals: Signals, reader: Site, site: Site) -> set[int]:
    """The units of `site` that a rectifier behind it never lets through."""
    if passes_dead(signals, reader):
        return set(range(site.units))
    if reader.kind not in RELUS or reader.units != site.units:
        return set()
    return {unit for unit, share in enumerate(reader.figures["active"]) if share == 0}


def _chained(signals: Signals, site: Site) -> bool:
    """Is it read only by activations, norms and layers?"""
    node = signals.node(site)
    if node is None:
        return False
    readers = signals.graph.readers(node)
    return bool(readers) and all(one.role in ("activation", "norm", "linear", "softmax") for one in readers)


def _readers(signals: Signals) -> dict[str, list[Site]]:
    readers: dict[str, list[Site]] = {}
    for site in signals.of_role("activation"):
        for source in signals.sources(site):
            readers.setdefault(source.name, []).append(site)
    return readers
