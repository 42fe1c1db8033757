"""Every block of code in docs/ and the README is run, or read by what reads such files.

A block says by its fence what happens to it:

    python run          it is run by itself; a `text output` block behind it is what it printed
    python pytest       it is a test file, and passes
    python signature    the signature of something public
    python NAME.py      a file that the commands of the page speak of; `toml`, `yaml`, ... NAME likewise
    pycon               a session, as in a docstring
    console             `$ command` and what it prints, see terminal.py
    toml, yaml, json    a file for this or that
    text                is not run

NORMDOCTOR_UPDATE=1 writes what was printed into the pages, where it differs.
"""

from __future__ import annotations

import contextlib
import doctest
import inspect
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
import torch
from torch import nn

import normdoctor
from normdoctor import configfile
from normdoctor.cli import main
from normdoctor.rules import all_rules

from .pages import ROOT, Block, blocks, pages
from .terminal import Terminal, alike, declare, near

UPDATE = bool(os.environ.get("NORMDOCTOR_UPDATE"))
WORLD = Path(__file__).parent / "world"
#: Directives of MyST: their content is Markdown, or a list of pages.
DIRECTIVE = re.compile(r"\{[\w-]+\}.*")
NAMED = re.compile(r"(?:python|toml|yaml|json|text) ([\w./-]+\.[\w]+)")
#: Plain `python` blocks that are not run: page, first line, reason.
NOT_RUN: dict[tuple[str, str], str] = {}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks(page, tmp_path, monkeypatch):
    for file in WORLD.glob("*.py"):
        shutil.copy(file, tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    torch.save(runpy.run_path(str(WORLD / "model.py"))["net"].state_dict(), tmp_path / "checkpoint.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")  # for a pytest in this process
    visit = Visit(tmp_path)
    for block in blocks(page):
        try:
            visit.see(block)
        except Exception as error:
            raise AssertionError(f"{block}: {error}") from error


def test_test_files(tmp_path):
    """The `python pytest` blocks of all pages pass, each beside the other files of its page."""
    installed = []
    for page in pages():
        tests = [block for block in blocks(page) if block.kind == "python pytest"]
        folder = tmp_path / page.stem
        for block in blocks(page) if tests else ():
            folder.mkdir(exist_ok=True)
            name = f"test_{page.stem.replace('-', '_')}_line_{block.line}.py".lower()
            named = NAMED.fullmatch(block.kind)
            if block in tests or named:
                path = folder / (named[1] if named else name)
                path.write_text(block.text, encoding="utf-8")
            if named and "entry-points" in block.text:
                declare(folder)
                installed.append(str(folder))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(installed)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, check=False)
    assert done.returncode == 0, done.stdout


@pytest.fixture(autouse=True)
def _own_rules_only():
    """What a page installs ends with it."""
    yield
    all_rules.cache_clear()


class Visit:
    """One page, read from its beginning to its end, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.terminal = Terminal(folder)
        self.printed: str | None = None

    def see(self, block: Block) -> None:
        """Do with a block what its fence says."""
        printed, self.printed = self.printed, None
        if not block.kind:
            indented(block)
        elif named := NAMED.fullmatch(block.kind):
            self.write(named[1], block)
        elif block.kind == "python run":
            self.printed = run(block)
        elif block.kind == "text output":
            assert printed is not None, "there is no `python run` before it"
            if UPDATE and not near(block.text, printed):
                replace(block, printed.rstrip("\n") + "\n")
            else:
                assert near(block.text, printed), f"printed was\n{printed}"
        elif block.kind == "python pytest":
            compile(block.text, str(block), "exec")  # it is run with all others
        elif block.kind == "console":
            self.console(block)
        elif block.kind == "python":
            first = block.text.split("\n", 1)[0]
            assert (block.page.name, first) in NOT_RUN, "say `python run`, or list the reason in NOT_RUN"
        elif not DIRECTIVE.fullmatch(block.kind):
            READERS[block.kind](block.text)

    def console(self, block: Block) -> None:
        """Run the commands of a block, and compare what they print with what is shown."""
        done = self.terminal.run(block.text)
        if UPDATE and not all(agrees(*one) for one in done):
            parts = [f"$ {command}\n{found}".strip() for command, _, found in done]
            replace(block, "\n".join(parts) + "\n")
            return
        for command, shown, found in done:
            assert agrees(command, shown, found), f"`{command}` printed\n{found}"

    def write(self, name: str, block: Block) -> None:
        """Lay a file of the page into the folder."""
        kind = block.kind.split()[0]
        if kind in READERS:
            READERS[kind](block.text)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
        if kind == "python":
            compile(block.text, name, "exec")


def agrees(command: str, shown: str, found: str) -> bool:
    """Did a command print what is shown? A script may train: then figures may differ a little."""
    scripted = command.startswith("python ") and near(shown, found)
    return not shown or alike(shown, found) or scripted


def replace(block: Block, text: str) -> None:
    """Put what was printed into the page; read the difference before you commit it."""
    page = block.page.read_text(encoding="utf-8")
    block.page.write_text(page.replace(f"\n{block.text}```", f"\n{text}```", 1), encoding="utf-8")


def run(block: Block) -> str:
    """Run a block in this process; return what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(block.text, str(block), "exec"), {"__name__": "example"})
    return out.getvalue()


