"""`record`: one forward of a model, on the cheapest carrier that can run it, as a torch.fx graph."""

from __future__ import annotations

import contextlib
import copy
import inspect
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import fx, nn

from normdoctor.errors import TraceError, text_of
from normdoctor.loading import frames
from normdoctor.loading.example import ExampleInputs
from normdoctor.loading.misspelt import misspelt
from normdoctor.loading.state import Inventory, inventory, updated_attributes
from normdoctor.output.paths import shown_path
from normdoctor.tracing.carrier import Carrier, Stand, borrowed, lent
from normdoctor.tracing.recorder import Recorder

MAX_OUTPUT_DEPTH = 6

#: Makes the stand-in of a tensor that comes from outside the model.
StandFor = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class LossCall:
    """How a loss is applied to the model's result.

    `attempts` gives the calls to try, the likeliest first; its second argument makes stand-ins for
    their own tensors. `modules` are those that the loss runs: they are borrowed like the model.
    """

    attempts: Callable[[Any, StandFor], Iterable[Callable[[], Any]]]
    modules: tuple[nn.Module, ...] = ()


@dataclass(slots=True)
class Recording:
    """One recorded forward.

    `graph` refers by name to `root` (the model's own modules, parameters and the constants that the
    forward used), so `graph_module()` runs it again. `calls` counts executions by module path,
    `created` holds modules that exist only during forward, `carrier` says what carried the tensors.
    """

    model: nn.Module
    parts: Inventory
    graph: fx.Graph
    root: dict[str, Any]
    calls: dict[str, int]
    created: dict[str, nn.Module]
    carrier: Carrier
    example: ExampleInputs
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    training: bool
    notes: list[str] = field(default_factory=list)
    unseen: int = 0
    """Tensors whose making was not seen (in a thread, in code outside torch): breaks in the graph."""
    batched: int = 0
    """Calls inside vmap. The graph cannot be run again with any of these, nor with unseen tensors."""

    updated: frozenset[str] = frozenset()
    """Plain tensor attributes that the forward replaced or wrote into."""

    def graph_module(self) -> fx.GraphModule:
        """The recorded forward as a module: takes the input tensors, returns the output tensors."""
        if self.unseen or self.batched:
            raise TraceError(
                f"the graph cannot be run again: {self.unseen} tensors came from calls that could not be "
                f"seen, {self.batched} calls were made inside vmap"
            )
        return fx.GraphModule(dict(self.root), self.graph)


def record(
    model: nn.Module,
    example: ExampleInputs,
    *,
    parts: Inventory | None = None,
    carriers: tuple[Carrier, ...] = ("meta", "fake", "real"),
    loss: LossCall | None = None,
    training: bool | None = None,
) -> Recording:
    """Record one forward of `model` on `example`; the model is left as it was, bit for bit.

    Tries the carriers in turn: shapes only; shapes and a device; copies with values. `loss` is called
    on the result and recorded too; `training=False` records in eval mode, None as the model is. Raises
    `TraceError` with the user's own error and line when the forward runs on none of the carriers.
    """
    if any(nn.parameter.is_lazy(tensor) for tensor in model.parameters()):
        model, parts = _materialized(model, example), None
    parts = parts or inventory(model)
    failure: BaseException | None = None
    what = "forward"
    wanted: str | None = None
    notes: list[str] = []
    for carrier in carriers:
        if wanted and carrier == "fake":
            continue
        if carrier == "real" and (reason := _too_large(parts)):
            notes.append(reason)
            continue
        try:
            recording = _attempt(model, example, parts, carrier, loss, training)
        except _AttemptError as failed:
            if failure is None or carrier == "real":
                failure, what = failed.error, failed.what
            wanted = failed.wanted or wanted
            continue
        if carrier == "real":
            what = f"`{wanted}`" if wanted else "the forward"
            notes.append(f"recorded with real tensors: {what} needs values that shapes cannot give")
        if not recording.output_names:
            notes.append("the forward returned no tensor that can be seen")
        if recording.unseen:
            notes.append(f"{recording.unseen} tensors came from calls that could not be seen (threads, ...)")
        recording.notes += notes
        return recording
    assert failure is not None
    raise ForwardError(describe(failure, notes, what), _hint(model, failure, what), wanted, what) from failure


