"""Recording one concrete forward into a `torch.fx.Graph`.

Symbolic tracing asks a model to run on proxies, and many refuse. Here the model runs as it is: a
`TorchFunctionMode` sees every call of torch, and a wrapped `nn.Module.__call__` sees every module, so
whatever runs can be recorded. torch's own layers become `call_module` nodes, all other modules are
entered.
"""

from __future__ import annotations

import operator
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, MethodType
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from normdoctor.tracing import frames, meta
from normdoctor.tracing.carrier import Stand
from normdoctor.tracing.state import Inventory, join

#: Calls that ask a tensor for its values: nothing without data can answer them.
VALUE_CALLS = frozenset(
    (
        "item tolist numpy __bool__ __int__ __float__ __index__ __len__ nonzero equal unique "
        "masked_select is_nonzero __contains__ bincount allclose unique_consecutive argwhere"
    ).split()
)

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
#: torch's own modules that are worth entering: they are made of layers.
_ENTERED = (
    nn.Transformer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)

META_KEY = "normdoctor"

#: Methods of tensors by the function that they are: some (`__pow__`) carry another's name.
_METHODS = {
    method: name
    for name in sorted(dir(torch.Tensor), reverse=True)
    if callable(method := getattr(torch.Tensor, name)) and not isinstance(method, type)
}


@dataclass(slots=True)
class Call:
    """What is noted about a node besides torch.fx's own: kept in `node.meta["normdoctor"]`.

    `code` and `offset` are the instruction of the user's call; `mutates` is the node whose memory it
    overwrote; `view_of` the node with which its result shares memory.
    """

    scope: str
    count: int
    code: CodeType | None
    offset: int
    result: Any
    module: nn.Module | None = None
    mutates: fx.Node | None = None
    view_of: fx.Node | None = None


@dataclass(slots=True)
class _Known:
    """A tensor that the recording has seen, and the node (and place in its result) that made it."""

    tensor: torch.Tensor
    node: fx.Node
    path: tuple[Any, ...] = ()


@dataclass(slots=True)
class _Scope:
    path: str
    count: int
    stack: dict[str, tuple[str, Any]] = field(default_factory=dict)


