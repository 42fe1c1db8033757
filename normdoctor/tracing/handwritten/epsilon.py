"""Reading off the graph where an epsilon stands between a statistic and the division by its root."""

from __future__ import annotations

import torch

from normdoctor.tracing.handwritten.flow import Flow
from normdoctor.tracing.handwritten.proposal import LARGEST_EPS, Proposal

#: The value that an epsilon takes which is itself a tensor of the model (learned, in FRN).
STAND_IN = 1e-4


def epsilons(flow: Flow, proposal: Proposal, steps: list[int]) -> list[tuple[str, float]]:
    """(place, value) of every small constant that is added, or clamped to, on the way of the statistic."""
    root = flow.index.get(proposal.root, -1)
    core = flow.nodes[proposal.core]
    if core.kind == "normalize":
        return [("clamp", _small(core.config.get("eps", 1e-12)) or 0.0)]
    path = [one for one in steps if one < proposal.core and flow.size(one) < flow.size(proposal.core)]
    if proposal.frozen:
        path = _without_activations(flow, proposal)
    found: list[tuple[str, float]] = []
    for position in path:
        fact = flow.nodes[position]
        value = None
        if fact.kind == "add":
            value = _small(fact.config.get("scalar")) or _tensor(flow, position)
        elif fact.kind == "clamp":
            value = _small(fact.config.get("min"))
        elif fact.kind in ("maximum", "max"):
            value = _tensor(flow, position)
        if value is None:
            continue
        if fact.kind != "add":
            found.append(("clamp", value))
        else:
            found.append(("inside" if position < root else "outside", value))
    return found


def learned(flow: Flow, steps: list[int], core: int) -> dict[str, float]:
    """Tensors of one element that are added to a statistic: their values, so that none is taken for beta."""
    names = {}
    for position in steps:
        if position < core and flow.nodes[position].kind == "add" and flow.size(position) < flow.size(core):
            for node in flow.operands(position):
                if not flow.live(node):
                    names.update({name: STAND_IN for name in flow.tensors(node) if _is_single(flow, name)})
    return names


def _is_single(flow: Flow, name: str) -> bool:
    entry = flow.recording.parts.tensors.get(name)
    return entry is not None and entry.tensor.numel() == 1


def _without_activations(flow: Flow, proposal: Proposal) -> list[int]:
    """The nodes of the model's own tensors that lead to the root, or from it to the core."""
    found: set[int] = set()
    stack = [proposal.root, *(one for one in flow.operands(proposal.core) if not flow.live(one))]
    while stack:
        node = stack.pop()
        if (position := flow.index.get(node)) is not None and position not in found:
            found.add(position)
            stack += node.all_input_nodes
    return sorted(found)


def _tensor(flow: Flow, position: int) -> float | None:
    """An epsilon that is a tensor of one element."""
    for node in flow.operands(position):
        if flow.live(node):
            continue
        for name in flow.tensors(node):
            held = flow.value(name)
            if isinstance(held, torch.Tensor) and held.numel() == 1:
                if name in flow.recording.parts.tensors:
                    return STAND_IN
                return _small(float(held)) if held.device.type != "meta" else None
    return None


def _small(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value <= LARGEST_EPS else None
