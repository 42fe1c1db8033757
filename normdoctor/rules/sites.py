"""What was measured at a place of the model, as rules see it, and the recorded node that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from normdoctor.facts import Node
from normdoctor.graph import Graph

#: Activations whose output is exactly zero for a unit that is off.
RELUS = frozenset({"relu", "relu6"})


@dataclass(frozen=True)
class Site:
    """The figures of one site, and over what they were taken."""

    name: str
    figures: dict[str, Any]
    source: str

    @property
    def module(self) -> str:
        """The path of the innermost module in whose forward the call stands."""
        return str(self.figures["module"])

    @property
    def kind(self) -> str:
        """What is computed there, in torch.nn.functional's words."""
        return str(self.figures["kind"])

    @property
    def role(self) -> str:
        """As in `normdoctor.facts.Node`, or `input`, or `norm_input` for what a norm takes."""
        return str(self.figures.get("role", ""))

    @property
    def order(self) -> int:
        """Its place among all sites, in the order in which they first ran."""
        return int(self.figures.get("order", 0))

    @property
    def units(self) -> int:
        """How many channels or features it has."""
        return int(self.figures["units"])

    @property
    def observations(self) -> int:
        """How many values of each unit were seen."""
        return int(self.figures["observations"])

    @property
    def batches(self) -> int:
        """From how many batches they are."""
        return int(self.figures["batches"])

    @property
    def synthetic(self) -> bool:
        """Were the batches made up?"""
        return self.source == "synthetic"

    @property
    def of_batches(self) -> str:
        """The batches in the words of a message."""
        return (
            f"{self.batches} {'synthetic ' if self.synthetic else ''}batch{'' if self.batches == 1 else 'es'}"
        )

    def node(self, graph: Graph) -> Node | None:
        """The recorded call that it stands for; None where nothing was recorded there."""
        calls = graph.calls_of(self.module)
        if not calls:
            kind = self.kind.removesuffix("_input") if self.role == "norm_input" else self.kind
            calls = [
                node
                for node in graph.nodes
                if node.module is None and node.scope == self.module and node.kind == kind
            ]
        index = self.figures["call"]
        return calls[index] if index < len(calls) else None

    def named(self, graph: Graph) -> str:
        """It in the words of a message: `relu {modules}`, or `relu in {modules}` for a function."""
        node = self.node(graph)
        return graph.named(node) if node is not None else f"{self.kind} {{modules}}"


def sites(graph: Graph, *roles: str, need: str = "units") -> Iterator[Site]:
    """The sites of these roles (all, when none is given), in the order in which they first ran."""
    measurements = graph.facts.measurements or {}
    source = measurements.get("run", {}).get("source", "data")
    for name, figures in measurements.get(need, {}).items():
        if not roles or figures.get("role") in roles:
            yield Site(name, figures, source)
