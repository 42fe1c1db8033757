"""One look at the targets: the report that the user asked for, and what every other rule says as well."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from normdoctor.config import Settings
from normdoctor.doctor import check_targets
from normdoctor.errors import NormDoctorError
from normdoctor.facts import Facts
from normdoctor.findings import Confidence, Finding
from normdoctor.fixing.document import Document
from normdoctor.fixing.splices import Refused
from normdoctor.fixing.workspace import Copy, Workspace
from normdoctor.loading.spec import parse_spec
from normdoctor.loading.state import inventory
from normdoctor.report import Report
from normdoctor.running import OnResult, Session

if TYPE_CHECKING:
    from torch import nn

    from normdoctor.loading.target import Target
    from normdoctor.tracing.examine import Examination


@dataclass
class Seen:
    """One target as it was loaded, with its facts and what all rules say of it."""

    target: Target
    examination: Examination
    facts: Facts
    counts: Counter[str]

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """Every module by each of its paths, the hidden ones as `blocks[0]`."""
        entries = inventory(self.target.model).modules.values()
        return {path: entry.module for entry in entries for path in (entry.path, *entry.aliases)}


@dataclass
class Look:
    """The targets as they are, or as they would be with other files.

    `report` has its places in the files that were read; `copy` says which ones they stand for.
    """

    workspace: Workspace
    settings: Settings
    copy: Copy | None = None
    report: Report = field(default_factory=Report)
    seen: dict[str, Seen] = field(default_factory=dict)
    _documents: dict[str, Document] = field(default_factory=dict)

    # -- the onlooker of a check -----------------------------------------------------------------

    def load_as(self, spec: str) -> str:
        """The same target in the copy."""
        if self.copy is None:
            return spec
        parsed = parse_spec(spec)
        place = parsed.file or parsed.directory
        if place is None:
            return spec
        path = Path(place).resolve()
        moved = self.copy.of(path)
        if moved == path:
            return spec
        rest = re.match(r".*?\.py(?=:|$)(.*)", spec, re.DOTALL) if parsed.file else None
        return f"{moved}{rest[1] if rest else ''}"

    def named(self, name: str) -> str:
        """The name that the target has outside of the copy."""
        return self.copy.name(name) if self.copy is not None else name

    def saw(self, target: Target, examination: Examination, facts: Facts) -> None:
        """Keep the target, and run all rules on what was learnt of it."""
        self.seen[facts.target] = Seen(target, examination, facts, counts_of(facts, self.settings))
        self.workspace.files |= {self.workspace.real(file) for file in target.files}

    # -- what operations ask for -----------------------------------------------------------------

    def document(self, file: str) -> Document:
        """A file of this look, parsed."""
        if file not in self._documents:
            if file.startswith("<"):
                raise Refused("it was typed in, and lies in no file")
            self._documents[file] = Document(file, self.workspace.data(file))
        return self._documents[file]

    @cached_property
    def outside(self) -> Report:
        """The report with the places of the files that the copy stands for."""
        if self.copy is None:
            return self.report
        data = msgspec.json.encode(self.report, enc_hook=str).decode()
        return msgspec.json.decode(self.copy.name(data), type=Report)


def look(
    specs: Sequence[str],
    settings: Settings,
    workspace: Workspace,
    on_result: OnResult | None = None,
    copy: Copy | None = None,
) -> Look:
    """Check the targets, in a copy of the project or as they are."""
    found = Look(workspace, settings, copy)
    if copy is not None:
        named = {key: getattr(settings, key) for key in ("loss", "optimizer", "reference", "data")}
        moved = {key: _moved(found, value) for key, value in named.items()}
        settings = replace(settings, root=copy.of(settings.root.resolve()), **moved)
    # What a model warns of was said when it was looked at as it is.
    quiet = warnings.catch_warnings(action="ignore") if copy is not None else contextlib.nullcontext()
    with quiet:
        found.report = check_targets(specs, settings, on_result, found)
    return found


def _moved(found: Look, value: Any) -> Any:
    """What a setting names (`train.py:loss_fn`), in the copy."""
    if isinstance(value, str) and ".py" in value:
        with contextlib.suppress(NormDoctorError):
            return found.load_as(value)
    return value


def counts_of(facts: Facts, settings: Settings) -> Counter[str]:
    """How many sites every rule reports, also those that the user did not select."""
    session = Session(_wide(settings))
    session.check(facts)
    report = session.report()
    counts: Counter[str] = Counter()
    for finding in report.findings:
        counts[finding.code] += weight(finding)
    for result in report.results:
        if result.outcome == "error":
            counts[f"a crash of {result.code}"] += 1
    return counts


def weight(finding: Finding) -> int:
    """How many sites a finding stands for."""
    return max(len(finding.sites), 1)


def _wide(settings: Settings) -> Settings:
    """All rules, whatever the user selected and silenced, with the user's options."""
    return Settings(
        select=("ALL",), options=settings.options, min_confidence=Confidence.LOW, ignore_suppressions=True
    )