class Recorder(TorchFunctionMode):
    """Builds the graph while the model runs. One use each: make, `active()`, run, read `graph`."""

    def __init__(self, parts: Inventory, stand: Stand, device: torch.device) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.parts = parts
        self.root: dict[str, Any] = {}
        self.calls: dict[str, int] = {}
        self.created: dict[str, nn.Module] = {}
        self.value_wanted: str | None = None
        self.unknown = 0
        self._device = device
        self._meta = stand.carrier == "meta"
        self._paths = parts.path_of()
        self._known: dict[int, _Known] = {}
        self._names = {id(stand(entry.tensor)): entry.name for entry in parts.tensors.values()}
        self._originals = {entry.name: entry.tensor for entry in parts.tensors.values()}
        self._scopes = [_Scope("", 0)]
        self._leaves: dict[type, bool] = {}
        self._methods: dict[Any, tuple[str, Any]] = {}
        self._constants = 0
        self._thread = threading.get_ident()
        self._muted = False

    # -- inputs and outputs ---------------------------------------------------------------------

    def placeholder(self, name: str, tensor: torch.Tensor) -> None:
        """Declare an input tensor."""
        node = self.graph.placeholder(name)
        node.meta["val"] = tensor
        node.meta[META_KEY] = Call("", 0, None, 0, tensor)
        self._known[id(tensor)] = _Known(tensor, node)

    def output(self, tensors: list[torch.Tensor]) -> None:
        """Declare what the model returned."""
        node = self.graph.output(tuple(self._node_of(tensor) for tensor in tensors))
        node.meta[META_KEY] = Call("", 0, None, 0, tuple(tensors))

    # -- calls of torch ------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one call of torch, and note it unless it deals with no tensor."""
        kwargs = kwargs or {}
        if self._muted or threading.get_ident() != self._thread:
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
        return self._record(op, target, args, kwargs, result, first if changed else None, code, offset)

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = getattr(func, "__name__", "")
        if self._meta and name in meta.FACTORIES:
            made = meta.constant(name, func, args, kwargs)
            if made is not None:
                return made
        try:
            return func(*args, **kwargs)
        except (RuntimeError, NotImplementedError, ValueError, TypeError):
            if name in VALUE_CALLS:
                self.value_wanted = name
                raise
            if not self._meta or not any(meta.on_meta(one) for one in meta.tensors((args, kwargs))):
                raise
            return meta.retry(name, func, args, kwargs)

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
        self.root.setdefault(path, module)
        self._muted = True
        try:
            with torch._C.DisableTorchFunction():
                version = _version(first)
                try:
                    result = original(module, *args, **kwargs)
                except (RuntimeError, NotImplementedError):
                    if not self._meta or not meta.mixed(args, kwargs, module):
                        raise
                    result = original(module, *meta.moved(args), **meta.moved(kwargs))
                changed = first if version != _version(first) else None
                return self._record("call_module", path, args, kwargs, result, changed, code, offset, module)
        finally:
            self._muted = False

    def _enter(self, original: Any, module: nn.Module, path: str, count: int, args: Any, kwargs: Any) -> Any:
        stack = {**self._scopes[-1].stack, path: (path, type(module))}
        self._scopes.append(_Scope(path, count, stack))
        try:
            return original(module, *args, **kwargs)
        finally:
            self._scopes.pop()

    def call_autograd(self, original: Any, args: Any, kwargs: Any) -> Any:
        """Run a custom autograd function as one opaque call."""
        code, offset = frames.caller(sys._getframe(2))
        self._muted = True
        try:
            with torch._C.DisableTorchFunction():
                result = original(*args, **kwargs)
                return self._record("call_function", original, args, kwargs, result, None, code, offset)
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
                self._names.setdefault(id(tensor), join(path, name))
                self._originals.setdefault(join(path, name), tensor)
            for name, child in module.named_modules():
                self._paths.setdefault(id(child), join(path, name))
        return path

    def _is_leaf(self, kind: type[nn.Module]) -> bool:
        known = self._leaves.get(kind)
        if known is None:
            known = self._leaves[kind] = is_leaf_type(kind)
        return known

    # -- noting --------------------------------------------------------------------------------

    def _record(
        self,
        op: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        changed: torch.Tensor | None,
        code: CodeType | None,
        offset: int,
        module: nn.Module | None = None,
    ) -> Any:
        node = self.graph.create_node(op, target, self._argument(args), self._argument(kwargs))
        scope = self._scopes[-1]
        call = Call(scope.path, scope.count, code, offset, result, module)
        node.meta[META_KEY] = call
        node.meta["nn_module_stack"] = scope.stack
        if changed is not None:
            call.mutates = self._root_of(changed)
        if isinstance(result, torch.Tensor):
            # The call returned its own argument: a new object for the same memory tells the two
            # apart, so that a later read of the argument is seen for what it is.
            if id(result) in self._known:
                call.result = result = torch.ops.aten.alias.default(result)
            node.meta["val"] = result
            self._known[id(result)] = _Known(result, node)
            if (base := result._base) is not None and id(base) in self._known:
                call.view_of = self._known[id(base)].node
        else:
            self._know_all(result, node, ())
        return result

    def _know_all(self, result: Any, node: fx.Node, path: tuple[Any, ...]) -> None:
        if isinstance(result, torch.Tensor):
            self._known[id(result)] = _Known(result, node, path)
        elif isinstance(result, list | tuple):
            for index, item in enumerate(result):
                self._know_all(item, node, (*path, index))
        elif isinstance(result, dict):
            for key, item in result.items():
                self._know_all(item, node, (*path, key))

    def _root_of(self, tensor: torch.Tensor) -> fx.Node:
        base = tensor._base
        return self._node_of(base if base is not None and id(base) in self._known else tensor)

    def _argument(self, value: Any) -> Any:
        """An argument as torch.fx holds it: tensors become nodes, what has no literal a constant."""
        if isinstance(value, torch.Tensor):
            return self._node_of(value)
        if value is None or isinstance(value, bool | int | float | str):
            return value if type(value) in _LITERALS else self._literal(value)
        if isinstance(value, dict):
            return {key: self._argument(item) for key, item in value.items()}
        if isinstance(value, torch.Size):
            return tuple(value)
        if type(value) is list:
            return [self._argument(item) for item in value]
        if isinstance(value, tuple):
            return tuple([self._argument(item) for item in value])
        if isinstance(value, slice):
            return slice(*(self._argument(item) for item in (value.start, value.stop, value.step)))
        if isinstance(value, torch.device):
            return self._device if self._meta and value.type == "meta" else value
        if isinstance(value, torch.dtype | torch.memory_format | torch.layout | complex | type(...)):
            return value
        return self._constant(value)

    def _literal(self, value: Any) -> Any:
        for kind in (bool, int, float, str):
            if isinstance(value, kind):
                return kind(value)
        return None

    def _node_of(self, tensor: torch.Tensor) -> fx.Node:
        known = self._known.get(id(tensor))
        if known is None:
            return self._found(tensor)
        for key in known.path:
            parent = known.node
            result = parent.meta[META_KEY].result[key]
            node = self.graph.call_function(operator.getitem, (parent, key))
            made = parent.meta[META_KEY]
            node.meta[META_KEY] = Call(made.scope, made.count, made.code, made.offset, result)
            node.meta["nn_module_stack"] = parent.meta.get("nn_module_stack", {})
            node.meta["val"] = result
            known.node = node
        if known.path and tensor._base is not None and id(tensor._base) in self._known:
            known.node.meta[META_KEY].view_of = self._known[id(tensor._base)].node
        known.path = ()
        return known.node

    def _found(self, tensor: torch.Tensor) -> fx.Node:
        """A tensor that no recorded call made: one of the model's, or a constant."""
        name = self._names.get(id(tensor))
        if name is None:
            return self._constant(tensor)
        node = self.graph.create_node("get_attr", name)
        self.root[name] = self._originals[name]
        node.meta["val"] = tensor
        node.meta[META_KEY] = Call(self._scopes[-1].path, 0, None, 0, tensor)
        self._known[id(tensor)] = _Known(tensor, node)
        return node

    def _constant(self, value: Any) -> fx.Node:
        name = f"_constant_{self._constants}"
        self._constants += 1
        self.root[name] = value
        node = self.graph.create_node("get_attr", name)
        node.meta[META_KEY] = Call(self._scopes[-1].path, 0, None, 0, value)
        if isinstance(value, torch.Tensor):
            if value.device.type == "meta":
                self.unknown += 1
            node.meta["val"] = value
            self._known[id(value)] = _Known(value, node)
        return node

    @contextmanager
    def active(self) -> Iterator[None]:
        """Record what happens inside the context, in this thread."""
        call = nn.Module.__call__
        apply = vars(torch.autograd.Function)["apply"]

        def recorded_call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if self._muted or threading.get_ident() != self._thread:
                return call(module, *args, **kwargs)
            return self.call_module(call, module, args, kwargs)

        def recorded_apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
            bound = MethodType(apply.__func__, cls)
            # torch's own (checkpointing) are entered: they run the user's modules.
            if self._muted or threading.get_ident() != self._thread or cls.__module__.startswith("torch."):
                return bound(*args, **kwargs)
            return self.call_autograd(_named_after(cls, bound), args, kwargs)

        nn.Module.__call__ = recorded_call  # type: ignore[method-assign]
        torch.autograd.Function.apply = classmethod(recorded_apply)  # type: ignore[assignment, method-assign]
        try:
            with self:
                yield
        finally:
            nn.Module.__call__ = call  # type: ignore[method-assign]
            torch.autograd.Function.apply = apply  # type: ignore[method-assign]


def _named_after(cls: type, bound: Any) -> Any:
    """A function that torch.fx can print: an `apply` of torch.autograd has no name of its own."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return bound(*args, **kwargs)

    call.__name__, call.__qualname__, call.__module__ = cls.__name__, cls.__qualname__, cls.__module__
    return call


_LITERALS = (type(None), bool, int, float, str)


def is_leaf_type(kind: type[nn.Module]) -> bool:
    """Does torch's own forward run for this class? Then its inside is not of interest."""
    if issubclass(kind, _CONTAINERS) or issubclass(kind, _ENTERED):
        return False
    home = getattr(kind.forward, "__module__", "") or ""
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
