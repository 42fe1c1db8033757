"""`normdoctor convert model.py --to group`: other norms in source, with what was decided for each site."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from normdoctor.config import Settings
from normdoctor.errors import RewriteError
from normdoctor.findings import Confidence, Edit, Finding, Fix, Severity
from normdoctor.fixing.convertsites import Decision, decide
from normdoctor.fixing.fixer import named_files
from normdoctor.fixing.looking import Look, look
from normdoctor.fixing.proof import difference, measured
from normdoctor.fixing.recipes import EXACT
from normdoctor.fixing.sites import sites_of
from normdoctor.fixing.splices import Refused, spliced
from normdoctor.fixing.workspace import Workspace, roots_of
from normdoctor.report import Problem


@dataclass(frozen=True, slots=True)
class Conversion:
    """What came of it: a decision for each site, the files, and how far the outputs moved (by mode).

    `equal` says that they were compared and are the same.
    """

    decisions: tuple[Decision, ...]
    changes: dict[Path, tuple[bytes, bytes]] = field(default_factory=dict)
    moved: dict[str, float] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    equal: bool = False

    @property
    def converted(self) -> int:
        """The number of sites that were converted."""
        return sum(one.change is not None for one in self.decisions)


def convert_targets(
    specs: Sequence[str],
    settings: Settings,
    to: str,
    *,
    groups: int | None = None,
    where: tuple[str, ...] = (),
    write: bool = False,
) -> Conversion:
    """Convert the norms in the source of targets; see `normdoctor.fixing.recipes.TARGETS` for `to`.

    Raises:
        UsageError: A file cannot be written.
        RewriteError: The converted model does not run.
    """
    workspace = Workspace(roots_of(settings.root, named_files(specs)))
    with contextlib.closing(workspace):
        base = look(specs, replace(settings, exitfirst=False), workspace)
        found = [site for seen in base.seen.values() for site in sites_of(seen, where)]
        decisions = decide(base, found, to, groups)
        after, decisions, reason = _settled(specs, base, decisions, to)
        changed = {p: d for p, d in workspace.current.items() if d != workspace.original[p]}
        if reason and not changed:
            raise RewriteError(f"the converted model does not stand its proof: {reason}")
        changes = {path: (workspace.original[path], data) for path, data in changed.items()}
        if write:
            workspace.write()
        moved = {} if after is base or to in EXACT else measured(base, after)
        before = {code for seen in base.seen.values() for code in seen.counts}
        fresh = {code for seen in after.seen.values() for code in seen.counts} - before
        problems, equal = base.report.problems, after is not base and to in EXACT
        return Conversion(tuple(decisions), changes, moved, tuple(sorted(fresh)), problems, equal)


def _settled(
    specs: Sequence[str], base: Look, decisions: list[Decision], to: str
) -> tuple[Look, list[Decision], str]:
    """Try all conversions together, then, where that does not stand, one after the other."""
    wanted = [one for one in decisions if one.change is not None]
    if not wanted:
        return base, decisions, ""
    after, reason = _attempt(specs, base, wanted, to)
    if after is not None:
        return after, decisions, ""
    kept: list[Decision] = []
    reasons: dict[int, str] = {}
    for one in wanted if len(wanted) > 1 else ():
        tried, why = _attempt(specs, base, [*kept, one], to)
        if tried is None:
            reasons[id(one)] = why
        else:
            after, kept = tried, [*kept, one]
    settled = [
        one
        if one.change is None or one in kept
        else replace(one, change=None, text="", reason=reasons.get(id(one), reason))
        for one in decisions
    ]
    return after or base, settled, "" if kept else reason


def _attempt(specs: Sequence[str], base: Look, chosen: list[Decision], to: str) -> tuple[Look | None, str]:
    workspace = base.workspace
    splices = [splice for one in chosen if one.change is not None for splice in one.change.splices]
    changed: dict[Path, bytes] = {}
    try:
        for file in dict.fromkeys(splice.file for splice in splices):
            doc = base.document(file)
            text = spliced(doc.text, (splice for splice in splices if splice.file == file))
            ast.parse(text)
            changed[workspace.real(file)] = doc.encode(text)
    except (SyntaxError, Refused) as error:
        return None, f"the result would be no valid source: {error}"
    copy = workspace.copy(changed)
    with copy.entered():
        found = look(specs, base.settings, workspace, copy=copy)
        reason = _problem(base, found, chosen, to)
    if reason:
        return None, copy.name(reason)
    workspace.current = changed
    return found, ""


def _problem(base: Look, found: Look, chosen: list[Decision], to: str) -> str:
    if found.report.problems and not base.report.problems:
        return found.report.problems[0].message
    for name, old in base.seen.items():
        new = found.seen.get(name)
        if new is None or (old.facts.nodes and not new.facts.nodes):
            return f"`{name}` does not run any more"
        of_target = [one for one in chosen if one.site.target == name]
        types = {module.path: module.type for module in new.facts.modules}
        for one in of_target:
            wrong = [path for path in one.site.paths if types.get(path) not in (one.kind, None)]
            if one.site.modules and wrong:
                return f"`{wrong[0]}` would still be a {types[wrong[0]]}"
        exact = to in EXACT or all(one.site.kind == "by hand" for one in of_target)
        if exact and of_target and (reason := difference(old, new, [_carrier(one) for one in of_target])):
            return reason
    return ""


def _carrier(decision: Decision) -> Finding:
    """The state that a norm written by hand hands over, in the form that the proof takes."""
    steps = (Edit.build("", (), carries=decision.carries),) if decision.carries else ()
    return Finding(
        code="",
        name="",
        severity=Severity.INFO,
        confidence=Confidence.HIGH,
        message="",
        fix=Fix(title="", steps=steps),
        target=decision.site.target,
    )
