"""Walking the recorded dataflow: neighbours, chains and shapes, for rules and outputs. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from normdoctor.facts import Facts, HandwrittenNorm, Location, ModuleFact, Node, ParameterFact, TensorFact

#: Kinds that hand every value on, in another shape, type or memory, and change none.
PRESERVING = frozenset(
    "identity view reshape flatten unflatten permute transpose swapaxes movedim squeeze unsqueeze t "
    "contiguous clone to type float half bfloat16 double detach alias data select_output "
    "requires_grad view_as reshape_as requires_grad_ squeeze_ unsqueeze_ moveaxis mT T "
    "channel_shuffle pixel_shuffle pixel_unshuffle cpu cuda type_as adjoint _unsafe_view".split()
)


class Norm(NamedTuple):
    """A norm that acts on an activation: a module, a function, or code of the user's.

    `input` is the node whose output is normalized, None where it is not in the graph; `output` holds
    the result. Both are the same place in the graph only for a hand-written norm of no nodes.
    """

    kind: str
    input: Node | None
    output: Node
    handwritten: HandwrittenNorm | None = None


class Graph:
    """A view of `Facts` that answers the questions of rules. It holds no state of its own."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.nodes = facts.nodes
        self.modules: dict[str, ModuleFact] = {module.path: module for module in facts.modules}
        self.parameters: dict[str, ParameterFact] = {p.name: p for p in facts.parameters}

    @cached_property
    def _users(self) -> list[list[int]]:
        users: list[list[int]] = [[] for _ in self.nodes]
        for node in self.nodes:
            for source in dict.fromkeys(node.inputs):
                users[source].append(node.index)
        return users

    def users(self, node: Node) -> list[Node]:
        """The nodes that read what `node` returns, in execution order."""
        return [self.nodes[index] for index in self._users[node.index]]

    def inputs(self, node: Node) -> list[Node]:
        """The nodes whose tensors `node` reads, in argument order."""
        return [self.nodes[index] for index in node.inputs]

    def transparent(self, node: Node) -> bool:
        """Does it hand its values on unchanged: Identity, Dropout(p=0), a reshape, a cast?"""
        if node.kind in PRESERVING:
            return True
        return node.role == "dropout" and node.config.get("p") == 0

    def source(self, node: Node, *, alone: bool = True) -> Node | None:
        """The node that computed the first input of `node`, looking through transparent ones.

        With `alone`, every tensor on the way must have a single reader, else None: only then may a
        rule say that nobody else sees what it talks about.
        """
        current = node
        while current.inputs:
            before = self.nodes[current.inputs[0]]
            if alone and len(self._users[before.index]) > 1:
                return None
            if not self.transparent(before):
                return before
            current = before
        return None

    def readers(self, node: Node) -> list[Node]:
        """The nodes that use the values of `node`, looking through transparent ones."""
        found: dict[int, Node] = {}
        stack = [node.index]
        seen: set[int] = set()
        while stack:
            for index in self._users[stack.pop()]:
                if index in seen:
                    continue
                seen.add(index)
                reader = self.nodes[index]
                if self.transparent(reader):
                    stack.append(index)
                else:
                    found[index] = reader
        return [found[index] for index in sorted(found)]

    def reader(self, node: Node) -> Node | None:
        """The only node that uses the values of `node`, None where there are several or none."""
        readers = self.readers(node)
        return readers[0] if len(readers) == 1 else None

    def by_role(self, *roles: str) -> Iterator[Node]:
        """Nodes of these roles, in execution order."""
        return (node for node in self.nodes if node.role in roles)

    @cached_property
    def norms(self) -> list[Norm]:
        """Every norm of an activation, in execution order, whichever way it is written.

        `F.normalize` and local response norm are among them; a norm of a weight (weight
        standardization) is not, since it reads no activation.
        """
        by_hand = {index for norm in self.facts.handwritten if norm.confirmed for index in norm.nodes}
        found = [
            Norm(node.kind, self.nodes[node.inputs[0]], node)
            for node in self.by_role("norm")
            if node.inputs and node.index not in by_hand
        ]
        found += [
            Norm(norm.kind, self.nodes[norm.input], self.nodes[norm.output], norm)
            for norm in self.facts.handwritten
            if norm.confirmed and norm.kind and not norm.inverted
        ]
        return sorted(found, key=lambda norm: norm.output.index)

    @cached_property
    def _norm_of(self) -> dict[int, Norm]:
        return {norm.output.index: norm for norm in self.norms}

    def norm_at(self, node: Node) -> Norm | None:
        """The norm whose result `node` holds, None where it holds none."""
        return self._norm_of.get(node.index)

    @cached_property
    def _norms_on(self) -> dict[int, list[Norm]]:
        found: dict[int, list[Norm]] = {}
        for norm in self.norms:
            if norm.input is not None:
                found.setdefault(self.through(norm.input).index, []).append(norm)
        return found

    def norms_of(self, node: Node) -> list[Norm]:
        """The norms that act on what `node` returns, looking through transparent nodes."""
        return self._norms_on.get(self.through(node).index, [])

    def through(self, node: Node) -> Node:
        """The node that computed the values of `node`: itself, or what stands before transparent ones."""
        while self.transparent(node) and node.inputs:
            node = self.nodes[node.inputs[0]]
        return node

    def calls_of(self, path: str) -> list[Node]:
        """Every call of the leaf module at `path`, in execution order."""
        return self._calls.get(path, [])

    @cached_property
    def _calls(self) -> dict[str, list[Node]]:
        calls: dict[str, list[Node]] = {}
        for node in self.nodes:
            if node.module is not None:
                calls.setdefault(node.module, []).append(node)
        return calls

    @cached_property
    def functional_readers(self) -> dict[str, list[Node]]:
        """Parameter name to the function nodes that read it (`F.linear(x, self.weight)`)."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            if node.module is None:
                for name in node.parameters:
                    readers.setdefault(name, []).append(node)
        return readers

    @cached_property
    def outputs(self) -> list[Node]:
        """The nodes whose tensors the model returns, in the order of the output."""
        return [source for node in self.nodes if node.op == "output" for source in self.inputs(node)]

    def input_tensor(self, node: Node) -> TensorFact | None:
        """Shape and dtype of the first tensor that `node` reads."""
        if not node.inputs:
            return None
        outputs = self.nodes[node.inputs[0]].outputs
        return outputs[0] if outputs else None

    def module_of(self, node: Node) -> ModuleFact | None:
        """The leaf module that `node` calls, or None for a function."""
        return self.modules.get(node.module) if node.module is not None else None

    def where(self, node: Node) -> Location | None:
        """The best address of a node: where its layer was built, otherwise the call.

        A function in the forward of a class that derives from one of torch's layers (F.batch_norm in
        a subclass of BatchNorm2d) belongs to that layer.
        """
        module = self.module_of(node)
        if module is None and (around := self.modules.get(node.scope)) is not None and around.base:
            module = around
        return module.origin if module and module.origin else node.location

    def label(self, node: Node) -> str:
        """The module path that stands for a node: its own, or that of the module that calls it."""
        return node.module if node.module is not None else node.scope

    def setting(self, node: Node, name: str) -> object:
        """An argument of the node or of the module that it calls (`eps`, `p`, `bias`)."""
        return node.config.get(name)

    @staticmethod
    def named(node: Node) -> str:
        """A node in the words of a message: `relu {modules}`, or `relu in {modules}` for a function."""
        return f"{node.kind} {{modules}}" if node.module is not None else f"{node.kind} in {{modules}}"
