"""From a target to its facts: pick the inputs, record, extract, and add what the rules require."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import torch

from normdoctor.errors import NormDoctorError, TraceError, UsageError, brief
from normdoctor.facts import Facts, Location, Node
from normdoctor.loading.construction import origins_for, tensor_origins
from normdoctor.loading.example import ExampleInputs
from normdoctor.loading.soundness import demand_sound
from normdoctor.loading.state import inventory
from normdoctor.loading.target import Target
from normdoctor.tracing.axes import with_axes
from normdoctor.tracing.extract import extract, module_facts, nodes_of, parameter_facts
from normdoctor.tracing.handwritten import with_handwritten
from normdoctor.tracing.inference import infer
from normdoctor.tracing.inputs import as_example, describe_inputs, parse_inputs, to_device
from normdoctor.tracing.losses import loss_call
from normdoctor.tracing.lossfacts import with_labels, with_source_losses
from normdoctor.tracing.optimizers import made_optimizer, optimizer_facts
from normdoctor.tracing.recording import ForwardError, LossCall, Recording, record
from normdoctor.tracing.references import reference_fact
from normdoctor.tracing.secondlook import looked_again
from normdoctor.tracing.weights import weight_facts


@dataclass(frozen=True)
class Request:
    """What the user asks to be examined a model with; None where nothing was said."""

    inputs: Any = None
    specs: tuple[str, ...] = ()
    loss: object | None = None
    labels: Any = None
    optimizer: object | None = None
    reference: torch.nn.Module | None = None
    weights: Path | None = None
    device: str | None = None
    requirements: frozenset[str] = frozenset()
    roles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Examination:
    """The facts of a target; `error` says why its forward could not be recorded."""

    facts: Facts
    error: TraceError | None = None
    recording: Recording | None = None


def examine(target: Target, request: Request) -> Examination:
    """Record the target and extract its facts.

    Where the forward cannot be recorded, the facts hold what the modules alone tell, and the error
    stands beside them.
    """
    demand_sound(target.model, target.name)
    device = usable_device(request.device)
    error = None
    recording = None
    notes = list(target.notes)
    origins = origins_for(target.model, target.origins)
    if target.scripted:
        notes.append("a ScriptModule: only its modules can be seen, not its forward")
    else:
        try:
            recording = _recorded(target, request, device, notes)
        except TraceError as failed:
            error = failed
            if isinstance(failed, ForwardError) and failed.what == "loss":  # the model itself runs
                recording = _recorded(target, replace(request, loss=None), device, notes)
    if recording is not None:
        facts = extract(target.name, recording, origins, extra_roles=request.roles, notes=tuple(notes))
        facts = _with_second_look(facts, recording, request)
        facts = with_axes(with_source_losses(facts, target.losses, target.name, recording.output_names))
        facts = msgspec.structs.replace(facts, losses=with_labels(facts.losses, request.labels))
        facts = with_handwritten(facts, recording)
        parts = recording.parts
    else:
        parts = inventory(target.model)
        facts = Facts(
            target=target.name,
            modules=module_facts(parts, origins, {}, {}, request.roles),
            parameters=parameter_facts(parts),
            training=getattr(target.model, "training", False),
            notes=tuple(notes),
        )
    if "weights" in request.requirements:
        truncations = target.origins.truncations if target.origins is not None else None
        filled = target.origins is not None and target.origins.filled and request.weights is None
        weights = weight_facts(parts, filled=filled, truncations=truncations)
        facts = msgspec.structs.replace(facts, weights=weights)
    return Examination(with_setup(facts, target, request), error, recording)


def with_setup(facts: Facts, target: Target, request: Request) -> Facts:
    """Add what trains the model, what it is a copy of, and whether weights were loaded."""
    parts = inventory(target.model)  # of the model itself: a recording may be of a copy of it
    origins = target.origins

    def where(optimizer: torch.optim.Optimizer) -> Location | None:
        origin = origins.of(optimizer) if origins is not None else None
        return origin.location if origin is not None else None

    optimizers = target.optimizers
    if request.optimizer is not None:
        optimizers = (made_optimizer(request.optimizer, target.model, "the optimizer"),)
    reference = reference_fact(parts, request.reference) if request.reference is not None else None
    places = tensor_origins(parts, origins)
    parameters = tuple(
        msgspec.structs.replace(one, origin=places[one.name]) if one.name in places else one
        for one in facts.parameters
    )
    return msgspec.structs.replace(
        facts,
        parameters=parameters,
        optimizers=optimizer_facts(optimizers, parts, where),
        reference=reference,
        checkpoint=facts.checkpoint or request.weights is not None,
    )


def _with_second_look(facts: Facts, recording: Recording, request: Request) -> Facts:
    def in_eval() -> tuple[Node, ...]:
        model, example, carrier = recording.model, recording.example, recording.carrier
        again = record(model, example, carriers=(carrier,), training=False)
        return nodes_of(again, request.roles)

    nodes = looked_again(facts.nodes, facts.modules, in_eval if recording.training else None)
    return msgspec.structs.replace(facts, nodes=nodes)


def usable_device(device: str | torch.device | None) -> torch.device | None:
    """The device of that name; raises UsageError where nothing can be put on it."""
    if not device:
        return None
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except Exception as error:
        raise UsageError(
            f"the device {device!r} cannot be used here: {brief(error).partition(': ')[2][:160]}",
            hint="Known are cpu, cuda, mps and meta, for example; without it, the model's own is used.",
        ) from error
    return found


def _named(example: ExampleInputs, target: Target) -> ExampleInputs:
    """The inputs with the names that forward gives its arguments, where nobody said other ones."""
    if example.names or not example.args:
        return example
    try:
        parameters = inspect.signature(target.model.forward).parameters.values()
    except (TypeError, ValueError):
        return example
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = tuple(one.name for one in parameters if one.kind in plain)[: len(example.args)]
    return replace(example, names=names)


def _recorded(target: Target, request: Request, device: torch.device | None, notes: list[str]) -> Recording:
    loss = loss_call(request.loss, request.labels) if request.loss is not None else None
    given = _given(request, device)
    if given is not None:
        return _in_some_mode(target, _named(given, target), loss, notes)
    known: TraceError | None = None
    if target.inputs is not None:
        try:
            recording = _in_some_mode(target, _named(target.inputs, target), loss, notes)
        except TraceError as error:
            known = error
            first = target.inputs.source == "data"
            what = "first batch does" if first else f"{target.inputs.source} inputs do"
            notes.append(f"the {what} not run ({error.message}); other inputs were tried")
        else:
            if target.inputs.source != "data":
                notes.append(f"inputs {target.inputs.source}: {describe_inputs(recording.example)}")
            return recording
    try:
        recording = infer(target.model, loss=loss)
    except TraceError as first:
        failed = known or first  # what is said of inputs that were known counts, not what guesses did
        if not target.model.training:
            raise failed from None
        try:
            recording = infer(target.model, loss=loss, training=False)
        except TraceError:
            raise failed from None
        notes.append("recorded in eval mode: the forward does not run in train mode")
    told = recording.example.note or describe_inputs(recording.example)
    notes.append(f"inputs inferred: {told} (give others with --input or inputs=)")
    return recording


def _given(request: Request, device: torch.device | None) -> ExampleInputs | None:
    if request.inputs is not None:
        example = as_example(request.inputs)
    elif request.specs:
        example = parse_inputs(request.specs)
    else:
        return None
    return example if device is None else to_device(example, device)


def _in_some_mode(
    target: Target, example: ExampleInputs, loss: LossCall | None, notes: list[str]
) -> Recording:
    """Record as the model is; a model in train mode that does not run so is tried in eval mode."""
    try:
        return record(target.model, example, loss=loss)
    except TraceError as first:
        if not target.model.training:
            raise
        try:
            recording = record(target.model, example, loss=loss, training=False)
        except NormDoctorError:
            raise first from None
        notes.append(f"recorded in eval mode: in train mode {first.message}")
        return recording
