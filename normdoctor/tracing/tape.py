"""The tape: a `torch.fx.Graph` that grows by one node a call, and which tensor came from which node."""

from __future__ import annotations

import builtins
import operator
from dataclasses import dataclass, field, replace
from types import CodeType
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.rnn import PackedSequence

META_KEY = "normdoctor"

_LITERALS = (type(None), bool, int, float, str)
_PRINTABLE = torch.dtype | torch.memory_format | torch.layout | complex | type(...)


@dataclass(slots=True)
class Call:
    """What is noted about a node besides torch.fx's own: kept in `node.meta["normdoctor"]`.

    `scope` is the path of the module in whose forward the call stands, `count` which execution of it
    this is; `code` and `offset` are the instruction of the user's call; `mutates` is the node whose
    memory it overwrote, `view_of` the node with which its result shares memory.
    """

    scope: str
    count: int
    code: CodeType | None = None
    offset: int = 0
    result: Any = None
    module: nn.Module | None = None
    mutates: fx.Node | None = None
    view_of: fx.Node | None = None


@dataclass(slots=True)
class Scope:
    """A module whose forward runs, and those around it, as torch.fx's `nn_module_stack` has them."""

    path: str
    count: int
    stack: dict[str, tuple[str, Any]] = field(default_factory=dict)


@dataclass(slots=True)
class _Known:
    """A tensor on the tape, and the node (and the place in its result) that made it."""

    tensor: torch.Tensor
    node: fx.Node
    path: tuple[Any, ...] = ()


@dataclass(slots=True)
class _Mark:
    """Where a tape stood."""

    length: int
    known: dict[int, _Known]
    unseen: int
    batched: int


