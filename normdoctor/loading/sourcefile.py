"""What holds for a whole file of source that trains models: its classes, losses and models by name."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from normdoctor.loading.lossnames import (
    CHANGES,
    KEEPS,
    LOSS_CLASSES,
    LOSS_FUNCTIONS,
    aliases,
    dotted,
    literal_keywords,
    torch_name,
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Criterion:
    """A loss object that a name stands for."""

    kind: str
    config: dict[str, Any]


class SourceFile:
    """What holds for the whole file: imports, classes, loss objects, squashing layers, models."""

    def __init__(self, tree: ast.Module, models: Iterable[str] = ()) -> None:
        self.known = aliases(tree)
        self.classes = _module_classes(tree)
        self.criteria: dict[str, Criterion | None] = {}
        self.built: list[tuple[Criterion, ast.Call]] = []
        self.changes: dict[str, str | None] = {}
        self.models: set[str] = set(models)
        self.parameters = _parameter_names(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and node.value is not None:
                for target in node.targets:
                    self._bind(target, node.value)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = dotted(node.func.value)
                if owner and node.func.attr in ("parameters", "train", "eval", "named_parameters"):
                    self.models.add(owner)

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        name = dotted(target)
        call = _bare_call(value)
        if name is None or call is None:
            return
        made = torch_name(call.func, self.known)
        if made in LOSS_CLASSES:
            criterion = Criterion(LOSS_CLASSES[made], literal_keywords(call))
            self.built.append((criterion, call))
            same = self.criteria.get(name, criterion) == criterion
            self.criteria[name] = criterion if same else None
        elif made in CHANGES and made[:1].isupper():
            self.changes[name] = (
                CHANGES[made] if self.changes.get(name, CHANGES[made]) == CHANGES[made] else None
            )
        elif isinstance(call.func, ast.Name) and call.func.id in self.classes:
            self.models.add(name)

    def criterion(self, func: ast.expr) -> Criterion | None:
        """The loss that a called expression stands for: a name, a constructor, a function."""
        if isinstance(func, ast.Call):
            made = torch_name(func.func, self.known)
            return Criterion(LOSS_CLASSES[made], literal_keywords(func)) if made in LOSS_CLASSES else None
        name = dotted(func)
        if name in self.criteria:
            return self.criteria[name]
        function = torch_name(func, self.known)
        return Criterion(function, {}) if function in LOSS_FUNCTIONS else None

    def change(self, func: ast.expr) -> str | None:
        """The function that a call applies to values: softmax, sigmoid, ..."""
        if isinstance(func, ast.Call):
            made = torch_name(func.func, self.known)
            return CHANGES.get(made) if made else None
        name = dotted(func)
        if name in self.changes:
            return self.changes[name]
        function = torch_name(func, self.known)
        return CHANGES.get(function) if function and function.islower() else None


def _module_classes(tree: ast.Module) -> dict[str, str | None]:
    """Classes that derive from a `...Module`, and the one attribute that their forward passes input to."""
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    found: dict[str, str | None] = {}
    changed = True
    while changed:
        changed = False
        for name, node in classes.items():
            bases = [(dotted(base) or "").rpartition(".")[2] for base in node.bases]
            if name not in found and any(base.endswith("Module") or base in found for base in bases):
                found[name] = _passes_to(node)
                changed = True
    return found


def _passes_to(definition: ast.ClassDef) -> str | None:
    """`net` where forward is `return self.net(...)`."""
    for method in definition.body:
        if isinstance(method, Function) and method.name == "forward":
            last = method.body[-1]
            call = last.value if isinstance(last, ast.Return) else None
            name = dotted(call.func) if isinstance(call, ast.Call) else None
            if name and name.startswith("self.") and len(method.body) == 1:
                return name.removeprefix("self.")
    return None


def _parameter_names(tree: ast.Module) -> dict[tuple[str, str], str]:
    """What the parameters of functions are called where they are called from, when that is one name."""
    functions = {node.name: node for node in tree.body if isinstance(node, Function)}
    passed: dict[tuple[str, str], set[str | None]] = {}
    for node in ast.walk(tree):
        if (
            not isinstance(node, ast.Call)
            or not isinstance(node.func, ast.Name)
            or node.func.id not in functions
        ):
            continue
        names = [argument.arg for argument in functions[node.func.id].args.args]
        given = [*zip(names, node.args, strict=False), *((word.arg, word.value) for word in node.keywords)]
        for name, value in given:
            if name is not None:
                passed.setdefault((node.func.id, name), set()).add(dotted(value))
    return {key: name for key, names_ in passed.items() if len(names_) == 1 and (name := next(iter(names_)))}


def _bare_call(value: ast.expr) -> ast.Call | None:
    """The call inside `Net().to(device)`, `nn.DataParallel(Net())`."""
    while isinstance(value, ast.Call):
        inner = value.func.value if isinstance(value.func, ast.Attribute) else None
        if isinstance(inner, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in KEEPS:
            value = inner
        elif (dotted(value.func) or "").endswith("DataParallel") and value.args:
            value = value.args[0]
        else:
            return value
    return None
