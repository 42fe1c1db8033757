"""The baseline: a file of findings that are known, are counted, and fail nothing.

An entry is found again by the rule, the target and the module paths with their indices masked, never by
a line, so that edits of the source do not matter. Two findings of the same fingerprint (two layers of one
`nn.Sequential`) are one entry with a count; what goes beyond the count is new.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from normdoctor.errors import ConfigError, UsageError
from normdoctor.facts import Location
from normdoctor.files import write_whole
from normdoctor.findings import Finding, fingerprint, mask
from normdoctor.report import RuleResult
from normdoctor.rules.runs import StaleEntry

SCHEMA_VERSION = 1
#: What becomes of the file after a check: it is read, written anew, or relieved of what is gone.
READ, WRITE, PRUNE = "read", "write", "prune"


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One known finding, with what a reader of the file wants to know."""

    code: str
    name: str
    target: str
    modules: tuple[str, ...]
    message: str
    count: int = 1
    fingerprint: str

    @property
    def key(self) -> tuple[str, str, tuple[str, ...], str]:
        """Where it stands in the file."""
        return (self.target, self.code, self.modules, self.fingerprint)


class BaselineFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file."""

    schema_version: int
    tool: str
    findings: tuple[Entry, ...]


class Baseline:
    """One baseline in use: ask `knows` for each finding, then for what is stale, or `save`."""

    def __init__(self, file: Path, root: Path, mode: str = READ) -> None:
        self.file = file
        self.mode = mode
        self._root = root
        self._entries = {} if mode == WRITE and not file.exists() else _read(file)
        self._present: Counter[str] = Counter()
        self._known: dict[str, list[Finding]] = {}

    def knows(self, finding: Finding) -> bool:
        """Is it in the baseline? When a baseline is written, everything is."""
        key = self._key(finding)
        self._present[key] += 1
        entry = self._entries.get(key)
        known = self._known.setdefault(key, [])
        if self.mode != WRITE and (entry is None or len(known) >= entry.count):
            return False
        known.append(finding)
        return True

    def hidden(self, findings: Iterable[Finding]) -> None:
        """Take note of findings that are there but not shown: their entries are not stale."""
        self._present.update(self._key(finding) for finding in findings)

    def stale(self, results: Iterable[RuleResult]) -> tuple[StaleEntry, ...]:
        """The entries that are gone, of those that could be judged in this run."""
        judged = self._judged(results)
        gone = [(entry, entry.count - self._present[key]) for key, entry in self._entries.items()]
        lines = _lines(self.file) if self.mode == READ else {}
        return tuple(
            StaleEntry(
                location=lines.get(entry.fingerprint, Location(str(self.file), 1)),
                code=entry.code,
                name=entry.name,
                target=entry.target,
                modules=entry.modules,
                count=entry.count,
                gone=number,
            )
            for entry, number in sorted(gone, key=lambda pair: pair[0].key)
            if self.mode == READ and number > 0 and (entry.target, entry.code) in judged
        )

    def save(self, results: Iterable[RuleResult]) -> str:
        """Write the file anew where that was asked for; say what changed.

        Entries of targets and rules that this run did not examine stay as they are.
        """
        if self.mode == READ:
            return ""
        judged = self._judged(results)
        kept: dict[str, Entry] = {}
        for key, entry in self._entries.items():
            left = min(entry.count, self._present[key])
            if (entry.target, entry.code) not in judged:
                kept[key] = entry
            elif left:
                kept[key] = msgspec.structs.replace(entry, count=left)
        if self.mode == WRITE:
            for key, findings in self._known.items():
                kept[key] = self._entry(key, findings, kept.get(key))
        self.write(kept.values())
        before, after = _total(self._entries.values()), _total(kept.values())
        if self.mode == PRUNE:
            return f"{before - after} stale of {before} known findings removed from {self.file}."
        return f"{after} known {'finding' if after == 1 else 'findings'} written to {self.file}."

    def _entry(self, key: str, findings: list[Finding], old: Entry | None) -> Entry:
        first = findings[0]
        return Entry(
            code=first.code,
            name=first.name,
            target=self._target(first.target),
            modules=tuple(sorted({mask(path) for path in first.modules})),
            message=first.message,
            count=max(len(findings), old.count if old else 0),
            fingerprint=key,
        )

    def write(self, entries: Iterable[Entry]) -> None:
        """Write these entries to the file, in their order; an equal file is left alone."""
        ordered = tuple(sorted(entries, key=lambda entry: entry.key))
        payload = BaselineFile(schema_version=SCHEMA_VERSION, tool="normdoctor", findings=ordered)
        text = msgspec.json.format(msgspec.json.encode(payload), indent=2) + b"\n"
        try:
            if not self.file.exists() or self.file.read_bytes() != text:
                write_whole(self.file, text)
        except OSError as error:
            raise UsageError(f"cannot write the baseline {self.file}: {error.strerror}") from error

    def _judged(self, results: Iterable[RuleResult]) -> set[tuple[str, str]]:
        return {
            (self._target(result.target), result.code)
            for result in results
            if result.outcome not in ("skipped", "error")
        }

    def _key(self, finding: Finding) -> str:
        return fingerprint(finding.code, finding.modules, self._target(finding.target))

    def _target(self, target: str) -> str:
        """A target as seen from the root of the project, wherever the command was started."""
        drive = re.match(r"[A-Za-z]:[\\/]", target)
        cut = target.find(":", 2 if drive else 0)
        file, rest = (target, "") if cut < 0 else (target[:cut], target[cut:])
        path, root = Path(file), self._root.absolute()
        if not (file.endswith(".py") or path.is_file()):
            return target
        path = path.absolute().resolve()
        root = root.resolve()
        return (path.relative_to(root).as_posix() if path.is_relative_to(root) else file) + rest


def _read(file: Path) -> dict[str, Entry]:
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"no such baseline: {file}", hint="--write-baseline makes one.") from error
    except OSError as error:
        raise UsageError(f"cannot read the baseline {file}: {error.strerror}") from error
    try:
        version = msgspec.json.decode(data, type=dict[str, object]).get("schema_version")
        if version != SCHEMA_VERSION:
            raise ConfigError(
                f"{file}: schema_version is {version}, expected {SCHEMA_VERSION}",
                hint="Remove it and write it anew with --write-baseline, or use the version that wrote it.",
            )
        found = msgspec.json.decode(data, type=BaselineFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "Remove it and write it anew with --write-baseline."
        raise ConfigError(f"{file} is not a baseline: {error}", hint=hint) from error
    entries: dict[str, Entry] = {}
    for entry in found.findings:
        if entry.count < 1 or entry.fingerprint != fingerprint(entry.code, entry.modules, entry.target):
            raise ConfigError(
                f"{file} is not a baseline: the entry of {entry.code} on {entry.target} does not agree with "
                f"its fingerprint {entry.fingerprint}",
                hint="Entries may be removed by hand, not edited; --write-baseline makes them.",
            )
        known = entries.get(entry.fingerprint)
        entries[entry.fingerprint] = entry if known is None or known.count < entry.count else known
    return entries


def _lines(file: Path) -> dict[str, Location]:
    """Fingerprint to the line of the file that holds it."""
    found = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if match := re.search(r'"fingerprint": "([0-9a-f]+)"', line):
            found[match[1]] = Location(str(file), number, match.start() + 1, number, match.end() + 1)
    return found


def _total(entries: Iterable[Entry]) -> int:
    return sum(entry.count for entry in entries)


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What one check does to a baseline: entries that go, by their fingerprints, and those that come."""

    gone: tuple[str, ...] = ()
    new: tuple[Entry, ...] = ()


def changes(before: Path, after: Path) -> Changes:
    """What was changed between two states of a baseline; a file that is not there has no entries."""
    old, new = (_read(file) if file.exists() else {} for file in (before, after))
    return Changes(
        gone=tuple(key for key in old if key not in new),
        new=tuple(entry for key, entry in new.items() if old.get(key) != entry),
    )


def apply(file: Path, root: Path, made: Iterable[Changes]) -> str:
    """Write the changes of several checks, each of other targets, to a baseline; say what it holds then."""
    entries = _read(file) if file.exists() else {}
    for one in made:
        entries = {key: entry for key, entry in entries.items() if key not in one.gone}
        entries |= {entry.fingerprint: entry for entry in one.new}
    Baseline(file, root, WRITE).write(entries.values())
    total = _total(entries.values())
    return f"{total} known {'finding' if total == 1 else 'findings'} written to {file}."
