"""Running the definitions of a file of which one statement failed."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from normdoctor.loading.watching import Stopped

_DEFINING = (
    ast.Import,
    ast.ImportFrom,
    ast.ClassDef,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.Assign,
    ast.AnnAssign,
    ast.Pass,
)


def define_rest(
    tree: ast.Module, file: Path, line: int, namespace: dict[str, Any], skipped: list[str]
) -> None:
    """Run imports, classes, functions and assignments that follow the statement at `line`.

    A statement that fails is skipped and its line noted. Loops and bare calls are not run.
    """
    for statement in tree.body:
        last = statement.end_lineno or statement.lineno
        if statement.lineno <= line <= last and isinstance(statement, ast.If | ast.Try):
            inner = [*statement.body, *statement.orelse]
        elif last <= line:
            continue
        else:
            inner = [statement]
        for part in inner:
            if (part.end_lineno or part.lineno) <= line or not _defines(part):
                continue
            code = compile(ast.Module([part], []), str(file), "exec", dont_inherit=True)
            try:
                exec(code, namespace)
            except (Stopped, KeyboardInterrupt):
                raise
            except BaseException:
                skipped.append(str(part.lineno))


def _defines(statement: ast.stmt) -> bool:
    """Is it a definition, or an `if`/`try` (not the main guard) that holds only definitions?"""
    if isinstance(statement, _DEFINING):
        return True
    if isinstance(statement, ast.If):
        guard = any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(statement.test))
        return not guard and all(_defines(part) for part in (*statement.body, *statement.orelse))
    if isinstance(statement, ast.Try):
        handlers = [part for handler in statement.handlers for part in handler.body]
        return all(_defines(part) for part in (*statement.body, *statement.orelse, *handlers))
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return ast.unparse(statement.value.func).startswith("sys.path.")
    return False
