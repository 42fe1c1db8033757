"""Runs the `console` blocks of a page: commands as a reader would type them, and what they print."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from normdoctor.cli import main
from normdoctor.rules import all_rules

from .pages import ROOT

ENVIRONMENT = {
    "COLUMNS": "100",
    "NO_COLOR": "1",
    "FORCE_COLOR": None,
    "NORMDOCTOR_OUTPUT_FORMAT": None,
    "NORMDOCTOR_LOG": None,
    "GITHUB_STEP_SUMMARY": None,
    # pytest does not shorten the lines of its summary where it sees these.
    "CI": None,
    "BUILD_NUMBER": None,
}
#: Signs of a shell: such a line is run by one.
SHELL = re.compile(r"[|<>&;$`]")


class Terminal:
    """A folder in which the commands of one page are run, one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = 0

    def run(self, text: str) -> list[tuple[str, str, str]]:
        """Run a block: each command with what is shown below it, and what it printed."""
        done = []
        for command, shown in session(text):
            done.append((command, shown, self.command(command)))
            if not shown:
                assert self.code in (0, 1), f"`{command}` ended with {self.code}:\n{done[-1][2]}"
        return done

    def command(self, command: str) -> str:
        """Run one command; return what a terminal would show of it."""
        words = shlex.split(command, comments=True)
        if command == "echo $?":
            return f"{self.code}\n"
        if words[:2] == ["pip", "install"]:
            self._install(words[2:])
            return ""
        if words[0] == "normdoctor" and not SHELL.search(_unquoted(command)):
            return self._own(words[1:])
        if words[0] == "pytest" and not SHELL.search(_unquoted(command)):
            return self._pytest(words[1:])
        if words[0] == "python" and len(words) == 2 and (self.folder / words[1]).parent == self.folder:
            return self._script(self.folder / words[1])
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        env = {**os.environ, **{k: v for k, v in ENVIRONMENT.items() if v is not None}, "PATH": path}
        env |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": "-p no:cacheprovider -p no:randomly"}
        for name in [name for name, value in ENVIRONMENT.items() if value is None]:
            env.pop(name, None)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.code = done.returncode
        return done.stdout

    def _own(self, words: list[str]) -> str:
        with self._own_modules(), contextlib.chdir(self.folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = CliRunner().invoke(main, words, env=ENVIRONMENT)
        self.code = result.exit_code
        return result.output

    def _script(self, file: Path) -> str:
        out = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(out):
            runpy.run_path(str(file), run_name="__main__")
        self.code = 0
        return out.getvalue()

    def _pytest(self, words: list[str]) -> str:
        with (
            self._own_modules(),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(io.StringIO()) as out,
            pytest.MonkeyPatch.context() as patch,
            unlogged(),
        ):
            for name in ("CI", "BUILD_NUMBER"):
                patch.delenv(name, raising=False)
            self.code = int(pytest.main(["-p", "no:randomly", "-p", "no:cacheprovider", *words]))
        return out.getvalue()

    @contextlib.contextmanager
    def _own_modules(self) -> Iterator[None]:
        """Let go of the modules of the folder: the next page has others of the same names."""
        before = set(sys.modules)
        yield
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file.startswith(str(self.folder)):
                del sys.modules[name]

    def _install(self, words: list[str]) -> None:
        """Check that an extra exists; `pip install -e .` declares the entry points of the folder.

        The folder is on `sys.path`. Whoever made this clears the cache of rules at the end.
        """
        self.code = 0
        if words == ["-e", "."]:
            declare(self.folder)
            all_rules.cache_clear()
            return
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = project["optional-dependencies"]
        for word in words:
            found = re.fullmatch(r"(?:normdoctor|\.)\[([\w,-]+)\]", word)
            assert found is None or set(found[1].split(",")) <= set(extras), word


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Log as a new process does: a command with `-vv`, run before, has asked for more."""
    logger = logging.getLogger("normdoctor")
    level = logger.level
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(level)


def declare(folder: Path) -> None:
    """Write what an installation of the project in this folder leaves behind: its entry points."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(exist_ok=True)
    about = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(about, encoding="utf-8")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


def _unquoted(command: str) -> str:
    return re.sub(r"'[^']*'|\"[^\"]*\"|\s#.*", "", command)


def session(text: str) -> list[tuple[str, str]]:
    """Split a block into its commands, each with the lines that are shown below it."""
    assert text.startswith("$ "), "a console block begins with a command, `$ ...`"
    found = []
    for piece in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = re.sub(r" *\\\n\s*(?:> )?", " ", piece, count=piece.count("\\\n")).partition("\n")
        found.append((command.strip(), shown.strip("\n")))
    return found


def alike(shown: str, printed: str) -> bool:
    """Is this what was printed? Times do not count, and a line `...` stands for any number of lines."""
    lines = [
        r"(?:.*\n)*?" if line.strip() == "..." else f"{re.escape(line)}\n"
        for line in masked(shown).split("\n")
    ]
    return re.fullmatch("".join(lines), masked(printed.strip("\n")) + "\n") is not None


def near(shown: str, printed: str) -> bool:
    """Is this what was printed, but for 5 % or one unit of the last digit of each number?

    Trainings do not give the same digits on every machine.
    """
    number = re.compile(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)")
    ours, theirs = (number.split(" ".join(text.split())) for text in (shown, printed))
    if ours[::2] != theirs[::2]:
        return False
    pairs = zip(ours[1::2], theirs[1::2], strict=True)
    return all(abs(float(a) - float(b)) <= max(0.05 * abs(float(b)), 1.01 * _unit(a)) for a, b in pairs)


def _unit(number: str) -> float:
    """One in the last digit of a number: 0.01 of `3.14`."""
    mantissa, _, exponent = number.partition("e")
    return float(f"1e{int(exponent or 0) - len(mantissa.partition('.')[2])}")


def masked(text: str) -> str:
    """A text without times, and without what is as long as they are."""
    text = re.sub(r"=+ (.*?) =+$", r"= \1 =", text, flags=re.MULTILINE)
    text = re.sub(r"\b\d+(?:\.\d+)? ?s\b", "0s", text)
    return "\n".join(line.rstrip() for line in text.split("\n"))
