"""A sandbox for running a user's model: whatever happens inside, the model is as before afterwards."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.nn.parameter import is_lazy

from normdoctor.errors import TraceError
from normdoctor.loading.state import generator_restorer

#: How far objects that are neither modules nor containers are followed for state.
OBJECT_DEPTH = 3

#: Settings of the process that a forward may change: how to read and how to set each.
_FLAGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    (lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on)),
    (lambda: torch.is_autocast_enabled("cuda"), lambda on: torch.set_autocast_enabled("cuda", on)),
    *(
        (
            lambda name=name: getattr(torch.backends.cudnn, name),
            lambda value, name=name: setattr(torch.backends.cudnn, name, value),
        )
        for name in ("enabled", "benchmark", "deterministic")
    ),
)


@contextmanager
def sandbox(model: nn.Module) -> Iterator[None]:
    """Put everything back at the end that a run of `model` can change, also after an exception.

    That is: values, versions, gradients and flags of parameters, buffers and plain tensor attributes; the
    attributes of each module, so its mode, hooks, children and caches in lists, dicts, sets or objects;
    the random generators of torch, CUDA, numpy and Python, also those that the model holds; gradient mode,
    default dtype and backend flags.
    Values are kept as copies, so the model's memory is needed once more.
    """
    state = _State(model)
    with undisturbed():
        try:
            yield
        finally:
            state.restore()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put random generators, gradient mode, default dtype and backend flags back at the end."""
    restore = _process_state()
    try:
        yield
    finally:
        restore()


class _State:
    """What was found in a model, and how to put it back."""

    def __init__(self, model: nn.Module) -> None:
        self.seen: dict[int, Any] = {}
        self.restorers: list[Callable[[], object]] = []
        pending: deque[tuple[Any, int]] = deque([(model, 0)])
        while pending:
            value, depth = pending.popleft()
            if id(value) not in self.seen:
                self.seen[id(value)] = value  # held, so that no id is used twice
                pending.extend(self._save(value, depth))

    def restore(self) -> None:
        """Undo in reverse, so that the outermost objects decide."""
        for restorer in reversed(self.restorers):
            restorer()

    def _save(self, value: Any, depth: int) -> list[tuple[Any, int]]:
        """Remember one object; return what it refers to."""
        if isinstance(value, Tensor):
            self.restorers.append(_save_tensor(value))
            return [(value.grad, depth)] if value.is_leaf and value.grad is not None else []
        if isinstance(value, torch.jit.ScriptModule):
            return self._save_attributes(value, 0) + self._save_scripted(value)
        if isinstance(value, nn.Module):
            return self._save_attributes(value, 0)
        if isinstance(value, dict):
            saved = dict(value)
            self.restorers.append(lambda: _refill(value, saved, value.update))
            return [(item, depth) for item in saved.values()]
        if isinstance(value, list | deque):
            kept = list(value)
            self.restorers.append(lambda: _refill(value, kept, value.extend))
            return [(item, depth) for item in kept]
        if isinstance(value, set):
            members = set(value)
            self.restorers.append(lambda: _refill(value, members, value.update))
            return []
        if isinstance(value, tuple):
            return [(item, depth) for item in value]
        if (restorer := generator_restorer(value)) is not None:
            self.restorers.append(restorer)
            return []
        plain = isinstance(value, type | FunctionType | ModuleType) or not hasattr(value, "__dict__")
        return [] if plain or depth >= OBJECT_DEPTH else self._save_attributes(value, depth + 1)

    def _save_scripted(self, module: torch.jit.ScriptModule) -> list[tuple[Any, int]]:
        """What TorchScript keeps outside of Python: tensors, the mode, numbers and lists."""
        kind = getattr(module, "_concrete_type", None)  # a loaded module has none
        names = dict.fromkeys([*module._parameters.keys(), *module._buffers.keys(), "training"])
        names |= dict.fromkeys(kind.get_attributes() if kind is not None else ())
        held = {name: getattr(module, name) for name in names if hasattr(module, name)}

        def restore() -> None:
            for name, value in held.items():
                if getattr(module, name) is not value:
                    setattr(module, name, value)

        self.restorers.append(restore)
        return [(item, 0) for item in held.values()] + [(child, 0) for child in module.children()]

    def _save_attributes(self, owner: Any, depth: int) -> list[tuple[Any, int]]:
        attributes, saved, kind = vars(owner), dict(vars(owner)), type(owner)

        def restore() -> None:
            if type(owner) is not kind:
                owner.__class__ = kind
            _refill(attributes, saved, attributes.update)

        self.restorers.append(restore)
        return [(item, depth) for item in saved.values()]


def _refill(container: Any, saved: Any, fill: Callable[[Any], None]) -> None:
    """Give a container its former contents, unless it holds the same objects in the same order."""
    if isinstance(saved, dict):
        same = list(container) == list(saved) and all(container[key] is saved[key] for key in saved)
    elif isinstance(saved, list):
        same = len(container) == len(saved) and all(a is b for a, b in zip(container, saved, strict=True))
    else:
        same = container == saved
    if not same:
        container.clear()
        fill(saved)


def _save_tensor(tensor: Tensor) -> Callable[[], None]:
    if is_lazy(tensor):
        raise TraceError(
            "the model has lazy modules whose parameters do not exist yet",
            hint="Run the model once on a batch before it is measured.",
        )
    memory = tensor.data  # shares the storage: shows whether `tensor.data = ...` was assigned inside
    copy = None if tensor.is_meta else memory.clone()
    gradient, wanted = tensor.grad if tensor.is_leaf else None, tensor.requires_grad
    # A graph that was built before may hold the tensor: it holds the same values again.
    counted = None if tensor.is_inference() else _unsafe_preserve_version_counter(tensor)

    def restore() -> None:
        if not _same_memory(tensor.data, memory):
            tensor.data = memory
        if copy is not None and not _equal_bits(memory, copy):
            memory.copy_(copy)
        if tensor.is_leaf:
            if tensor.grad is not gradient:
                tensor.grad = gradient
            if tensor.requires_grad != wanted:
                tensor.requires_grad_(wanted)
        if counted is not None:
            counted.__exit__()

    return restore


def _same_memory(a: Tensor, b: Tensor) -> bool:
    if (a.shape, a.dtype, a.device, a.layout) != (b.shape, b.dtype, b.device, b.layout):
        return False
    if a.is_meta or a.layout != torch.strided:
        return True
    return a.data_ptr() == b.data_ptr() and a.stride() == b.stride()


def _equal_bits(a: Tensor, b: Tensor) -> bool:
    """Equality in which NaN equals itself and -0.0 is not 0.0."""
    if a.layout != torch.strided or a.is_quantized:
        return False
    return torch.equal(_bits(a), _bits(b))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(torch.uint8) if tensor.numel() else tensor


def _process_state() -> Callable[[], None]:
    """Remember random generators and flags; return what puts them back."""
    flags = [(getter, setter, getter()) for getter, setter in _FLAGS]
    cpu, python = torch.get_rng_state(), random.getstate()
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state_all() if started else None
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy is not None else None

    def restore() -> None:
        for getter, setter, value in flags:
            if getter() != value:  # torch's test tools forbid to set some of them
                setter(value)
        torch.set_rng_state(cpu)
        random.setstate(python)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        if numpy is not None:
            numpy.random.set_state(numpy_state)

    return restore