class Tape:
    """Notes calls. `names` tells the model's own tensors by id; `device` replaces meta in arguments.

    `root` maps the names that the graph refers to onto objects; `unseen` counts tensors without data
    whose making was not seen, `batched` calls inside vmap (which a graph cannot repeat one by one).
    """

    def __init__(self, device: torch.device | None) -> None:
        self.graph = fx.Graph()
        self.root: dict[str, Any] = {}
        self.names: dict[int, str] = {}
        self.originals: dict[str, torch.Tensor] = {}
        self.unseen = 0
        self.batched = 0
        self._device = device
        self._known: dict[int, _Known] = {}
        self._constants = 0

    def own(self, name: str, original: torch.Tensor, stand: torch.Tensor) -> None:
        """Tell the tape a tensor of the model's, and what stands for it in this forward."""
        self.names.setdefault(id(stand), name)
        self.originals.setdefault(name, original)

    def placeholder(self, name: str, tensor: torch.Tensor) -> None:
        """Declare an input tensor."""
        # torch.fx renames what hides a builtin (`input` to `input_1`), and another may have that name.
        name = f"{name}_tensor" if hasattr(builtins, name) else name
        self._note(self.graph.placeholder(name), Call("", 0, result=tensor), {})
        self._known[id(tensor)] = _Known(tensor, next(reversed(self.graph.nodes)))

    def output(self, tensors: list[torch.Tensor]) -> None:
        """Declare what the model returned."""
        node = self.graph.output(tuple(self.node_of(tensor) for tensor in tensors))
        self._note(node, Call("", 0, result=tuple(tensors)), {})

    def record(
        self,
        op: str,
        target: Any,
        arguments: tuple[tuple[Any, ...], dict[str, Any]],
        call: Call,
        scope: Scope,
        changed: torch.Tensor | None = None,
    ) -> Any:
        """Note one call; returns its result, or a new object for the same memory.

        A call that returned its own argument gets the new object, so that a later read of the argument
        is told from a read of the result.
        """
        args, kwargs = arguments
        node = self.graph.create_node(op, target, self._argument(args), self._argument(kwargs))
        if changed is not None:
            base = changed._base
            call.mutates = self.node_of(base if base is not None and id(base) in self._known else changed)
        if isinstance(call.result, torch.Tensor):
            if id(call.result) in self._known:
                call.result = torch.ops.aten.alias.default(call.result)
            self._known[id(call.result)] = _Known(call.result, node)
            call.view_of = self._base_of(call.result)
            if _is_wrapped(call.result):  # inside vmap: what comes out of it is the inner tensor
                self.batched += 1
                inner = torch._C._functorch.get_unwrapped(call.result)
                self._known[id(inner)] = _Known(inner, node)
        else:
            self._know_all(call.result, node, ())
        self._note(node, call, scope.stack)
        return call.result

    def mark(self) -> _Mark:
        """Where the tape stands, for `rewind`."""
        known = {key: replace(one) for key, one in self._known.items()}
        return _Mark(len(self.graph.nodes), known, self.unseen, self.batched)

    def rewind(self, mark: _Mark) -> None:
        """Forget every call since `mark`."""
        self._known, self.unseen, self.batched = mark.known, mark.unseen, mark.batched
        for node in list(self.graph.nodes)[: mark.length - 1 : -1]:
            self.graph.erase_node(node)

    def enter_autocast(self, context: Any) -> fx.Node:
        """Note the beginning of an autocast region, as torch.fx does."""
        given = (context.device, context.fast_dtype, context._enabled, context._cache_enabled)
        node = self.graph.call_function(torch.amp.autocast_mode._enter_autocast, given)
        self._note(node, Call("", 0), {})
        return node

    def leave_autocast(self, region: fx.Node) -> None:
        """Note the end of an autocast region."""
        node = self.graph.call_function(torch.amp.autocast_mode._exit_autocast, (region,))
        self._note(node, Call("", 0), {})

    def node_of(self, tensor: torch.Tensor) -> fx.Node:
        """The node that made a tensor; elements of tuples get one when they are first read."""
        known = self._known.get(id(tensor))
        if known is None and _is_wrapped(tensor):
            return self.node_of(torch._C._functorch.get_unwrapped(tensor))
        if known is None:
            return self._found(tensor)
        for key in known.path:
            made: Call = known.node.meta[META_KEY]
            node = self.graph.call_function(operator.getitem, (known.node, key))
            call = Call(made.scope, made.count, made.code, made.offset, made.result[key])
            self._note(node, call, known.node.meta["nn_module_stack"])
            known.node = node
        if known.path:
            known.node.meta[META_KEY].view_of = self._base_of(tensor)
            known.path = ()
        return known.node

    @staticmethod
    def _note(node: fx.Node, call: Call, stack: dict[str, tuple[str, Any]]) -> None:
        node.meta[META_KEY] = call
        node.meta["nn_module_stack"] = stack
        if isinstance(call.result, torch.Tensor):
            node.meta["val"] = call.result

    def _base_of(self, tensor: torch.Tensor) -> fx.Node | None:
        base = tensor._base
        known = self._known.get(id(base)) if base is not None else None
        return known.node if known is not None else None

    def _know_all(self, result: Any, node: fx.Node, path: tuple[Any, ...]) -> None:
        if isinstance(result, torch.Tensor):
            self._known[id(result)] = _Known(result, node, path)
        elif isinstance(result, list | tuple):
            for index, item in enumerate(result):
                self._know_all(item, node, (*path, index))
        elif isinstance(result, dict):
            for key, item in result.items():
                self._know_all(item, node, (*path, key))

    def _argument(self, value: Any) -> Any:
        """An argument as torch.fx holds it: tensors become nodes, what has no literal a constant."""
        if isinstance(value, torch.Tensor):
            return self.node_of(value)
        if type(value) in _LITERALS or isinstance(value, _PRINTABLE):
            return value
        if isinstance(value, dict):
            return {key: self._argument(item) for key, item in value.items()}
        if isinstance(value, torch.Size):
            return tuple(value)
        if type(value) is list:
            return [self._argument(item) for item in value]
        if isinstance(value, PackedSequence):  # looks at its parts when it is made: made by a node
            node = self.graph.call_function(PackedSequence, tuple(self._argument(item) for item in value))
            self._note(node, Call("", 0, result=value), {})
            return node
        if isinstance(value, tuple):
            items = [self._argument(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        if isinstance(value, slice):
            return slice(*(self._argument(item) for item in (value.start, value.stop, value.step)))
        if isinstance(value, torch.device):
            return self._device if self._device is not None and value.type == "meta" else value
        for kind in (int, float, str):  # numpy's numbers, enums
            if isinstance(value, kind):
                return kind(value)
        return self._constant(value)

    def _found(self, tensor: torch.Tensor) -> fx.Node:
        """A tensor that no recorded call made: one of the model's, or a constant."""
        name = self.names.get(id(tensor))
        if name is None:
            return self._constant(tensor)
        return self._attribute(name, self.originals[name], tensor)

    def _constant(self, value: Any) -> fx.Node:
        name = f"_constant_{self._constants}"
        self._constants += 1
        if isinstance(value, torch.Tensor) and value.device.type == "meta":
            self.unseen += 1
        return self._attribute(name, value, value)

    def _attribute(self, name: str, original: Any, value: Any) -> fx.Node:
        self.root[name] = original
        node = self.graph.create_node("get_attr", name)
        self._note(node, Call("", 0, result=value), {})
        if isinstance(value, torch.Tensor):
            self._known[id(value)] = _Known(value, node)
        return node


def _is_wrapped(tensor: torch.Tensor) -> bool:
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)
