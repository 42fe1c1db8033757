"""Everything a model holds: its modules (also the hidden ones), its tensors, and putting all of it back.

A forward may do anything to the model that runs it: cache tensors, move running statistics, append to
lists. `Snapshot` notes every module's attributes, and the contents of the plain containers among
them, and restores them, so that a recording leaves no trace.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

MAX_DEPTH = 4  # how deep plain lists, tuples and dicts are searched for modules and tensors

_TORCH_FIELDS = frozenset(nn.Module().__dict__) - {"_parameters", "_buffers", "_modules"}


@dataclass(slots=True)
class ModuleEntry:
    """A module and where it was found; `container` names the plain attribute that hides it."""

    path: str
    module: nn.Module
    container: str = ""
    aliases: list[str] = field(default_factory=list)


@dataclass(slots=True)
class TensorEntry:
    """A tensor of the model: a parameter, a buffer, or a plain attribute."""

    name: str
    module: str
    tensor: torch.Tensor
    kind: str
    aliases: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Inventory:
    """All modules and tensors of a model by their first path."""

    modules: dict[str, ModuleEntry]
    tensors: dict[str, TensorEntry]

    def path_of(self) -> dict[int, str]:
        """Object id to path, for every module."""
        return {id(entry.module): path for path, entry in self.modules.items()}


def join(prefix: str, name: str) -> str:
    """Append a name to a module path."""
    return f"{prefix}.{name}" if prefix else name


def inventory(model: nn.Module) -> Inventory:
    """List every module and tensor, those in plain containers included.

    A module or parameter in a plain list is unknown to torch (`state_dict`, `.to()` and the optimizer
    miss it), but its forward runs: it appears as `blocks[0]`.
    """
    found = Inventory({}, {})
    _walk(model, "", "", found, {}, {})
    return found


def _walk(
    module: nn.Module,
    path: str,
    container: str,
    found: Inventory,
    modules: dict[int, ModuleEntry],
    tensors: dict[int, TensorEntry],
) -> None:
    if (known := modules.get(id(module))) is not None:
        known.aliases.append(path)
        return
    modules[id(module)] = found.modules[path] = ModuleEntry(path, module, container)

    if isinstance(module, torch.jit.ScriptModule):
        return  # what it holds lives outside Python: it is run as a copy and not looked into

    def add_tensor(name: str, tensor: torch.Tensor, kind: str) -> None:
        full = join(path, name)
        if (known := tensors.get(id(tensor))) is not None:
            known.aliases.append(full)
        else:
            tensors[id(tensor)] = found.tensors[full] = TensorEntry(full, path, tensor, kind)

    for name, parameter in module._parameters.items():
        if parameter is not None:
            add_tensor(name, parameter, "parameter")
    for name, value in module._buffers.items():
        if isinstance(value, torch.Tensor):
            add_tensor(name, value, "buffer")
    for name, child in module._modules.items():
        if child is not None:
            _walk(child, join(path, name), container, found, modules, tensors)
    for name, value in list(module.__dict__.items()):
        if name in _TORCH_FIELDS or name in ("_parameters", "_buffers", "_modules"):
            continue
        for label, item in plain_contents(value, name):
            if isinstance(item, nn.Module):
                if id(item) not in modules and not _is_ancestor(item, module):
                    _walk(item, join(path, label), join(path, name), found, modules, tensors)
            elif id(item) not in tensors:
                add_tensor(label, item, "attribute")


def _is_ancestor(candidate: nn.Module, module: nn.Module) -> bool:
    return any(child is module for child in candidate.modules())


def plain_contents(value: Any, label: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the modules and tensors inside a plain attribute, labelled `name[0]` or `name['key']`."""
    if isinstance(value, nn.Module | torch.Tensor):
        yield label, value
    elif depth < MAX_DEPTH and type(value) in (list, tuple):
        for index, item in enumerate(value):
            yield from plain_contents(item, f"{label}[{index}]", depth + 1)
    elif depth < MAX_DEPTH and isinstance(value, dict):
        for key, item in value.items():
            yield from plain_contents(item, f"{label}[{key!r}]", depth + 1)


