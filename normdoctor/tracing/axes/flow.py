"""One walk over the nodes: the axes of every output, from those of the inputs. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from normdoctor.facts import Facts, Node
from normdoctor.tracing.axes.atoms import LIKELY, Atoms, Axis

Axes = tuple[Axis, ...]
#: Says what the axes of a node's outputs are; None where it cannot tell.
Step = Callable[["Flow", Node], "list[Axes] | None"]


class Flow:
    """The axes of every output of every node. `steps` maps kinds to what they do with axes."""

    def __init__(self, facts: Facts, steps: dict[str, Step], seeds: dict[int, tuple[tuple[str, int], ...]]):
        self.atoms = Atoms()
        self.nodes = facts.nodes
        self.axes: list[list[Axes]] = []
        #: Atoms of axes of indices into an embedding.
        self.embedded: set[int] = set()
        self.late: list[tuple[Axis, str]] = []
        self._steps = steps
        self._seeds = seeds
        self._shapes = {one.name: one.tensor.shape for one in facts.parameters}
        self._own: dict[str, Axes] = {}

    def run(self) -> None:
        """Walk over all nodes, then apply what is only likely."""
        for node in self.nodes:
            found = self._begin(node) if node.op == "placeholder" else self._step(node)
            self.axes.append(found)
        for axis, label in self.late:
            self.atoms.mark(axis, label, LIKELY)

    def _begin(self, node: Node) -> list[Axes]:
        seeds = self._seeds.get(node.index, ())
        found: list[Axis] = []
        for place, size in enumerate(node.shape):
            last = place == len(node.shape) - 1
            axis = self.atoms.new(size) if last else self.atoms.unlike_features(size)
            if place < len(seeds) and seeds[place][0]:
                self.atoms.mark(axis, *seeds[place])
            found.append(axis)
        return [tuple(found)]

    def _step(self, node: Node) -> list[Axes]:
        step = self._steps.get(node.kind)
        found: list[Axes] | None = None
        if step is not None and node.outputs and node.op != "output":
            try:
                found = step(self, node)
            except (IndexError, TypeError, ValueError, KeyError, ZeroDivisionError):
                found = None  # arguments that this analysis does not know: nothing is known of the result
        return [
            found[place]
            if found is not None and place < len(found) and len(found[place]) == len(fact.shape)
            else self.fresh(fact.shape)
            for place, fact in enumerate(node.outputs)
        ]

    # -- what steps ask ------------------------------------------------------------------------

    def fresh(self, shape: tuple[int, ...]) -> Axes:
        """Axes of which nothing is known."""
        return tuple(self.atoms.new(size) for size in shape)

    def operand(self, node: Node, place: int = 0) -> tuple[Axes, tuple[int, ...]]:
        """The axes and the shape of the tensor that a node reads at this place among its tensors."""
        given = node.config.get("operands", node.inputs)
        return self.tensor(given[place])

    def operands(self, node: Node) -> list[tuple[Axes, tuple[int, ...]] | None]:
        """The same for all tensors that a node reads, None for those of which nothing is known."""
        given = node.config.get("operands", node.inputs)
        return [None if one is None else self.tensor(one) for one in given]

    def tensor(self, given: int | str) -> tuple[Axes, tuple[int, ...]]:
        """Axes and shape of a node's first output, or of a parameter by its name."""
        if isinstance(given, int):
            return self.axes[given][0], self.nodes[given].shape
        shape = self._shapes[given]
        if given not in self._own:
            self._own[given] = self.fresh(shape)
        return self._own[given], shape

    def resized(self, axis: Axis, before: int, after: int) -> Axis:
        """The same axis where its length stayed, otherwise one that stands for the same."""
        return axis if before == after else self.atoms.derived(axis, after)

    def text(self, axis: Axis) -> str:
        """What an axis stands for."""
        return self.atoms.text(axis)


def dimension(value: Any, rank: int) -> int:
    """An axis given as an argument, counted from 0."""
    if isinstance(value, bool) or not isinstance(value, int) or not -rank <= value < max(rank, 1):
        raise ValueError(f"no axis: {value}")
    return value % rank if rank else 0


def dimensions(value: Any, rank: int) -> list[int]:
    """One axis or several, given as an argument."""
    if isinstance(value, list | tuple):
        return [dimension(one, rank) for one in value]
    return [dimension(value, rank)]