class ForwardError(TraceError):
    """The forward or (`what`) the loss raised; `wanted` names the call that asked for values, if one did."""

    def __init__(self, message: str, hint: str, wanted: str | None = None, what: str = "forward") -> None:
        super().__init__(message, hint=hint)
        self.wanted, self.what = wanted, what


def _hint(model: nn.Module, failure: BaseException, what: str) -> str:
    """What to look at; with the arguments of the forward where the error may be about them."""
    if what == "loss":
        return "Check the loss and its labels (labels=...); the model itself ran."
    if slip := misspelt(type(module) for module in model.modules()):
        return slip
    hint = "Check the inputs: --input 8,3,224,224 or check(model, inputs=...)."
    if isinstance(failure, TypeError):
        with contextlib.suppress(TypeError, ValueError):
            return f"The forward takes {inspect.signature(model.forward)}. {hint}"
    return hint


def _materialized(model: nn.Module, example: ExampleInputs) -> nn.Module:
    """A copy of a model with lazy layers, whose first forward has set their shapes."""
    try:
        # torch cannot copy lazy tensors; a new one of the same kind is as good.
        lazy: list[Any] = [t for t in (*model.parameters(), *model.buffers()) if nn.parameter.is_lazy(t)]
        copied = copy.deepcopy(model, {id(t): type(t)(device=t.device, dtype=t.dtype) for t in lazy})
        with torch.no_grad():
            copied(*example.args, **example.kwargs)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ForwardError(describe(error, []), _hint(model, error, "forward")) from error
    return copied


class _AttemptError(Exception):
    def __init__(self, error: BaseException, wanted: str | None, what: str) -> None:
        super().__init__(text_of(error))
        self.error = error
        self.wanted = wanted
        self.what = what


def _attempt(
    model: nn.Module,
    example: ExampleInputs,
    parts: Inventory,
    carrier: Carrier,
    loss: LossCall | None,
    training: bool | None,
) -> Recording:
    mode = model.training if training is None else training
    with borrowed(model, parts, carrier) as stand:
        if training is not None:
            for entry in parts.modules.values():
                entry.module.training = training
        recorder = Recorder(parts, stand, _device_of(parts))
        names: list[str] = []
        try:
            args, kwargs = _placeholders(example, stand.value, recorder, names)
        except Exception as error:  # tensors of a kind that a carrier does not know, containers of the user's
            raise _AttemptError(error, None, "copy of the inputs") from error
        what = "forward"
        try:
            with recorder.active():
                result = model(*args, **kwargs)
                updated = updated_attributes(parts, stand)
                if loss is not None:
                    what = "loss"
                    _apply(loss, result, recorder, stand)
            found = list(output_tensors(result))
            recorder.tape.output([tensor for _, tensor in found])
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a sys.exit() in a forward must not end this program
            raise _AttemptError(error, recorder.value_wanted, what) from error
    root = _with_originals(recorder.tape.root, parts)
    return Recording(
        model=model,
        parts=parts,
        graph=recorder.tape.graph,
        root=root,
        calls=recorder.calls,
        created=recorder.created,
        carrier=carrier,
        example=example,
        input_names=tuple(names),
        output_names=tuple(name for name, _ in found),
        training=mode,
        unseen=recorder.tape.unseen,
        batched=recorder.tape.batched,
        updated=updated,
    )


def _apply(loss: LossCall, result: Any, recorder: Recorder, stand: Stand) -> None:
    """Record the first attempt at the loss that runs; where none does, raise what the first one raised."""
    failure: Exception | None = None
    with lent(loss.modules, stand):
        for path, module in recorder.lend(loss.modules):
            for name, tensor in (
                *module.named_parameters(recurse=False),
                *module.named_buffers(recurse=False),
            ):
                recorder.tape.own(f"{path}.{name}", tensor, tensor)
        for attempt in loss.attempts(result, stand.value):
            try:
                with recorder.trial():
                    attempt()
            except Exception as error:
                failure = failure or error
                if recorder.value_wanted:
                    break  # with values it may well run: the next carrier has them
            else:
                return
    raise failure or TypeError("it takes no output of the model")


