"""What the search for losses in source code passes around: outputs of models, losses, places. No torch."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

from normdoctor.facts import Location
from normdoctor.loading.sourcefile import Function


@dataclass(frozen=True)
class SourceLoss:
    """A loss that the source applies to the output of a model.

    `kind` is a name of torch.nn.functional; `location` is the call. `model` is the variable whose
    output it takes (`net`), or the class in whose own methods it stands; None where that is open.
    `argument` is the position of the output that is taken, when the model returns several, `key` its
    name (`out["age"]`, `out.logits`). `config` holds literal arguments, `through` what is applied to
    the output on the way (`"softmax"`) and `dims` over which axis, None where that is not literal.
    `path` is `evaluation` in code that does not train. `built` names the class or factory that the
    variable was made with.
    """

    kind: str
    location: Location
    model: str | None = None
    argument: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    through: tuple[str, ...] = ()
    key: str | None = None
    dims: tuple[int | None, ...] = ()
    path: str = ""
    built: str | None = None


@dataclass(frozen=True)
class Value:
    """An output of a model, or in `forward` a local `name` that may become one.

    In a helper that computes a loss, `parameter` is the one of its parameters that holds the output.
    """

    model: str
    argument: int | None = None
    through: tuple[str, ...] = ()
    name: str | None = None
    key: str | None = None
    dims: tuple[int | None, ...] = ()
    parameter: str | None = None

    @property
    def whole(self) -> bool:
        """Is it all that the model returned?"""
        return self.argument is None and self.key is None and not self.through and not self.name


@dataclass(frozen=True)
class HelperLoss:
    """A loss that a function of the file applies to one of its parameters."""

    parameter: str
    position: int
    loss: SourceLoss
    value: Value


def helper_name(function: Function, owner: str | None) -> str:
    """What a helper is found by: its name, behind that of its class."""
    return f"{owner}.{function.name}" if owner else function.name


class Text:
    """The file that locations refer to."""

    def __init__(self, file: str, lines: list[str]) -> None:
        self.file, self.lines = file, lines

    def location(self, node: ast.expr) -> Location:
        """The span of an expression, columns in characters."""
        end_line, end = node.end_lineno or node.lineno, node.end_col_offset or 0
        return Location(
            self.file,
            node.lineno,
            self._column(node.lineno, node.col_offset),
            end_line,
            self._column(end_line, end),
        )

    def _column(self, line: int, offset: int) -> int:
        return len(self.lines[line - 1].encode()[:offset].decode(errors="ignore")) + 1


def scopes_of(tree: ast.Module) -> list[tuple[list[ast.stmt], Function | None, str | None]]:
    """The top level and every function, with the class that it is a method of."""
    found: list[tuple[list[ast.stmt], Function | None, str | None]] = [(tree.body, None, None)]

    def visit(node: ast.AST, owner: str | None) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                found.append((child.body, child, owner))
                visit(child, owner)
            elif isinstance(child, ast.ClassDef):
                visit(child, child.name)
            else:
                visit(child, owner)

    visit(tree, None)
    return found
