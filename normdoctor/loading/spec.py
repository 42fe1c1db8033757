"""Target strings: `model.py:Net(depth=18)`, `pkg.mod:factory`, `model.py::Net::ND101`, a directory."""

from __future__ import annotations

import ast
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from normdoctor.errors import TargetError, UsageError, near

_CODE = re.compile(r"[A-Z]+\d{3}")
_FILE = re.compile(r"(?P<path>.*?\.py)(?:(?P<colons>::?)(?P<rest>.*))?", re.DOTALL)


@dataclass(frozen=True)
class Spec:
    """A parsed target string.

    Exactly one of `file`, `directory` and `module` is set. `parts` is the dotted name inside it,
    empty for "all models". `called` tells `build` and `build()` apart. `code` is the rule of a node id.
    """

    text: str
    file: Path | None = None
    directory: Path | None = None
    module: str | None = None
    parts: tuple[str, ...] = ()
    called: bool = False
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    code: str | None = None

    @property
    def name(self) -> str:
        """The name inside the file as it was written, without its arguments."""
        return ".".join(self.parts)

    @property
    def call(self) -> str:
        """The arguments as they are printed: `(depth=18)`, or nothing."""
        if not self.called:
            return ""
        shown = [repr(value) for value in self.args]
        return "(" + ", ".join(shown + [f"{key}={value!r}" for key, value in self.kwargs.items()]) + ")"


def parse_spec(text: str) -> Spec:
    """Parse a target string; raises UsageError for bad form and TargetError for what is not there."""
    if text.strip() in ("", "-"):
        found = "nothing" if not text.strip() else "`-`"
        raise UsageError(
            f"expected a target such as model.py:Net, found {found}",
            hint="A model cannot be read from standard input, because it has to be imported: name a file.",
        )
    if text.endswith((".py", "/")) or os.path.exists(text):
        return _place(text, text, "", None)
    match = _FILE.fullmatch(text)
    if match:
        place, rest = match["path"], match["rest"] or ""
    else:
        place, _, rest = text.partition(":")
        rest = rest.removeprefix(":")
    rest, code = _split_code(rest)
    return _place(text, place, rest, code)


def _split_code(rest: str) -> tuple[str, str | None]:
    """Split `Net::ND101` (or a lone `ND101`) into the name and the code of a rule."""
    name, colons, last = rest.rpartition("::")
    if _CODE.fullmatch(last):
        return name, last
    if colons:
        raise UsageError(
            f"expected the code of a rule (ND101) after `{name}::`, found `{last}`",
            hint="A node id has the form model.py::Net::ND101.",
        )
    return rest, None


def _place(text: str, place: str, rest: str, code: str | None) -> Spec:
    parts, called, args, kwargs = _expression(text, rest) if rest else ((), False, (), {})
    path = Path(place)
    if not place:
        raise UsageError(
            f"expected a file or module before the colon of `{text}`, found nothing",
            hint=f"For example model.py{text}",
        )
    if os.path.isdir(path):
        if parts:
            raise UsageError(
                f"`{place}` is a directory, in which no name `{'.'.join(parts)}` can be looked up",
                hint="Name the file: " + str(path / "model.py") + f":{'.'.join(parts)}",
            )
        return Spec(text, directory=path, code=code)
    if path.suffix == ".py" and os.path.isfile(path):
        return Spec(text, path, None, None, parts, called, args, kwargs, code)
    if os.path.isfile(path):
        hint = "Export the notebook to a .py file." if path.suffix == ".ipynb" else None
        raise TargetError(
            f"expected a Python file (.py), found {place}",
            hint=hint or "Name the .py file that builds the model.",
        )
    if path.suffix != ".py" and all(part.isidentifier() for part in place.split(".")):
        return Spec(text, None, None, place, parts, called, args, kwargs, code)
    if os.path.islink(path):
        raise TargetError(f"{place} is a symbolic link that leads nowhere", hint="Name the file itself.")
    raise TargetError(f"no such file or directory: {place}", hint=_near_file(path))


def _near_file(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"The directory {folder} does not exist either."
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix == ".py" or entry.is_dir())
    fallback = "Python files there: " + ", ".join(name for name in names if name.endswith(".py"))
    return near(path.name, names) or (
        fallback if fallback[-2:] != ": " else f"{_named(folder)} holds no Python file."
    )


def _named(folder: Path) -> str:
    return "The current folder" if folder == Path() else str(folder)


def _expression(text: str, rest: str) -> tuple[tuple[str, ...], bool, tuple[Any, ...], dict[str, Any]]:
    """Parse `name`, `name.attribute`, `models['a']` or `name(literal, key=literal)`."""
    name, parenthesis, arguments = rest.strip().partition("(")
    name = re.sub(r"\.(\d+)", r"[\1]", name)  # `models.0`, as it is printed
    try:
        node: ast.expr = ast.parse(name + parenthesis + arguments, mode="eval").body
    except SyntaxError:
        raise UsageError(
            f"expected a name or a call after the colon of `{text}`, found `{rest}`",
            hint="Examples: model.py:net, model.py:Net, model.py:build(depth=18).",
        ) from None
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    called = isinstance(node, ast.Call)
    if isinstance(node, ast.Call):
        args = [_literal(value) for value in node.args]
        names = [word.arg for word in node.keywords]
        if twice := next((name for name in names if name and names.count(name) > 1), None):
            raise UsageError(f"`{twice}` is given twice in `{text}`", hint="Give each argument once.")
        kwargs = {_keyword(word): _literal(word.value) for word in node.keywords}
        node = node.func
    return _parts(node, text), called, tuple(args), kwargs


def _keyword(word: ast.keyword) -> str:
    if word.arg is None:
        raise _not_literal("**" + ast.unparse(word.value))
    return word.arg


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise _not_literal(ast.unparse(node)) from None


def _not_literal(found: str) -> UsageError:
    return UsageError(
        f"expected literal arguments (numbers, strings, True, None, lists, dicts), found `{found}`",
        hint="Write a factory without arguments that makes this call, and name it instead.",
    )


def _parts(node: ast.expr, text: str) -> tuple[str, ...]:
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        return (*_parts(node.value, text), node.attr)
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return (*_parts(node.value, text), str(node.slice.value))
    raise UsageError(
        f"expected a name or a call after the colon of `{text}`, found `{ast.unparse(node)}`",
        hint="Examples: model.py:net, model.py:Net, model.py:build(depth=18).",
    )
