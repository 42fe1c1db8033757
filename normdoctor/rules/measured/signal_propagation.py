"""ND607: signal-propagation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from normdoctor.facts import Node
from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.rules import base
from normdoctor.rules.signals import Signals, still
from normdoctor.rules.sites import Site

_AT_START = "Initialize with the gain of the activation (kaiming_normal_ for ReLU), or add norms."
_WATCHED = (
    "If it was so from the start, initialize with the gain of the activation (kaiming_normal_ for ReLU); "
    "if it came with the training, lower the learning rate. Norms help with both."
)


class _Level(NamedTuple):
    """How a site's variance stands to that of its reference: in all, and between samples."""

    site: Site
    reference: Site | None
    ratio: float
    between: float
    trunk: bool


class SignalPropagation(base.Rule):
    """The variance of activations leaves the range in which a net can be trained.

    ## What it does
    Follows the variance of activations along depth, relative to the first layer (of several, to the one
    that is most like it), or, behind a norm, to that norm's output. On a net that was just built this is the
    test of its initialization. It reports the first layer where the ratio leaves [1e-3, 1e3] (an error
    outside [1e-8, 1e8]).

    A signal can vanish although the variance stays: biases differ from unit to unit, but no unit differs
    between samples any more. So the variance between samples, within units, is followed too. A rise is
    judged by it alone (one large bias is no growth), and it may fall to 1e-6 of the first layer's before that
    is reported: torch's default initialization of a plain ReLU net takes nine layers for this.

    Not judged are values that a norm takes next, the last layer, branches that other values bypass as far
    as they are small (a residual branch that starts near zero), and constant units. With weights from a
    checkpoint, what follows a norm is judged by the wide bounds only.

    ## Why is this bad?
    Gradients shrink or grow as the signal does. A layer that sees the same numbers for every sample
    cannot learn what distinguishes them, and a signal that grows a thousandfold saturates what comes.

    ## Example

    ```python bad
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList()
            for _ in range(8):
                self.layers.append(nn.Linear(64, 64))  # ND607
            self.head = nn.Linear(64, 10)
            for layer in self.layers:
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

        def forward(self, x):
            for layer in self.layers:
                x = torch.relu(layer(x))
            return self.head(x)


    model = Net()
    inputs = torch.randn(64, 64)
    data = [torch.randn(64, 64) for _ in range(4)]
    ```

    ```python good
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(8))
            self.head = nn.Linear(64, 10)
            for layer in self.layers:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

        def forward(self, x):
            for layer in self.layers:
                x = torch.relu(layer(x))
            return self.head(x)


    model = Net()
    inputs = torch.randn(64, 64)
    data = [torch.randn(64, 64) for _ in range(4)]
    ```

    ## When to ignore
    When the scale of a quantity inside of the net has a meaning, as in physical models.

    ## References
    - Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010
    - He, Zhang, Ren and Sun, Delving Deep into Rectifiers, https://arxiv.org/abs/1502.01852
    - Schoenholz, Gilmer, Ganguli and Sohl-Dickstein, Deep Information Propagation,
      https://arxiv.org/abs/1611.01232
    """

    code = "ND607"
    name = "signal-propagation"
    category = "measured"
    severity = Severity.WARNING
    requires = frozenset({"graph"})
    needs = frozenset({"units"})

    class Options(base.RuleOptions, frozen=True, kw_only=True):
        """Ratios of variances: a warning outside [1 / warning, warning], and so on; `lost` as a fraction."""

        warning: float = 1e3
        error: float = 1e8
        lost: float = 1e-6

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Judge every layer and activation; report the first that fell and the first that rose."""
        signals = Signals(graph)
        levels = [level for level in _levels(signals) if not self._trusted(graph, level)]
        high = [level for level in levels if level.between > self.options.warning]
        low = [
            level
            for level in levels
            if level.trunk
            and (level.ratio < 1 / self.options.warning or 0 < level.between < self.options.lost)
        ]
        if high:
            yield self._finding(
                signals, high[0], max(high, key=lambda level: level.between), "rises", len(high)
            )
        if low:
            yield self._finding(signals, low[0], min(low, key=_fallen), "falls", len(low))

    def _trusted(self, graph: Graph, level: _Level) -> bool:
        normed = level.reference is None or level.reference.role == "norm"
        ratios = level.ratio, level.between
        wide = all(1 / self.options.error < ratio < self.options.error for ratio in ratios)
        return graph.facts.checkpoint and normed and wide

    def _finding(self, signals: Signals, first: _Level, worst: _Level, verb: str, count: int) -> Finding:
        site, reference = first.site, first.reference
        inside = verb == "rises" or first.ratio >= 1 / self.options.warning
        ratio = first.between if inside else first.ratio
        extreme = _fallen(worst) if verb == "falls" else worst.between
        severe = not 1 / self.options.error <= extreme <= self.options.error and not site.synthetic
        what = "the variance between samples" if inside else "the variance of activations"
        since = f"that of `{reference.name}`" if reference is not None else "a normalized one"
        deeper = f", and to {extreme:.2g} at `{worst.site.name}`" if count > 1 else ""
        return self.finding(
            signals.graph,
            f"{what} {verb} to {ratio:.2g} of {since} at {signals.named(site)}{deeper} "
            f"(over {site.of_batches})",
            node=signals.node(site),
            module=site.module,
            severity=Severity.ERROR if severe else Severity.WARNING,
            evidence={
                "ratio": first.ratio,
                "between_samples": first.between,
                "extreme": extreme,
                "deepest": worst.site.name,
                "reference": reference.name if reference is not None else None,
                "sites": count,
                "variance": site.figures["std"] ** 2,
                "batches": site.batches,
                "source": site.source,
            },
            help=_WATCHED if site.source == "watch" else _AT_START,
        )


def _fallen(level: _Level) -> float:
    return min(level.ratio, level.between) if level.between > 0 else level.ratio


def _levels(signals: Signals) -> Iterator[_Level]:
    """The level of every site that is judged, in the order of execution."""
    # Layers alone, so that the layer is named and not the activation behind it, unless all are hand-written.
    judged = list(signals.of_role("linear")) or list(signals.of_role("activation"))
    if not judged:
        return
    firsts = _firsts(signals, judged)
    trunk, norms = _trunk(signals.graph), _norms_before(signals.graph)
    for site in judged:
        node = signals.node(site)
        if node is None or still(site) or site.figures["bad_batches"]:
            continue
        if _normed_next(signals.graph, node) or not signals.hidden(site) or signals.gate(site):
            continue
        if not signals.stirred(site):
            continue
        norm = norms[node.index]
        reference = _closest(site, firsts[node.index]) if norm is None else signals.at(norm)
        if norm is None and reference is None:
            continue  # a first layer itself
        variance, within = _variances(reference) if reference is not None else (1.0, 1.0)
        mine, mine_within = _variances(site)
        if variance > 0 and within > 0 and mine > 0:
            yield _Level(site, reference, mine / variance, mine_within / within, node.index in trunk)


def _variances(site: Site) -> tuple[float, float]:
    """The variance of all values, and the mean over units of that within each."""
    spreads = site.figures["unit_std"]
    return site.figures["std"] ** 2, sum(std * std for std in spreads) / max(len(spreads), 1)


def _normed_next(graph: Graph, node: Node) -> bool:
    """Does every reader take a norm of it, at once or behind an activation, a pooling or a dropout?"""
    if graph.norms_of(node):
        return True
    readers = graph.readers(node)
    return bool(readers) and all(
        one.role in ("activation", "pool", "dropout") and _normed_next(graph, one) for one in readers
    )


def _firsts(signals: Signals, judged: list[Site]) -> list[dict[str, Site]]:
    """For each node the judged sites that stand first on the ways to it, by name, without its own."""
    names = {site.name for site in judged}
    found: list[dict[str, Site]] = []
    for node in signals.graph.nodes:
        roots: dict[str, Site] = {}
        for index in node.inputs:
            site = signals.at(signals.graph.nodes[index])
            starts = not found[index] and site is not None and site.name in names
            roots |= {site.name: site} if starts and site is not None else found[index]
        found.append(roots)
    return found


def _closest(site: Site, firsts: dict[str, Site]) -> Site | None:
    """The first layer whose variance is most like the site's: several inputs may have several scales."""
    varied = [one for one in firsts.values() if _variances(one)[1] > 0]
    mine = _variances(site)[1]
    if mine == 0:
        return next(iter(varied), None)
    return min(varied, key=lambda one: abs(math.log(_variances(one)[1] / mine)), default=None)


def _norms_before(graph: Graph) -> list[Node | None]:
    """For each node the last norm on the ways that lead to it."""
    found: list[Node | None] = []
    for node in graph.nodes:
        before = [graph.nodes[index] for index in node.inputs]
        norms = [one if graph.norm_at(one) is not None else found[one.index] for one in before]
        found.append(max((one for one in norms if one), key=lambda one: one.index, default=None))
    return found


def _trunk(graph: Graph) -> set[int]:
    """The nodes that everything computed so far goes through: no value bypasses them."""
    found, open_until = set[int](), -1
    live: set[int] = set()
    for node in graph.nodes:
        if node.role != "linear" and not live.intersection(node.inputs):
            continue
        live.add(node.index)
        if open_until <= node.index:
            found.add(node.index)
        last = max((one.index for one in graph.users(node)), default=node.index)
        open_until = max(open_until, last)
    return found
