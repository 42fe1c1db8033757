"""The README shows what the tool prints, and its two commands are the ones that CI runs."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from normdoctor.cli import main

ROOT = Path(__file__).parent.parent


def indented(text: str, start: str) -> list[str]:
    """The lines of the indented block that begins with `start`."""
    lines = text[text.index(start) :].splitlines()
    end = next(i for i, line in enumerate(lines) if line and i and not line.startswith("    "))
    return [line.removeprefix("    ") for line in lines[:end]]


def test_the_output_in_the_readme_is_true(monkeypatch):
    monkeypatch.chdir(ROOT)
    command, *shown = indented((ROOT / "README.md").read_text(), "$ normdoctor check")
    result = CliRunner().invoke(main, command.split()[2:], env={"COLUMNS": "100"})
    assert result.exit_code == 1
    printed = re.sub(r"=+ (.*) in [0-9.]+s =+", r"\1", result.output).rstrip()
    wanted = re.sub(r"=+ (.*) in [0-9.]+s =+", r"\1", "\n".join(shown)).rstrip()
    assert printed == wanted


def test_there_are_two_commands():
    text = (ROOT / "README.md").read_text()
    block = text[text.index("<!-- commands -->") : text.index("<!-- end -->")]
    commands = [line for line in block.splitlines() if line.startswith("    ")]
    assert len(commands) == 2
    assert all(command.startswith("    python3 -m venv .venv && ") for command in commands)
