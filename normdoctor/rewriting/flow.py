"""The recorded forward of a model as rewrites need it: which call is which layer, and who reads it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from normdoctor.errors import TraceError
from normdoctor.facts import Facts, Node
from normdoctor.graph import Graph, Norm
from normdoctor.loading.example import ExampleInputs
from normdoctor.loading.state import inventory
from normdoctor.rewriting.conversions.base import Refused
from normdoctor.rewriting.families import family_of
from normdoctor.tracing.extract import extract, module_facts, nodes_of
from normdoctor.tracing.handwritten import with_handwritten
from normdoctor.tracing.inference import infer
from normdoctor.tracing.recording import Recording, record

#: Calls that hand on values in their places; casts among them may round, which is not their business.
_AS_IS = frozenset(
    "identity contiguous clone to type float half bfloat16 double detach alias data requires_grad cpu cuda "
    "type_as requires_grad_ dropout dropout1d dropout2d dropout3d alpha_dropout".split()
)


@dataclass(frozen=True)
class Owner:
    """The layer whose weight a linear map uses, and how the call came about.

    `direct` says that torch's own forward runs. `kind` is torch.nn.functional's word for the map.
    """

    path: str
    module: nn.Module
    kind: str
    weight: str
    direct: bool


class Flow:
    """One recorded forward in eval mode.

    `gone` collects norms that a rewrite took out: for later rewrites they hand values on unchanged.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        nodes = nodes_of(recording, {})
        modules = module_facts(recording.parts, {}, recording.calls, recording.created, {})
        self.facts = Facts(target="", nodes=nodes, modules=modules, training=recording.training)
        self.graph = Graph(self.facts)
        self.nodes = nodes
        self.fx: dict[str, fx.Node] = {node.name: node for node in recording.graph.nodes}
        self.paths = recording.parts.path_of()
        self.gone: set[int] = set()
        #: Modules that were a norm layer when the model was recorded, by id.
        self.layers = {
            id(entry.module) for entry in recording.parts.modules.values() if family_of(entry.module)
        }
        self._of_scope: dict[str, list[Node]] = {}
        for node in nodes:
            self._of_scope.setdefault(node.module if node.module is not None else node.scope, []).append(node)

    @classmethod
    def of(cls, model: nn.Module, example: ExampleInputs | None, *, training: bool = False) -> Flow:
        """Record a model; raises `TraceError` where it does not run."""
        if example is None:
            return cls(infer(model, training=training))
        return cls(record(model, example, parts=inventory(model), training=training))

    @cached_property
    def norms(self) -> list[Norm]:
        """Every norm of an activation, those written by hand included."""
        facts = with_handwritten(extract("", self.recording, {}), self.recording)
        return Graph(facts).norms

    def path(self, module: nn.Module) -> str:
        """The path by which the recording knows a module."""
        found = self.paths.get(id(module))
        if found is None:
            raise Refused("the recorded forward does not know it")
        return found

    def calls(self, module: nn.Module) -> list[Node]:
        """The calls that are this norm: of the leaf, or in its forward the one that reads the input."""
        found = self._of_scope.get(self.path(module), [])
        norms = [node for node in found if node.module is not None or node.role == "norm"]
        if norms:
            return norms
        entries: dict[int, Node] = {}
        inner = {node.index for node in found}
        for node in found:
            if any(source not in inner for source in node.inputs):
                if node.call in entries:
                    raise Refused("its forward reads its input more than once")
                entries[node.call] = node
        return list(entries.values())

    def exit(self, module: nn.Module, call: Node) -> Node:
        """What holds the result of a call of a norm."""
        if call.module is not None or call.role == "norm":
            return call
        return [one for one in self._of_scope[self.path(module)] if one.call == call.call][-1]

    def take_out(self, module: nn.Module) -> None:
        """From now on the calls of a norm hand on what they get."""
        calls = self.calls(module)
        for call in calls:
            plain = call.module is not None or call.role == "norm"
            self.gone |= {call.index} if plain else {one.index for one in self._of_scope[self.path(module)]}

    def shapes(self, module: nn.Module) -> tuple[tuple[int, ...], ...]:
        """The shape of the first argument of each execution."""
        path = self.paths.get(id(module))
        seen: dict[int, tuple[int, ...]] = {}
        for node in self._of_scope.get(path, []) if path is not None else []:
            tensor = self.graph.input_tensor(node)
            if tensor is not None:
                key = node.index if node.module is not None else node.call
                seen.setdefault(key, tensor.shape)
        return tuple(seen.values())

    def is_silent(self, node: Node) -> bool:
        """Does it hand on its values unchanged in eval mode?"""
        if node.index in self.gone or node.role == "dropout":
            return True
        return self.graph.transparent(node)

    def producer(self, node: Node) -> tuple[Node, list[Node]]:
        """Who computed the input of a call, and the silent calls between, in order.

        Raises `Refused` where somebody else reads what is in between.
        """
        chain: list[Node] = []
        current = node
        while current.inputs:
            before = self.nodes[current.inputs[0]]
            others = [one for one in self.graph.users(before) if one.index != current.index]
            if others:
                raise Refused(f"its input is read by {told(others[0])} too")
            if not self.is_silent(before):
                return before, chain[::-1]
            chain.append(before)
            current = before
        raise Refused("its input comes from outside the model")

    def consumers(self, node: Node) -> list[tuple[Node, list[Node]]]:
        """Who reads the output of a call, each with the silent calls between."""
        found = []
        pending: list[tuple[Node, list[Node]]] = [(node, [])]
        while pending:
            current, chain = pending.pop()
            for user in self.graph.users(current):
                if user.role == "output":
                    raise Refused("its output is an output of the model")
                if self.is_silent(user):
                    pending.append((user, [*chain, user]))
                else:
                    found.append((user, chain))
        if not found:
            raise Refused("nobody reads its output")
        return found

    def owner(self, node: Node) -> Owner:
        """The layer whose weight a convolution or linear map uses; raises `Refused` for anything else."""
        if node.role == "input":
            raise Refused("its input comes from outside the model")
        if node.role != "linear":
            raise Refused(f"it is next to {told(node)}, which is no convolution or linear layer")
        if node.module is not None:
            entry = self.recording.parts.modules.get(node.module)
            if entry is None:
                raise Refused(f"`{node.module}` is made inside the forward")
            return Owner(node.module, entry.module, node.kind, "weight", True)
        names = [name for name in node.parameters if name.rpartition(".")[0] == node.scope]
        entry = self.recording.parts.modules.get(node.scope)
        given = [str(one.target) for one in self.fx[node.name].all_input_nodes if one.op == "get_attr"]
        weights = [name for name in names if name in given and not name.endswith("bias")]
        if entry is None or len(weights) != 1:
            raise Refused(f"{told(node)} computes its weight from others")
        return Owner(node.scope, entry.module, node.kind, weights[0].rpartition(".")[2], False)

    def calls_of(self, owner: Owner) -> list[Node]:
        """Every call that uses the weight of a layer."""
        if owner.direct:
            return self.graph.calls_of(owner.path)
        name = f"{owner.path}.{owner.weight}" if owner.path else owner.weight
        return self.graph.functional_readers.get(name, [])

    def spread(self, start: Node, chain: Iterable[Node], axis: int) -> Tensor:
        """Which channel of `start` (along `axis`) stands where at the end of a chain of silent calls."""
        shape = start.shape
        view = [1] * len(shape)
        view[axis] = shape[axis]
        current = torch.arange(shape[axis], device="cpu").view(view).expand(shape)
        name = start.name
        for node in chain:
            current = self.moved(node, name, current)
            name = node.name
        return current

    def moved(self, node: Node, name: str, value: Tensor) -> Tensor:
        """What a call that moves values makes of `value` in the place of what node `name` made."""
        made = self.fx[node.name]
        if node.kind in _AS_IS or node.index in self.gone or node.role == "dropout":
            return value

        def put(one: Any) -> Any:
            if isinstance(one, fx.Node):
                if one.name != name:
                    raise Refused(f"{told(node)} stands between")
                return value
            if isinstance(one, list | tuple):
                return type(one)(put(item) for item in one)
            return one

        args, kwargs = [put(one) for one in made.args], {key: put(one) for key, one in made.kwargs.items()}
        try:
            if made.op == "call_module":
                module: Any = self.recording.root[str(made.target)]
                result = type(module).forward(module, *args, **kwargs)
            elif made.op == "call_method":
                result = getattr(args[0], str(made.target))(*args[1:], **kwargs)
            else:
                assert callable(made.target)
                result = made.target(*args, **kwargs)
        except Exception as error:
            raise Refused(f"{told(node)} stands between") from error
        if not isinstance(result, Tensor):
            raise Refused(f"{told(node)} stands between")
        return result


def recorded(model: nn.Module, example: ExampleInputs | None) -> tuple[Flow | None, str]:
    """The flow of a model, or why there is none."""
    try:
        return Flow.of(model, example), ""
    except TraceError as error:
        return None, error.message


def told(node: Node) -> str:
    """A call in the words of a message."""
    where = node.module if node.module is not None else f"{node.kind} in {node.scope or 'the model'}"
    if node.role == "output":
        return "the caller of the model"
    return f"`{where}` ({node.kind})" if node.module is not None else f"`{where}`"
