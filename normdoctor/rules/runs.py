"""Rules about a run of normdoctor: what it could not examine, comments and baselines that are out of date.

They are rules like others (a class, a page, a code), but they read a `Run` where others read a `Graph`, once
after all targets. They are listed, selected, ignored and explained as all rules are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import msgspec

from normdoctor.facts import Facts, Location
from normdoctor.findings import Finding, Severity
from normdoctor.rules.base import Rule


class Unrecorded(msgspec.Struct, frozen=True, kw_only=True):
    """A target whose forward could not be recorded: why, and the rules that were skipped for it."""

    facts: Facts
    reason: str
    hint: str = ""
    skipped: tuple[str, ...] = ()


class Crash(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that raised on a target; `summary` is the error on one line."""

    target: str
    code: str
    name: str
    summary: str


class IdleComment(msgspec.Struct, frozen=True, kw_only=True):
    """A suppression comment that was examined, and the rules in it that silence nothing."""

    location: Location
    verb: str
    idle: tuple[str, ...]
    used: tuple[str, ...] = ()


class StaleEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a baseline of whose `count` findings `gone` are no longer there."""

    location: Location
    code: str
    name: str
    target: str
    modules: tuple[str, ...]
    count: int
    gone: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What happened in a check. What costs something to find out is a function."""

    unrecorded: tuple[Unrecorded, ...] = ()
    crashes: tuple[Crash, ...] = ()
    idle_comments: Callable[[], tuple[IdleComment, ...]] = field(default=tuple)
    stale_entries: Callable[[], tuple[StaleEntry, ...]] = field(default=tuple)


class RunRule(Rule, abstract=True):
    """One judgement of a run. Its page may do without examples: not every run is made by a model's file."""

    category = "tool"
    severity = Severity.INFO
    requires = frozenset[str]()
    examples: ClassVar[bool] = False
    about_run: ClassVar[bool] = True

    def check_run(self, run: Run) -> Iterator[Finding]:
        """Yield the findings of a run."""
        raise NotImplementedError

    def about(
        self,
        message: str,
        *,
        target: str = "",
        modules: tuple[str, ...] = (),
        location: Location | None = None,
        evidence: dict[str, object] | None = None,
        help: str | None = None,
    ) -> Finding:
        """Build a finding of this rule."""
        return Finding(
            code=self.code,
            name=self.name,
            severity=self.severity,
            confidence=self.confidence,
            message=message,
            modules=modules,
            location=location,
            evidence=evidence or {},
            target=target,
            help=help,
        )
