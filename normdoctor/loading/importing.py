"""Importing a target's file as far as it goes, and keeping what it had built when it stopped."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import linecache
import sys
import time
import tokenize
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from torch.optim import Optimizer

from normdoctor.errors import TargetError, brief
from normdoctor.loading.isolation import Imports, is_installed, preserved
from normdoctor.loading.origins import Origins, record_optimizers, record_origins
from normdoctor.loading.placeholders import placeholders
from normdoctor.loading.recovery import define_rest
from normdoctor.loading.scopes import instances_of
from normdoctor.loading.stand_ins import (
    cpu_for_cuda,
    filled_memory,
    kept_alive,
    lenient_arguments,
    no_network,
)
from normdoctor.loading.timelimit import time_limit
from normdoctor.loading.watching import Stopped, Watch, traceback_free, watching

IMPORT_TIMEOUT = 20.0

#: How many missing libraries a placeholder is tried for.
_MAX_PLACEHOLDERS = 12


@dataclass
class Place:
    """Where a file stands in the import system: its dotted name, its folders, the search path."""

    file: Path
    name: str
    roots: tuple[Path, ...]
    search: tuple[str, ...]
    installed: bool = False
    cwd: Path = field(default_factory=Path.cwd)

    def shown(self, path: Path | str) -> str:
        """A path as it is printed: relative to the working directory when inside it."""
        full = Path(path).resolve()
        with contextlib.suppress(ValueError):
            return full.relative_to(self.cwd).as_posix()
        return full.as_posix()

    @property
    def package(self) -> str:
        """The package that relative imports start from; empty outside of one."""
        return self.name.rpartition(".")[0]


@dataclass
class Loaded:
    """What an import left behind."""

    place: Place
    module: ModuleType
    watch: Watch
    origins: Origins
    imports: Imports
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def namespace(self) -> dict[str, Any]:
        """The globals of the file."""
        return vars(self.module)

    def scopes(self) -> list[dict[str, Any]]:
        """The globals, then the local variables of the frames where the import stopped."""
        return [self.namespace, *(variables for _, variables in self.watch.scopes)]

    def optimizers(self) -> list[Optimizer]:
        """The optimizers that exist when the import ends."""
        found = [each for scope in self.scopes() for each in instances_of(Optimizer, scope, self.place.name)]
        return list({id(value): value for _, value in found}.values())


def read_source(file: Path) -> tuple[str, ast.Module]:
    """Read and parse a Python file; raises TargetError with file and line when it cannot be."""
    try:
        with tokenize.open(file) as stream:
            text = stream.read()
        return text, ast.parse(text, str(file))
    except SyntaxError as error:
        line = f":{error.lineno}" if error.lineno else ""
        raise TargetError(
            f"expected Python source, found a syntax error at {file}{line}: {error.msg}",
            hint=(error.text or "").strip() or None,
        ) from None
    except (UnicodeDecodeError, ValueError, OSError) as error:
        raise TargetError(f"expected Python source in {file}, but it cannot be read: {error}") from None


def find_place(file: Path, tree: ast.Module, name: str | None = None) -> Place:
    """Find the package that a file belongs to: by its dotted `name`, `__init__.py` or relative imports."""
    file = file.resolve()
    depth = max((node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)), default=0)
    depth = max(depth, name.count(".")) if name else depth
    folder = file.parent
    parts = [] if file.name == "__init__.py" else [file.stem.replace(".", "_")]
    levels = 0
    while ((folder / "__init__.py").is_file() or levels < depth) and folder.parent != folder:
        parts.insert(0, folder.name)
        folder = folder.parent
        levels += 1
    top = folder / parts[0] if levels else file.parent
    if not levels and parts[0] in (*sys.stdlib_module_names, "torch", "numpy"):
        parts = [f"target_{parts[0]}"]
    project = next((up for up in (folder, *folder.parents) if _is_project(up)), None)
    near = [str(folder), str(file.parent)] if levels else [str(file.parent)]
    search = dict.fromkeys([*near, str(Path.cwd()), *([str(project)] if project else [])])
    roots = dict.fromkeys([top, file.parent, *(Path(entry) for entry in search)])
    return Place(file, ".".join(parts), tuple(roots), tuple(search), is_installed(str(file)))


def _is_project(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("pyproject.toml", "setup.py", ".git"))


@contextmanager
def loading(imports: Imports, watch: Watch, notes: list[str], text: str = "") -> Iterator[Origins]:
    """The surroundings in which the target's code runs; everything is put back at the end."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(preserved())
        stack.enter_context(imports.active())
        stack.enter_context(no_network())
        stack.enter_context(kept_alive())
        stack.enter_context(lenient_arguments(notes))
        stack.enter_context(filled_memory())
        stack.enter_context(cpu_for_cuda())
        stack.enter_context(watching(watch))
        if "compile(" in text:
            stack.enter_context(_eager())
        origins = stack.enter_context(record_origins())
        stack.enter_context(record_optimizers(origins))
        yield origins


