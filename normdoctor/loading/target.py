"""Targets: from a string such as `model.py:Net` or a live object to models that can be recorded."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from normdoctor.errors import TargetError, brief, kind_of, near
from normdoctor.loading.building import arguments_for, call
from normdoctor.loading.candidates import Candidate, instances, looked_through
from normdoctor.loading.declared import declared_by_model, declared_in_file
from normdoctor.loading.example import ExampleInputs
from normdoctor.loading.importing import (
    IMPORT_TIMEOUT,
    Loaded,
    Place,
    find_place,
    loading,
    read_source,
    run_file,
)
from normdoctor.loading.isolation import Imports, generators, is_own
from normdoctor.loading.origins import Origins, record_origins
from normdoctor.loading.selecting import choose, named
from normdoctor.loading.sourceloss import SourceLoss, losses_in
from normdoctor.loading.spec import Spec, parse_spec
from normdoctor.loading.stand_ins import filled_memory
from normdoctor.loading.watching import Watch

#: Files of the target's folder that are searched for losses, and how long they may be.
_MOST_SCRIPTS = 40
_LONGEST_SCRIPT = 200_000

_EXPECTED = "expected an nn.Module, a factory without arguments or a target string such as model.py:Net"


@dataclass(frozen=True)
class Target:
    """A model, and what is known about it before it runs.

    `stopped` says where and why the import of its file ended early; `scripted` marks a ScriptModule,
    whose forward cannot be recorded.
    """

    name: str
    model: nn.Module
    origins: Origins | None = None
    inputs: ExampleInputs | None = None
    losses: tuple[SourceLoss, ...] = ()
    optimizers: tuple[torch.optim.Optimizer, ...] = ()
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stopped: str | None = None
    scripted: bool = False
    imports: Imports | None = field(default=None, repr=False)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Put the modules of the target's file back in place, for a forward that imports."""
        if self.imports is None:
            yield
            return
        with self.imports.active():
            yield


def load(spec: str | Spec, *, import_timeout: float = IMPORT_TIMEOUT) -> list[Target]:
    """Import what a target string names and return its models."""
    parsed = parse_spec(spec) if isinstance(spec, str) else spec
    if parsed.directory is not None:
        return _load_directory(parsed.directory, import_timeout)
    if parsed.file is not None:
        return _load_file(parsed.file, parsed, import_timeout)
    return _load_file(module_file(parsed), parsed, import_timeout)


def from_object(obj: Any, name: str | None = None) -> Target:
    """Make a target of a live module, a factory without arguments, or a target string with one model."""
    if isinstance(obj, Target):
        return obj
    if isinstance(obj, str | os.PathLike):
        return _single(load(os.fspath(obj)))
    if isinstance(obj, torch.export.ExportedProgram):
        return _exported(obj, name)
    origins: Origins | None = None
    notes: list[str] = []
    label: str = name or ""
    if not isinstance(obj, nn.Module):
        if not callable(obj):
            raise TargetError(f"{_EXPECTED}, found {_described(obj)}")
        label = name or str(getattr(obj, "__name__", type(obj).__name__))
        obj, origins, shown = _built_here(obj, label)
        notes += [f"built as {label}({shown})"] if shown else []
    model, note = looked_through(obj)
    notes += [note] if note else []
    return Target(
        label or type(model).__name__,
        model,
        origins,
        inputs=declared_by_model(model),
        notes=tuple(notes),
        scripted=isinstance(model, torch.jit.ScriptModule),
    )


def _exported(program: torch.export.ExportedProgram, name: str | None) -> Target:
    """The module of an ExportedProgram, with the inputs that it was exported with."""
    inputs = None
    if program.example_inputs is not None:
        args, kwargs = program.example_inputs
        inputs = ExampleInputs(tuple(args), dict(kwargs), "declared", "those of the ExportedProgram")
    label = name or "ExportedProgram"
    return Target(label, program.module(), inputs=inputs, notes=("taken from an ExportedProgram",))


def _built_here(factory: Callable[..., Any], label: str) -> tuple[nn.Module, Origins, str]:
    """Build a model from a class or factory of the running program."""
    namespace = getattr(inspect.getmodule(factory), "__dict__", {})
    arguments = arguments_for(factory, namespace)
    if arguments.missing:
        listed = ", ".join(f"`{item}`" for item in arguments.missing)
        raise TargetError(
            f"{label} cannot be built without arguments: missing {listed}",
            hint="Pass the built model, or a factory such as `lambda: ...`.",
        )
    with generators(), filled_memory(), record_origins() as origins:
        try:
            model = call(factory, (), arguments.values)
        except (Exception, SystemExit) as error:
            raise TargetError(f"{label} could not be built: {brief(error)}") from error
    if not isinstance(model, nn.Module):
        raise TargetError(f"{_EXPECTED}, found {_described(factory)} that gave {_described(model)}")
    return model, origins, arguments.shown


