"""Choosing the models of an imported file: all of them, or the one that a target names."""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from normdoctor.errors import TargetError, brief, kind_of, near
from normdoctor.loading.building import arguments_for, call, cannot_build
from normdoctor.loading.candidates import (
    Candidate,
    Survey,
    built,
    instances,
    is_loss,
    left_out,
    looked_through,
)
from normdoctor.loading.importing import Loaded
from normdoctor.loading.misspelt import misspelt
from normdoctor.loading.soundness import demand_sound
from normdoctor.loading.spec import Spec
from normdoctor.loading.timelimit import time_limit
from normdoctor.loading.watching import Stopped

MISSING: Any = object()
#: So many names are listed; further ones are counted.
MANY = 4


def named(spec: Spec) -> Callable[[Loaded], bool]:
    """A test for "the import went far enough": does what `spec` names exist?"""
    return lambda loaded: lookup(loaded, spec.parts) is not MISSING


def choose(
    loaded: Loaded, tree: ast.Module, spec: Spec, seconds: float, *, shown: str, stopped: str | None
) -> list[Candidate]:
    """The candidates that `spec` asks for; raises TargetError when there are none."""
    if spec.parts:
        return _named_candidates(loaded, spec, seconds, shown, stopped)
    found = instances(loaded)
    if found:
        if others := left_out(loaded, tree, found):
            loaded.notes.append(_instances_only(found, others, shown))
        return found

    too_long = f"building took more than {seconds:g} s"

    def build(make: Callable[[], Any]) -> Any:
        with time_limit(seconds, lambda frame: loaded.watch.stop("time", too_long, frame)):
            return make()

    survey = built(loaded, tree, build)
    loaded.notes += survey.notes
    if not survey.candidates:
        raise _nothing_found(loaded, survey, shown, stopped)
    return survey.candidates


def _instances_only(found: list[Candidate], others: list[str], shown: str) -> str:
    """Say what of the file is checked, and what is not, with the way to check that too."""
    names = ", ".join(f"`{item.name}`" for item in found[:MANY])
    names += f" and {len(found) - MANY} more" if len(found) > MANY else ""
    left = ", ".join(others[:MANY]) + (f" and {len(others) - MANY} more" if len(others) > MANY else "")
    return f"checked as built in the file: {names}; not used there: {left} (to check: {shown}:{others[-1]})"


def lookup(loaded: Loaded, parts: tuple[str, ...]) -> Any:
    """The value that a dotted name means, in globals or in the frames where the import stopped."""
    for scope in loaded.scopes():
        if parts[0] not in scope:
            continue
        value = scope[parts[0]]
        for part in parts[1:]:
            value = _member(value, part)
            if value is MISSING:
                break
        else:
            return value
    return MISSING


