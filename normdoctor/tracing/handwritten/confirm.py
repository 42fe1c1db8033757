"""The numbers decide: a proposed region is run in float64 and compared with the formulas of norms."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from normdoctor.tracing.handwritten import formula as formulas
from normdoctor.tracing.handwritten.epsilon import epsilons, learned
from normdoctor.tracing.handwritten.flow import CASTS, REDUCTIONS, SHAPES, Flow
from normdoctor.tracing.handwritten.formula import Formula, Partition
from normdoctor.tracing.handwritten.proposal import Proposal
from normdoctor.tracing.handwritten.replay import CannotRunError, Replay

#: How many pairs of input and output are tried before a region is given up.
MOST_TRIES = 8
#: The values that the model's tensors take, one run each: how the output follows tells what gamma does.
FILLS = (1.0, 2.0)
_SEED = 0


@dataclass(frozen=True)
class Confirmed:
    """What the numbers say of a proposal: `start` and `end` are places in its inputs and outputs."""

    start: int
    end: int
    formula: Formula
    partition: Partition
    frozen: bool = False
    statistics: tuple[str, ...] = ()


def confirm(flow: Flow, proposal: Proposal) -> tuple[Confirmed | None, str]:
    """The norm that a proposal is, or None and what stood in the way."""
    best: Confirmed | None = None
    reason = "the numbers fit none"
    for start, end in itertools.islice(_pairs(flow, proposal), MOST_TRIES):
        if best is not None and start != best.start:
            break
        try:
            found = _try(flow, proposal, start, end)
        except CannotRunError as error:
            reason = str(error)
            continue
        if found is None:
            continue
        if _plain(found):
            return found, ""
        best = best or found
    return best, reason


def _plain(found: Confirmed) -> bool:
    scale = found.formula.scale
    return abs(scale - 1) < 1e-4 or abs(scale * found.partition.count**0.5 - 1) < 1e-4


def _pairs(flow: Flow, proposal: Proposal) -> Iterator[tuple[int, int]]:
    """Places of inputs and outputs of one shape, in the order in which to try them."""
    chosen: list[int] = []
    scope = flow.nodes[proposal.core].scope  # a cast that the caller makes is the caller's
    for place in range(len(proposal.inputs)):
        position = proposal.inputs[place]
        linked = [
            later
            for later in range(place + 1, len(proposal.inputs))
            if proposal.inputs[later] < position
            and all(
                flow.nodes[one].kind in SHAPES
                or (flow.nodes[one].kind in CASTS and flow.nodes[one].scope.startswith(scope))
                for one in proposal.inputs
                if proposal.inputs[later] < one <= position
            )
        ]
        chosen += [one for one in [*reversed(linked), place] if one not in chosen]
    for start in chosen:
        shape = flow.nodes[proposal.inputs[start]].shape
        for end, position in enumerate(proposal.outputs):
            fact = flow.nodes[position]
            if fact.shape != shape or proposal.inputs[start] >= position:
                continue
            before = flow.nodes[proposal.outputs[end + 1]] if end + 1 < len(proposal.outputs) else None
            if fact.kind in SHAPES and before is not None and before.shape == shape:
                continue  # a reshape behind the norm is none of its business
            yield start, end


def _try(flow: Flow, proposal: Proposal, start: int, end: int) -> Confirmed | None:
    replay = Replay(flow, proposal.inputs[start], proposal.outputs[end])
    failure: CannotRunError | None = None
    for shape, lengths in replay.shapes():
        try:
            found = _compare(flow, proposal, replay, shape, lengths)
        except CannotRunError as error:
            failure = error
            continue
        if found is not None:
            formula, parts, statistics = found
            return Confirmed(start, end, formula, parts, bool(statistics), statistics)
        failure = None
    if failure is not None:
        raise failure
    return None


def _compare(
    flow: Flow, proposal: Proposal, replay: Replay, shape: tuple[int, ...], lengths: dict[int, int]
) -> tuple[Formula, Partition, tuple[str, ...]] | None:
    places = epsilons(flow, proposal, replay.steps)
    fixed = learned(flow, replay.steps, proposal.core)

    def run(fill: float, **more: float) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda value: replay.run(value, lengths, fill, fixed | more)

    generator = torch.Generator().manual_seed(_SEED)
    x = _scale(places) * (torch.randn(shape, dtype=torch.float64, generator=generator) + 0.7)
    if proposal.frozen:
        return _frozen(flow, proposal, replay, x, places, run)
    parts = formulas.partition(run(1.0), x)
    if parts is None or parts.count < 2:
        return None
    parts = _with_single_axes(flow, replay, parts)
    outputs = [(fill, run(fill)(x)) for fill in FILLS]
    tried: list[tuple[str, float | None]] = list(places)
    tried += [(f"{place} the sum", eps) for place, eps in places if place != "clamp"]
    found = formulas.fit(x, outputs, parts, tried or [("none", None)])
    if found is None and places:
        found = formulas.fit(x, outputs, parts, [("none", None)])
    return None if found is None else (found, parts, ())


def _scale(places: list[tuple[str, float]]) -> float:
    """A spread of the input at which every epsilon shows."""
    shown = [2 * (eps**0.5 if place == "inside" else eps) for place, eps in places if place != "clamp"]
    least = max((10 * eps**0.5 for place, eps in places if place == "clamp"), default=0.0)
    return max(min([1.0, *shown]), least)


def _with_single_axes(flow: Flow, replay: Replay, parts: Partition) -> Partition:
    """Add axes of one element that a reduction names: the numbers cannot tell of these."""
    single = [axis for axis, size in enumerate(parts.shape) if size == 1]
    if not single:
        return parts
    named: set[int] = set()
    for position in replay.steps:
        fact = flow.nodes[position]
        before = flow.nodes[fact.inputs[0]].shape if fact.inputs else ()
        if fact.kind not in REDUCTIONS or len(before) != len(parts.shape):
            continue
        dims = fact.config.get("dim", fact.config.get("axis"))
        numbers = [dims] if isinstance(dims, int) else dims if isinstance(dims, list) else range(len(before))
        named.update(one % len(before) for one in numbers if isinstance(one, int))
    reduced = tuple(sorted({*parts.reduced, *(axis for axis in single if axis in named)}))
    return Partition(parts.shape, parts.split, parts.over, reduced, parts.partial, parts.sets)


def _frozen(
    flow: Flow,
    proposal: Proposal,
    replay: Replay,
    x: torch.Tensor,
    places: list[tuple[str, float]],
    run: Callable[..., Callable[[torch.Tensor], torch.Tensor]],
) -> tuple[Formula, Partition, tuple[str, ...]] | None:
    """Statistics that are tensors of the model: does the output follow them as the formula says?"""
    variances = tuple(dict.fromkeys(flow.tensors(proposal.root)))
    names = dict.fromkeys(
        name
        for position in replay.steps
        for node in flow.operands(position)
        if not flow.live(node)
        for name in flow.tensors(node)
    )

    def slope(**values: float) -> tuple[float, torch.Tensor] | None:
        low, high = run(1.0, **values)(x), run(1.0, **values)(x + 1)
        step = high - low
        even = bool((step - step.mean()).abs().max() < 1e-9 * step.abs().max())
        return (float(step.mean()), low) if even and bool(step.abs().max() > 0) else None

    def at(variance: float, **means: float) -> tuple[float, torch.Tensor] | None:
        return slope(**dict.fromkeys(variances, variance), **means)

    first, second = at(1e-3), at(4e-3)
    if first is None or second is None:
        return None
    for place, eps in [*places, ("none", 0.0)]:
        roots = [(v + eps) ** 0.5 if place != "outside" else v**0.5 + eps for v in (1e-3, 4e-3)]
        if abs(first[0] * roots[0] / (second[0] * roots[1]) - 1) > 1e-9:
            continue
        base = at(1e-3)
        for name in names:
            moved = None if name in variances else at(1e-3, **{name: 2.0})
            if base is None or moved is None or abs(moved[0] / base[0] - 1) > 1e-9:
                continue
            if bool(((moved[1] - base[1]) + base[0]).abs().max() < 1e-6 * abs(base[0])):
                value = eps if place != "none" else None
                told = Formula(True, "var", False, place, value, first[0] * roots[0])
                parts = Partition(tuple(x.shape), tuple(x.shape), (), ())
                return told, parts, (*variances, name)
    return None