def _described(value: Any) -> str:
    if inspect.isfunction(value) or inspect.isclass(value):
        return f"{'class' if inspect.isclass(value) else 'function'} `{value.__name__}`"
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, dict) and value and all(isinstance(item, torch.Tensor) for item in value.values()):
        return "a dict of tensors (a state dict has no forward: build the model and load it)"
    return kind_of(value)


def _single(targets: list[Target]) -> Target:
    if len(targets) > 1:
        raise TargetError(
            f"expected one model, found {len(targets)}: " + ", ".join(f"`{item.name}`" for item in targets),
            hint="Name one of them.",
        )
    return targets[0]


def _load_directory(folder: Path, seconds: float) -> list[Target]:
    """Every model of the Python files in a directory; files without one are noted."""
    targets: list[Target] = []
    skipped: list[str] = []
    files = sorted(path for path in folder.glob("*.py") if _may_hold_models(path))
    for path in files:
        try:
            targets += _load_file(path, Spec(str(path), path), seconds)
        except TargetError as error:
            skipped.append(f"skipped {path.as_posix()}: {error.message}")
    if not targets:
        hint = "\n  ".join(skipped) or "None of its .py files imports torch."
        raise TargetError(
            f"no model in the directory {folder}: looked at {len(files)} Python files", hint=hint
        )
    targets[0] = replace(targets[0], notes=(*targets[0].notes, *skipped))
    return targets


def _may_hold_models(path: Path) -> bool:
    if (
        path.name in ("setup.py", "conftest.py")
        or path.name.startswith("test_")
        or path.stem.endswith("_test")
    ):
        return False
    with contextlib.suppress(OSError):
        return b"torch" in path.read_bytes()
    return False


def _load_file(file: Path, spec: Spec, seconds: float) -> list[Target]:
    """Import one file and make targets of what it holds, or of the one thing that `spec` names."""
    source = read_source(file)
    place = find_place(file, source[1], spec.module)
    watch, imports = Watch(place.roots), Imports(place.roots, place.search)
    notes: list[str] = []
    with loading(imports, watch, notes, source[0]) as origins:
        loaded = Loaded(place, ModuleType(place.name), watch, origins, imports, notes)
        enough = named(spec) if spec.parts else lambda seen: bool(instances(seen))
        run_file(place, source, loaded, seconds=seconds, enough=enough)
        stopped = _stop_note(watch, place, loaded.missing)
        found = choose(loaded, source[1], spec, seconds, shown=place.shown(place.file), stopped=stopped)
        return _targets(loaded, found, spec, stopped)


def _stop_note(watch: Watch, place: Place, missing: Sequence[str]) -> str | None:
    if not watch.ended:
        return None
    # What a library does with a placeholder tells nobody that another library is missing.
    lacks = f"; not installed: {', '.join(missing)}" if missing else ""
    file, _, line = (watch.where or "").rpartition(":")
    where = f" at {place.shown(file)}:{line}" if watch.where else ""
    return f"the import stopped{where}: {watch.reason}{lacks}"


def _targets(loaded: Loaded, found: list[Candidate], spec: Spec, stopped: str | None) -> list[Target]:
    place = loaded.place
    prefix = spec.module or place.shown(place.file)
    files = _files(loaded)
    models = [name for name, value in loaded.namespace.items() if isinstance(value, nn.Module)]
    losses = [loss for file in files for loss in losses_of(file, models)]
    beside = [loss for file in _scripts_beside(loaded.place, files) for loss in losses_of(file)]
    optimizers = loaded.optimizers()
    targets = []
    for item in found:
        name = f"{prefix}:{item.name}"
        parameters = {id(value) for value in item.model.parameters()}
        targets.append(
            Target(
                name,
                item.model,
                loaded.origins,
                inputs=_inputs(loaded, item),
                losses=tuple(
                    replace(loss, model=item.name.partition("(")[0])
                    for loss in (
                        *(one for one in losses if _applies(one, item, loaded, alone=len(found) == 1)),
                        *(one for one in beside if one.built in _names(item)),
                    )
                ),
                optimizers=tuple(
                    each
                    for each in optimizers
                    if any(
                        id(value) in parameters for group in each.param_groups for value in group["params"]
                    )
                ),
                files=files,
                notes=tuple([stopped] if stopped else []) + tuple(loaded.notes) + tuple(item.notes),
                stopped=stopped,
                scripted=isinstance(item.model, torch.jit.ScriptModule),
                imports=loaded.imports,
            )
        )
    return targets


