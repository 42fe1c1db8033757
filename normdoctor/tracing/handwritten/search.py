"""The search for hand-written norms in one recording: propose, confirm each kind once, describe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from torch import fx

from normdoctor.facts import Facts, HandwrittenNorm, Location, Node
from normdoctor.tracing.carrier import kept_generators
from normdoctor.tracing.handwritten.behaviour import Behaviour, behaviour
from normdoctor.tracing.handwritten.confirm import Confirmed, confirm
from normdoctor.tracing.handwritten.flow import Flow
from normdoctor.tracing.handwritten.naming import kind_of
from normdoctor.tracing.handwritten.proposal import Proposal, between, propose
from normdoctor.tracing.recording import Recording

#: How many norms that differ are run in one recording; the rest stays proposed.
MOST_CONFIRMED = 48


@dataclass(frozen=True)
class _Affine:
    """The model's tensors that scale and shift the result, and how often each is read for it."""

    scales: tuple[str, ...]
    shifts: tuple[str, ...]


def find(recording: Recording, nodes: Sequence[Node]) -> list[HandwrittenNorm]:
    """Every norm of an activation that is made of torch's elementary calls, in execution order.

    The model is left as it is; random number generators too. What looks like a norm and fits no
    formula is in the list with `confirmed` false.
    """
    flow = Flow(recording, nodes)
    proposals = list(propose(flow))
    if not proposals:
        return []
    found: list[HandwrittenNorm] = []
    with kept_generators():
        search = _Search(flow)
        taken: set[int] = set()
        for proposal in proposals:
            if proposal.core in taken:
                continue
            norm = search.judge(proposal)
            if norm is not None:
                found.append(norm)
                taken.update(norm.nodes if norm.confirmed else ())
    known = {one for norm in found if norm.confirmed for one in norm.nodes}
    return [norm for norm in found if norm.confirmed or not known.intersection(norm.nodes)]


def with_handwritten(facts: Facts, recording: Recording) -> Facts:
    """The facts with the norms that are written by hand."""
    return msgspec.structs.replace(facts, handwritten=tuple(find(recording, facts.nodes)))


