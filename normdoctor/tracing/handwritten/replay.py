"""Running a part of a recorded graph again, in float64, on random input and on a smaller scale."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from normdoctor.tracing.handwritten.flow import CASTS, Flow, is_floating, result_of
from normdoctor.tracing.handwritten.proposal import between

#: Inputs of more elements are made smaller first, which costs nothing but a few replaced lengths.
COMFORTABLE = 1 << 14
#: Inputs of more elements are not run at all; those of more than FULL only where they cannot be made smaller.
MOST = 1 << 21
FULL = 1 << 18
_LITERAL_SHAPES = frozenset("view reshape expand unflatten repeat broadcast_to".split())


class CannotRunError(Exception):
    """The part of the graph cannot be run by itself."""


class Replay:
    """Runs what leads from `start` to `end`.

    `lengths` maps lengths of axes, as they were recorded, onto those of a smaller input. Tensors of the
    model are replaced by constants: `fill`, or what `fixed` says by name.
    """

    def __init__(self, flow: Flow, start: int, end: int) -> None:
        self.flow = flow
        self.start = start
        self.end = end
        self.steps = between(flow, start, end)
        for position in self.steps:
            fact = flow.nodes[position]
            if fact.op == "call_module" or any(one < start for one in fact.inputs):
                raise CannotRunError(f"{fact.kind} is not a part of it")

    def shapes(self) -> list[tuple[tuple[int, ...], dict[int, int]]]:
        """Shapes of the input to try, each with the lengths that it replaces; the cheapest first."""
        shape = self.flow.nodes[self.start].shape
        literals = self._literals()
        smaller, lengths = _smaller(shape, self._kept(), literals)
        tries = [(smaller, lengths)]
        if 1 in shape and 1 not in literals:
            tries.insert(0, (tuple(2 if one == 1 else one for one in smaller), lengths))
        if smaller != shape and math.prod(shape) <= FULL and self._counts():
            tries.append((shape, {}))
        return [one for one in tries if math.prod(one[0]) <= MOST]

    def _counts(self) -> bool:
        """Does it scale by a number: perhaps by the length of an axis as it was recorded?"""
        facts = (self.flow.nodes[position] for position in self.steps)
        return any(fact.kind in ("mul", "div") and "scalar" in fact.config for fact in facts)

    def _kept(self) -> set[int]:
        """Lengths that tensors of the model have: these cannot change."""
        found: set[int] = set()
        for position in self.steps:
            for node in self.flow.operands(position):
                if not self.flow.live(node):
                    result = result_of(node)
                    found.update(result.shape if isinstance(result, torch.Tensor) else ())
        return found - {1}

    def _literals(self) -> set[int]:
        """Lengths that stand as numbers in calls such as `view`."""
        return {
            number
            for position in self.steps
            if self.flow.nodes[position].kind in _LITERAL_SHAPES
            for argument in self.flow.fx[position].args
            for number in _numbers(argument)
        }

    def run(
        self, value: torch.Tensor, lengths: Mapping[int, int], fill: float, fixed: Mapping[str, float]
    ) -> torch.Tensor:
        """The output for an input; raises CannotRunError where a step fails."""
        made: dict[fx.Node, Any] = {self.flow.fx[self.start]: value.clone()}  # calls may work in place
        try:
            with torch.no_grad():
                for position in self.steps:
                    node = self.flow.fx[position]
                    made[node] = self._step(node, made, lengths, fill, fixed)
        except Exception as error:
            raise CannotRunError(f"{type(error).__name__}: {error}") from error
        result = made[self.flow.fx[self.end]]
        if not isinstance(result, torch.Tensor) or not is_floating(result):
            raise CannotRunError("it does not give a tensor")
        return result

    def _step(
        self,
        node: fx.Node,
        made: dict[fx.Node, Any],
        lengths: Mapping[int, int],
        fill: float,
        fixed: Mapping[str, float],
    ) -> Any:
        def convert(value: Any) -> Any:
            if isinstance(value, fx.Node):
                if value not in made:
                    made[value] = self._constant(value, made, lengths, fill, fixed)
                return made[value]
            if isinstance(value, list | tuple):
                return type(value)(convert(item) for item in value)
            if isinstance(value, torch.dtype):
                return torch.float64 if value.is_floating_point else value
            return torch.device("cpu") if isinstance(value, torch.device) else value

        position = self.flow.index.get(node)
        kind = self.flow.nodes[position].kind if position is not None else ""
        if kind in CASTS and is_floating(result_of(node)) and is_floating(value := convert(node.args[0])):
            return value.double()  # in whatever type another tensor is
        args = [convert(item) for item in node.args]
        if kind in _LITERAL_SHAPES:
            args = [args[0], *(_replaced(item, lengths) for item in args[1:])]
        kwargs = {name: convert(item) for name, item in node.kwargs.items()}
        if node.op == "call_method":
            return getattr(args[0], node.target)(*args[1:], **kwargs)  # type: ignore[arg-type]
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        raise CannotRunError(f"{node.op} is not a part of it")

    def _constant(
        self,
        node: fx.Node,
        made: dict[fx.Node, Any],
        lengths: Mapping[int, int],
        fill: float,
        fixed: Mapping[str, float],
    ) -> Any:
        """What does not come from the input: a tensor of the model, or something made of such."""
        if node.op != "get_attr":
            if self.flow.live(node):
                raise CannotRunError("it reads another activation")
            return self._step(node, made, lengths, fill, fixed)
        name = str(node.target)
        held = self.flow.value(name)
        if not is_floating(held):
            if isinstance(held, torch.Tensor) and held.device.type != "cpu":
                return torch.ones(held.shape, dtype=held.dtype)
            return held
        if name not in fixed and name not in self.flow.recording.parts.tensors:
            if held.device.type == "meta":
                raise CannotRunError("it reads a tensor whose values are not known")
            return held.detach().cpu().double()
        return torch.full(held.shape, fixed.get(name, fill), dtype=torch.float64)


def _smaller(
    shape: tuple[int, ...], kept: set[int], literals: set[int]
) -> tuple[tuple[int, ...], dict[int, int]]:
    """A smaller shape, and which lengths (and products of neighbours) it replaces by which.

    Where a length stands in the code that is none of these (a number of groups), only the first axis
    is made smaller, since nobody can tell which of the others it divides.
    """
    if math.prod(shape) <= COMFORTABLE:
        return shape, {}
    spans = [span for span in itertools.combinations(range(len(shape) + 1), 2) if shape[slice(*span)]]
    known = {math.prod(shape[slice(*span)]) for span in spans} | {-1, 1}
    axes = range(len(shape)) if literals <= known else range(1)
    lengths = {shape[axis]: 3 + axis % 2 for axis in axes if shape[axis] > 4 and shape[axis] not in kept}
    if shape.count(shape[0]) > 1 and len(axes) == 1:
        return shape, {}
    small = tuple(lengths.get(size, size) for size in shape)
    for first, last in spans:
        if last - first > 1:
            lengths.setdefault(math.prod(shape[first:last]), math.prod(small[first:last]))
    return small, {old: new for old, new in lengths.items() if old != new and old not in kept}


def _numbers(value: Any) -> list[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        return [value]
    return [one for item in value for one in _numbers(item)] if isinstance(value, list | tuple) else []


def _replaced(value: Any, lengths: Mapping[int, int]) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return lengths.get(value, value)
    if isinstance(value, list | tuple):
        return type(value)(_replaced(item, lengths) for item in value)
    return value
