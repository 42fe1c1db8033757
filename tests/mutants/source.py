"""A clean net as text: where its calls stand, what they build, and edits that leave the lines alone.

An edit may hold `MARK`: the finding of the mutant must stand at a line that holds one.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

MARK = "\x01"
NETS = Path(__file__).parent / "nets"
LAYER = r"Linear|Conv\dd|ConvTranspose\dd"
ACTIVATION = r"ReLU|LeakyReLU|GELU|Hardswish|ELU|SiLU|Tanh|Sigmoid"
FUNCTION = r"relu|leaky_relu|gelu|elu|silu"
Edit = tuple[int, int, str]


@dataclass
class Mutant:
    """One fault at one place: the codes that are right for it, and where they may stand."""

    operator: str
    net: str
    text: str
    codes: frozenset[str]
    lines: frozenset[int]
    place: int
    void: str = ""


@dataclass
class Source:
    """The text of a net with its syntax tree."""

    net: str
    text: str
    tree: ast.Module = field(init=False)

    def __post_init__(self) -> None:
        self.tree = ast.parse(self.text)
        starts = [0]
        for line in self.text.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        self._starts = starts
        self.parent = {c: n for n in ast.walk(self.tree) for c in ast.iter_child_nodes(n)}

    @cached_property
    def model(self):
        """The net itself, to ask for sizes."""
        return self.run()["model"]

    def run(self) -> dict:
        values = {"__name__": "net"}
        exec(compile(self.text, self.net, "exec"), values)
        return values

    # -- places --------------------------------------------------------------------------------

    def start(self, node) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def end(self, node) -> int:
        return self._starts[node.end_lineno - 1] + node.end_col_offset

    def of(self, node) -> str:
        return self.text[self.start(node) : self.end(node)]

    def calls(self, home: str, names: str) -> Iterator[ast.Call]:
        """Calls of `home.name` (`nn.Conv2d`, `F.relu`) whose name matches, in the order of the text."""
        found = [
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and re.fullmatch(home, self.of(node.func.value))
            and re.fullmatch(names, node.func.attr)
        ]
        yield from sorted(found, key=self.start)

    def built(self, names: str) -> Iterator[ast.Call]:
        """Constructors of torch's layers."""
        return self.calls("nn", names)

    def around(self, node, kind):
        """The innermost syntax node of a kind around another."""
        while node is not None and not isinstance(node, kind):
            node = self.parent.get(node)
        return node

    def class_of(self, node) -> ast.ClassDef | None:
        return self.around(node, ast.ClassDef)

    def method(self, node) -> ast.FunctionDef | None:
        return self.around(node, ast.FunctionDef)

    def constructor(self, cls: ast.ClassDef, attribute: str) -> ast.Call | None:
        """The call that builds `self.attribute` in a class."""
        for node in ast.walk(cls):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                for target in node.targets:
                    if self.of(target) == f"self.{attribute}":
                        return node.value
        return None

    def attribute(self, call: ast.Call) -> str | None:
        """The `attribute` of `self.attribute = call`."""
        up = self.parent[call]
        if isinstance(up, ast.Assign) and isinstance(up.targets[0], ast.Attribute):
            return up.targets[0].attr
        return None

    def uses(self, cls: ast.ClassDef | None, attribute: str | None) -> list[ast.Call]:
        """The calls of `self.attribute` in a class."""
        if cls is None or attribute is None:
            return []
        return [
            n for n in ast.walk(cls) if isinstance(n, ast.Call) and self.of(n.func) == f"self.{attribute}"
        ]

    def sequence(self, call: ast.Call) -> tuple[ast.Call, int] | None:
        """The `nn.Sequential(...)` whose direct element a constructor is, and its position."""
        up = self.parent[call]
        if isinstance(up, ast.Call) and self.of(up.func) == "nn.Sequential" and call in up.args:
            return up, up.args.index(call)
        return None

    def name(self, call) -> str:
        """`Conv2d` of `nn.Conv2d(...)`, `relu` of `F.relu(x)`."""
        func = getattr(call, "func", None)
        return getattr(func, "attr", getattr(func, "id", ""))

    def behind(self, call: ast.Call) -> ast.Call | None:
        """The constructor that stands behind this one in its `nn.Sequential`."""
        found = self.sequence(call)
        if found is None or found[1] + 1 >= len(found[0].args):
            return None
        return found[0].args[found[1] + 1]

    def given(self, call: ast.Call, argument: str) -> ast.keyword | None:
        return next((k for k in call.keywords if k.arg == argument), None)

    def objects(self, call: ast.Call) -> list:
        """The modules of the net that a constructor built."""
        if (found := self.sequence(call)) is not None:
            return [one[found[1]] for one in self.objects(found[0])]
        cls, attribute = self.class_of(call), self.attribute(call)
        if cls is None:
            return [self.model] if isinstance(self.parent[call], ast.Assign) else []
        made = [one for one in self.model.modules() if type(one).__name__ == cls.name]
        return [one._modules[attribute] for one in made if one._modules.get(attribute) is not None]

    def order(self, function: ast.AST) -> list[ast.Call]:
        """The calls in a function, in the order in which they run."""
        found: list[ast.Call] = []

        def visit(node: ast.AST) -> None:
            for child in ast.iter_child_nodes(node):
                visit(child)
            if isinstance(node, ast.Call):
                found.append(node)

        visit(function)
        return found

    def layer_called(self, call: ast.Call) -> ast.Call | None:
        """The constructor of the layer that `self.fc1(x)` calls; the call itself for F.linear(...)."""
        if re.fullmatch(r"F\.(conv\dd|linear)", self.of(call.func)):
            return call
        cls = self.class_of(call)
        match = re.fullmatch(r"self\.(\w+)", self.of(call.func))
        made = self.constructor(cls, match[1]) if cls is not None and match else None
        return made if made is not None and re.fullmatch(LAYER, self.name(made)) else None

    # -- edits ---------------------------------------------------------------------------------

    def replace(self, node, text: str) -> Edit:
        return self.start(node), self.end(node), text

    def mark(self, node) -> Edit:
        """The finding may stand where this node begins."""
        return self.start(node), self.start(node), MARK

    def add_argument(self, call: ast.Call, text: str) -> Edit:
        """One more argument at the end."""
        last = max([*call.args, *(k.value for k in call.keywords)], key=self.end, default=None)
        place = self.end(last) if last is not None else self.end(call) - 1
        return place, place, (", " if last is not None else "") + text

    def set_argument(self, call: ast.Call, argument: str, value: str) -> Edit:
        known = self.given(call, argument)
        if known is not None:
            return self.replace(known.value, value)
        return self.add_argument(call, f"{argument}={value}")

    def drop_argument(self, call: ast.Call, argument: str) -> Edit | None:
        known = self.given(call, argument)
        if known is None:
            return None
        start = self.start(known)
        head = self.text[:start].rstrip()
        begin = len(head) - 1 if head.endswith(",") else start
        return begin, self.end(known), ""

    def add_statement(self, after: ast.stmt, text: str) -> Edit:
        """A statement on a line of its own behind another one."""
        place = self.end(after)
        return place, place, "\n" + " " * after.col_offset + text

    def add_element(self, call: ast.Call, text: str, *, before: bool = False, mark: bool = False) -> Edit:
        """One more element of an `nn.Sequential`, beside this one, on a line of its own."""
        pad = "\n" + " " * call.col_offset
        if before:
            return self.start(call), self.start(call), f"{text},{pad}" + (MARK if mark else "")
        return self.end(call), self.end(call), f",{pad}{text}"

    def drop_element(self, call: ast.Call) -> Edit:
        end = self.end(call)
        if (comma := re.match(r"\s*,", self.text[end:])) is not None:
            end += comma.end()
        return self.start(call), end, ""

    def mutant(
        self, operator: str, codes: str, edits: list[Edit], place: ast.AST, *, void: str = ""
    ) -> Mutant:
        text = self.text
        last = len(text)
        for start, end, new in sorted(edits, key=lambda edit: edit[:2], reverse=True):
            assert end <= last, (operator, self.net, "edits overlap")
            text, last = text[:start] + new + text[end:], start
        lines = frozenset(n for n, line in enumerate(text.splitlines(), start=1) if MARK in line)
        text = text.replace(MARK, "")
        line = getattr(place, "lineno", 0)
        return Mutant(operator, self.net, text, frozenset(codes.split()), lines, line, void)


@cache
def all_sources() -> list[Source]:
    return [Source(file.stem, file.read_text(encoding="utf-8")) for file in sorted(NETS.glob("*.py"))]
