"""The facts of a watched model: its modules always, its graph when a report asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from normdoctor.facts import Facts
from normdoctor.loading.construction import origins_for
from normdoctor.loading.example import ExampleInputs
from normdoctor.loading.origins import Origins
from normdoctor.loading.state import inventory
from normdoctor.loading.target import Target
from normdoctor.tracing.examine import Request, examine
from normdoctor.tracing.extract import module_facts, parameter_facts
from normdoctor.tracing.optimizers import optimizer_facts

_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device, slice)


class UnknownInputError(TypeError):
    """An input that cannot be made again from a description."""


class WatchedFacts:
    """What is known of a model apart from measurements.

    Of the first forward's inputs only shapes and types are kept. The graph is recorded from them on the
    meta device, once, when it is first asked for; the model is not touched.
    """

    def __init__(self, model: nn.Module, optimizers: tuple[torch.optim.Optimizer, ...] = ()) -> None:
        self.model = model
        self.name = type(model).__name__
        self.optimizers = optimizers
        self.origins: Origins | None = None
        self.inputs: ExampleInputs | None = None
        self.reason = "no forward of the model was seen"
        self._plain: Facts | None = None
        self._recorded: Facts | None = None
        self._tried = False

    def note_inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep what the inputs of the first forward look like."""
        if self.inputs is not None or self._tried:
            return
        try:
            described = _described(args), _described(kwargs)
        except UnknownInputError as error:
            self._tried = True
            self.reason = f"an input is {error}, which cannot be made again"
        else:
            self.inputs = ExampleInputs(described[0], described[1], source="captured")

    def plain(self) -> Facts:
        """Modules, parameters and optimizers; no graph."""
        if self._plain is None:
            parts = inventory(self.model)
            self._plain = Facts(
                target=self.name,
                modules=module_facts(parts, origins_for(self.model, self.origins), {}, {}, {}),
                parameters=parameter_facts(parts),
                optimizers=optimizer_facts(self.optimizers, parts),
                training=self.model.training,
            )
        return self._plain

    def recorded(self) -> Facts:
        """With the graph, where the forward can be recorded; a note says why it cannot."""
        if self._recorded is None and self.inputs is not None and not self._tried:
            self._tried = True
            self._recorded = self._record(self.inputs)
        if self._recorded is not None:
            return self._recorded
        note = f"the forward is not recorded: {self.reason}"
        return msgspec.structs.replace(self.plain(), notes=(note,))

    def _record(self, inputs: ExampleInputs) -> Facts | None:
        target = Target(
            name=self.name,
            model=self.model,
            origins=self.origins,
            inputs=inputs,
            optimizers=self.optimizers,
        )
        try:
            with torch.random.fork_rng(devices=[]):
                examination = examine(target, Request())
        except Exception as error:  # a sharded or patched model: go on without its graph
            self.reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            return None
        if examination.error is not None:
            self.reason = examination.error.message
            return None
        return examination.facts


def with_modes(facts: Facts, training: Mapping[str, bool]) -> Facts:
    """The facts with the modes in which BatchNorms were trained, not those that they are in just now."""
    modules = tuple(
        msgspec.structs.replace(one, training=training[one.path])
        if one.path in training and training[one.path] != one.training
        else one
        for one in facts.modules
    )
    return msgspec.structs.replace(facts, modules=modules)


def _described(value: Any) -> Any:
    """Inputs with their tensors on the meta device."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided or type(value) not in (Tensor, nn.Parameter):
            raise UnknownInputError(f"a {type(value).__name__} of layout {value.layout}")
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, dict):
        return {key: _described(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_described(item) for item in value)
    if isinstance(value, _PLAIN):
        return value
    raise UnknownInputError(f"a {type(value).__name__}")
