"""The recorded graph as the search for hand-written norms walks it: torch.fx nodes beside facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx

from normdoctor.facts import Node
from normdoctor.tracing import roles
from normdoctor.tracing.recording import Recording
from normdoctor.tracing.tape import META_KEY, Call

#: Change the type of values and nothing else.
CASTS = frozenset("to float half bfloat16 double type type_as".split())
#: Hand all values on, in another shape or memory.
SHAPES = frozenset(
    "view reshape flatten unflatten permute transpose swapaxes movedim moveaxis squeeze unsqueeze t mT T "
    "contiguous clone detach alias data view_as reshape_as expand expand_as broadcast_to _unsafe_view "
    "adjoint requires_grad identity".split()
)
#: Act on each element by itself.
ARITHMETIC = frozenset(
    "add sub mul div rdiv rsub pow neg clamp abs maximum addcmul addcdiv nan_to_num".split()
)
#: Take the root of a statistic, or are such a root already.
ROOTS = frozenset("sqrt rsqrt std std_mean norm".split())
#: Reduce a tensor along axes.
REDUCTIONS = frozenset("mean var std var_mean std_mean norm sum".split())
#: Everything that may stand between the input of a norm and its output.
INSIDE = CASTS | SHAPES | ARITHMETIC | ROOTS | REDUCTIONS | {"reciprocal", "select_output", "getitem", "max"}


class Flow:
    """Answers about the nodes of one recording, by their position in `Facts.nodes`.

    `fx` holds the torch.fx node of each position; nodes that read only tensors of the model (role
    `parameter`) have a position too, but no inputs there.
    """

    def __init__(self, recording: Recording, nodes: Sequence[Node]) -> None:
        self.recording = recording
        by_name = {node.name: node for node in recording.graph.nodes}
        self.nodes = [node for node in nodes if node.name in by_name]  # not what the source adds behind
        self.fx: list[fx.Node] = [by_name[node.name] for node in self.nodes]
        self.index: dict[fx.Node, int] = {node: position for position, node in enumerate(self.fx)}
        self._users: list[list[int]] = [[] for _ in self.nodes]
        for node in self.nodes:
            for source in dict.fromkeys(node.inputs):
                self._users[source].append(node.index)

    def users(self, position: int) -> list[int]:
        """The positions of the nodes that read what the node at `position` returns."""
        return self._users[position]

    def size(self, position: int) -> int:
        """The number of elements of the first output, 0 where there is none."""
        outputs = self.nodes[position].outputs
        return outputs[0].size if outputs else 0

    def live(self, node: fx.Node) -> bool:
        """Does it hold an activation: something that is not made of the model's own tensors alone?"""
        position = self.index.get(node)
        if position is None:
            return False
        fact = self.nodes[position]
        return bool(fact.inputs) or fact.op in ("placeholder", "call_module")

    def operands(self, position: int) -> list[fx.Node]:
        """The torch.fx nodes whose values a node reads, in argument order, repetitions included."""
        found: list[fx.Node] = []

        def visit(value: Any) -> None:
            if isinstance(value, fx.Node):
                found.append(value)
            elif isinstance(value, list | tuple):
                for item in value:
                    visit(item)

        node = self.fx[position]
        visit(node.args)
        visit(list(node.kwargs.values()))
        return found[:1] if self.nodes[position].kind in roles.READ_ONE else found

    def tensors(self, node: fx.Node) -> Iterator[str]:
        """The names of the model's own tensors that a node without activations is made of."""
        if node.op == "get_attr":
            yield str(node.target)
            return
        for source in node.all_input_nodes:
            yield from self.tensors(source)

    def value(self, name: str) -> Any:
        """What the graph knows by that name: a parameter, a buffer or a constant."""
        return self.recording.root.get(name)


def result_of(node: fx.Node) -> Any:
    """What the call gave when it was recorded."""
    call: Call = node.meta[META_KEY]
    return call.result


def is_floating(value: Any) -> bool:
    """Is it a tensor of real floating-point numbers?"""
    return isinstance(value, torch.Tensor) and value.is_floating_point()
