"""The loop of `check --fix`: plan what findings offer, try it in a copy, keep what stands its proof."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from normdoctor.config import Settings
from normdoctor.errors import NormDoctorError
from normdoctor.facts import Facts
from normdoctor.findings import Applicability, Finding
from normdoctor.fixing.case import Case
from normdoctor.fixing.looking import Look, look
from normdoctor.fixing.operations import changes_of
from normdoctor.fixing.proof import problem_of
from normdoctor.fixing.splices import Change, Refused, spliced
from normdoctor.fixing.workspace import Workspace, roots_of
from normdoctor.loading.spec import parse_spec
from normdoctor.report import Report
from normdoctor.running import OnResult

#: Rounds after which a loop that goes on changing things is broken off.
MAX_ROUNDS = 10

Key = tuple[str, str, tuple[str, ...], str]


@dataclass(frozen=True, slots=True)
class Fixed:
    """A finding whose fix was applied, and the files that it changed."""

    finding: Finding
    note: str
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Unfixed:
    """A finding whose fix was not applied, and why."""

    finding: Finding
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: the report before and after, and the old and new content of each changed file."""

    before: Report
    report: Report
    fixed: tuple[Fixed, ...] = ()
    unfixed: tuple[Unfixed, ...] = ()
    changes: dict[Path, tuple[bytes, bytes]] = field(default_factory=dict)


def fix_targets(
    specs: Sequence[str],
    settings: Settings,
    *,
    unsafe: bool = False,
    wanted: Callable[[str], bool] = lambda code: True,
    write: bool = True,
    on_result: OnResult | None = None,
) -> Outcome:
    """Check targets, apply the fixes of what is found, and check again.

    Args:
        specs: Target strings.
        settings: As for a check; what is suppressed, in the baseline or not selected is never fixed.
        unsafe: Apply unsafe fixes as well.
        wanted: Whether findings of a code may be fixed.
        write: Write the files; otherwise `changes` says what would be written.
        on_result: Called with each result of the first check.

    Raises:
        UsageError: A file cannot be written.
    """
    fixer = _Fixer(tuple(specs), replace(settings, exitfirst=False), unsafe, wanted)
    with contextlib.closing(fixer.workspace):
        return fixer.run(write, on_result)


