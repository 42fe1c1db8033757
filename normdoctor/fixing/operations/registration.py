"""Registering what hides in plain attributes: containers of modules, and tensors."""

from __future__ import annotations

import re
from typing import Any

import libcst as cst

from normdoctor.findings import Edit
from normdoctor.fixing.case import Case, live
from normdoctor.fixing.document import Document
from normdoctor.fixing.splices import Change, Refused, Splice
from normdoctor.fixing.statements import assignments


def contain(case: Case, edit: Edit) -> list[Change]:
    """`self.blocks = [...]` becomes `self.blocks = nn.ModuleList([...])`."""
    path, _, attribute = edit.name.rpartition(".")
    if not attribute.isidentifier():
        raise Refused("the container lies inside of another one")
    owner = live(case.modules, path)
    kind = _container(getattr(owner, attribute, None))
    splices: list[Splice] = []
    for doc, _, value in _assigned(case, owner, attribute):
        text, imports = doc.name_for(f"torch.nn.{kind}")
        if re.match(re.escape(text) + r"\b", doc.source(value)):
            continue
        start, end = doc.whole(value)
        empty = isinstance(value, cst.List | cst.Dict | cst.Tuple) and not value.elements
        if empty:
            splices.append(Splice(doc.file, start, end, f"{text}()"))
        else:
            inner = isinstance(value, cst.Tuple) and not value.lpar
            left, right = ("((", "))") if inner else ("(", ")")
            splices += [Splice(doc.file, start, start, text + left), Splice(doc.file, end, end, right)]
        splices += imports
    if not splices:
        raise Refused(f"`self.{attribute} = ...` was not found")
    return [Change(tuple(splices))]


def _container(value: Any) -> str:
    """The container of torch's that takes the place of a plain one."""
    import torch
    from torch import nn

    items = (
        list(value.values())
        if isinstance(value, dict)
        else value
        if isinstance(value, list | tuple)
        else None
    )
    if not items:
        raise Refused("it is no plain list, tuple or dict")
    form = "Dict" if isinstance(value, dict) else "List"
    if all(isinstance(item, nn.Module) for item in items):
        return f"Module{form}"
    if all(isinstance(item, torch.Tensor) for item in items):
        return f"Parameter{form}"
    raise Refused("the container holds other things besides modules")


def register(case: Case, edit: Edit) -> list[Change]:
    """`self.center = torch.zeros(8)` becomes `self.register_buffer("center", torch.zeros(8))`."""
    path, name = case.finding.modules[0], edit.name
    if not name.isidentifier():
        raise Refused("the tensor lies in a list or dict")
    splices: list[Splice] = []
    for doc, statement, value in _assigned(case, live(case.modules, path), name):
        method = doc.around(statement, cst.FunctionDef)
        if method is None or method.name.value == "forward" or _registers(doc, method, name):
            continue
        targets = statement.targets if isinstance(statement, cst.Assign) else ()
        if method.name.value != "__init__" and splices:
            continue
        if len(targets) > 1:
            raise Refused(f"`{name}` is assigned together with other names")
        first, last = doc.whole(value)
        start = doc.span(statement)[0]
        receiver = case.receiver(doc, statement)
        head = f'{receiver}.register_buffer("{name}", '
        splices += [Splice(doc.file, start, first, head), Splice(doc.file, last, last, ")")]
        break
    if not splices:
        raise Refused(f"`self.{name} = ...` was not found outside of forward")
    return [Change(tuple(splices))]


def _registers(doc: Document, method: cst.FunctionDef, name: str) -> bool:
    return f'register_buffer("{name}"' in doc.source(method)


def _assigned(case: Case, owner: Any, attribute: str) -> list[tuple[Document, Any, cst.BaseExpression]]:
    """Where the classes of a module assign an attribute, in the order of the text."""
    found: list[tuple[Document, Any, cst.BaseExpression]] = []
    for cls in type(owner).__mro__:
        files = {
            function.__code__.co_filename
            for function in vars(cls).values()
            if hasattr(function, "__code__") and function.__qualname__.startswith(cls.__qualname__)
        }
        for file in sorted(files):
            try:
                doc = case.open(file)
            except Refused:
                continue
            for node in doc.classes(cls.__name__):
                found += [(doc, *pair) for pair in assignments(doc, node, attribute)]
        if found:
            return found
    raise Refused(f"`self.{attribute} = ...` was not found in a file of the project")