class _Search:
    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.keys: dict[object, int] = {}
        self.confirmed: dict[int, tuple[Confirmed | None, str]] = {}
        self.failed: dict[tuple[Location | None, bool], str] = {}
        self.behaved: dict[object, Behaviour | None] = {}

    def judge(self, proposal: Proposal) -> HandwrittenNorm | None:
        flow = self.flow
        key = self.keys.setdefault(signature(flow, proposal), len(self.keys))
        if key not in self.confirmed:
            self.confirmed[key] = self._confirmed(proposal)
        told, reason = self.confirmed[key]
        if told is None:
            if flow.nodes[proposal.core].kind == "normalize" or proposal.frozen:
                return None  # a known function with something behind it; an input that is standardized
            return self._unknown(proposal, reason)
        start, end = proposal.inputs[told.start], proposal.outputs[told.end]
        steps = between(flow, start, end)
        affine = self._affine(proposal, steps, told)
        scale = abs(told.formula.scale)
        if flow.nodes[proposal.core].kind == "normalize" and abs(scale - 1) > 1e-4:
            return None
        shapes = [flow.recording.parts.tensors[name].tensor.shape for name in affine.scales + affine.shifts]
        kind = "batch_norm" if told.frozen else kind_of(told.formula, told.partition, [*map(tuple, shapes)])
        norm = HandwrittenNorm(
            kind=kind,
            module=self._module([one for one in steps if one <= proposal.core]),
            input=start,
            output=end,
            nodes=tuple(steps),
            reduced=told.partition.reduced,
            centred=told.formula.centred,
            unbiased=self._unbiased(told),
            eps=told.formula.eps,
            eps_place=told.formula.place.removesuffix(" the sum"),
            running=told.frozen,
            inverted=told.formula.inverted,
            confirmed=True,
            location=flow.nodes[proposal.core].location,
            evidence=self._evidence(told),
            groups=told.partition.sets if told.partition.partial else 0,
            scales=affine.scales,
            shifts=affine.shifts,
            frozen=told.frozen,
        )
        return self._with_behaviour(norm)

    def _confirmed(self, proposal: Proposal) -> tuple[Confirmed | None, str]:
        place = self.flow.nodes[proposal.core].location
        if len(self.confirmed) >= MOST_CONFIRMED:
            return None, "too many to be tried"
        if place is not None and (place, proposal.frozen) in self.failed:
            return None, self.failed[place, proposal.frozen]  # the same line on another shape
        told, reason = confirm(self.flow, proposal)
        if told is None:
            self.failed[place, proposal.frozen] = reason
        return told, reason

    def _unknown(self, proposal: Proposal, reason: str) -> HandwrittenNorm:
        start, end = proposal.inputs[0], proposal.core
        steps = between(self.flow, start, end)
        return HandwrittenNorm(
            kind="",
            module=self._module(steps),
            input=start,
            output=end,
            nodes=tuple(steps),
            location=self.flow.nodes[proposal.core].location,
            evidence={"reason": reason},
        )

    def _module(self, steps: list[int]) -> str:
        """The innermost module in whose forward all the steps stand."""
        scopes = [self.flow.nodes[one].scope.split(".") for one in steps]
        common: list[str] = []
        for parts in zip(*scopes, strict=False):
            if len(set(parts)) > 1:
                break
            common.append(parts[0])
        return ".".join(common)

    @staticmethod
    def _unbiased(told: Confirmed) -> bool | None:
        if told.frozen or told.formula.spread != "var":
            return None
        return told.formula.unbiased

    @staticmethod
    def _evidence(told: Confirmed) -> dict[str, Any]:
        formula = told.formula
        found: dict[str, Any] = {"elements": told.partition.count, "error": formula.error}
        if formula.gamma:
            found["gamma"] = formula.gamma
        if abs(formula.scale - 1) > 1e-4 and abs(formula.scale * told.partition.count**0.5 - 1) > 1e-4:
            found["factor"] = formula.scale
        if told.statistics:
            found["statistics"] = list(told.statistics)
        if formula.centred is False and formula.spread == "var":
            found["spread"] = "var"
        elif formula.centred and formula.spread == "square":
            found["spread"] = "square"
        return found

    def _affine(self, proposal: Proposal, steps: list[int], told: Confirmed) -> _Affine:
        """Which of the model's tensors are multiplied and added on the way of the data."""
        flow = self.flow
        scales: dict[str, None] = {}
        shifts: dict[str, None] = {}
        size = flow.size(proposal.core)
        for position in steps:
            fact = flow.nodes[position]
            operands = flow.operands(position)
            if flow.size(position) < size or sum(map(flow.live, operands)) == 0:
                continue
            constants = [node for node in operands if not flow.live(node)]
            if fact.kind == "addcmul" and len(operands) == 3:
                for place, node in enumerate(operands):
                    if not flow.live(node):
                        (scales if place else shifts).update(dict.fromkeys(flow.tensors(node)))
            elif fact.kind in ("mul", "div"):
                scales.update(dict.fromkeys(name for node in constants for name in flow.tensors(node)))
            elif fact.kind in ("add", "sub"):
                shifts.update(dict.fromkeys(name for node in constants for name in flow.tensors(node)))
        known = flow.recording.parts.tensors
        for name in told.statistics:
            scales.pop(name, None)
            shifts.pop(name, None)
        return _Affine(tuple(n for n in scales if n in known), tuple(n for n in shifts if n in known))

    def _with_behaviour(self, norm: HandwrittenNorm) -> HandwrittenNorm:
        module = self.flow.recording.parts.modules.get(norm.module)
        if module is None:
            return norm
        flags = [item for item in vars(module.module).items() if isinstance(item[1], bool | None)]
        mine = (type(module.module), norm.location, norm.reduced, norm.frozen, tuple(flags))
        if mine not in self.behaved:
            self.behaved[mine] = behaviour(self.flow, norm, module.module)
        told = self.behaved[mine]
        return norm if told is None else told.applied(norm)


def signature(flow: Flow, proposal: Proposal) -> object:
    """Equal for regions that compute the same thing, at the same place of the source, on equal shapes.

    Where statistics are tensors of the model, each element is by itself and the shapes do not matter.
    """
    first, last = min(proposal.inputs), proposal.outputs[0]
    steps = between(flow, first, last)
    order: dict[fx.Node, int] = {flow.fx[first]: -1}

    def described(value: Any) -> Any:
        if isinstance(value, fx.Node):
            if value in order:
                return ("node", order[value])
            if flow.live(value):
                return "live"
            if value.op == "get_attr":
                held = flow.value(str(value.target))
                return (type(held).__name__, () if proposal.frozen else tuple(getattr(held, "shape", ())))
            return (str(value.target), described(list(value.args)), described(list(value.kwargs.items())))
        if isinstance(value, list | tuple):
            return tuple(described(item) for item in value)
        return (type(value).__name__, str(value))

    found: list[object] = []
    for place, position in enumerate(steps):
        node, fact = flow.fx[position], flow.nodes[position]
        found.append((str(node.target), described(list(node.args)), described(list(node.kwargs.items()))))
        found.append((fact.location, () if proposal.frozen else fact.outputs))
        order[node] = place
    starts = tuple(order.get(flow.fx[one], -2) for one in proposal.inputs)
    ends = tuple(order.get(flow.fx[one], -2) for one in proposal.outputs)
    shape = () if proposal.frozen else flow.nodes[first].outputs
    return (shape, tuple(found), starts, ends, proposal.frozen)
