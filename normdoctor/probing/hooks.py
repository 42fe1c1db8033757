"""Watching a live model from the outside, by hooks that all come off again.

Modules say by hooks where a call stands; a torch function mode, entered for the time of each outermost
forward, sees the calls themselves, so that `F.relu(x)` counts as `nn.ReLU` does. What is measured of a
call is up to the collectors.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from normdoctor.errors import brief
from normdoctor.probing.calls import Call, Classifier, SiteKey, distributed, observable, unit_axis

#: What torch and tensors of the user's classes raise; a failed assertion is a fault of ours.
_FAILURES = (RuntimeError, TypeError, ValueError, LookupError, AttributeError)

#: Looks after which the first part of what is seen is told from the rest; a power of two.
FIRST_MARK = 2


class Collector(Protocol):
    """Measures something of every call of its roles, on the device.

    `need` names its figures among the measurements, as rules ask for them. A collector must start no
    transfer to the host before it is read: `tensors` hands over what it has, `read` gets the same on the
    host, as float64, and returns plain data by site. `kinds`, where a collector has them, are calls that it
    is shown besides those of its roles; `mark`, where it has one, divides what was seen so far from what
    follows.
    """

    need: str
    roles: frozenset[str]

    def start(self, model: nn.Module, inputs: Sequence[Any]) -> None:
        """A forward of the model begins; `inputs` are its tensors, positional and by name."""

    def before(self, key: SiteKey, role: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of one of `roles` is about to run; what is returned is handed to `after`."""

    def after(self, call: Call, before: Any) -> None:
        """The call has run."""

    def end(self, output: Any) -> None:
        """The forward is over and returned `output`."""

    def abort(self) -> None:
        """The forward raised: what it has added so far does not count."""

    def tensors(self) -> list[Tensor]:
        """What to copy to the host."""

    def read(self, values: Sequence[Tensor]) -> dict[str, Any]:
        """The figures, by site."""


