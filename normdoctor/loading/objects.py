"""Objects that a target string names: a loss, a factory of optimizers, another model."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

from torch import nn

from normdoctor.errors import NormDoctorError, UsageError, brief, kind_of, near
from normdoctor.loading.importing import IMPORT_TIMEOUT, Loaded, find_place, loading, read_source, run_file
from normdoctor.loading.isolation import Imports
from normdoctor.loading.selecting import MISSING, lookup, named
from normdoctor.loading.soundness import foreign_errors
from normdoctor.loading.spec import parse_spec
from normdoctor.loading.target import from_object, module_file
from normdoctor.loading.watching import Watch


def load_object(text: str, what: str, *, import_timeout: float = IMPORT_TIMEOUT) -> Any:
    """The object that `pkg.mod:name`, `file.py:name` or `file.py:name(2)` names; `what` is for messages."""
    return load_with_imports(text, what, import_timeout=import_timeout)[0]


def load_with_imports(text: str, what: str, *, import_timeout: float = IMPORT_TIMEOUT) -> tuple[Any, Imports]:
    """The object, and the modules it was made with: they are put back in place for as long as it is used."""
    try:
        with foreign_errors(text):
            return _load(text, what, import_timeout)
    except UsageError:
        raise
    except NormDoctorError as error:
        raise UsageError(f"{what}: {error.message}", hint=error.hint) from error


def load_reference(text: str) -> nn.Module:
    """The model that a target string names, to compare another one with."""
    try:
        with foreign_errors(text):
            return from_object(text).model
    except NormDoctorError as error:
        raise UsageError(f"the reference: {error.message}", hint=error.hint) from error


def _load(text: str, what: str, seconds: float) -> tuple[Any, Imports]:
    spec = parse_spec(text)
    if spec.directory is not None or not spec.parts:
        raise UsageError(
            f"{what}: expected a name behind a file or module, found `{text}`",
            hint="For example train.py:loss_fn or package.module:make_optimizer.",
        )
    source = read_source(file := spec.file or module_file(spec))
    place = find_place(file, source[1], spec.module)
    watch, imports = Watch(place.roots), Imports(place.roots, place.search)
    with loading(imports, watch, [], source[0]) as origins:
        loaded = Loaded(place, ModuleType(place.name), watch, origins, imports)
        run_file(place, source, loaded, seconds=seconds, enough=named(spec))
        value = lookup(loaded, spec.parts)
        if value is MISSING:
            names = [name for name in loaded.namespace if not name.startswith("_")]
            stopped = f" (the import stopped: {watch.reason})" if watch.ended else ""
            raise UsageError(f"{what}: no name `{spec.name}` in {file}{stopped}", hint=near(spec.name, names))
        if spec.called or _is_factory(value):
            value = _called(value, text, what, spec.args, spec.kwargs)
    return value, imports


def _is_factory(value: Any) -> bool:
    """Is it a function that takes nothing, so that what it returns must be meant?"""
    return inspect.isfunction(value) and not inspect.signature(value).parameters


def _called(value: Any, text: str, what: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not callable(value):
        raise UsageError(f"{what}: {text} is {kind_of(value)}, and cannot be called")
    try:
        return value(*args, **kwargs)
    except (Exception, SystemExit) as error:  # the user's code: any error of its own
        raise UsageError(f"{what}: {text} could not be made: {brief(error)}") from error
