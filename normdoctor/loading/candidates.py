"""Which models an imported file offers: its instances, otherwise what its classes and factories build."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedParameter

from normdoctor.errors import brief
from normdoctor.loading.building import arguments_for, call
from normdoctor.loading.importing import Loaded
from normdoctor.loading.origins import Origins
from normdoctor.loading.scopes import instances_of
from normdoctor.loading.soundness import flaw
from normdoctor.loading.watching import Stopped
from normdoctor.loading.wrappers import wrapped

#: How many classes and factories of one file are built.
MAX_BUILT = 16

_NOT_FACTORIES = ("main", "train", "test", "evaluate", "eval", "run", "fit", "validate", "demo")


@dataclass
class Candidate:
    """A model of the file, and the name by which it can be asked for."""

    name: str
    model: nn.Module
    notes: list[str] = field(default_factory=list)
    wrapper: nn.Module | None = None


@dataclass
class Survey:
    """What was looked at in a file, for the error that says that nothing was found."""

    candidates: list[Candidate] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def looked_through(model: nn.Module) -> tuple[nn.Module, str | None]:
    """Look through compiled, DataParallel and DDP wrappers; the note says so."""
    kinds = []
    while (inner := wrapped(model)) is not None:
        kinds.append(type(model).__name__)
        model = inner
    return model, f"looked through {' and '.join(kinds)}" if kinds else None


def instances(loaded: Loaded) -> list[Candidate]:
    """The models that exist when the import ends, in globals and in the frames where it stopped."""
    found: dict[int, Candidate] = {}
    own = loaded.place.name
    for scope in loaded.scopes():
        for label, module in instances_of(nn.Module, scope, own):
            model, note = looked_through(module)
            if id(model) not in found:
                found[id(model)] = Candidate(label, model, [note] if note else [], module)
    found = {key: item for key, item in found.items() if not flaw(item.model)}
    if not found:
        for module, _, _ in loaded.watch.calls.values():
            model, note = looked_through(module)
            found[id(model)] = Candidate(type(model).__name__, model, [note] if note else [], module)
    return roots([item for item in found.values() if not is_loss(item.model)])


def left_out(loaded: Loaded, tree: ast.Module, found: list[Candidate]) -> list[str]:
    """The classes of models in the file that no instance has a layer of, by name; losses do not count."""
    used = {type(module) for item in found for module in item.model.modules()}
    return [
        name
        for name, cls in _classes(loaded, tree)
        if not any(issubclass(one, cls) for one in used) and not name.lower().endswith(("loss", "criterion"))
    ]


def is_loss(module: nn.Module) -> bool:
    """Is it a loss and not a model?"""
    if type(module).__module__ == "torch.nn.modules.loss":
        return True
    bare = next(module.parameters(), None) is None
    return bare and type(module).__name__.lower().endswith(("loss", "criterion"))


def roots(candidates: list[Candidate]) -> list[Candidate]:
    """Leave out what is part of another candidate, and bare layers beside real models."""
    inside = {
        id(module) for item in candidates for module in item.model.modules() if module is not item.model
    }
    kept = [item for item in candidates if id(item.model) not in inside]
    models = [item for item in kept if not _is_bare(item.model)]
    return models or kept


def _is_bare(module: nn.Module) -> bool:
    """One of torch's own layers without parameters (`nn.Softmax(dim=1)`), or a `...Loss` with some."""
    if type(module).__name__.lower().endswith(("loss", "criterion")):
        return True
    own = type(module).__module__.startswith("torch.nn")
    return own and next(module.parameters(), None) is None and not list(module.children())


Build = Callable[[Callable[[], Any]], Any]


def built(loaded: Loaded, tree: ast.Module, build: Build) -> Survey:
    """Build the classes and factories of the file that can be; `build` runs one with a time limit."""
    survey = Survey()
    factories: list[tuple[str, Callable[..., Any]]] = [*_classes(loaded, tree), *_functions(loaded, tree)]
    seen: set[Any] = set()
    made: list[tuple[Callable[..., Any], Candidate]] = []
    for name, factory in factories:
        arguments = arguments_for(factory, loaded.namespace)
        if arguments.missing:
            survey.failures.append((name, "missing " + ", ".join(arguments.missing)))
            continue
        if len(made) >= MAX_BUILT:
            survey.notes.append(f"only the first {MAX_BUILT} models were built; name {name} to check it")
            break
        try:
            model = build(lambda f=factory, a=arguments: call(f, (), a.values))  # type: ignore[misc]
        except Stopped as stop:
            survey.failures.append((name, str(stop)))
            continue
        except (Exception, SystemExit) as error:
            survey.failures.append((name, brief(error)))
            continue
        if not isinstance(model, nn.Module):
            survey.failures.append((name, f"gave {type(model).__name__}"))
            continue
        if reason := flaw(model):
            survey.failures.append((name, reason))
            continue
        key = _signature(model)
        if key in seen or is_loss(model):
            continue
        seen.add(key)
        notes = [f"built as {name}({arguments.shown})"] if arguments.shown else []
        made.append((factory, Candidate(name, model, notes, model)))
    survey.candidates = _root_factories(made, loaded.origins)
    return survey


