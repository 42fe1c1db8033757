"""Losses read off the source: which are applied, to which model's output, through what. No torch."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from normdoctor.facts import Location
from normdoctor.loading.lossnames import (
    CHANGES,
    KEEPS,
    dotted,
    literal_keywords,
    torch_name,
)
from normdoctor.loading.sourcefile import Function, SourceFile


@dataclass(frozen=True)
class SourceLoss:
    """A loss that the source applies to the output of a model.

    `kind` is a name of torch.nn.functional; `location` is the call. `model` is the variable whose
    output it takes (`net`), or the class in whose own methods it stands; None where that is open.
    `argument` is the position of the output that is taken, when the model returns several. `config`
    holds literal arguments, `through` what is applied to the output on the way (`"softmax"`).
    """

    kind: str
    location: Location
    model: str | None = None
    argument: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    through: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Value:
    """An output of a model, or in `forward` a local `name` that may become one."""

    model: str
    argument: int | None = None
    through: tuple[str, ...] = ()
    name: str | None = None


def losses_in(source: str, file: str, models: Iterable[str] = ()) -> tuple[SourceLoss, ...]:
    """The losses that a file applies to outputs of models, in the order of their lines.

    `models` are names that are known to hold models, besides those that the source tells.
    """
    tree = ast.parse(source)
    module = SourceFile(tree, models)
    lines = source.splitlines()
    found: list[SourceLoss] = []
    for body, function, owner in _scopes(tree):
        scope = _Scope(module, function, owner, file, lines)
        scope.run(body)
        found += scope.finish()
    if not found:
        found = _only_built(module, _Scope(module, None, None, file, lines))
    unique = {(loss.location, loss.kind): loss for loss in found}
    return tuple(sorted(unique.values(), key=lambda loss: loss.location))


def _only_built(module: SourceFile, scope: _Scope) -> list[SourceLoss]:
    """The loss that a file builds and hands to somebody else (a trainer), when it builds just one."""
    if len(module.built) != 1:
        return []
    criterion, call = module.built[0]
    return [SourceLoss(criterion.kind, scope.location(call), config=criterion.config)]


class _Scope:
    """Follows model outputs through the statements of one function or of the top level."""

    def __init__(
        self, module: SourceFile, function: Function | None, owner: str | None, file: str, lines: list[str]
    ) -> None:
        self.module, self.function, self.owner = module, function, owner
        self.file, self.lines = file, lines
        self.values: dict[str, _Value] = {}
        self.found: list[tuple[SourceLoss, str | None]] = []
        self.returned: list[ast.expr] = []
        self.inside = function is not None and function.name == "forward" and owner in module.classes
        self.seen: set[int] = set()

    def run(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self._statement(statement)

    def finish(self) -> list[SourceLoss]:
        """The losses of the scope; in `forward` only those of what it also returns."""
        if not self.inside:
            return [loss for loss, _ in self.found]
        places: dict[str, int | None] = {}
        for value in self.returned:
            items = value.elts if isinstance(value, ast.Tuple) else [value]
            for index, item in enumerate(items):
                base = self.value(item)
                if base is not None and base.name and not base.through:
                    places.setdefault(base.name, index if len(items) > 1 else None)
        return [replace(loss, argument=places[name]) for loss, name in self.found if name in places]

    def _statement(self, statement: ast.stmt) -> None:
        if isinstance(statement, Function | ast.ClassDef):
            return
        for part in ast.iter_child_nodes(statement):
            if isinstance(part, ast.expr):
                self._losses(part)
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                self._assign(target, statement.value)
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            self._assign(statement.target, statement.value)
        elif isinstance(statement, ast.Return) and statement.value is not None:
            self.returned.append(statement.value)
        elif isinstance(statement, ast.With):
            for item in statement.items:
                self._losses(item.context_expr)
        for name in ("body", "orelse", "finalbody"):
            self.run([part for part in getattr(statement, name, []) if isinstance(part, ast.stmt)])
        for handler in getattr(statement, "handlers", []):
            self.run(handler.body)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        made = self.value(value)
        if isinstance(target, ast.Tuple | ast.List):
            for index, item in enumerate(target.elts):
                name = dotted(item)
                if name is None:
                    continue
                self.values.pop(name, None)
                if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts):
                    self._set(name, self.value(value.elts[index]))
                elif made is not None and made.argument is None:
                    local = name if made.name is not None else None
                    self._set(name, replace(made, argument=index, name=local))
        elif (name := dotted(target)) is not None:
            if made is not None and self.inside and made.name == "":
                made = replace(made, name=name)
            self._set(name, made)

    def _set(self, name: str, value: _Value | None) -> None:
        if value is None:
            self.values.pop(name, None)
        else:
            self.values[name] = value

    def _losses(self, expression: ast.expr) -> None:
        """Note every call of a loss inside an expression."""
        for node in ast.walk(expression):
            if not isinstance(node, ast.Call) or id(node) in self.seen:
                continue
            self.seen.add(id(node))
            criterion = self.module.criterion(node.func)
            if criterion is None:
                continue
            first = node.args[0] if node.args else _keyword(node, "input")
            value = self.value(first) if first is not None else None
            if value is None:
                continue
            loss = SourceLoss(
                kind=criterion.kind,
                location=self.location(node),
                model=value.model,
                argument=None if self.inside else value.argument,
                config={**criterion.config, **literal_keywords(node)},
                through=value.through,
            )
            self.found.append((loss, value.name))

    def value(self, node: ast.expr) -> _Value | None:
        """The model output that an expression holds, None when it is something else."""
        name = dotted(node)
        if name is not None and name in self.values:
            return self.values[name]
        if isinstance(node, ast.Attribute) and node.attr in ("logits", "sample", "T", "mT"):
            return self.value(node.value)
        if isinstance(node, ast.Subscript):
            return self._item(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        return None

    def _item(self, node: ast.Subscript) -> _Value | None:
        base = self.value(node.value)
        if base is None or not isinstance(node.slice, ast.Constant):
            return base
        if isinstance(node.slice.value, int) and base.argument is None and not base.through and not base.name:
            return replace(base, argument=node.slice.value) if node.slice.value >= 0 else None
        return base if node.slice.value in ("logits", "out") else None

    def _call(self, node: ast.Call) -> _Value | None:
        change = self.module.change(node.func)
        if change is not None and node.args:
            base = self.value(node.args[0])
            return self._changed(base, change)
        if isinstance(node.func, ast.Attribute):
            method = node.func.attr
            base = self.value(node.func.value)
            if base is not None:
                if method in KEEPS:
                    return base
                return self._changed(base, CHANGES[method]) if CHANGES.get(method) == method else None
        if torch_name(node.func, self.module.known) in KEEPS and node.args:
            return self.value(node.args[0])
        return self._model_call(node)

    def _changed(self, base: _Value | None, change: str) -> _Value | None:
        return replace(base, through=(*base.through, change)) if base is not None else None

    def _model_call(self, node: ast.Call) -> _Value | None:
        """The output of `net(x)`, `self(x)`, `self.net(x)`, `net.forward(x)`; in `forward` any layer's."""
        name = dotted(node.func)
        if name is None:
            return None
        name = name.removesuffix(".module").removesuffix(".forward")
        head = (
            self.function.args.args[0].arg
            if self.owner and self.function and self.function.args.args
            else None
        )
        if self.inside and head and name.startswith(head + "."):
            return _Value(self.owner or "", name="")
        if self.owner in self.module.classes:
            if name == head:
                return _Value(self.owner or "")
            if head and name.startswith(head + "."):
                passes = self.module.classes[self.owner or ""]
                inner = name.removeprefix(head + ".")
                return _Value((self.owner or "") if inner == passes else f"{self.owner}.{inner}")
        if name not in self.module.models:
            return self._parameter_call(name)
        renamed = self.module.parameters.get((self.function.name if self.function else "", name), name)
        return _Value(renamed.rpartition(".")[2] if head and name.startswith(head + ".") else renamed)

    def _parameter_call(self, name: str) -> _Value | None:
        """The output of a model that the function was given: `def step(net: Net, x): loss(net(x), y)`."""
        for parameter in self.function.args.args if self.function else ():
            if parameter.arg == name:
                kind = dotted(parameter.annotation) if parameter.annotation is not None else None
                known = (self.function.name if self.function else "", name)
                return _Value(
                    kind if kind in self.module.classes else self.module.parameters.get(known, name)
                )
        return None

    def location(self, node: ast.expr) -> Location:
        """The span of an expression, columns in characters."""
        end_line, end = node.end_lineno or node.lineno, node.end_col_offset or 0
        return Location(
            self.file,
            node.lineno,
            self._column(node.lineno, node.col_offset),
            end_line,
            self._column(end_line, end),
        )

    def _column(self, line: int, offset: int) -> int:
        return len(self.lines[line - 1].encode()[:offset].decode(errors="ignore")) + 1


def _scopes(tree: ast.Module) -> list[tuple[list[ast.stmt], Function | None, str | None]]:
    """The top level and every function, with the class that it is a method of."""
    found: list[tuple[list[ast.stmt], Function | None, str | None]] = [(tree.body, None, None)]

    def visit(node: ast.AST, owner: str | None) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                found.append((child.body, child, owner))
                visit(child, owner)
            elif isinstance(child, ast.ClassDef):
                visit(child, child.name)
            else:
                visit(child, owner)

    visit(tree, None)
    return found


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((word.value for word in call.keywords if word.arg == name), None)
