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
        self.dims: dict[str, int | None] = {}
        self.instances: dict[str, str] = {}
        self.models: set[str] = set(models)
        self.parameters = _parameter_names(tree)
        self.arguments = _passed_once(tree)
        self.functions = {node.name for node in tree.body if isinstance(node, Function)}
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
        if name is not None and torch_name(value, self.known) in LOSS_FUNCTIONS:
            self._set_criterion(name, Criterion(torch_name(value, self.known) or "", {}))
            return
        call = _bare_call(value)
        if name is None or call is None:
            return
        made = torch_name(call.func, self.known)
        callee = dotted(call.func)
        if callee is not None:
            self.instances[name] = callee.rpartition(".")[2]
        if made in LOSS_CLASSES:
            criterion = Criterion(LOSS_CLASSES[made], literal_keywords(call))
            self.built.append((criterion, call))
            self._set_criterion(name, criterion)
        elif made in CHANGES and made[:1].isupper():
            self.dims[name] = _literal_dim(call, 0)
            self.changes[name] = (
                CHANGES[made] if self.changes.get(name, CHANGES[made]) == CHANGES[made] else None
            )
        elif (isinstance(call.func, ast.Name) and call.func.id in self.classes) or self._imported_class(call):
            self.models.add(name)

    def _imported_class(self, call: ast.Call) -> bool:
        """Does it build an object of a class that another file of the user's defines?"""
        text = dotted(call.func) or ""
        origin = self.known.get(text.partition(".")[0], "torch")
        last = text.rpartition(".")[2]
        return not origin.startswith("torch") and last[:1].isupper() and not last.endswith("Loss")

    def _set_criterion(self, name: str, criterion: Criterion) -> None:
        same = self.criteria.get(name, criterion) == criterion
        self.criteria[name] = criterion if same else None

    def dim_of(self, call: ast.Call) -> int | None:
        """The axis that a softmax runs over, where it is literal."""
        if isinstance(call.func, ast.Call):  # nn.Softmax(dim=1)(x)
            return _literal_dim(call.func, 0)
        name = dotted(call.func)
        if name in self.dims:
            return self.dims[name]
        function = torch_name(call.func, self.known)
        return _literal_dim(call, 1 if function else 0)

    def helper_of(self, func: ast.expr, owner: str | None) -> str:
        """The function of the file that a call runs: `loss_fn`, `Net.compute`, `MyLoss.forward`."""
        name = dotted(func) or ""
        if isinstance(func, ast.Call):  # MyLoss()(out, y)
            made = dotted(func.func) or ""
            return f"{made}.forward" if made in self.classes else ""
        if name in self.functions:
            return name
        if self.instances.get(name) in self.classes:
            return f"{self.instances[name]}.forward"
        head, _, rest = name.partition(".")
        return f"{owner}.{rest}" if owner and head == "self" and rest else ""

    def criterion(self, func: ast.expr, function: Function | None = None) -> Criterion | None:
        """The loss that a called expression stands for: a name, a constructor, a function.

        Inside `function` it may be one of its parameters, which every caller gives the same loss.
        """
        if isinstance(func, ast.Name) and function is not None:
            given = self.arguments.get((function.name, func.id)) or _default(function, func.id)
            if given is not None:
                return self.criterion(given) if isinstance(given, ast.Name) else self._constructed(given)
        return self._known_criterion(func)

    def _constructed(self, node: ast.expr) -> Criterion | None:
        if isinstance(node, ast.Call):
            made = torch_name(node.func, self.known)
            return Criterion(LOSS_CLASSES[made], literal_keywords(node)) if made in LOSS_CLASSES else None
        return self._known_criterion(node)

    def _known_criterion(self, func: ast.expr) -> Criterion | None:
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


def _passed_once(tree: ast.Module) -> dict[tuple[str, str], ast.expr]:
    """What the functions of the file are given for their parameters, where all calls give the same."""
    functions = {node.name: node for node in tree.body if isinstance(node, Function)}
    passed: dict[tuple[str, str], dict[str, ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
            names = [argument.arg for argument in functions[node.func.id].args.args]
            given = [
                *zip(names, node.args, strict=False),
                *((word.arg, word.value) for word in node.keywords),
            ]
            for name, value in given:
                if name is not None:
                    passed.setdefault((node.func.id, name), {})[ast.dump(value)] = value
    return {key: next(iter(values.values())) for key, values in passed.items() if len(values) == 1}


def _default(function: Function, name: str) -> ast.expr | None:
    names = [argument.arg for argument in function.args.args]
    defaults = dict(zip(reversed(names), reversed(function.args.defaults), strict=False))
    found = defaults.get(name)
    return found if isinstance(found, ast.Call | ast.Attribute) else None


def _literal_dim(call: ast.Call, position: int) -> int | None:
    node = next((word.value for word in call.keywords if word.arg == "dim"), None)
    if node is None and len(call.args) > position:
        node = call.args[position]
    try:
        value = ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


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