class _Fixer:
    def __init__(
        self, specs: tuple[str, ...], settings: Settings, unsafe: bool, wanted: Callable[[str], bool]
    ) -> None:
        self.specs, self.settings, self.unsafe, self.wanted = specs, settings, unsafe, wanted
        self.workspace = Workspace(roots_of(settings.root, named_files(specs)))
        self.fixed: list[Fixed] = []
        self.unfixed: dict[Key, Unfixed] = {}

    def run(self, write: bool, on_result: OnResult | None) -> Outcome:
        first = base = look(self.specs, self.settings, self.workspace, on_result)
        for _ in range(MAX_ROUNDS):
            known = len(self.fixed)
            for preserving in (True, False):
                if keys := self._keys(base, preserving):
                    base = self._settle(base, keys)
            if len(self.fixed) == known:
                break
        changes = {
            path: (self.workspace.original[path], data)
            for path, data in self.workspace.current.items()
            if data != self.workspace.original[path]
        }
        if write:
            self.workspace.write()
        standing = {_key(finding) for finding in base.report.findings}
        left = tuple(one for key, one in self.unfixed.items() if key in standing)
        return Outcome(first.report, base.outside, tuple(self.fixed), left, changes)

    def _keys(self, base: Look, preserving: bool) -> list[Key]:
        """The findings that can be fixed and were not refused before."""
        levels = (Applicability.SAFE, Applicability.UNSAFE) if self.unsafe else (Applicability.SAFE,)
        return [
            _key(finding)
            for finding in base.report.findings
            if finding.fix is not None
            and finding.fix.applicable
            and finding.fix.applicability in levels
            and finding.fix.preserving == preserving
            and self.wanted(finding.code)
            and _key(finding) not in self.unfixed
        ]

    def _settle(self, base: Look, keys: list[Key]) -> Look:
        """Apply all of these fixes, or as many as stand their proof; those that clash wait."""
        planned = self._plan(base, keys)
        if not planned:
            return base
        reason = ""
        ways = max(len(changes) for _, changes in planned) if len(planned) == 1 else 1
        for way in range(ways):
            chosen = [(finding, changes[min(way, len(changes) - 1)]) for finding, changes in planned]
            found, why = self._attempt(base, chosen)
            reason = reason or why
            if found is not None:
                return found
        if len(planned) == 1:
            finding = planned[0][0]
            self.unfixed[_key(finding)] = Unfixed(self._outside(base, finding), reason)
            return base
        middle = (len(planned) + 1) // 2
        base = self._settle(base, [_key(finding) for finding, _ in planned[:middle]])
        return self._settle(base, [_key(finding) for finding, _ in planned[middle:]])

    def _plan(self, base: Look, keys: list[Key]) -> list[tuple[Finding, list[Change]]]:
        planned: list[tuple[Finding, list[Change]]] = []
        for finding in base.report.findings:
            if _key(finding) not in keys:
                continue
            try:
                changes = changes_of(self._case(base, finding))
            except Refused as refusal:
                self.unfixed[_key(finding)] = Unfixed(self._outside(base, finding), str(refusal))
                continue
            if not changes[0].clashes(way[0] for _, way in planned):
                planned.append((finding, changes))
        return planned

    def _case(self, base: Look, finding: Finding) -> Case:
        assert finding.fix is not None
        seen = base.seen.get(finding.target) or next(iter(base.seen.values()), None)
        facts = seen.facts if seen is not None else Facts(target=finding.target)
        modules = seen.modules if seen is not None else {}
        files = seen.target.files if seen is not None else ()
        return Case(finding, finding.fix, facts, modules, base.document, files)

    def _attempt(self, base: Look, chosen: list[tuple[Finding, Change]]) -> tuple[Look | None, str]:
        """The look after these changes; None, and the reason, where they do not stand their proof."""
        splices = [splice for _, change in chosen for splice in change.splices]
        changed = dict(self.workspace.current)
        try:
            for file in dict.fromkeys(splice.file for splice in splices):
                doc = base.document(file)
                text = spliced(doc.text, (splice for splice in splices if splice.file == file))
                ast.parse(text)
                changed[self.workspace.real(file)] = doc.encode(text)
        except (SyntaxError, Refused) as error:
            return None, f"the result would be no valid source: {error}"
        if changed == self.workspace.current:
            return None, "it changes nothing"
        copy = self.workspace.copy(changed)
        findings = [finding for finding, _ in chosen]
        with copy.entered():
            found = look(self.specs, self.settings, self.workspace, copy=copy)
            reason = problem_of(base, found, findings)
        if reason:
            return None, copy.name(reason)
        self.workspace.current = changed
        for finding, change in chosen:
            files = tuple(dict.fromkeys(self.workspace.real(splice.file) for splice in change.splices))
            self.fixed.append(Fixed(self._outside(base, finding), change.note, files))
        return found, ""

    @staticmethod
    def _outside(base: Look, finding: Finding) -> Finding:
        """The finding with its places in the files of the project."""
        at = base.report.findings.index(finding)
        return base.outside.findings[at]


def _key(finding: Finding) -> Key:
    """What a finding is known by in the next round, when lines may have moved."""
    return finding.code, finding.target, finding.modules, finding.message


def named_files(specs: Sequence[str]) -> list[Path]:
    """The files that target strings name."""
    found = []
    for spec in specs:
        with contextlib.suppress(NormDoctorError):
            parsed = parse_spec(spec)
            place = parsed.file or (parsed.directory / "all.py" if parsed.directory else None)
            if place is not None:
                found.append(Path(place).resolve())
    return found
