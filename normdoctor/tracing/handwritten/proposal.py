"""Which parts of a graph look like a norm: a statistic, its root, and a division of the same tensor by it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import fx

from normdoctor.tracing.handwritten.flow import ARITHMETIC, CASTS, INSIDE, REDUCTIONS, ROOTS, SHAPES, Flow
from normdoctor.tracing.recorder import LOSS_SCOPE
from normdoctor.tracing.roles import KINDS

#: How far from its root a norm may begin and end, in nodes.
REACH = 40
#: A larger constant is no epsilon.
LARGEST_EPS = 0.1
_AFFINE = frozenset("add sub mul div addcmul".split())


@dataclass(frozen=True)
class Proposal:
    """A region of the graph that may be a norm.

    Args:
        core: The position of the division (or multiplication) by the root.
        root: The root node; it has no position of its own where only buffers are under it.
        inputs: Positions of what may be the input, the nearest to the core first.
        outputs: Positions of what may hold the result, the farthest first.
        frozen: The statistics come from tensors of the model, not from the input.
    """

    core: int
    root: fx.Node
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    frozen: bool = False


def propose(flow: Flow) -> Iterator[Proposal]:
    """Every region that looks like a norm of an activation, in the order of execution."""
    seen: set[int] = set()
    for core, root in sorted(_cores(flow), key=lambda found: found[0]):
        if core in seen or flow.nodes[core].scope.startswith(LOSS_SCOPE):
            continue
        seen.add(core)
        frozen = not flow.live(root)
        inputs = _inputs(flow, core, frozen=frozen)
        if not inputs or _is_weight(flow, core):
            continue
        outputs = _outputs(flow, core)
        if flow.nodes[core].kind == "normalize":
            if any(flow.nodes[one].kind in ("mul", "div") for one in outputs):  # a scaled F.normalize
                yield Proposal(core, root, tuple(inputs), tuple(outputs))
        elif frozen or any(_reduces(flow, start, core) for start in inputs):
            yield Proposal(core, root, tuple(_preferred(flow, inputs)), tuple(outputs), frozen)


def _cores(flow: Flow) -> Iterator[tuple[int, fx.Node]]:
    """Divisions and multiplications of a larger tensor by something made from a root."""
    for position, node in enumerate(flow.fx):
        fact = flow.nodes[position]
        power = fact.kind == "pow" and fact.config.get("exponent") in (0.5, -0.5)
        if fact.kind == "normalize" and fact.inputs and fact.op != "call_module":
            yield position, node
        if not power and fact.kind not in ROOTS:
            continue
        if not flow.live(node) and not any(_is_buffer(flow, name) for name in flow.tensors(node)):
            continue
        for core in _uses(flow, node, flow.live(node)):
            yield core, node


def _is_buffer(flow: Flow, name: str) -> bool:
    entry = flow.recording.parts.tensors.get(name)
    return entry is not None and entry.kind != "parameter" and entry.tensor.numel() > 1


def _uses(flow: Flow, root: fx.Node, live: bool) -> Iterator[int]:
    """Follow a root through epsilon, reciprocal and reshapes to where it meets a larger tensor."""
    stack, steps = [root], 0
    seen: set[fx.Node] = set()
    while stack and steps < REACH:
        node = stack.pop()
        steps += 1
        for user in node.users:
            position = flow.index.get(user)
            if position is None or user in seen:
                continue
            seen.add(user)
            kind = flow.nodes[position].kind
            other = [source for source in user.all_input_nodes if source is not node]
            meets = kind in ("mul", "div", "addcmul") and any(flow.live(source) for source in other)
            if meets and (not live or flow.size(position) > _elements(flow, node)):
                yield position
            elif kind in ARITHMETIC | SHAPES | CASTS | {
                "reciprocal",
                "select_output",
                "getitem",
                "max",
                "sqrt",
            }:
                stack.append(user)


def _elements(flow: Flow, node: fx.Node) -> int:
    """The elements of a statistic before it was expanded to the shape of its input."""
    position = flow.index.get(node)
    while position is not None and flow.nodes[position].kind in ("expand", "expand_as", "broadcast_to"):
        before = flow.nodes[position].inputs
        if not before:
            break
        position = before[0]
    return flow.size(position) if position is not None else 0


def _inputs(flow: Flow, core: int, *, frozen: bool) -> list[int]:
    """The nodes through which all that the core reads has passed, the nearest first.

    Walks back in the order of execution: where a single node is left to be looked at, everything
    comes through it.
    """
    found: list[int] = []
    frontier = set(flow.nodes[core].inputs)
    for _ in range(REACH):
        if not frontier:
            break
        position = max(frontier)
        frontier.remove(position)
        fact = flow.nodes[position]
        if not frontier and flow.size(position) == flow.size(core):
            found.append(position)
        if not _is_inside(flow, position):
            break
        if not frontier and found and _changes(flow, position, frozen=frozen):
            break
        frontier.update(fact.inputs)
    return found if len(frontier) == 0 or found else []


def _is_inside(flow: Flow, position: int) -> bool:
    """May a node be a part of a norm?"""
    fact = flow.nodes[position]
    if not fact.inputs:
        return False
    if fact.kind in ("getitem", "select_output"):  # one of several results, or `s[..., None]`
        before = fact.inputs[0]
        return flow.nodes[before].kind in REDUCTIONS or flow.size(before) == flow.size(position)
    return fact.kind in INSIDE or _is_square(flow, position)


def _preferred(flow: Flow, inputs: list[int]) -> list[int]:
    """The order to try them in: what was scaled or centred by hand comes after what it was made of."""
    made = [one for one in inputs[:-1] if flow.nodes[one].kind in ("sub", "add", "mul", "div")]
    return [one for one in inputs if one not in made] + made


def _changes(flow: Flow, position: int, *, frozen: bool) -> bool:
    """Is the single node on the way something that a norm does not begin with?"""
    fact = flow.nodes[position]
    if fact.kind in CASTS | SHAPES:
        return False
    if fact.kind in ("sub", "add"):  # the mean is subtracted before
        return not (frozen or len(fact.inputs) > 1)
    return not (fact.kind in ("mul", "div") and fact.parameters)


def _reduces(flow: Flow, start: int, core: int) -> bool:
    """Is something between the two reduced along axes?"""
    return any(
        flow.nodes[one].kind in REDUCTIONS or _is_square(flow, one) for one in between(flow, start, core)
    )


def _is_square(flow: Flow, position: int) -> bool:
    """Is it `einsum("...d,...d->...", x, x)`, a sum of squares?"""
    operands = flow.operands(position)
    return flow.nodes[position].kind == "einsum" and len(operands) == 2 and len(set(operands)) == 1


def between(flow: Flow, start: int, end: int) -> list[int]:
    """The positions from which `end` is made out of `start`, without the start, in order."""
    needed = {end}
    for position in range(end, start, -1):
        if position in needed:
            needed.update(one for one in flow.nodes[position].inputs if one > start)
    return sorted(needed)


def _outputs(flow: Flow, core: int) -> list[int]:
    """The core and what follows of scale, shift, casts and reshapes, the farthest first."""
    found = [core]
    position = core
    for _ in range(REACH):
        users = flow.users(position)
        if len(users) != 1:
            break
        (position,) = users
        fact = flow.nodes[position]
        alone = sum(map(flow.live, flow.operands(position))) == 1
        if not (alone and fact.kind in _AFFINE | CASTS | SHAPES):
            break
        found.append(position)
    return found[::-1]


def _is_weight(flow: Flow, core: int) -> bool:
    """Does the result serve a layer as its weight (a modulated or standardized convolution)?"""
    stack, seen = [core], {core}
    while stack and len(seen) < REACH:
        for user in flow.users(stack.pop()):
            fact = flow.nodes[user]
            operands = flow.operands(user)
            if KINDS.get(fact.kind) == "linear" and len(operands) > 1 and fact.op != "call_module":
                position = flow.index.get(operands[1])
                if position in seen:
                    return True
            if fact.kind in SHAPES | CASTS | {"mul"} and user not in seen:
                seen.add(user)
                stack.append(user)
    return False