@contextmanager
def _eager() -> Iterator[None]:
    """Run compiled modules uncompiled: only their first inputs are of interest."""
    import torch

    with torch.compiler.set_stance("force_eager"):
        yield


def run_file(
    place: Place,
    source: tuple[str, ast.Module],
    loaded: Loaded,
    *,
    seconds: float,
    enough: Callable[[Loaded], bool],
) -> None:
    """Run a file inside `loading`, until it ends or is stopped; `loaded` takes what there is.

    Libraries that are not installed are replaced by placeholders and the file is run again. When an
    error or exit leaves nothing behind (`enough` is false), the remaining definitions are run.
    """
    deadline = time.monotonic() + seconds
    linecache.checkcache(str(place.file))
    while True:
        sys.argv = [str(place.file)]
        with placeholders(loaded.missing):
            error = _attempt(place, source[1], loaded, deadline, seconds)
            name = _missing_library(error)
            if name is not None and name not in loaded.missing and len(loaded.missing) < _MAX_PLACEHOLDERS:
                loaded.missing.append(name)
                loaded.watch.reset()
                loaded.imports.drop()
                sys.modules.pop(place.name, None)
                continue
            if error is not None and not enough(loaded):
                _recover(place, source[1], loaded, error, deadline)
        break
    if error is not None:
        traceback_free(error)
    if loaded.missing:
        listed = ", ".join(loaded.missing)
        loaded.notes.append(f"not installed, so a placeholder stood in while importing: {listed}")


def _attempt(
    place: Place, tree: ast.Module, loaded: Loaded, deadline: float, seconds: float
) -> BaseException | None:
    """Run the file once; returns the exception that ended it, None at its end or when stopped."""
    watch = loaded.watch
    try:
        with time_limit(
            max(deadline - time.monotonic(), 0.05),
            lambda frame: watch.stop("time", f"the time limit of {seconds:g} s was reached", frame),
        ):
            _import_parents(place, loaded)
            if place.installed:
                loaded.module = importlib.import_module(place.name)
            elif place.name in sys.modules and place.package:
                loaded.module = sys.modules[place.name]
            else:
                loaded.module = _fresh_module(place)
                sys.modules[place.name] = loaded.module
                code = compile(tree, str(place.file), "exec", dont_inherit=True)
                exec(code, vars(loaded.module))
    except (Stopped, KeyboardInterrupt) as stop:
        if isinstance(stop, KeyboardInterrupt):
            raise
    except BaseException as error:
        watch.failed(error)
        return error
    return None


def _import_parents(place: Place, loaded: Loaded) -> None:
    """Import the packages around the file; one that fails is entered without its `__init__`."""
    if not place.package:
        return
    try:
        importlib.import_module(place.package)
    except ModuleNotFoundError as error:
        if _missing_library(error) not in (None, *loaded.missing):
            raise
        _bare_parents(place, loaded, error)
    except Exception as error:
        _bare_parents(place, loaded, error)


def _bare_parents(place: Place, loaded: Loaded, error: Exception) -> None:
    loaded.imports.drop()
    parts = place.package.split(".")
    folder = place.file.parent
    for count in range(len(parts), 0, -1):
        name = ".".join(parts[:count])
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        package.__package__ = name
        package.__spec__ = ModuleSpec(name, None, is_package=True)
        sys.modules[name] = package
        folder = folder.parent
    loaded.notes.append(
        f"the package {parts[0]} could not be imported ({brief(error)}), "
        f"so {place.file.name} was imported without running its __init__.py"
    )


def _fresh_module(place: Place) -> ModuleType:
    folders = [str(place.file.parent)] if place.file.name == "__init__.py" else None
    loader = SourceFileLoader(place.name, str(place.file))
    spec = importlib.util.spec_from_file_location(
        place.name, str(place.file), loader=loader, submodule_search_locations=folders
    )
    assert spec is not None
    return importlib.util.module_from_spec(spec)


def _missing_library(error: BaseException | None) -> str | None:
    """The module that an import did not find, cut to the part that is missing."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    parts = error.name.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        if name in sys.modules:
            continue
        try:
            found = importlib.util.find_spec(name) is not None
        except (ImportError, ValueError, AttributeError):
            found = False
        if not found:
            return name
    return None


def _recover(place: Place, tree: ast.Module, loaded: Loaded, error: BaseException, deadline: float) -> None:
    """After an error that left no model: run the definitions in the rest of the file."""
    line = None
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == str(place.file) and code.co_name == "<module>":
            line = trace.tb_lineno
        trace = trace.tb_next
    if line is None:
        return
    skipped: list[str] = []
    with (
        contextlib.suppress(Stopped),
        time_limit(max(deadline - time.monotonic(), 1.0), lambda frame: Stopped("time")),
    ):
        define_rest(tree, place.file, line, loaded.namespace, skipped)
    note = "the definitions after that line were run all the same"
    if skipped:
        what = "it failed too: line" if len(skipped) == 1 else "they failed too: lines"
        note += f" (skipped, because {what} {', '.join(skipped[:8])})"
    loaded.notes.append(note)
