"""The files of a project as they would be: a copy in which changed source is tried, and writing it back."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from normdoctor.errors import UsageError
from normdoctor.files import write_whole
from normdoctor.fixing.splices import Refused
from normdoctor.sources import installed


@dataclass
class Workspace:
    """The source files that may be changed.

    Args:
        roots: Folders below which files may be changed.
        files: The files that the targets were read from; those and what stands beside them are copied.
    """

    roots: tuple[Path, ...]
    files: set[Path] = field(default_factory=set)
    original: dict[Path, bytes] = field(default_factory=dict)
    current: dict[Path, bytes] = field(default_factory=dict)
    _copies: list[tuple[Path, Path]] = field(default_factory=list)
    _kept: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def real(self, file: str | Path) -> Path:
        """The file of the project that a file of a copy stands for."""
        path = Path(file)
        for copy, root in self._copies:
            if path.is_relative_to(copy):
                return root / path.relative_to(copy)
        return path

    def data(self, file: str) -> bytes:
        """The content of a file as it is now; `file` may lie in a copy.

        Raises:
            Refused: It is no file that may be changed.
        """
        path = self.real(file)
        if path not in self.original:
            if not path.is_file():
                raise Refused("it is no file")
            if installed(str(path)):
                raise Refused("it belongs to an installed package")
            if self.root_of(path) is None or path.suffix != ".py":
                raise Refused("it is no source file of the project")
            if self.root_of(path.resolve()) is None:
                raise Refused("it is a link to a file outside of the project")
            self.original[path] = path.read_bytes()
        return self.current.get(path, self.original[path])

    def root_of(self, path: Path) -> Path | None:
        """The folder of the project that a file lies in."""
        return next((root for root in self.roots if path.is_relative_to(root)), None)

    def copy(self, changed: dict[Path, bytes]) -> Copy:
        """A copy of the project with these contents; it lies until `close` is called."""
        folder = self._kept.enter_context(
            tempfile.TemporaryDirectory(prefix="normdoctor-fix-", ignore_cleanup_errors=True)
        )
        places: list[tuple[Path, Path]] = []
        for number, root in enumerate(self.roots):
            wanted = [file for file in {*self.files, *changed} if self.root_of(file) == root]
            if wanted:
                place = Path(folder).resolve() / str(number) / (root.name or "root")
                _mirror(root, place, wanted, changed)
                places.append((place, root))
        self._copies = [*places, *self._copies]
        return Copy(places)

    def close(self) -> None:
        """Remove all copies."""
        self._kept.close()

    def write(self) -> list[Path]:
        """Write every changed file, each in one step.

        Raises:
            UsageError: A file cannot be written. None is changed then: those before it get their old text.
        """
        changed = {path: data for path, data in self.current.items() if data != self.original[path]}
        for path in changed:
            _demand_writable(path, self.original[path])
        written: list[Path] = []
        for path, data in changed.items():
            try:
                write_whole(path, data)
            except OSError as error:
                self._take_back(written)
                raise UsageError(f"cannot write {path}: {error.strerror}") from error
            written.append(path)
        return written

    def _take_back(self, written: list[Path]) -> None:
        for path in written:
            with contextlib.suppress(OSError):
                if path.read_bytes() == self.current[path]:  # nobody else wrote to it since
                    write_whole(path, self.original[path])


@dataclass(frozen=True)
class Copy:
    """Where a copy of the project lies: pairs of a folder of the copy and the one that it stands for."""

    places: list[tuple[Path, Path]]

    def of(self, path: Path) -> Path:
        """The file of the copy that stands for a file."""
        for place, root in self.places:
            if path.is_relative_to(root):
                return place / path.relative_to(root)
        return path

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Make the folder of the copy that stands for the current folder the current one."""
        cwd = Path.cwd().resolve()
        moved = self.of(cwd)
        if moved == cwd or not moved.is_dir():
            yield
            return
        with contextlib.chdir(moved):
            yield

    def name(self, text: str) -> str:
        """The name of a target, or a path, as it is outside of the copy."""
        for place, root in self.places:
            text = text.replace(place.as_posix(), root.as_posix())
        return text


def _demand_writable(path: Path, expected: bytes) -> None:
    try:
        now, mode = path.read_bytes(), path.stat().st_mode
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    if now != expected:
        raise UsageError(f"{path} changed while it was examined", hint="Run the command again.")
    if not mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(f"cannot write {path}: it is read-only", hint="Allow writing with chmod u+w.")


def _mirror(root: Path, place: Path, wanted: Iterable[Path], changed: dict[Path, bytes]) -> None:
    """Folders on the way to the wanted files and Python files beside them are copied, the rest is linked."""
    folders = {root}
    for file in wanted:
        folders |= {up for up in file.parents if up.is_relative_to(root)}
    for folder in sorted(folders):
        here = place / folder.relative_to(root)
        here.mkdir(parents=True, exist_ok=True)
        for entry in os.scandir(folder):
            path = folder / entry.name
            if path in folders or entry.name == "__pycache__":
                continue
            with contextlib.suppress(OSError):
                real = path.resolve() if entry.is_symlink() else path
                if real != path and real.parent in folders:
                    os.symlink(place / real.relative_to(root), here / entry.name)
                elif entry.name.endswith(".py") and entry.is_file():
                    shutil.copyfile(path, here / entry.name)
                else:
                    os.symlink(path, here / entry.name)
    for file, data in changed.items():
        if file.is_relative_to(root):
            (place / file.relative_to(root)).write_bytes(data)


def roots_of(root: Path, files: Iterable[Path]) -> tuple[Path, ...]:
    """The folders of the project: its root, and those of targets that were named outside of it."""
    root = root.resolve()
    found = [] if root in (Path(root.anchor), Path.home()) else [root]
    for file in files:
        folder = file.parent
        while (folder / "__init__.py").is_file() and folder.parent != folder:
            folder = folder.parent
        if not any(file.is_relative_to(known) for known in found):
            found.append(folder)
    return tuple(found)
