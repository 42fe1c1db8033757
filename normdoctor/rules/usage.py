"""What of the module tree took part in the recorded forward, and which norms did not."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from normdoctor.facts import ModuleFact
from normdoctor.graph import Graph
from normdoctor.rules.layers import CONTAINERS, NORMS, parent


class Use:
    """The modules that ran, the parameters that were read, and the norms that were forgotten."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.parameters = {name for node in graph.nodes for name in node.parameters}
        self._places = {node.module if node.module is not None else node.scope for node in graph.nodes}

    @cached_property
    def _active(self) -> set[str]:
        """Every module path in or below which a node stands, or whose parameters one reads."""
        owners = {
            self._graph.parameters[name].module for name in self.parameters if name in self._graph.parameters
        }
        active: set[str] = set()
        for place in self._places | owners:
            path = place
            while path and path not in active:
                active.add(path)
                path = path.rpartition(".")[0]
        return active

    @cached_property
    def handwritten(self) -> set[str]:
        """The classes of the user's own of which an instance was seen to normalize."""
        found = (self._graph.modules.get(norm.module) for norm in self._graph.facts.handwritten)
        return {one.qualname for one in found if one is not None and not self.children(one.path)}

    def is_norm(self, module: ModuleFact) -> bool:
        """Is this one of torch's norms, or of a class that computes one by hand?"""
        return module.base in NORMS or module.qualname in self.handwritten

    def normalizes(self, path: str) -> bool:
        """Does a norm, or arithmetic like one, run inside the module?"""
        inside = [n for n in self._graph.nodes if n.scope == path or n.scope.startswith(f"{path}.")]
        return any(node.role in ("norm", "reduce") for node in inside)

    def children(self, path: str) -> list[ModuleFact]:
        """The modules directly below `path`."""
        modules = self._graph.modules.values()
        return [one for one in modules if one.path and one.path.rpartition(".")[0] == path]

    def has_parameters(self, module: ModuleFact) -> bool:
        """Does the module, or one below it, have parameters?"""
        inside = f"{module.path}."
        return any(
            one.kind == "parameter" and (one.module == module.path or one.module.startswith(inside))
            for one in self._graph.parameters.values()
        )

    def ran(self, module: ModuleFact) -> bool:
        """Did the module run, or one below it, or did something read its parameters?"""
        return module.calls > 0 or module.path in self._active

    def forgotten(self) -> Iterator[ModuleFact]:
        """Norms with parameters that never ran while everything around them did."""
        for module in self._graph.facts.modules:
            own = [name for name in module.parameters if self._graph.parameters[name].kind == "parameter"]
            if module.calls or not own or not self.is_norm(module) or module.path.endswith("]"):
                continue  # the last: an element of a plain list, of which others may be in use
            if module.named and self.stand_in(module) is None:
                continue  # it stands on a path of the forward that this call did not take
            read = self.parameters.intersection(module.parameters) or self._graph.calls_of(module.path)
            if not read and self._left_out(module):
                yield module

    def _left_out(self, module: ModuleFact) -> bool:
        """Did everything around the norm run but the norm?"""
        holder = parent(self._graph, module.path)
        if holder is not None and holder.type in ("ModuleList", "ModuleDict"):
            elements = self.children(holder.path)
            if any(not self.is_norm(one) or one.calls or self.ran(one) for one in elements):
                return False
            holder = parent(self._graph, holder.path)
        if holder is None or holder.leaf or not holder.calls or holder.type in CONTAINERS:
            return False
        others = [one for one in self.children(holder.path) if not self.is_norm(one)]
        return all(self.ran(one) or not self.has_parameters(one) for one in others)

    def stand_in(self, module: ModuleFact) -> ModuleFact | None:
        """The norm beside a forgotten one, of its class and shape, that runs more often than its parent."""
        holder = parent(self._graph, module.path)
        if holder is None:
            return None
        shapes = self._shapes(module)
        for one in self.children(holder.path):
            same = one.path != module.path and one.qualname == module.qualname
            if same and one.calls > max(holder.calls, 1) and self._shapes(one) == shapes:
                return one
        return None

    def _shapes(self, module: ModuleFact) -> list[tuple[int, ...]]:
        return [self._graph.parameters[name].tensor.shape for name in module.parameters]