def indented(block: Block) -> None:
    """A text, but no command: of these only those of the README, which tests/test_readme.py runs."""
    command = re.search(r"^(\$ |normdoctor |python |pip |pytest )", block.text, re.MULTILINE)
    assert command is None or block.page.parent == ROOT, "commands stand in `console` fences"


def pycon(text: str) -> None:
    """Run the session of a docstring, with the names that it takes for granted."""
    names = {"torch": torch, "nn": nn, "normdoctor": normdoctor, **vars(normdoctor.layers)}
    test = doctest.DocTestParser().get_doctest(text, names, "page", "page", 0)
    said: list[str] = []
    doctest.DocTestRunner().run(test, out=said.append)
    assert not said, "".join(said)


def signature(text: str) -> None:
    """Hold a signature against the real one: names, kinds and defaults of the parameters."""
    space: dict[str, object] = {}
    exec(f"from __future__ import annotations\n{text}", space)
    (name,) = (key for key in space if key not in ("__builtins__", "annotations"))
    real = getattr(normdoctor, name, None) or getattr(normdoctor.layers, name)

    def shape(function):
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    assert shape(space[name]) == shape(real), name


def toml(text: str) -> None:
    """Read a TOML file; settings of normdoctor through what reads them."""
    parsed = tomllib.loads(text)
    if "normdoctor" in parsed.get("tool", {}):
        path = Path("check", "pyproject.toml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        configfile.read(path)


def yaml(text: str) -> None:
    """Read a YAML file; workflows and hooks name what exists."""
    yaml = pytest.importorskip("yaml")
    parsed = yaml.safe_load(text)
    if "jobs" in parsed:
        workflow(parsed)
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    known = {hook["id"] for hook in hooks}
    for repository in parsed.get("repos", ()) if isinstance(parsed, dict) else ():
        for hook in repository["hooks"]:
            assert hook["id"] in known or not hook["id"].startswith("normdoctor"), hook["id"]


def workflow(parsed: dict) -> None:
    """A workflow of GitHub: what starts it, and steps that each do one thing."""
    assert True in parsed or "on" in parsed  # YAML 1.1 reads `on` as true
    for job in parsed["jobs"].values():
        assert job["runs-on"]
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step
            for line in step.get("run", "").splitlines():
                if line.startswith("normdoctor "):
                    parses(line)


def parses(line: str) -> None:
    """A command line names a command, and options that it has."""
    name, *words = line.partition("#")[0].split()[1:]
    command = main.get_command(click.Context(main), name)
    assert command is not None, name
    known = {flag for option in command.params for flag in option.opts} | {"--help"}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, line


READERS = {
    "json": json.loads,
    "pycon": pycon,
    "python signature": signature,
    "text": lambda text: None,
    "toml": toml,
    "yaml": yaml,
}


def test_a_false_output_is_noticed(tmp_path):
    block = Block(ROOT / "README.md", 1, "console", "$ normdoctor explain ND999\nError: no such rule")
    with pytest.raises(AssertionError, match="unknown rule"):
        Visit(tmp_path).see(block)


def test_figures_may_differ_a_little():
    assert near("3.14 of 64 units\n", "3.15 of 63 units\n")
    assert not near("3.14 of 64 units\n", "3.54 of 64 units\n")
    assert not near("3.14 of 64 units\n", "3.14 of 64 nets\n")


def test_a_block_of_an_unknown_kind_is_noticed(tmp_path):
    with pytest.raises(KeyError):
        Visit(tmp_path).see(Block(ROOT / "README.md", 1, "pyton run", "print()"))


def test_dots_stand_for_lines():
    assert alike("a\n...\nd", "a\nb\nc\nd\n")
    assert alike("a\n...\nd in 1.2s", "a\nd in 3.45s\n")
    assert not alike("a\n...\nd", "a\nb\nc\n")