def updated_attributes(parts: Inventory, before: Callable[[torch.Tensor], torch.Tensor]) -> frozenset[str]:
    """Names of the plain tensor attributes that were replaced or written into since `before` stood there.

    `before` gives the tensor that the attribute held at first; it was made for the purpose, so that a
    version above 0 means that somebody wrote into it.
    """
    found = set()
    for entry in parts.tensors.values():
        if entry.kind != "attribute":
            continue
        label = entry.name[len(entry.module) :].lstrip(".")
        name = label.partition("[")[0]
        now = parts.modules[entry.module].module.__dict__.get(name)
        held = dict(plain_contents(now, name)).get(label)
        if isinstance(held, torch.Tensor) and (held is not before(entry.tensor) or _written(held)):
            found.add(entry.name)
    return frozenset(found)


def _written(tensor: torch.Tensor) -> bool:
    try:
        return tensor._version > 0
    except RuntimeError:  # inference tensors keep no version
        return False


def generator_restorer(value: Any) -> Callable[[], object] | None:
    """What puts a random generator that a model holds back to the state that it has now.

    None where `value` is no generator of torch, numpy or Python.
    """
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return partial(value.setstate, value.getstate())
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is not None and isinstance(value, numpy.RandomState):
        return partial(value.set_state, value.get_state(legacy=False))
    if numpy is not None and isinstance(value, numpy.Generator):
        return partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    return None


class Snapshot:
    """The attributes of every module at one moment, to be restored bit for bit.

    Tensors are not copied: what could change them in place must be kept away from them (see
    `normdoctor.tracing.carrier`). Random generators among the attributes are put back to their states.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        self._dicts: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self._lists: list[tuple[list[Any], list[Any]]] = []
        self._classes = [(module, type(module)) for module in modules]
        self._generators: list[Callable[[], object]] = []
        seen: set[int] = set()
        for module in modules:
            self._note(module.__dict__, 0, seen)

    def _note(self, value: Any, depth: int, seen: set[int]) -> None:
        if depth > MAX_DEPTH or id(value) in seen:
            return
        if isinstance(value, dict):
            seen.add(id(value))
            self._dicts.append((value, dict(value)))
            for item in value.values():
                self._note(item, depth + 1, seen)
        elif type(value) is list:
            seen.add(id(value))
            self._lists.append((value, list(value)))
            for item in value:
                self._note(item, depth + 1, seen)
        elif (restorer := generator_restorer(value)) is not None:
            self._generators.append(restorer)

    def map_tensors(self, convert: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Replace every tensor in the noted containers by what `convert` makes of it."""
        for live, _ in self._dicts:
            for key, value in live.items():
                if isinstance(value, torch.Tensor):
                    live[key] = convert(value)
                elif type(value) is tuple:
                    live[key] = _mapped_tuple(value, convert)
        for items, _ in self._lists:
            for index, value in enumerate(items):
                if isinstance(value, torch.Tensor):
                    items[index] = convert(value)
                elif type(value) is tuple:
                    items[index] = _mapped_tuple(value, convert)

    def restore(self) -> None:
        """Put everything back as it was."""
        for module, original in self._classes:
            if type(module) is not original:
                module.__class__ = original
        for live, saved in self._dicts:
            if len(live) != len(saved) or any(live.get(key, live) is not saved[key] for key in saved):
                live.clear()
                live.update(saved)
        for items, kept in self._lists:
            if len(items) != len(kept) or any(a is not b for a, b in zip(items, kept, strict=True)):
                items[:] = kept
        for restorer in self._generators:
            restorer()


def _mapped_tuple(value: tuple[Any, ...], convert: Callable[[torch.Tensor], torch.Tensor]) -> tuple[Any, ...]:
    if not any(isinstance(item, torch.Tensor | tuple) for item in value):
        return value
    return tuple(
        convert(item)
        if isinstance(item, torch.Tensor)
        else _mapped_tuple(item, convert)
        if type(item) is tuple
        else item
        for item in value
    )
