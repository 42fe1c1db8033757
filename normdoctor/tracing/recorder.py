"""Recording one concrete forward into a `torch.fx.Graph`.

Symbolic tracing asks a model to run on proxies, and many refuse. Here the model runs as it is: a
`TorchFunctionMode` sees every call of torch, and a wrapped `nn.Module.__call__` sees every module, so
whatever runs can be recorded. torch's own layers become `call_module` nodes, all other modules are
entered.
"""

from __future__ import annotations

import copy
import operator
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from normdoctor.loading import frames
from normdoctor.loading.state import Inventory, join
from normdoctor.tracing import meta
from normdoctor.tracing.carrier import Stand
from normdoctor.tracing.tape import Call, Scope, Tape

#: Calls that ask a tensor for its values: nothing without data can answer them.
VALUE_CALLS = frozenset(
    (
        "item tolist numpy __bool__ __int__ __float__ __index__ __len__ nonzero equal unique "
        "masked_select is_nonzero __contains__ bincount allclose unique_consecutive argwhere"
    ).split()
)

#: The scope of what a loss does with the model's output, and the path of its module.
LOSS_SCOPE = "<loss>"

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
#: torch's own modules that are worth entering: they are made of layers.
_ENTERED = (
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)

#: Methods of tensors by the function that they are: some (`__pow__`) carry another's name.
_METHODS = {
    method: name
    for name in sorted(dir(torch.Tensor), reverse=True)
    if callable(method := getattr(torch.Tensor, name)) and not isinstance(method, type)
}