class Observer:
    """Shows the forwards of `model` to collectors while it is attached.

    Forwards that run inside a backward (checkpointing) are no new observations and are left out, and so
    are those in another thread than the first (replicas of DataParallel) and those under `torch.compile`.
    `accepts`, where it is set, is asked whether a forward that begins is to be observed. `divided` counts
    outputs that were not read because they are divided over ranks (tensor parallelism), `shown` counts calls
    that collectors were shown; `scripted` are modules that run without hooks.
    """

    def __init__(self, model: nn.Module, collectors: Sequence[Collector]) -> None:
        self.model = model
        self.collectors = collectors
        self.forwards = 0
        self.shown = 0
        self.divided = 0
        self.accepts: Callable[[], bool] | None = None
        self._handles: list[RemovableHandle] = []
        self._stack: list[tuple[str, nn.Module]] = []
        self._calls: dict[tuple[str, str], int] = {}
        self._mode: _Mode | None = None
        self._axis = -1
        self._thread: int | None = None
        self._classify = Classifier()
        self._wanted: dict[str, list[Collector]] = {}
        for collector in collectors:
            for role in collector.roles:
                self._wanted.setdefault(role, []).append(collector)
        self._for: dict[tuple[str, str], list[Collector]] = {}
        self._failed: dict[str, str] = {}
        self._late = False

    def attach(self) -> None:
        """Put the hooks on."""
        self._late = False
        if self._handles:  # a forward in another thread has kept them
            return
        for path, module in self.model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            before = module.register_forward_pre_hook(Hook(self.enter, path), with_kwargs=True)
            after = module.register_forward_hook(Hook(self.exit), always_call=True)
            self._handles += [before, after]

    @property
    def scripted(self) -> list[str]:
        """The outermost modules whose forward was compiled by TorchScript: nothing inside of them is seen."""
        found: list[str] = []
        for path, module in self.model.named_modules():
            inside = any(not one or path.startswith(f"{one}.") for one in found)
            if isinstance(module, torch.jit.ScriptModule) and not inside:
                found.append(path)
        return found

    def blindness(self, forwards: int) -> list[str]:
        """What could not be seen of so many forwards, and why, for a report: no silent zero."""
        notes = []
        if forwards and not self.shown:
            why = (
                "it is scripted"
                if "" in self.scripted
                else "vmap, meta, compiled code, or no layer of torch's"
            )
            notes.append(f"nothing is measured: no output in the forward could be read ({why})")
        elif self.scripted:
            notes.append(f"scripted, so not seen inside: {', '.join(self.scripted[:4])}")
        if self.divided:
            notes.append("outputs that are divided over ranks (DTensor) are not measured")
        for place, error in list(self._failed.items())[:4]:
            notes.append(f"{place} could not be measured in full: {error}")
        return notes

    def detach(self) -> None:
        """Take all hooks off. May be called at any time, and more than once.

        While a forward runs in another thread that is put off to its end: a mode belongs to its thread.
        """
        self._late = self._mode is not None and threading.get_ident() != self._thread
        if self._late:
            return
        while self._handles:
            self._handles.pop().remove()
        self._leave(None, ended=False)

    def read(self) -> dict[str, dict[str, Any]]:
        """The figures of every collector, by the name of its need. Waits for the device, once."""
        tensors = [collector.tensors() for collector in self.collectors]
        values = iter(to_host([one for group in tensors for one in group]))
        return {
            collector.need: collector.read([next(values) for _ in group])
            for collector, group in zip(self.collectors, tensors, strict=True)
        }

    def looked(self, looks: int) -> None:
        """So many looks are over: each time that they have doubled, collectors may divide them."""
        if looks >= FIRST_MARK and looks & (looks - 1) == 0:
            for collector in self.collectors:
                if (mark := getattr(collector, "mark", None)) is not None:
                    mark()

    def enter(self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward begins."""
        if torch.compiler.is_compiling() or in_backward() or not self._own_thread():
            return
        if not self._stack:
            if self.accepts is not None and not self.accepts():
                return
            self._calls.clear()
            self._axis = -1
            inputs = (*args, *kwargs.values())
            for collector in self.collectors:
                self._show("the inputs", collector.start, module, inputs)
            self._mode = _Mode(self)
            self._mode.__enter__()  # type: ignore[no-untyped-call]
        self._stack.append((path, module))

    def exit(self, module: nn.Module, args: Any, output: Any) -> None:
        """A forward ends, perhaps with an exception: then `output` is None."""
        if any(module is entered for _, entered in self._stack) and self._own_thread() and not in_backward():
            while self._stack.pop()[1] is not module:
                pass
            if not self._stack:
                self._leave(output, ended=output is not None)
                if self._late:
                    self.detach()

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one call of torch and show it to the collectors of its role."""
        kind, role = self._classify(function)
        wanted = self._for.get((kind, role))
        if wanted is None:
            wanted = self._for[kind, role] = self._who_wants(kind, role)
        if not wanted or not self._stack:
            return self._noted(kind, function(*args, **kwargs))
        kind = _kind(kind, args, kwargs)
        path = self._stack[-1][0]
        index = self._calls.get((path, kind), 0)
        self._calls[path, kind] = index + 1
        key = (path, kind, index)
        with torch.no_grad():
            before = [self._show(kind, one.before, key, role, args, kwargs) for one in wanted]
        result = self._noted(kind, function(*args, **kwargs))
        output = result[0] if isinstance(result, tuple) and result else result
        if observable(output):
            self.shown += 1
            axis = self._axis if -output.dim() <= self._axis < output.dim() else -1
            call = Call(key, role, args, kwargs, output, axis % output.dim())
            with torch.no_grad():
                for collector, noted in zip(wanted, before, strict=True):
                    self._show(kind, collector.after, call, noted)
        elif isinstance(output, Tensor) and distributed(output):
            self.divided += 1
        return result

    def _who_wants(self, kind: str, role: str) -> list[Collector]:
        asked = self._wanted.get(role, [])
        return [one for one in self.collectors if one in asked or kind in getattr(one, "kinds", ())]

    def _noted(self, kind: str, result: Any) -> Any:
        if isinstance(result, Tensor):
            self._axis = unit_axis(kind, result, self._axis)
        return result

    def _leave(self, output: Any, *, ended: bool) -> None:
        self._stack.clear()
        if self._mode is None:
            return
        mode, self._mode = self._mode, None
        mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for collector in self.collectors:
                if ended:
                    self._show("the output", collector.end, output)
                else:
                    collector.abort()
        self.forwards += ended

    def _show(self, place: str, tell: Callable[..., Any], *what: Any) -> Any:
        """Tell a collector; what fails in it, on tensors of a kind of their own, ends nobody's forward."""
        try:
            return tell(*what)
        except _FAILURES as error:
            if torch.cuda.is_initialized() and torch.cuda.get_sync_debug_mode():  # type: ignore[no-untyped-call]
                raise
            self._failed.setdefault(place, brief(error))
            return None

    def _own_thread(self) -> bool:
        """Do we run in the thread of the first forward? Replicas of DataParallel do not."""
        current = threading.get_ident()
        if self._thread is None:
            self._thread = current
        return self._thread == current


class _Mode(TorchFunctionMode):
    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self.observer = observer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.observer.call(func, args, kwargs or {})


class Hook:
    """A hook on a module that stays behind when the module is copied or pickled.

    It calls `call` with `first`, the module, and what torch hands to hooks of its kind.
    """

    def __init__(self, call: Callable[..., None], *first: Any) -> None:
        self.call = call
        self.first = first

    def __call__(self, module: nn.Module, *args: Any) -> None:
        """Run the hook."""
        self.call(*self.first, module, *args)

    def __deepcopy__(self, memo: Any) -> Any:
        return _nothing

    def __reduce__(self) -> Any:
        # A method that takes anything and returns None, of the standard library: a saved model can be loaded
        # where normdoctor is not installed.
        return (getattr, (contextlib.nullcontext(), "__exit__"))


def _nothing(*_: Any) -> None:
    """What a copied or pickled module has in the place of a hook."""


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies on the host, as float64, by one transfer a device."""
    found: dict[int, Tensor] = {}
    for device in {tensor.device: None for tensor in tensors}:
        places = [i for i, tensor in enumerate(tensors) if tensor.device == device]
        wide = torch.float32 if device.type == "mps" else torch.float64
        flat = torch.cat([tensors[i].detach().to(wide).flatten() for i in places]).cpu().double()
        parts = torch.split(flat, [tensors[i].numel() for i in places])
        for i, part in zip(places, parts, strict=True):
            found[i] = part.reshape(tensors[i].shape)
    return [found[i] for i in range(len(tensors))]


def _kind(kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """`nn.ReLU6` calls `hardtanh(x, 0, 6)`."""
    if kind != "hardtanh":
        return kind
    low = args[1] if len(args) > 1 else kwargs.get("min_val", -1.0)
    high = args[2] if len(args) > 2 else kwargs.get("max_val", 1.0)
    return "relu6" if (low, high) == (0, 6) else kind


def in_backward() -> bool:
    """Does this thread run a backward? Forwards in it recompute what was computed before."""
    return bool(torch._C._current_graph_task_id() != -1)
