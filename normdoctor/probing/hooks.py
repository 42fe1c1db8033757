"""Watching the activations of a live model from the outside, by hooks that all come off again."""

from __future__ import annotations

import threading
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from normdoctor.probing.statistics import UnitActivity

#: The ReLU family: calls whose output is exactly zero for a unit that is off.
RELUS: dict[Any, str] = {
    F.relu: "relu",
    torch.relu: "relu",
    torch.relu_: "relu",
    Tensor.relu: "relu",
    Tensor.relu_: "relu",
    F.relu6: "relu6",
}

#: Calls after which the units lie along the last axis, or along the axis behind the batch.
LAST_AXIS = frozenset({"linear", "matmul", "__matmul__", "mm", "addmm", "bmm", "layer_norm", "rms_norm"})
CHANNEL_AXIS = frozenset({"batch_norm", "instance_norm", "group_norm"})

#: A site: the innermost module in whose forward an activation runs, and which of its calls it is.
SiteKey = tuple[str, int]


class Observer:
    """Counts the activity of every ReLU in the forwards of `model` while it is attached.

    Modules say by hooks where a call stands; a torch function mode, entered for the time of each outermost
    forward, sees the calls themselves, so that `F.relu(x)` counts as `nn.ReLU` does. Forwards that run
    inside a backward (checkpointing) are no new observations and are left out.
    """

    def __init__(self, model: nn.Module, budget: int | None = None) -> None:
        self.model = model
        self.budget = budget
        self.sites: dict[SiteKey, UnitActivity] = {}
        self.forwards = 0
        self._handles: list[RemovableHandle] = []
        self._stack: list[tuple[str, nn.Module]] = []
        self._calls: dict[str, int] = {}
        self._mode: _Mode | None = None
        self._axis = -1
        self._thread: int | None = None

    def attach(self) -> None:
        """Put the hooks on."""
        for path, module in self.model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            before = module.register_forward_pre_hook(_Hook(self, path, enters=True))
            after = module.register_forward_hook(_Hook(self, path, enters=False), always_call=True)
            self._handles += [before, after]

    def detach(self) -> None:
        """Take all hooks off. May be called at any time, and more than once."""
        while self._handles:
            self._handles.pop().remove()
        self._leave()

    def read(self) -> dict[str, dict[str, Any]]:
        """The figures of every site, by its name: the module path, with `#1` for a second call."""
        found: dict[str, dict[str, Any]] = {}
        for (path, call), activity in self.sites.items():
            figures = activity.read()
            if figures is not None:
                found[f"{path}#{call}" if call else path] = {"module": path, "call": call, **figures}
        return found

    def enter(self, path: str, module: nn.Module) -> None:
        """A forward begins."""
        if torch.compiler.is_compiling() or _in_backward() or not self._own_thread():
            return
        if not self._stack:
            self.forwards += 1
            self._calls.clear()
            self._axis = -1
            self._mode = _Mode(self)
            self._mode.__enter__()  # type: ignore[no-untyped-call]
        self._stack.append((path, module))

    def exit(self, module: nn.Module) -> None:
        """A forward ends, perhaps with an exception."""
        if any(module is entered for _, entered in self._stack) and self._own_thread() and not _in_backward():
            while self._stack.pop()[1] is not module:
                pass
            if not self._stack:
                self._leave()

    def saw(self, function: Any, kwargs: dict[str, Any], result: Any) -> None:
        """A torch call returned."""
        if not isinstance(result, Tensor) or not self._stack:
            return
        name = getattr(function, "__name__", "")
        if name in LAST_AXIS:
            self._axis = -1
        elif name in CHANNEL_AXIS or name.startswith("conv"):
            self._axis = 1 if result.dim() != _unbatched_rank(name) else 0
        kind = RELUS.get(function) or _clipped(function, kwargs)
        if kind and result.dim() > 0 and not result.is_meta and not _is_wrapped(result):
            self._count(kind, result)

    def _count(self, kind: str, result: Tensor) -> None:
        path = self._stack[-1][0]
        call = self._calls.get(path, 0)
        self._calls[path] = call + 1
        activity = self.sites.setdefault((path, call), UnitActivity(kind, self.budget))
        axis = self._axis if -result.dim() <= self._axis < result.dim() else -1
        with torch.no_grad():
            activity.add(result, axis % result.dim())

    def _leave(self) -> None:
        self._stack.clear()
        if self._mode is not None:
            mode, self._mode = self._mode, None
            mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]

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
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.observer.saw(func, kwargs, result)
        return result


class _Hook:
    """A forward hook that stays behind when its module is copied or pickled."""

    def __init__(self, observer: Observer, path: str, enters: bool) -> None:
        self.observer = observer
        self.path = path
        self.enters = enters

    def __call__(self, module: nn.Module, *_: Any) -> None:
        if self.enters:
            self.observer.enter(self.path, module)
        else:
            self.observer.exit(module)

    def __deepcopy__(self, memo: Any) -> Any:
        return _nothing

    def __reduce__(self) -> Any:
        return (_remains, ())


def _nothing(*_: Any) -> None:
    """What a copied or pickled module has in the place of a hook."""


def _remains() -> Any:
    return _nothing


def _clipped(function: Any, kwargs: dict[str, Any]) -> str | None:
    """`nn.ReLU6` calls `hardtanh(x, 0, 6)`, of which a function mode sees the bounds by keyword."""
    return "relu6" if function is F.hardtanh and kwargs.get("min_val") == 0 else None


def _unbatched_rank(name: str) -> int | None:
    """The rank of an input without a batch, which convolutions take too."""
    return next((rank for rank in (2, 3, 4) if name.endswith(f"{rank - 1}d")), None)


def _in_backward() -> bool:
    return bool(torch._C._current_graph_task_id() != -1)


def _is_wrapped(tensor: Tensor) -> bool:
    """Does a transform of torch.func hold it, so that it cannot be counted outside?"""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))
