"""What the source says about one call: which arguments it states, and whether its result is dropped."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator

from normdoctor.facts import Location
from normdoctor.loading.origins import character_column
from normdoctor.sources import source_lines

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Parents = dict[ast.AST, ast.AST]


class _File:
    """A parsed file: its calls by their spans, and the parent of every node."""

    def __init__(self, file: str, text: str) -> None:
        self.calls: dict[tuple[int, int, int, int], ast.Call] = {}
        self.parents: _Parents = {}
        try:
            tree = ast.parse(text, file)
        except (SyntaxError, ValueError):
            return
        for node in ast.walk(tree):
            for child in ast.iter_child_nodes(node):
                self.parents[child] = node
            if isinstance(node, ast.Call) and node.end_lineno and node.end_col_offset is not None:
                start = character_column(file, node.lineno, node.col_offset)
                end = character_column(file, node.end_lineno, node.end_col_offset)
                self.calls[node.lineno, start, node.end_lineno, end] = node


@functools.lru_cache(maxsize=64)
def _parsed(file: str, text: str) -> _File:
    return _File(file, text)


def _call_at(place: Location | None) -> tuple[_File, ast.Call] | None:
    if place is None or not place.end_line:
        return None
    file = _parsed(place.file, "".join(source_lines(place.file)))
    call = file.calls.get((place.line, place.column, place.end_line, place.end_column))
    return (file, call) if call is not None else None


def stated(place: Location | None, function: str, argument: str, position: int) -> str | None:
    """How the call of `function` at a place gives an argument, as a word.

    `absent`, `true` and `false` (the literals), `mode` (it reads some `.training`) or `other`; None
    where no such call stands there, or where it may be hidden in `*args` or `**kwargs`.
    """
    found = _call_at(place)
    if found is None:
        return None
    call = found[1]
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name != function:
        return None
    if any(isinstance(one, ast.Starred) for one in call.args) or any(k.arg is None for k in call.keywords):
        return None
    given = next((k.value for k in call.keywords if k.arg == argument), None)
    if given is None and position < len(call.args):
        given = call.args[position]
    if given is None:
        return "absent"
    if isinstance(given, ast.Constant) and isinstance(given.value, bool):
        return str(given.value).lower()
    reads = [one.attr for one in ast.walk(given) if isinstance(one, ast.Attribute)]
    return "mode" if "training" in reads else "other"


def dropped(place: Location | None) -> str | None:
    """How the result of the call at a place gets lost; None where it does not, or where that is unknown.

    `statement`: the call is a statement of its own. `name`: it is assigned to a local name that is not
    read before it is assigned anew or the function ends.
    """
    found = _call_at(place)
    if found is None:
        return None
    file, call = found
    statement = file.parents.get(call)
    if isinstance(statement, ast.Expr):
        return "statement"
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
    elif isinstance(statement, ast.AnnAssign):
        target = statement.target
    else:
        return None
    if isinstance(target, ast.Name) and _never_read(file.parents, statement, target.id):
        return "name"
    return None


def _never_read(parents: _Parents, statement: ast.stmt, name: str) -> bool:
    """Is the value that a statement gives to a local name dead, whichever way the function goes?"""
    current: ast.AST = statement
    while not isinstance(current, _Function):
        around = parents.get(current)
        if around is None or isinstance(around, ast.Lambda | ast.ClassDef | ast.Module):
            return False
        if isinstance(around, ast.For | ast.While | ast.AsyncFor | ast.Try) and _reads(around, name):
            return False
        for later in _behind(around, current):
            if _reads(later, name):
                return False
            if _assigns(later, name):
                return not _kept(parents, around, name)
        current = around
    return not _kept(parents, current, name)


def _behind(around: ast.AST, current: ast.AST) -> Iterator[ast.stmt]:
    """The statements of the same block that follow."""
    for block in ("body", "orelse", "finalbody"):
        statements = getattr(around, block, None)
        if isinstance(statements, list) and current in statements:
            yield from statements[statements.index(current) + 1 :]


def _reads(node: ast.AST, name: str) -> bool:
    for one in ast.walk(node):
        if isinstance(one, ast.AugAssign) and isinstance(one.target, ast.Name) and one.target.id == name:
            return True
        if not isinstance(one, ast.Name):
            continue
        if one.id in ("locals", "eval", "exec") or (one.id == name and not isinstance(one.ctx, ast.Store)):
            return True
    return False


def _assigns(statement: ast.stmt, name: str) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


def _kept(parents: _Parents, inside: ast.AST, name: str) -> bool:
    """Does a function inside of the function, or a declaration, keep the name alive?"""
    while not isinstance(inside, _Function):
        inside = parents[inside]
    return any(
        (isinstance(one, ast.Global | ast.Nonlocal) and name in one.names)
        or (one is not inside and isinstance(one, _Function | ast.Lambda) and _reads(one, name))
        for one in ast.walk(inside)
    )
