"""What rules ask of hand-written norms: where they stand, what they are called, what they depend on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from normdoctor.census import norm_owners
from normdoctor.facts import HandwrittenNorm, Location, ModuleFact, Node
from normdoctor.graph import Graph

#: The layer of torch that computes the same, by kind.
LAYERS = {
    "layer_norm": "nn.LayerNorm",
    "rms_norm": "nn.RMSNorm",
    "batch_norm": "nn.BatchNorm",
    "instance_norm": "nn.InstanceNorm",
    "group_norm": "nn.GroupNorm",
    "normalize": "F.normalize",
}
#: The name of a norm in a message, by kind.
NAMES = {
    "layer_norm": "LayerNorm",
    "rms_norm": "RMSNorm",
    "batch_norm": "BatchNorm",
    "instance_norm": "InstanceNorm",
    "group_norm": "GroupNorm",
    "normalize": "L2 normalization",
    "": "standardization",
}


class ByHand(NamedTuple):
    """A confirmed hand-written norm: `owner` is the module that is nothing but it, if there is one."""

    norm: HandwrittenNorm
    input: Node
    output: Node
    owner: ModuleFact | None

    @property
    def label(self) -> str:
        """What to call it: the class of its own, or the norm that stands in another forward."""
        name = NAMES[self.norm.kind]
        return f"{self.owner.type} {{modules}}" if self.owner else f"the {name} in {{modules}}"

    @property
    def location(self) -> Location | None:
        """Its line in the forward."""
        return self.norm.location

    @property
    def module(self) -> str:
        """The path of the module that computes it."""
        return self.norm.module


def by_hand(graph: Graph) -> Iterator[ByHand]:
    """Every confirmed hand-written norm, the same line of the same module once."""
    owners = norm_owners(graph.facts)
    seen: set[tuple[object, ...]] = set()
    for place, norm in enumerate(graph.facts.handwritten):
        key = (norm.module, norm.location, norm.output if norm.location is None else None)
        if norm.confirmed and key not in seen:
            seen.add(key)
            yield ByHand(norm, graph.nodes[norm.input], graph.nodes[norm.output], owners.get(place))


def in_a_loss(graph: Graph, found: ByHand) -> bool:
    """Does it stand in a forward that computes more, and serve nothing but a loss of that forward's?

    Features are standardized so by Barlow Twins and VICReg: no layer is meant.
    """
    return found.owner is None and not reaches_output(graph, found.output)


def reaches_output(graph: Graph, node: Node) -> bool:
    """Does it influence an output of the model that is more than one number (a loss)?"""
    stack, seen = [node.index], {node.index}
    while stack:
        current = graph.nodes[stack.pop()]
        for user in graph.users(current):
            if user.op == "output":
                if current.outputs and current.outputs[0].size > 1:
                    return True
            elif user.index not in seen:
                seen.add(user.index)
                stack.append(user.index)
    return False