def _with_originals(root: dict[str, Any], parts: Inventory) -> dict[str, Any]:
    return {
        name: parts.modules[name].module if isinstance(value, nn.Module) and name in parts.modules else value
        for name, value in root.items()
    }


def _placeholders(
    example: ExampleInputs, stand: Any, recorder: Recorder, names: list[str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def put(value: Any, name: str) -> Any:
        if isinstance(value, torch.Tensor):
            if value.is_nested:
                raise TypeError("a nested tensor has no sizes that can be recorded")
            carried = stand(value)
            recorder.tape.placeholder(name, carried)
            names.append(name)
            return carried
        if isinstance(value, list | tuple):
            items = [put(item, f"{name}_{index}") for index, item in enumerate(value)]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if isinstance(value, dict):
            made = {key: put(item, f"{name}_{key}") for key, item in value.items()}
            return made if type(value) is dict else type(value)(made)
        return value

    args = tuple(put(value, example.name(index)) for index, value in enumerate(example.args))
    return args, {key: put(value, key) for key, value in example.kwargs.items()}


def input_tensors(example: ExampleInputs) -> list[torch.Tensor]:
    """The tensors of the inputs, in the order of the placeholders."""
    found: list[torch.Tensor] = []

    def visit(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            for item in value:
                visit(item)
        elif isinstance(value, dict):
            for item in value.values():
                visit(item)

    visit(example.args)
    visit(example.kwargs)
    return found


def output_tensors(value: Any, name: str = "output", depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in whatever a model returns: tuples, dicts, dataclasses, caches; each once by name."""
    seen: set[int] = set()

    def visit(item: Any, label: str, level: int) -> Iterator[tuple[str, torch.Tensor]]:
        if isinstance(item, torch.Tensor):
            if id(item) not in seen:
                seen.add(id(item))
                yield label, item
            return
        if level > MAX_OUTPUT_DEPTH or isinstance(item, nn.Module | str | bytes | int | float | type(None)):
            return
        if isinstance(item, dict):
            children = [(f"{label}.{key}", part) for key, part in item.items()]
        elif isinstance(item, list | tuple | set | frozenset):
            children = [(f"{label}.{index}", part) for index, part in enumerate(item)]
        elif is_dataclass(item) and not isinstance(item, type):
            children = [(f"{label}.{one.name}", getattr(item, one.name)) for one in fields(item)]
        elif hasattr(item, "__dict__") and not isinstance(item, type) and not callable(item):
            children = [(f"{label}.{key}", part) for key, part in vars(item).items()]
        else:
            return
        for text, part in children:
            yield from visit(part, text, level + 1)

    yield from visit(value, name, depth)


def _device_of(parts: Inventory) -> torch.device:
    for entry in parts.tensors.values():
        if entry.kind == "parameter":
            return entry.tensor.device
    return torch.device("cpu")


def _too_large(parts: Inventory) -> str | None:
    """Say why copies with values cannot be made, None where they can."""
    if any(entry.tensor.device.type == "meta" for entry in parts.tensors.values()):
        return "the model is on the meta device, so it has no values to run with"
    size = sum(entry.tensor.numel() * entry.tensor.element_size() for entry in parts.tensors.values())
    free = _free_memory()
    if free is not None and 3 * size > free:
        return f"running it takes {3 * size / 2**30:.0f} GiB and {free / 2**30:.0f} GiB are free"
    return None


def _free_memory() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def describe(error: BaseException, notes: list[str], what: str = "forward") -> str:
    """The user's error in one line, with the line of their code that raised it."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frames.is_outside(frame.f_code):
            place = f" at {shown_path(frame.f_code.co_filename)}:{line}"
    text = text_of(error).strip().splitlines()
    first = text[0] if text else ""
    more = f" ({'; '.join(notes)})" if notes else ""
    return f"the {what} raised {type(error).__name__}{place}: {first}{more}"
