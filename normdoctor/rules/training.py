"""What was measured of a training, as rules ask for it: gradients, updates and modes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from msgspec.structs import replace

from normdoctor.facts import Location
from normdoctor.findings import Finding, Site
from normdoctor.graph import Graph

#: An evaluation runs between few steps; what runs without gradients between more of them is a part of the
#: training itself: the generator of a GAN, a teacher, pseudo-labels.
OFTEN = 0.6
#: The fewest steps of a run that tell what is usual in it.
FEWEST_STEPS = 3


@dataclass(frozen=True)
class Trained:
    """A parameter and what was measured of it; `figures` are those of `normdoctor.probing`."""

    name: str
    figures: dict[str, Any]

    @property
    def module(self) -> str:
        """The path of the module that owns it."""
        return str(self.figures["module"])

    @property
    def elements(self) -> int:
        """How many entries it has."""
        return int(self.figures["elements"])

    @property
    def looks(self) -> int:
        """At how many steps it was looked at."""
        return int(self.figures["looks"])

    @property
    def is_matrix(self) -> bool:
        """Is it the weight of a layer: two axes or more, no table of an embedding, no token or position?"""
        shape, owner = self.figures["shape"], str(self.figures["owner"])
        return len(shape) >= 2 and shape[0] > 1 and self.elements > 1 and not owner.startswith("Embedding")

    @property
    def trains(self) -> bool:
        """Does it require gradients, and does an optimizer step with it, as far as that is known?"""
        return bool(self.figures["trainable"]) and self.figures.get("optimized") is not False

    def rms(self) -> list[float | None]:
        """The root mean square of its gradient at the last looks; None where it had none."""
        root = math.sqrt(max(self.elements, 1))
        return [None if norm is None else norm / root for norm in self.figures["norms"]]


def trained(graph: Graph, need: str = "gradients") -> list[Trained]:
    """Every parameter, from the input to the output as far as the backward told their order."""
    found = [Trained(name, figures) for name, figures in _measured(graph, need).items()]
    known = [one for one in found if one.figures["place"] is not None]
    known.sort(key=lambda one: one.figures["place"])
    return known + [one for one in found if one.figures["place"] is None]


def matrices(graph: Graph, least: int) -> list[Trained]:
    """The weights of layers that had a gradient at `least` looks or more, from the input to the output."""
    return [one for one in trained(graph) if one.trains and one.is_matrix and one.figures["seen"] >= least]


class Profile(NamedTuple):
    """Gradient RMS of each weight at one look, NaN where it had no gradient; figures of those above zero.

    `median` is over all layers, `low` their lower quartile; `tail` is the median of the last quarter of the
    layers (two or more), which the backward reaches first, and `top` the largest of those.
    """

    values: list[float]
    median: float
    low: float
    tail: float
    top: float


def profiles(weights: Sequence[Trained]) -> list[Profile]:
    """The profile of each look whose gradients are finite."""
    found = []
    for row in zip(*(one.rms() for one in weights), strict=True):
        values = [math.nan if value is None else value for value in row]
        positive = sorted(value for value in values if value > 0)
        last = [value for value in values[-max(2, len(values) // 4) :] if value > 0]
        if not positive or not last or any(math.isinf(value) for value in values):
            continue
        low = positive[len(positive) // 4]
        found.append(Profile(values, median(positive), low, median(last), max(last)))
    return found


def rounded(one: Trained, looks: int) -> tuple[float, float]:
    """Of a gradient in fp16: the share of zeros, and of the others on its lowest grid (medians).

    Zeros where fp16 is not used, or was not in so many looks.
    """
    pairs = zip(one.figures.get("zeros", ()), one.figures.get("grid", ()), strict=True)
    known = [(zeros, grid) for zeros, grid in pairs if zeros is not None and grid is not None]
    if len(known) < looks:
        return 0.0, 0.0
    zeros, grid = (median(values) for values in zip(*known, strict=True))
    return zeros, grid


def nothing_left(graph: Graph, looks: int = FEWEST_STEPS) -> bool:
    """Has no parameter a gradient, also not the last bias, to which the loss itself gives it?"""
    seen = [one for one in trained(graph) if one.trains and one.figures["seen"] >= looks]
    return bool(seen) and all(one.figures["zero"] == one.figures["seen"] for one in seen)


def underflows(graph: Graph) -> bool:
    """Were gradients rounded to zero in fp16, some of them or all? Then zeros have no other cause."""
    shares = [rounded(one, FEWEST_STEPS) for one in trained(graph)]
    some = any(grid > 0.5 for _, grid in shares)
    return some or (any(zeros == 1 for zeros, _ in shares) and nothing_left(graph))


def place_of(graph: Graph, one: Trained) -> Location | None:
    """Where a parameter, or the module that owns it, was built; that of a module around it otherwise."""
    known = graph.parameters.get(one.name)
    module = graph.modules.get(one.module)
    if module is not None and module.leaf and module.origin is not None:
        return module.origin
    if known is not None and known.origin is not None:
        return known.origin
    return origin_of(graph, one.module)


def origin_of(graph: Graph, path: str) -> Location | None:
    """Where a module was built, or else the nearest module around it."""
    while True:
        module = graph.modules.get(path)
        if module is not None and module.origin is not None:
            return module.origin
        if not path:
            return None
        path = path.rpartition(".")[0]


def spread_over(finding: Finding, paths: Sequence[str]) -> Finding:
    """A finding that holds for several modules, the first of which is its place."""
    paths = list(dict.fromkeys(paths))
    sites = tuple(Site(module=path) for path in paths[1:])
    return replace(finding, modules=tuple(paths), sites=(*finding.sites, *sites))


def first_bad(parameters: Sequence[Trained]) -> int | None:
    """At which of the last looks was a gradient not finite for the first time? Counted from 0."""
    rows = zip(*(one.figures["norms"] for one in parameters), strict=True)
    return next((look for look, row in enumerate(rows) if any(bad_norm(norm) for norm in row)), None)


def bad_norm(norm: float | None) -> bool:
    """Is there a gradient, and is it not finite?"""
    return norm is not None and not math.isfinite(norm)


def bad_losses(graph: Graph) -> dict[str, Any] | None:
    """In how many of how many steps the loss was not finite, and the first; None where no loss was told."""
    return next(iter(_measured(graph, "losses").values()), None)


def modes(graph: Graph) -> dict[str, Any] | None:
    """In which modes the model ran: the figures of the whole model."""
    return next((one for one in _measured(graph, "modes").values() if one["kind"] == "model"), None)


def norm_modes(graph: Graph) -> Iterator[dict[str, Any]]:
    """In which modes each BatchNorm ran."""
    return (figures for path, figures in _measured(graph, "modes").items() if figures["kind"] != "model")


def live_evaluations(graph: Graph) -> int:
    """How often the model was evaluated in train mode, 0 where that cannot be told from training.

    What ran without gradients in train mode was an evaluation when it ran between few steps, under
    `torch.inference_mode`, or on the same tensors again and again.
    """
    run = modes(graph)
    if run is None or not run["evaluations"] or run["steps"] < FEWEST_STEPS:
        return 0
    rare = run["blind_steps"] <= OFTEN * (run["steps"] + 1)
    sure = run["inference_mode"] > 0 or run["same_inputs"] >= FEWEST_STEPS
    return int(run["evaluations"]) if rare or sure else 0


def _measured(graph: Graph, need: str) -> dict[str, Any]:
    return (graph.facts.measurements or {}).get(need, {})
