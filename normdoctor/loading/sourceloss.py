"""Losses read off the source: which are applied, to which model's output, through what. No torch."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from normdoctor.loading.lossnames import (
    CHANGES,
    KEEPS,
    dotted,
    evaluates,
    literal_keywords,
    torch_name,
    without_gradients,
)
from normdoctor.loading.lossvalues import HelperLoss, SourceLoss, Text, Value, helper_name, scopes_of
from normdoctor.loading.sourcefile import Function, SourceFile

__all__ = ["SourceLoss", "losses_in"]


def losses_in(source: str, file: str, models: Iterable[str] = ()) -> tuple[SourceLoss, ...]:
    """The losses that a file applies to outputs of models, in the order of their lines.

    `models` are names that are known to hold models, besides those that the source tells.
    """
    tree = ast.parse(source)
    module = SourceFile(tree, models)
    text = Text(file, source.splitlines())
    helpers: dict[str, list[HelperLoss]] = {}
    for _ in range(2):  # helpers may call helpers
        for body, function, owner in scopes_of(tree):
            if function is not None:
                helper = _Scope(module, function, owner, text, helpers, symbolic=True)
                helper.run(body)
                helpers[helper_name(function, owner)] = helper.of_parameters()
    found: list[SourceLoss] = []
    for body, function, owner in scopes_of(tree):
        scope = _Scope(module, function, owner, text, helpers)
        scope.run(body)
        found += scope.finish()
    if not found:
        found = _only_built(module, text)
    unique = {(loss.location, loss.kind): loss for loss in found}
    return tuple(sorted(unique.values(), key=lambda loss: loss.location))


def _only_built(module: SourceFile, text: Text) -> list[SourceLoss]:
    """The loss that a file builds and hands to somebody else (a trainer), when it builds just one."""
    if len(module.built) != 1:
        return []
    criterion, call = module.built[0]
    return [SourceLoss(criterion.kind, text.location(call), config=criterion.config)]


class _Scope:
    """Follows model outputs through the statements of one function or of the top level."""

    def __init__(
        self,
        module: SourceFile,
        function: Function | None,
        owner: str | None,
        text: Text,
        helpers: dict[str, list[HelperLoss]],
        *,
        symbolic: bool = False,
    ) -> None:
        self.module, self.function, self.owner = module, function, owner
        self.text, self.helpers = text, helpers
        self.values: dict[str, Value] = {}
        self.found: list[tuple[SourceLoss, Value]] = []
        self.returned: list[ast.expr] = []
        self.evaluating = 1 if function is not None and evaluates(function) else 0
        if symbolic:
            for one in self._own_parameters():
                self.values[one] = Value("", parameter=one)
        self.inside = function is not None and function.name == "forward" and owner in module.classes
        self.inside = self.inside and not symbolic
        self.seen: set[int] = set()

    def _own_parameters(self) -> list[str]:
        names = [one.arg for one in self.function.args.args] if self.function else []
        return names[1:] if self.owner and names else names

    def of_parameters(self) -> list[HelperLoss]:
        """The losses that a helper applies to what it is given."""
        names = self._own_parameters()
        return [
            HelperLoss(value.parameter, names.index(value.parameter), loss, value)
            for loss, value in self.found
            if value.parameter is not None
        ]

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
        return [
            replace(loss, argument=places[value.name])
            for loss, value in self.found
            if value.name is not None and value.name in places
        ]

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
        quiet = False
        if isinstance(statement, ast.With):
            for item in statement.items:
                self._losses(item.context_expr)
                quiet = quiet or without_gradients(item.context_expr)
        self.evaluating += quiet
        for name in ("body", "orelse", "finalbody"):
            self.run([part for part in getattr(statement, name, []) if isinstance(part, ast.stmt)])
        self.evaluating -= quiet
        for handler in getattr(statement, "handlers", []):
            self.run(handler.body)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        made = self.value(value)
        if isinstance(target, ast.Tuple | ast.List):
            for index, item in enumerate(target.elts):
                if isinstance(item, ast.Starred):
                    break  # what stands behind it counts from the end
                name = dotted(item)
                if name is None:
                    continue
                self.values.pop(name, None)
                if isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts):
                    self._set(name, self.value(value.elts[index]))
                elif made is not None and made.argument is None and made.key is None:
                    local = name if made.name is not None else None
                    self._set(name, replace(made, argument=index, name=local))
        elif (name := dotted(target)) is not None:
            if made is not None and self.inside and made.name == "":
                made = replace(made, name=name)
            self._set(name, made)

    def _set(self, name: str, value: Value | None) -> None:
        if value is None:
            self.values.pop(name, None)
        else:
            self.values[name] = value

    def _losses(self, expression: ast.expr) -> None:
        """Note every call of a loss inside an expression."""
        for node in ast.walk(expression):
            if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
                self._by_hand(node)
            if not isinstance(node, ast.Call) or id(node) in self.seen:
                continue
            self.seen.add(id(node))
            criterion = self.module.criterion(node.func, self.function)
            if criterion is None:
                self._helper(node)
                continue
            first = node.args[0] if node.args else _keyword(node, "input")
            value = self.value(first) if first is not None else None
            if value is not None:
                self._note(criterion.kind, node, value, {**criterion.config, **literal_keywords(node)})

    def _note(self, kind: str, node: ast.expr, value: Value, config: dict[str, Any]) -> None:
        loss = SourceLoss(
            kind=kind,
            location=self.text.location(node),
            model=value.model,
            argument=None if self.inside else value.argument,
            config=config,
            through=value.through,
            key=value.key,
            dims=value.dims,
            path="evaluation" if self.evaluating else "",
            built=self.module.instances.get(value.model),
        )
        self.found.append((loss, value))

    def _by_hand(self, negated: ast.UnaryOp) -> None:
        """`-(log_softmax(out) * onehot).sum()` is a cross entropy."""
        inside = list(ast.walk(negated.operand))
        products = any(isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) for node in inside)
        if not products or any(
            isinstance(node, ast.Call) and self.module.criterion(node.func, self.function) for node in inside
        ):
            return
        for node in inside:
            value = self.value(node) if isinstance(node, ast.Name | ast.Call) else None
            if value is not None and value.through[-1:] == ("log_softmax",) and id(node) not in self.seen:
                self.seen.add(id(node))
                before = replace(value, through=value.through[:-1], dims=value.dims[:-1])
                self._note("cross_entropy", negated, before, {"by_hand": "log_softmax"})
                return

    def _helper(self, call: ast.Call) -> None:
        """Losses inside a function or module of the file's own that is given an output of a model."""
        for helper in self.helpers.get(self.module.helper_of(call.func, self.owner), ()):
            given = (
                call.args[helper.position]
                if helper.position < len(call.args)
                else _keyword(call, helper.parameter)
            )
            value = self.value(given) if given is not None else None
            if value is None or (not value.whole and not helper.value.whole and not helper.value.through):
                continue
            inner = helper.value
            taken = replace(
                value,
                argument=inner.argument if value.argument is None else value.argument,
                key=inner.key if value.key is None else value.key,
                through=(*value.through, *inner.through),
                dims=(*value.dims, *inner.dims),
            )
            self.found.append(
                (
                    replace(
                        helper.loss,
                        model=taken.model,
                        argument=None if self.inside else taken.argument,
                        key=taken.key,
                        through=taken.through,
                        dims=taken.dims,
                        path="evaluation" if self.evaluating else helper.loss.path,
                        built=self.module.instances.get(taken.model),
                    ),
                    taken,
                )
            )

    def value(self, node: ast.expr) -> Value | None:
        """The model output that an expression holds, None when it is something else."""
        name = dotted(node)
        if name is not None and name in self.values:
            return self.values[name]
        if isinstance(node, ast.Attribute):
            return self._part(self.value(node.value), node.attr)
        if isinstance(node, ast.Subscript):
            return self._item(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        return None

    @staticmethod
    def _part(base: Value | None, name: str) -> Value | None:
        """`out.logits`, `out["age"]`: the output of that name."""
        if base is None or name in ("T", "mT", "data"):
            return base
        return replace(base, key=name) if base.whole and name not in _OF_TENSORS else None

    def _item(self, node: ast.Subscript) -> Value | None:
        base = self.value(node.value)
        if base is None or not isinstance(node.slice, ast.Constant):
            return base
        place = node.slice.value
        if isinstance(place, str):
            return self._part(base, place)
        if isinstance(place, int) and base.whole:
            return replace(base, argument=place) if place >= 0 else None
        return None if base.whole else base

    def _call(self, node: ast.Call) -> Value | None:
        change = self.module.change(node.func)
        if change is not None and node.args:
            base = self.value(node.args[0])
            return self._changed(base, change, self.module.dim_of(node))
        if isinstance(node.func, ast.Attribute):
            method = node.func.attr
            base = self.value(node.func.value)
            if base is not None:
                if method in KEEPS:
                    return base
                known = CHANGES.get(method) == method
                return self._changed(base, method, self.module.dim_of(node)) if known else None
        if torch_name(node.func, self.module.known) in KEEPS and node.args:
            return self.value(node.args[0])
        return self._model_call(node)

    @staticmethod
    def _changed(base: Value | None, change: str, dim: int | None) -> Value | None:
        if base is None:
            return None
        return replace(base, through=(*base.through, change), dims=(*base.dims, dim))

    def _model_call(self, node: ast.Call) -> Value | None:
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
            return Value(self.owner or "", name="")
        if self.owner in self.module.classes:
            if name == head:
                return Value(self.owner or "")
            if head and name.startswith(head + "."):
                passes = self.module.classes[self.owner or ""]
                inner = name.removeprefix(head + ".")
                return Value((self.owner or "") if inner == passes else f"{self.owner}.{inner}")
        if name not in self.module.models:
            return self._parameter_call(name)
        renamed = self.module.parameters.get((self.function.name if self.function else "", name), name)
        return Value(renamed.rpartition(".")[2] if head and name.startswith(head + ".") else renamed)

    def _parameter_call(self, name: str) -> Value | None:
        """The output of a model that the function was given: `def step(net: Net, x): loss(net(x), y)`."""
        for parameter in self.function.args.args if self.function else ():
            if parameter.arg == name:
                kind = dotted(parameter.annotation) if parameter.annotation is not None else None
                known = (self.function.name if self.function else "", name)
                return Value(kind if kind in self.module.classes else self.module.parameters.get(known, name))
        return None


#: Attributes that tensors have: they are no names of outputs.
_OF_TENSORS = frozenset("shape device dtype grad is_cuda requires_grad ndim grad_fn real imag".split())


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((word.value for word in call.keywords if word.arg == name), None)
