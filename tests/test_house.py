"""The rules of the house that no linter holds: length, plain characters, no loose ends."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "normdoctor").rglob("*.py"))
LONGEST_MODULE = 400
LONGEST_FUNCTION = 60  # lines of code, the docstring aside


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_modules_are_short_and_finished(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.isascii()
    assert len(text.splitlines()) <= LONGEST_MODULE
    assert "TODO" not in text
    assert "FIXME" not in text
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert code_lines(node) <= LONGEST_FUNCTION, node.name


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = first.end_lineno - first.lineno + 1 if documented and first.end_lineno else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def test_no_path_of_a_machine_is_in_the_repository() -> None:
    for folder in ("normdoctor", "examples", "benchmarks", "docs"):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".md", ".toml", ".html", ".svg"):
                text = file.read_text(encoding="utf-8")
                assert "/home/" not in text, file
                assert "/root/" not in text, file
                assert "site-packages/" not in text or file.suffix == ".py", file