def _applies(loss: SourceLoss, item: Candidate, loaded: Loaded, *, alone: bool) -> bool:
    """Is the loss taken of this model's output (as far as the source says)?"""
    names = _names(item)
    if loss.model is None or loss.model in names or loss.built in names:
        return True
    if isinstance(loaded.namespace.get(loss.built or ""), type):
        return False  # a model of another class
    # the only model of the file goes by another name in the function that trains it
    return alone and "." not in loss.model and not isinstance(loaded.namespace.get(loss.model), type)


def _names(item: Candidate) -> set[str]:
    """What a model goes by: its name in the file, and its classes (torch's say nothing)."""
    classes = {cls.__name__ for cls in type(item.model).__mro__ if not cls.__module__.startswith("torch.")}
    return {item.name, item.name.rpartition(".")[2], item.name.partition("(")[0], *classes - {"object"}}


def _scripts_beside(place: Place, known: tuple[str, ...]) -> list[str]:
    """Files of the same folder that import this one: the script that trains the model is among them."""
    found = []
    for file in sorted(place.file.parent.glob("*.py"))[:_MOST_SCRIPTS]:
        with contextlib.suppress(OSError, ValueError):
            if str(file) not in known and file.stat().st_size < _LONGEST_SCRIPT:
                text = file.read_text(encoding="utf-8")
                if "oss" in text and "torch" in text and _imports(text, place.file.stem):
                    found.append(str(file))
    return found


def _imports(text: str, name: str) -> bool:
    """Does a line of the source import something of this name?"""
    pattern = rf"^\s*(from|import)\s.*\b{re.escape(name)}\b"
    return name in text and re.search(pattern, text, re.MULTILINE) is not None


def _files(loaded: Loaded) -> tuple[str, ...]:
    """The target's file and the files of its own that it imported.

    What the process had imported before is none of them unless the source asks for it: the modules of other
    tests of a suite, for example.
    """
    files = {
        name: Path(file)
        for name, module in list(sys.modules.items())
        if is_own(module, loaded.place.roots[:2])
        and (file := getattr(module, "__file__", None))
        and file.endswith(".py")
    }
    earlier = loaded.imports.earlier
    reached = {name for name in files if earlier.get(name) is not sys.modules.get(name)}
    todo = [loaded.place.file, *(files[name] for name in reached)]
    while todo and len(reached) < len(files):
        text = ""
        with contextlib.suppress(OSError, ValueError):
            text = todo.pop().read_text(encoding="utf-8")
        asked = {name for name in files if name not in reached and _imports(text, name.rpartition(".")[2])}
        reached |= asked
        todo += [files[name] for name in asked]
    others = sorted({str(files[name]) for name in reached} - {str(loaded.place.file)})
    return (str(loaded.place.file), *others)


def losses_of(file: str, models: Iterable[str] = ()) -> tuple[SourceLoss, ...]:
    """The losses that a file applies; none where it cannot be read."""
    try:
        return losses_in(Path(file).read_text(encoding="utf-8"), file, models)
    except (OSError, SyntaxError, ValueError):
        return ()


def _inputs(loaded: Loaded, item: Candidate) -> ExampleInputs | None:
    """Declared for the purpose, else captured, else a variable `inputs`, else what the model offers."""
    declared = declared_in_file(loaded.namespace, ("example_inputs", "example_input"))
    if declared is not None:
        return declared
    for module in (item.wrapper, item.model):
        if module is not None and (called := loaded.watch.called(module)) is not None:
            return ExampleInputs(*called, source="captured", note="the file's own first call of the model")
    return declared_in_file(loaded.namespace, ("inputs",)) or declared_by_model(item.model)


def module_file(spec: Spec) -> Path:
    """The file of a dotted module name, found on the search path without importing it."""
    assert spec.module is not None
    parts = spec.module.split(".")
    folders = [Path.cwd(), *(Path(entry) for entry in sys.path if entry)]
    for folder in folders:
        base = folder.joinpath(*parts)
        for file in (base.with_name(base.name + ".py"), base / "__init__.py"):
            if file.is_file():
                return file
    with contextlib.suppress(ImportError, ValueError, AttributeError):
        found = importlib.util.find_spec(spec.module)
        if found is not None and found.origin and found.origin.endswith(".py"):
            return Path(found.origin)
        if found is not None:
            raise TargetError(
                f"the module {spec.module} has no Python source (it is {found.origin or 'a folder'})",
                hint="Name the module or file that builds the model.",
            )
    names = [f"{entry.name}" for entry in Path.cwd().iterdir() if entry.suffix == ".py" or entry.is_dir()]
    raise TargetError(
        f"no such file, directory or module: {spec.module}",
        hint=near(spec.module, names)
        or "Targets look like model.py, model.py:Net, pkg.mod:factory or a directory.",
    )