def _classes(loaded: Loaded, tree: ast.Module) -> Iterator[tuple[str, type[nn.Module]]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        value = loaded.namespace.get(node.name)
        if (
            inspect.isclass(value)
            and issubclass(value, nn.Module)
            and value.__module__ == loaded.module.__name__
            and _has_forward(value)
            and not inspect.isabstract(value)
        ):
            yield node.name, value


def _has_forward(cls: type[nn.Module]) -> bool:
    return cls.forward is not nn.Module.forward or cls.__call__ is not nn.Module.__call__


def _functions(loaded: Loaded, tree: ast.Module) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Functions and lambdas of the file that look like factories of models."""
    makers = {
        name
        for name, value in loaded.namespace.items()
        if inspect.isclass(value) and issubclass(value, nn.Module)
    }
    pending = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    lambdas = [
        (node.targets[0].id, node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Lambda)
        and isinstance(node.targets[0], ast.Name)
    ]
    chosen: dict[str, None] = {}
    changed = True
    while changed:
        changed = False
        for node in pending:
            if node.name not in chosen and node.name not in _NOT_FACTORIES and _returns_model(node, makers):
                chosen[node.name] = None
                makers.add(node.name)
                changed = True
    chosen |= {name: None for name, value in lambdas if _is_model(value.body, makers, {})}
    order = [node.name for node in pending if node.name in chosen] + [
        name for name, _ in lambdas if name in chosen
    ]
    for name in order:
        value = loaded.namespace.get(name)
        if inspect.isfunction(value) and not name.startswith("_"):
            yield name, value


def _returns_model(function: ast.FunctionDef, makers: set[str]) -> bool:
    """Does a function return what a class of models or another factory gives?"""
    if function.returns is not None:
        text = ast.unparse(function.returns).strip("\"'")
        if text in makers or text.endswith("nn.Module"):
            return True
    local: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    local.setdefault(target.id, []).append(node.value)
    returns = [
        node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value is not None
    ]
    return bool(returns) and all(_is_model(value, makers, local) for value in returns)


def _is_model(value: ast.expr, makers: set[str], local: dict[str, list[ast.expr]], depth: int = 0) -> bool:
    if isinstance(value, ast.Name) and value.id in local and depth < 4:
        return any(_is_model(item, makers, local, depth + 1) for item in local[value.id])
    if isinstance(value, ast.Call):
        if isinstance(value.func, ast.Name):
            return value.func.id in makers
        if isinstance(value.func, ast.Attribute):
            if value.func.attr in ("to", "cuda", "cpu", "eval", "train", "half", "float", "double", "apply"):
                return _is_model(value.func.value, makers, local, depth + 1)
            return ast.unparse(value.func).startswith(("nn.", "torch.nn.")) and value.func.attr[:1].isupper()
    return False


def _root_factories(made: list[tuple[Callable[..., Any], Candidate]], origins: Origins) -> list[Candidate]:
    """Leave out classes and factories of which another candidate's parts are made."""
    part_types: dict[type, set[int]] = {}
    part_codes: dict[Any, set[int]] = {}
    for index, (_, item) in enumerate(made):
        own = {code for code, _ in origins.sites(item.model)}
        for module in item.model.modules():
            if module is not item.model:
                part_types.setdefault(type(module), set()).add(index)
                for code, _ in origins.sites(module):
                    if code not in own:
                        part_codes.setdefault(code, set()).add(index)
    kept = []
    for index, (factory, item) in enumerate(made):
        used = (
            part_types.get(type(item.model), set())
            if type(item.model).__module__ != "torch.nn.modules.container"
            else set()
        )
        if inspect.isfunction(factory):
            used = used | part_codes.get(factory.__code__, set())
        if not used - {index}:
            kept.append(item)
    return roots(kept) if kept else [item for _, item in made]


def _signature(model: nn.Module) -> Any:
    """Two models with the same layers and parameters are one candidate."""
    return repr(model), tuple(
        (name, tuple(value.shape)) for name, value in model.named_parameters() if not _is_lazy(value)
    )


def _is_lazy(value: Any) -> bool:
    return isinstance(value, UninitializedParameter)
