"""The rule as a unit: one class, one file, one page, one test.

A subclass of `Rule` is complete by itself. Its docstring is its documentation page and its tests
(the fenced `python bad`, `python good` and `python fixed` blocks); its class attributes are its
metadata; `check` is its logic, a pure function of the facts.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from normdoctor.facts import Location, Node
from normdoctor.findings import Confidence, Finding, Fix, Severity, Site
from normdoctor.graph import Graph

#: The headings of a rule's page, in this order. "Options" is generated, "Fix safety" is asked for
#: where the rule offers an unsafe fix.
REQUIRED_HEADINGS = ("What it does", "Why is this bad?", "Example", "When to ignore", "References")

#: What a rule may require of the facts.
REQUIREMENTS = frozenset({"graph", "weights", "loss", "optimizer", "reference"})


class RuleOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of a rule's options: subclass it inside the rule, with a default for every field.

    Numbers are finite, and negative only where the default is.
    """

    def __post_init__(self) -> None:
        """Refuse numbers that no threshold can be."""
        for name, default in zip(self.__struct_fields__, self.__struct_defaults__, strict=True):
            value = getattr(self, name)
            if type(value) not in (int, float):
                continue
            if not math.isfinite(value):
                raise ValueError(f"`{name}` is {value}: expected a finite number")
            if value < 0 and not (type(default) in (int, float) and default < 0):
                raise ValueError(f"`{name}` is {value}: expected a number of at least 0")


class Rule:
    """One diagnosis.

    Attributes:
        code: `ND` and three digits (or another prefix, for rules of third parties).
        name: In kebab case; reads well after "allow".
        category: The folder of the catalogue: placement, configuration, activation, ...
        severity: The level of a finding unless `check` says otherwise.
        confidence: How sure a finding is unless `check` says otherwise.
        since: The version that added the rule.
        fixable: Whether its findings offer a fix that can be applied.
        requires: What the facts must hold: graph, weights, loss, ... (see `REQUIREMENTS`).
        needs: Measurements that it reads (names of `normdoctor.probing` statistics).
        preview: Runs only when asked for by its code or with `--preview`.
        examples: Whether its page must hold examples that are models.
        about_run: Whether it judges the run of normdoctor, not a model (see `normdoctor.rules.runs`).
        always: Runs although others are selected; only ignoring it turns it off.
    """

    code: ClassVar[str] = ""
    name: ClassVar[str] = ""
    category: ClassVar[str] = ""
    severity: ClassVar[Severity] = Severity.WARNING
    confidence: ClassVar[Confidence] = Confidence.HIGH
    since: ClassVar[str] = "0.1.0"
    fixable: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = frozenset({"graph"})
    needs: ClassVar[frozenset[str]] = frozenset()
    preview: ClassVar[bool] = False
    examples: ClassVar[bool] = True
    about_run: ClassVar[bool] = False
    always: ClassVar[bool] = False

    class Options(RuleOptions, frozen=True):
        """No options, unless the rule defines some."""

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        self.options: Any = msgspec.convert(options or {}, type=type(self).Options)

    def __init_subclass__(cls, *, abstract: bool = False) -> None:
        super().__init_subclass__()
        problems = [] if abstract else contract_problems(cls)
        if problems:
            where = inspect.getsourcefile(cls) or cls.__module__
            raise TypeError(f"rule {cls.__name__} ({where}): " + "; ".join(problems))

    def check(self, graph: Graph) -> Iterator[Finding]:
        """Yield one finding for each site; sites of one source span are grouped by the caller."""
        raise NotImplementedError

    def finding(
        self,
        graph: Graph,
        message: str,
        *,
        node: Node | None = None,
        module: str | None = None,
        location: Location | None = None,
        severity: Severity | None = None,
        confidence: Confidence | None = None,
        evidence: dict[str, Any] | None = None,
        related: tuple[tuple[str, Location | None], ...] = (),
        fix: Fix | None = None,
        help: str | None = None,
    ) -> Finding:
        """Build a finding at a node or a module; `message` may hold `{modules}`."""
        if node is not None:
            module = graph.label(node) if module is None else module
            location = location or graph.where(node)
        elif module is not None and location is None and module in graph.modules:
            location = graph.modules[module].origin
        path = module or ""
        call = node.location if node is not None else None
        return Finding(
            code=self.code,
            name=self.name,
            severity=severity or self.severity,
            confidence=confidence or self.confidence,
            message=message,
            modules=(path,),
            location=location,
            related=tuple((text, place) for text, place in related if place is not None),
            evidence=evidence or {},
            sites=(Site(module=path, evidence=evidence or {}, call=call),),
            fix=fix,
            target=graph.facts.target,
            help=help,
        )


def contract_problems(cls: type[Rule]) -> list[str]:
    """Say what a rule class lacks: a well-formed code and name, and a complete page."""
    problems = []
    if not re.fullmatch(r"[A-Z]+\d{3}", cls.code):
        problems.append(f"code {cls.code!r} is not a prefix and three digits")
    if not re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", cls.name):
        problems.append(f"name {cls.name!r} is not in kebab case")
    if cls.__name__ != "".join(part.capitalize() for part in cls.name.split("-")):
        problems.append(f"class name is not {cls.name!r} in camel case")
    page = inspect.getdoc(cls) or ""
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    problems += [f"page lacks '## {heading}'" for heading in REQUIRED_HEADINGS if heading not in headings]
    roles = [role for role, _ in fences(page)]
    wanted = ("bad", "good") if getattr(cls, "examples", True) else ()
    problems += [f"page has no ```python {role}``` block" for role in wanted if role not in roles]
    if unknown := cls.requires - REQUIREMENTS:
        problems.append(f"unknown requirement {sorted(unknown)}")
    return problems


def fences(page: str) -> list[tuple[str, str]]:
    """The fenced examples of a page as (role, code): role is bad, good or fixed."""
    return re.findall(r"^```python (bad|good|fixed)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def page_of(rule: type[Rule]) -> str:
    """The rule's documentation page, as Markdown without its title."""
    return inspect.getdoc(rule) or ""


def summary_of(rule: type[Rule]) -> str:
    """The first line of the rule's page."""
    return page_of(rule).splitlines()[0]
