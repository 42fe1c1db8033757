"""What an operation may know: the finding, the files, and the model that it was found in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import libcst as cst

from normdoctor.facts import Facts, Location, ModuleFact
from normdoctor.findings import Edit, Finding, Fix
from normdoctor.fixing.document import Document
from normdoctor.fixing.signatures import Parameters, of_callable, of_function
from normdoctor.fixing.splices import Refused

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Case:
    """One finding with its fix. `open` gives the document of a file, or refuses it."""

    finding: Finding
    fix: Fix
    facts: Facts
    modules: dict[str, nn.Module] = field(repr=False)
    open: Callable[[str], Document] = field(repr=False)
    files: tuple[str, ...] = ()

    @cached_property
    def built(self) -> list[ModuleFact]:
        """The modules of the finding that were built at its place."""
        named = set(self.finding.modules)
        return [m for m in self.facts.modules if m.path in named and m.origin == self.finding.location]

    def document(self, place: Location | None) -> Document:
        """The file of a place."""
        if place is None:
            raise Refused("no source line is known")
        return self.open(place.file)

    def call(self, edit: Edit) -> tuple[Document, cst.Call]:
        """The call that an edit is about."""
        place = edit.at or self.finding.location
        doc = self.document(place)
        return doc, doc.call_at(place)

    def parameters(self, doc: Document, call: cst.Call) -> Parameters | None:
        """What the called thing takes; None where that is not known."""
        if self.built and doc.location(call) == self.finding.location:
            known = self.modules.get(self.built[0].path)
            return of_callable(type(known)) if known is not None else None
        if full := doc.imported(call.func):
            return of_function(full)
        if isinstance(call.func, cst.Attribute):
            return of_function(f".{call.func.attr.value}")
        return None

    def check_alone(self) -> None:
        """Refuse a change that modules without the finding would get too, unless it does them no harm."""
        if self.fix.everywhere or self.finding.location is None:
            return
        place, named = self.finding.location, set(self.finding.modules)
        if self.built:
            others = [m.path for m in self.facts.modules if m.origin == place and m.path not in named]
        else:
            nodes = [node for node in self.facts.nodes if node.location == place and node.module is None]
            others = [node.scope for node in nodes if node.scope not in named]
        if others:
            rest = f" and {len(others) - 1} more" if len(others) > 1 else ""
            raise Refused(f"this line also makes `{others[0]}`{rest}, of which the finding does not hold")

    def receiver(self, doc: Document, node: cst.CSTNode) -> str:
        """What a method calls `self` at a place."""
        function = doc.around(node, cst.FunctionDef)
        while function is not None and not isinstance(self._owner(doc, function), cst.ClassDef):
            function = doc.around(doc.parent(function), cst.FunctionDef)
        if function is None:
            raise Refused("it stands outside of a class, where the mode of the model is not known")
        first = [*function.params.posonly_params, *function.params.params][:1]
        if not first or any(d.decorator for d in function.decorators if _static(d)):
            raise Refused("it stands in a method without `self`")
        return first[0].name.value

    @staticmethod
    def _owner(doc: Document, function: cst.FunctionDef) -> cst.CSTNode | None:
        return doc.around(doc.parent(function), cst.ClassDef, cst.FunctionDef)


def _static(decorator: cst.Decorator) -> bool:
    return getattr(decorator.decorator, "value", "") in ("staticmethod", "classmethod")


def live(modules: dict[str, Any], path: str) -> Any:
    """The module at a path, hidden ones included."""
    if path not in modules:
        raise Refused(f"the model has no module `{path}`")
    return modules[path]
