"""A source file: its bytes as text, its syntax tree, and where in the text each node stands."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, TypeVar, overload

import libcst as cst
from libcst.metadata import (
    MetadataWrapper,
    ParentNodeProvider,
    PositionProvider,
    QualifiedNameProvider,
    QualifiedNameSource,
)

from normdoctor.facts import Location
from normdoctor.fixing.splices import Refused, Splice

LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
Node = TypeVar("Node", bound=cst.CSTNode)


class Document:
    """One file as it is in this round.

    Raises:
        Refused: The file cannot be parsed, or not be written again as it is.
    """

    def __init__(self, file: str, data: bytes) -> None:
        self.file = file
        try:
            self.encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
            self.text = data.decode(self.encoding)
        except (SyntaxError, UnicodeDecodeError, LookupError) as error:
            raise Refused(f"the file cannot be decoded: {error}") from error
        try:
            self.wrapper = MetadataWrapper(cst.parse_module(self.text), unsafe_skip_copy=True)
        except cst.ParserSyntaxError as error:
            raise Refused(f"the file cannot be parsed: {error.message}") from error
        if self.wrapper.module.code != self.text or self.encode(self.text) != data:
            raise Refused("the file would not be written again as it is")
        self._starts = [0]
        for line in LINE.findall(self.text):
            self._starts.append(self._starts[-1] + len(line))

    def encode(self, text: str) -> bytes:
        """The bytes of a text in the file's encoding (with its byte order mark)."""
        try:
            return text.encode(self.encoding)
        except UnicodeEncodeError as error:
            raise Refused(f"the file is written in {self.encoding}, which lacks {error.object!r}") from error

    @property
    def module(self) -> cst.Module:
        """The syntax tree."""
        return self.wrapper.module

    @cached_property
    def _positions(self) -> Any:
        return self.wrapper.resolve(PositionProvider)

    @cached_property
    def _parents(self) -> Any:
        return self.wrapper.resolve(ParentNodeProvider)

    @cached_property
    def _qualified(self) -> Any:
        return self.wrapper.resolve(QualifiedNameProvider)

    # -- places ----------------------------------------------------------------------------------

    def offset(self, line: int, column: int) -> int:
        """The offset of a line (from 1) and a column (from 0)."""
        return self._starts[min(line, len(self._starts)) - 1] + column

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """Start and end of a node, without its own parentheses."""
        place = self._positions[node]
        return (
            self.offset(place.start.line, place.start.column),
            self.offset(place.end.line, place.end.column),
        )

    def whole(self, node: cst.CSTNode) -> tuple[int, int]:
        """Start and end of an expression with its own parentheses."""
        start, end = self.span(node)
        for _ in getattr(node, "lpar", ()):
            start = self.text.rindex("(", 0, start)
            end = self._closing(end)
        return start, end

    def _closing(self, start: int) -> int:
        """The end of the parenthesis that closes behind `start`, looking past comments."""
        found = re.compile(r"(?:[^)#]|#[^\r\n]*)*\)").match(self.text, start)
        return found.end() if found else start

    def comma_after(self, offset: int) -> int:
        """The end of the comma that follows, looking past comments."""
        found = re.compile(r"(?:[^,#]|#[^\r\n]*)*,").match(self.text, offset)
        return found.end() if found else offset

    def source(self, node: cst.CSTNode) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.text[start:end]

    def demand_no_comment(self, node: cst.CSTNode) -> None:
        """Refuse to write a node anew that has a comment in it, which would be lost."""
        if next(self.all(cst.Comment, inside=node), None) is not None:
            raise Refused(f"a comment stands among the arguments in line {self.line_of(node)}")

    def line_of(self, node: cst.CSTNode) -> int:
        """The first line of a node, counted from 1."""
        return int(self._positions[node].start.line)

    def location(self, node: cst.CSTNode) -> Location:
        """The span of a node as findings have it."""
        place = self._positions[node]
        return Location(
            self.file, place.start.line, place.start.column + 1, place.end.line, place.end.column + 1
        )

    def parent(self, node: cst.CSTNode) -> cst.CSTNode | None:
        """The node around another."""
        found: cst.CSTNode | None = self._parents.get(node)
        return found

    def around(self, node: cst.CSTNode | None, *kinds: type[Node]) -> Node | None:
        """The innermost node of these kinds around (or at) a node."""
        while node is not None and not isinstance(node, kinds):
            node = self.parent(node)
        return node

    @overload
    def all(self, kind: type[Node], /, *, inside: cst.CSTNode | None = None) -> Iterator[Node]: ...

    @overload
    def all(self, *kinds: type[cst.CSTNode], inside: cst.CSTNode | None = None) -> Iterator[Any]: ...

    def all(self, *kinds: type[cst.CSTNode], inside: cst.CSTNode | None = None) -> Iterator[Any]:
        """All nodes of these kinds, outer ones first."""
        stack: list[cst.CSTNode] = [inside or self.module]
        while stack:
            node = stack.pop()
            if isinstance(node, kinds):
                yield node
            stack.extend(reversed(node.children))

    @cached_property
    def _calls(self) -> dict[tuple[int, int], cst.Call]:
        return {self.span(call): call for call in self.all(cst.Call)}

    def call_at(self, place: Location | None) -> cst.Call:
        """The call that stands at a place."""
        start, end = self._ends(place)
        if (exact := self._calls.get((start, end))) is not None:
            return exact
        # Python 3.12 and later let the span of `a.b()` over several lines begin at the name of the method.
        inside = [call for span, call in self._calls.items() if span[1] == end and span[0] <= start]
        if not inside:
            raise Refused("no call stands at this place of the file")
        return max(inside, key=lambda call: self.span(call)[0])

    def expression_at(self, place: Location | None) -> cst.BaseExpression:
        """The expression that stands at a place."""
        wanted = self._ends(place)
        for node in self.all(cst.BaseExpression):  # type: ignore[type-abstract]
            if self.span(node) == wanted:
                return node
        raise Refused("no expression stands at this place of the file")

    def _ends(self, place: Location | None) -> tuple[int, int]:
        if place is None or not place.end_line:
            raise Refused("its place in the file is not known exactly")
        if place.end_line > len(self._starts):
            raise Refused("the file is shorter than when it was read")
        return self.offset(place.line, place.column - 1), self.offset(place.end_line, place.end_column - 1)

    # -- names -----------------------------------------------------------------------------------

    def imported(self, node: cst.CSTNode) -> str:
        """The full name (`torch.nn.Conv2d`) of what an expression names by way of imports; "" for others."""
        known = self._qualified.get(node, ())
        for name in known() if callable(known) else known:
            if name.source is QualifiedNameSource.IMPORT:
                return str(name.name)
        return ""

    def name_for(self, full: str) -> tuple[str, tuple[Splice, ...]]:
        """How to write `torch.nn.Identity` in this file, and the import that it needs."""
        for known, alias in self._aliases.items():
            if full == known or full.startswith(f"{known}."):
                return alias + full[len(known) :], ()
        home, _, last = full.rpartition(".")
        package, _, leaf = home.rpartition(".")
        if package and leaf not in self._used:
            return f"{leaf}.{last}", (self.import_line(f"from {package} import {leaf}"),)
        return full, (self.import_line(f"import {home}"),)

    @cached_property
    def _used(self) -> frozenset[str]:
        """Every name in the file: an import must not take one of them."""
        return frozenset(node.value for node in self.all(cst.Name))

    @cached_property
    def _aliases(self) -> dict[str, str]:
        """Full name to the name under which the top level of this file knows it, longest first."""
        found: dict[str, str] = {}
        for statement in self.module.body:
            for small in getattr(statement, "body", ()) if _is_line(statement) else ():
                for full, alias in _names_of(small):
                    found.setdefault(full, alias)
        return dict(sorted(found.items(), key=lambda item: -len(item[0])))

    def import_line(self, line: str) -> Splice:
        """An import on a line of its own, behind the file's first imports (or its docstring)."""
        after: cst.CSTNode | None = None
        for position, statement in enumerate(self.module.body):
            small = statement.body[0] if _is_line(statement) else None  # type: ignore[index]
            text = isinstance(small, cst.Expr) and isinstance(small.value, cst.SimpleString)
            if isinstance(small, cst.Import | cst.ImportFrom) or (text and position == 0):
                after = statement
            elif after is not None:
                break
        end = self.newline
        if after is None:
            first = self.span(self.module.body[0])[0] if self.module.body else len(self.text)
            return Splice(self.file, first, first, line + end)
        place = self.end_of_line(self.span(after)[1])
        before = "" if self.text[:place].endswith(("\n", "\r")) else end
        return Splice(self.file, place, place, before + line + end)

    @property
    def newline(self) -> str:
        """How the lines of the file end."""
        found = re.search(r"\r\n|\r|\n", self.text)
        return found[0] if found else "\n"

    def end_of_line(self, offset: int) -> int:
        """The offset behind the end of the line."""
        return next((start for start in self._starts if start > offset), len(self.text))

    def start_of_line(self, offset: int) -> int:
        """The offset of the first character of the line."""
        return max(start for start in self._starts if start <= offset)

    def classes(self, name: str) -> list[cst.ClassDef]:
        """The classes of this name."""
        return [node for node in self.all(cst.ClassDef) if node.name.value == name]


def _is_line(statement: cst.CSTNode) -> bool:
    return isinstance(statement, cst.SimpleStatementLine)


def dotted(node: cst.CSTNode | None) -> str:
    """`torch.nn` of a name or of attributes; "" for anything else."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr.value}" if inner else ""
    return ""


def _names_of(small: cst.CSTNode) -> Iterator[tuple[str, str]]:
    """(full name, name here) of everything that an import statement binds."""
    if isinstance(small, cst.Import):
        home, aliases = "", small.names
    elif (
        isinstance(small, cst.ImportFrom)
        and not isinstance(small.names, cst.ImportStar)
        and not small.relative
    ):
        home, aliases = f"{dotted(small.module)}.", small.names
    else:
        return
    for alias in aliases:
        full = dotted(alias.name)
        here = dotted(alias.asname.name) if alias.asname is not None else full
        yield home + full, here


def keyword_names(call: cst.Call) -> Sequence[str]:
    """The names of the keyword arguments that a call states."""
    return [arg.keyword.value for arg in call.args if arg.keyword is not None]