def _member(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return value.get(name, value.get(int(name), MISSING) if name.isdecimal() else MISSING)
    if isinstance(value, list | tuple) and name.isdecimal():
        return value[int(name)] if int(name) < len(value) else MISSING
    try:
        return getattr(value, name, MISSING)
    except Exception:  # a property of the user's
        return MISSING


def _named_candidates(
    loaded: Loaded, spec: Spec, seconds: float, shown: str, stopped: str | None
) -> list[Candidate]:
    value = lookup(loaded, spec.parts)
    label = spec.name + spec.call
    full = f"{spec.module or shown}:{label}"
    if value is MISSING:
        known = [item for item in instances(loaded) if item.name == spec.name]
        if known:
            return known
        raise _no_such_name(loaded, spec, shown, stopped)
    if isinstance(value, nn.Module):
        if spec.called:
            raise TargetError(
                f"{shown}:{spec.name} is a model already, and cannot be called with {spec.call}"
            )
        demand_sound(value, full)
        model, note = looked_through(value)
        return [Candidate(label, model, [note] if note else [], value)]
    if not callable(value):
        raise TargetError(
            f"expected {full} to be an nn.Module, a class or a factory, found {_kind(value)}",
            hint=_offers(loaded),
        )
    try:
        return _call_named(loaded, spec, value, (label, full, shown), seconds)
    except TargetError as error:
        if stopped is None or not isinstance(error.__cause__, NameError):
            raise
        hint = "A name is missing because the import stopped before it was defined."
        raise TargetError(f"{error.message}; {stopped}", hint=hint) from error.__cause__


def _call_named(
    loaded: Loaded, spec: Spec, factory: Callable[..., Any], names: tuple[str, str, str], seconds: float
) -> list[Candidate]:
    """Build what a class or factory gives for the arguments of the target."""
    label, full, shown = names
    arguments = arguments_for(factory, loaded.namespace, spec.args, spec.kwargs)
    if arguments.missing:
        raise cannot_build(f"{shown}:{spec.name}", arguments.missing, shown)
    watch = loaded.watch
    if not watch.ended:
        watch.reset_scopes()
    try:
        with time_limit(seconds, lambda frame: watch.stop("time", "building took too long", frame)):
            value = call(factory, spec.args, {**arguments.values, **spec.kwargs})
    except Stopped:
        # a function such as main(), which trains: its models are what it had built
        if found := instances(loaded):
            return found
        raise TargetError(f"{full} did not return within {seconds:g} s, nor had it built a model") from None
    except (Exception, SystemExit) as error:
        raise TargetError(
            f"{full} could not be built: {brief(error)}",
            hint=f"Give other arguments, as in {shown}:{spec.name}(width=64), or name a factory.",
        ) from error
    notes = [f"built as {label}({arguments.shown})"] if arguments.shown else []
    if isinstance(value, tuple | list) and value and all(isinstance(item, nn.Module) for item in value):
        return [
            Candidate(f"{label}.{index}", looked_through(item)[0], notes, item)
            for index, item in enumerate(value)
        ]
    if not isinstance(value, nn.Module):
        raise TargetError(f"expected {full} to give an nn.Module, found {_kind(value)}", hint=_offers(loaded))
    demand_sound(value, full)
    model, note = looked_through(value)
    return [Candidate(label, model, notes + ([note] if note else []), value)]


def _kind(value: Any) -> str:
    return kind_of(value).partition(" ")[2]


def _candidates_by_name(loaded: Loaded) -> list[str]:
    """Names in the file that can be asked for: models, their classes, functions."""
    own = loaded.module.__name__
    names = [item.name for item in instances(loaded)]
    for name, value in loaded.namespace.items():
        is_class = inspect.isclass(value) and issubclass(value, nn.Module)
        if not name.startswith("_") and (is_class or inspect.isfunction(value)) and value.__module__ == own:
            names.append(name)
    return names


def _offers(loaded: Loaded) -> str | None:
    names = _candidates_by_name(loaded)
    return "The file offers: " + ", ".join(names[:12]) if names else None


def _no_such_name(loaded: Loaded, spec: Spec, shown: str, stopped: str | None) -> TargetError:
    names = _candidates_by_name(loaded)
    everything = [name for name, value in loaded.namespace.items() if not isinstance(value, ModuleType)]
    hint = (
        near(spec.name, names)
        or near(spec.name, everything)
        or _offers(loaded)
        or "The file offers no model."
    )
    message = f"no name `{spec.name}` in {spec.module or shown}"
    if stopped:
        message += f" ({stopped})"
    return TargetError(message, hint=hint)


def _outermost(loaded: Loaded, failures: list[tuple[str, str]]) -> tuple[str, str]:
    """The class or factory that no other one names in its source: likelier the model than a block of it."""
    sources = {}
    for name, _ in failures:
        with contextlib.suppress(OSError, TypeError):
            sources[name] = set(re.findall(r"\w+", inspect.getsource(loaded.namespace[name])))
    free = [
        one for one in failures if not any(one[0] in used for name, used in sources.items() if name != one[0])
    ]
    return (free or failures)[-1]


def _nothing_found(loaded: Loaded, survey: Survey, shown: str, stopped: str | None) -> TargetError:
    """Say what was looked for, what was found, and what stood in the way."""
    if survey.failures:
        if stopped and loaded.missing:
            stopped += f"; not installed, so a placeholder stood in: {', '.join(loaded.missing)}"
        name, reason = _outermost(loaded, survey.failures)
        listed = "; ".join(f"{name} ({reason})" for name, reason in survey.failures[:6])
        listed += f"; and {len(survey.failures) - 6} more" if len(survey.failures) > 6 else ""
        if len(survey.failures) == 1 and reason.startswith("missing "):
            error = cannot_build(f"{shown}:{name}", tuple(reason[8:].split(", ")), shown)
            if stopped:
                error.hint = f"{error.hint} ({stopped})"
            return error
        return TargetError(
            f"{shown} holds no model that can be built without arguments: {listed}",
            hint=f"Name one with its arguments, as in {shown}:{name}(...), or a factory without arguments."
            + (f" ({stopped})" if stopped else ""),
        )
    if stopped:
        return TargetError(
            f"{shown} had built no model when {stopped}",
            hint="Name a file that defines or builds an nn.Module.",
        )
    names = [
        name
        for name, value in loaded.namespace.items()
        if not name.startswith("__") and not isinstance(value, ModuleType)
    ]
    found = ", ".join(names[:12]) if names else "no name at all"
    hint = "Name a file that defines or builds an nn.Module."
    idle = [name for name in names if _lacks_forward(loaded.namespace[name])]
    elsewhere = {name: kind for name, kind in loaded.namespace.items() if _defined_beside(loaded, kind)}
    if idle:
        slip = misspelt(loaded.namespace[name] for name in idle)
        hint = slip or f"{idle[0]} is an nn.Module without a forward."
    elif elsewhere:
        name, kind = next(iter(elsewhere.items()))
        hint = f"{name} is defined in {Path(inspect.getfile(kind)).name}: name that file."
    elif loaded.missing:
        hint = f"Not found, so a placeholder stood in: {', '.join(loaded.missing)}."
    losses = [
        name for name, value in loaded.namespace.items() if isinstance(value, nn.Module) and is_loss(value)
    ]
    extra = f" ({', '.join(losses)}: a loss is not a model)" if losses else ""
    return TargetError(
        f"no model in {shown}: looked for nn.Module instances, and for classes and factories that build "
        f"without arguments; found {found}{extra}",
        hint=hint,
    )


def _defined_beside(loaded: Loaded, value: Any) -> bool:
    """Is it a class of models that the file imports from a neighbour of its own?"""
    if not (inspect.isclass(value) and issubclass(value, nn.Module)):
        return False
    with contextlib.suppress(OSError, TypeError):
        file = Path(inspect.getfile(value))
        return file != loaded.place.file and file.is_relative_to(loaded.place.file.parent)
    return False


def _lacks_forward(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, nn.Module) and value.forward is nn.Module.forward