class Recorder(TorchFunctionMode):
    """Fills a tape while the model runs. One use each: make, `active()`, run, read `tape`."""

    def __init__(self, parts: Inventory, stand: Stand, device: torch.device) -> None:
        super().__init__()
        self.meta = stand.carrier == "meta"
        self.tape = Tape(device if self.meta else None)
        for entry in parts.tensors.values():
            self.tape.own(entry.name, entry.tensor, stand(entry.tensor))
        self.calls: dict[str, int] = {}
        self.created: dict[str, nn.Module] = {}
        self.value_wanted: str | None = None
        self._paths = parts.path_of()
        self._scopes = [Scope("", 0)]
        self._leaves: dict[type, bool] = {}
        self._copies: dict[int, Any] = {}
        self._methods: dict[Any, tuple[str, Any]] = {}
        self._thread = threading.get_ident()
        self._muted = False

    # -- calls of torch ------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one call of torch, and note it unless it deals with no tensor."""
        kwargs = kwargs or {}
        if self._elsewhere():
            return func(*args, **kwargs)
        first = args[0] if args and isinstance(args[0], torch.Tensor) else None
        version = _version(first)
        result = self._run(func, args, kwargs)
        op, target = self._methods.get(func) or self._classify(func)
        if op == "ignore":
            return result
        out = kwargs.get("out")
        changed = version is not None and version != _version(first)
        if not changed and out is None and not _has_tensor(result):
            return result
        code, offset = frames.caller(sys._getframe(1))
        if target is getattr or target is setattr:
            args = (args[0], func.__self__.__name__, *args[1:])
        scope = self._scopes[-1]
        call = Call(scope.path, scope.count, code, offset, result)
        return self.tape.record(op, target, (args, kwargs), call, scope, first if changed else None)

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = getattr(func, "__name__", "")
        if self.meta and name in meta.FACTORIES:
            made = meta.constant(name, func, args, kwargs)
            if made is not None:
                return made
        try:
            return func(*args, **kwargs)
        except (RuntimeError, NotImplementedError, ValueError, TypeError):
            if name in VALUE_CALLS:
                self.value_wanted = name
                raise
            if not self.meta or not any(meta.on_meta(one) for one in meta.tensors((args, kwargs))):
                raise
            return self._retry(name, func, args, kwargs)

    def _retry(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return meta.retry(name, func, args, kwargs)
        except NotImplementedError:
            # `torch.where(mask)` and `x[mask]` have no shape without values, some calls no meta kernel.
            self.value_wanted = name
            raise

    def _classify(self, func: Any) -> tuple[str, Any]:
        name = getattr(func, "__name__", "")
        owner: Any = getattr(func, "__self__", None)
        if name == "__get__":
            kind = "ignore" if owner.__name__ in ("shape", "device", "dtype", "grad_fn", "is_leaf") else ""
            found: tuple[str, Any] = (kind or "call_function", getattr)
        elif name == "__set__":
            found = ("call_function", setattr)
        elif name == "__setitem__":
            found = ("call_function", operator.setitem)
        elif name == "__getitem__":
            found = ("call_function", operator.getitem)
        elif name in VALUE_CALLS - {"nonzero", "unique", "masked_select", "bincount", "argwhere"}:
            found = ("ignore", func)
        elif (method := _METHODS.get(func)) is not None:
            found = ("call_method", method)
        else:
            found = ("call_function", func)
        self._methods[func] = found
        return found

    # -- calls of modules ----------------------------------------------------------------------

    def call_module(self, original: Any, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Run one call of a module: note it if it is a leaf, enter it otherwise."""
        path = self._path(module)
        count = self.calls.get(path, 0)
        self.calls[path] = count + 1
        if not self._is_leaf(type(module)):
            return self._enter(original, module, path, count, args, kwargs)
        first = args[0] if args and isinstance(args[0], torch.Tensor) else None
        code, offset = frames.caller(sys._getframe(2))
        self.tape.root.setdefault(path, module)
        if isinstance(module, torch.jit.ScriptModule):
            original = self._scripted
        self._muted = True
        try:
            with torch._C.DisableTorchFunction():
                version = _version(first)
                try:
                    result = original(module, *args, **kwargs)
                except (RuntimeError, NotImplementedError):
                    if not self.meta or not meta.mixed(args, kwargs, module):
                        raise
                    result = original(module, *meta.moved(args), **meta.moved(kwargs))
                changed = first if version != _version(first) else None
                scope = self._scopes[-1]
                call = Call(scope.path, scope.count, code, offset, result, module)
                return self.tape.record("call_module", path, (args, kwargs), call, scope, changed)
        finally:
            self._muted = False

    def _scripted(self, module: torch.jit.ScriptModule, *args: Any, **kwargs: Any) -> Any:
        """Run a copy of a scripted part: its tensors live outside Python, where nothing can stand in."""
        copied = self._copies.get(id(module))
        if copied is None:
            copied = self._copies[id(module)] = copy.deepcopy(module)
        if not self.meta:
            return copied(*args, **kwargs)
        return meta.moved(copied(*meta.filled(args), **meta.filled(kwargs)))

    def _enter(self, original: Any, module: nn.Module, path: str, count: int, args: Any, kwargs: Any) -> Any:
        stack = {**self._scopes[-1].stack, path: (path, type(module))}
        self._scopes.append(Scope(path, count, stack))
        try:
            return original(module, *args, **kwargs)
        finally:
            self._scopes.pop()

    def call_opaque(self, original: Any, args: Any, kwargs: Any) -> Any:
        """Run a custom autograd function, or a scripted one, as one call into which nobody looks."""
        code, offset = frames.caller(sys._getframe(2))
        self._muted = True
        try:
            with torch._C.DisableTorchFunction():
                result = original(*args, **kwargs)
                scope = self._scopes[-1]
                call = Call(scope.path, scope.count, code, offset, result)
                return self.tape.record("call_function", original, (args, kwargs), call, scope)
        finally:
            self._muted = False

    def _path(self, module: nn.Module) -> str:
        path = self._paths.get(id(module))
        if path is None:  # built inside forward, or kept where no walk finds it
            path = join(self._scopes[-1].path, f"<{type(module).__name__}>")
            while path in self.created:
                path += "'"
            self.created[path] = module
            self._paths[id(module)] = path
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                self.tape.own(join(path, name), tensor, tensor)
            for name, child in module.named_modules():
                self._paths.setdefault(id(child), join(path, name))
        return path

    def lend(self, modules: tuple[nn.Module, ...]) -> list[tuple[str, nn.Module]]:
        """Make the modules of a loss known, under `LOSS_SCOPE`; returns those that were not, by path."""
        added: list[tuple[str, nn.Module]] = []
        for root in modules:
            top = LOSS_SCOPE
            while top in self.created:
                top += "'"
            for name, module in root.named_modules():
                if id(module) not in self._paths:
                    path = self._paths[id(module)] = join(top, name) if name else top
                    self.created[path] = module
                    added.append((path, module))
        return added

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Record an attempt at a loss, in a scope of its own; where it raises, nothing of it stays."""
        mark, calls = self.tape.mark(), dict(self.calls)
        self._scopes.append(Scope(LOSS_SCOPE, 0, self._scopes[-1].stack))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of labels that were made up
                yield
        except BaseException:
            self.tape.rewind(mark)
            self.calls = calls
            raise
        finally:
            self._scopes.pop()

    def _is_leaf(self, kind: type[nn.Module]) -> bool:
        known = self._leaves.get(kind)
        if known is None:
            known = self._leaves[kind] = is_leaf_type(kind)
        return known

    @contextmanager
    def active(self) -> Iterator[None]:
        """Record what happens inside the context, in this thread."""
        call = nn.Module.__call__
        apply = vars(torch.autograd.Function)["apply"]
        scripted: Any = torch.jit.ScriptFunction.__call__

        def recorded_call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if self._elsewhere():
                return call(module, *args, **kwargs)
            return self.call_module(call, module, args, kwargs)

        def recorded_apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
            bound = MethodType(apply.__func__, cls)
            # torch's own (checkpointing) are entered: they run the user's modules.
            if self._elsewhere() or cls.__module__.startswith("torch."):
                return bound(*args, **kwargs)
            return self.call_opaque(_function(cls.__name__, cls.__module__, bound), args, kwargs)

        def recorded_script(function: Any, *args: Any, **kwargs: Any) -> Any:
            if self._elsewhere():
                return scripted(function, *args, **kwargs)
            name = str(function.name)
            return self.call_opaque(_function(name, __name__, scripted, function), args, kwargs)

        with ExitStack() as stack:
            for owner, name, value in (
                (nn.Module, "__call__", recorded_call),
                (torch.autograd.Function, "apply", classmethod(recorded_apply)),
                (torch.jit.ScriptFunction, "__call__", recorded_script),
                *self._autocast_calls(),
            ):
                stack.callback(setattr, owner, name, vars(owner)[name])
                setattr(owner, name, value)
            if self.meta:
                stack.enter_context(meta.light_layers())
            # Whoever runs with warnings as errors has them where the model trains, not in an examination.
            stack.enter_context(warnings.catch_warnings())
            warnings.filters[:] = [each for each in warnings.filters if each[0] != "error"]  # type: ignore[index]
            stack.enter_context(self)
            yield

    def _elsewhere(self) -> bool:
        """Inside a leaf, or in a thread that is not recorded?"""
        return self._muted or threading.get_ident() != self._thread

    def _autocast_calls(self) -> list[tuple[type, str, Any]]:
        """Note where autocast begins and ends, which changes what the calls between compute."""
        kind = torch.amp.autocast_mode.autocast
        enter, leave = kind.__enter__, kind.__exit__
        open_regions: list[Any] = []

        def recorded_enter(context: Any) -> Any:
            if not self._elsewhere():
                open_regions.append(self.tape.enter_autocast(context))
            return enter(context)  # type: ignore[no-untyped-call]

        def recorded_exit(context: Any, *error: Any) -> Any:
            if not self._elsewhere() and open_regions:
                self.tape.leave_autocast(open_regions.pop())
            return leave(context, *error)

        return [(kind, "__enter__", recorded_enter), (kind, "__exit__", recorded_exit)]


def _function(name: str, module: str, bound: Any, *first: Any) -> Any:
    """A plain function that torch.fx can name and print, for callables that have no name of their own."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return bound(*first, *args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__module__ = module
    return call


def is_leaf_type(kind: type[nn.Module]) -> bool:
    """Does torch's own forward run for this class? Then its inside is not of interest."""
    if issubclass(kind, torch.jit.ScriptModule):
        return True
    if issubclass(kind, _CONTAINERS) or issubclass(kind, _ENTERED):
        return False
    home = getattr(getattr(kind, "forward", None), "__module__", "") or ""
    return home.startswith(("torch.nn.", "torch.ao.nn."))


def _version(tensor: torch.Tensor | None) -> int | None:
    if tensor is None:
        return None
    try:
        return tensor._version
    except RuntimeError:  # inference tensors keep no version
        return None


def _has_tensor(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return True
    if isinstance(value, list | tuple):
        return any(_has_tensor(item) for item in value)
    return isinstance(value, dict) and any(_has_tensor(item) for item in value.values())
