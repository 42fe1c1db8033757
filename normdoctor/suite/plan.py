"""Which items there are: targets to node ids, and the arguments of pytest that mean them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

import pytest

from normdoctor.config import Settings
from normdoctor.errors import NormDoctorError, UsageError, near
from normdoctor.findings import node_id
from normdoctor.loading.spec import parse_spec
from normdoctor.output.style import Style
from normdoctor.selection import split_node_id
from normdoctor.suite.state import seen_from


@dataclass(frozen=True)
class Place:
    """One model: the target string by which it is examined, and its name where that string has several."""

    spec: str
    node: str
    target: str | None = None


@dataclass
class Plan:
    """The targets of a run; `asked` are node ids that were given as arguments of pytest."""

    settings: Settings
    config: pytest.Config
    specs: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.settings.targets:
            raise UsageError(
                "--normdoctor: there is nothing to check: expected `targets` in [tool.normdoctor]",
                hint='For example, in pyproject.toml: [tool.normdoctor] targets = ["model.py"].',
            )
        only: dict[str, tuple[str, ...]] = {}
        whole: set[str] = set()
        specs = []
        for target in self.settings.targets:
            spec, code = split_node_id(self.settings.aliases.get(target, target))
            specs.append(spec)
            if code:
                only[spec] = (*only.get(spec, ()), code)
            else:
                whole.add(spec)
        self.specs = tuple(dict.fromkeys(specs))
        self.settings = replace(
            self.settings, only={spec: codes for spec, codes in only.items() if spec not in whole}
        )

    def take_arguments(self) -> None:
        """Take from pytest's arguments those that are node ids, or files, of the targets."""
        heads = {self.node(spec).partition("::")[0] for spec in self.specs}
        heads |= {os.path.normpath(head).replace(os.sep, "/") for head in heads}
        left = []
        for argument in self.config.args:
            file, colons, rest = str(argument).partition("::")
            head = self.head(file)
            # A folder may hold tests as well, and is what pytest takes where it is given nothing.
            if head in heads and not self._is_tests(file) and not os.path.isdir(file):
                self.asked.append(f"{head}{colons}{rest}")
            else:
                left.append(argument)
        if self.asked:
            self.config.args[:] = left

    def _is_tests(self, file: str) -> bool:
        patterns = self.config.getini("python_files")
        return any(fnmatch(Path(file).name, pattern) for pattern in patterns)

    def node(self, name: str) -> str:
        """The node id of a target: `models/net.py::Net`, as seen from pytest's root."""
        file, colons, rest = node_id(name).partition("::")
        return Style().clean(f"{self.head(file)}{colons}{rest}")

    def head(self, file: str) -> str:
        """The first part of a node id: a file as seen from pytest's root, or the name of a module."""
        return seen_from(self.config.rootpath, file) if os.path.exists(file) else file

    def places(self) -> Iterator[Place]:
        """Every model. A file or a folder is loaded to know which it has; a name is taken as it is."""
        seen: set[str] = set()
        for spec in filter(lambda spec: self._reaches(self.node(spec)), self.specs):
            names = self._names(spec)
            found = [Place(spec, self.node(name), name) for name in names] or [Place(spec, self.node(spec))]
            yield from (place for place in found if place.node not in seen)
            seen |= {place.node for place in found}

    def _reaches(self, node: str) -> bool:
        """May something that was asked for be of this target?"""
        return not self.asked or any(
            f"{one}::".startswith(f"{node}::") or f"{node}::".startswith(f"{one}::") for one in self.asked
        )

    def wanted(self, node: str) -> bool:
        """Was this node id asked for, or nothing in particular?"""
        return not self.asked or any(f"{node}::".startswith(f"{one}::") for one in self.asked)

    def demand(self, nodes: list[str]) -> None:
        """Raise UsageError where something was asked for that there is not."""
        for one in self.asked:
            if not any(f"{node}::".startswith(f"{one}::") for node in nodes):
                raise pytest.UsageError(
                    f"no item of normdoctor is called {one}\n  {near(one, nodes) or 'See --collect-only.'}"
                )

    def _names(self, spec: str) -> list[str]:
        """The names of the models of a file, folder or module; none where the target names one itself.

        One that cannot be loaded has none: its examination says why.
        """
        try:
            parsed = parse_spec(spec)
            if parsed.parts:
                return []
            from normdoctor.doctor import load_targets

            with warnings.catch_warnings():
                warnings.simplefilter("default")  # the user's own, which pytest may make errors of
                return [target.name for target in load_targets(spec, self.settings)]
        except NormDoctorError:
            return []
