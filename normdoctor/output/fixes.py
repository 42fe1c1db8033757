"""What is said about fixes: what could be fixed, what was, and the change as a unified diff."""

from __future__ import annotations

import difflib
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path

from normdoctor.findings import Applicability, Finding
from normdoctor.output.paths import shown, shown_path
from normdoctor.output.style import Style
from normdoctor.report import plural
from normdoctor.sources import installed

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def fixable(findings: Iterable[Finding], level: Applicability) -> int:
    """How many findings offer a fix of this level in a file of the user's."""
    return sum(
        finding.fix is not None
        and finding.fix.applicable
        and finding.fix.applicability is level
        and finding.location is not None
        and _editable(finding.location.file)
        for finding in findings
    )


def _editable(file: str) -> bool:
    try:
        return file.endswith(".py") and not installed(file)
    except (OSError, ValueError):  # a name that no file system takes
        return False


def offer(findings: Sequence[Finding], *, unsafe: bool = False) -> str:
    """Ruff's line about what --fix would do; empty where it would do nothing."""
    safe, hidden = (fixable(findings, level) for level in (Applicability.SAFE, Applicability.UNSAFE))
    if unsafe:
        safe, hidden = safe + hidden, 0
    more = (
        f"{hidden} hidden {'fix' if hidden == 1 else 'fixes'} can be enabled with the `--unsafe-fixes` option"
    )
    if safe:
        return f"[*] {safe} fixable with the `--fix` option{f' ({more})' if hidden else ''}."
    return f"No fixes available ({more})." if hidden else ""


def result(fixed: int, left: Sequence[Finding], *, unsafe: bool) -> list[str]:
    """What --fix came to, in ruff's words; the last line offers what it left."""
    if not fixed:
        return []
    found = plural(fixed + len(left), "finding")
    lines = [f"Found {found} ({fixed} fixed, {len(left)} remaining)."]
    hidden = fixable(left, Applicability.UNSAFE)
    if hidden and not unsafe:
        fixes = "fix" if hidden == 1 else "fixes"
        lines.append(f"{hidden} hidden {fixes} can be enabled with the `--unsafe-fixes` option.")
    return lines


def listed(fixed: Sequence[tuple[str, Finding]], style: Style) -> list[str]:
    """Ruff's list for --show-fixes; `fixed` are pairs of a file and the finding that was fixed in it."""
    if not fixed:
        return []
    lines = [f"Fixed {plural(len(fixed), 'finding')}:"]
    for file in dict.fromkeys(file for file, _ in fixed):
        lines.append(f"- {style.clean(shown_path(file))}:")
        counted = Counter((one.code, one.name) for name, one in fixed if name == file)
        lines += [f"    {count} x {code} ({name})" for (code, name), count in sorted(counted.items())]
    return lines


def refused(finding: Finding, reason: str, style: Style) -> str:
    """One line about a fix that was not applied."""
    place = f"{shown(finding.location)}: " if finding.location is not None else ""
    return style.clean(f"{place}{finding.code} was not fixed: {reason}")


def diff(changes: Mapping[Path, tuple[bytes, bytes]], style: Style) -> str:
    """The changes as a unified diff."""
    parts: list[str] = []
    for path in sorted(changes):
        old, new = (_lines(data) for data in changes[path])
        name = shown_path(str(path))
        for line in difflib.unified_diff(old, new, name, name, n=3):
            text = line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
            parts.append(_painted(text, style))
    return "".join(parts)


def _lines(data: bytes) -> list[str]:
    encoding, _ = tokenize.detect_encoding(BytesIO(data).readline)
    return _LINE.findall(data.decode(encoding))


def _painted(line: str, style: Style) -> str:
    if line.startswith(("+++", "---")):
        return style.paint(line, "bold")
    look = {"+": "green", "-": "red", "@": "cyan"}.get(line[0])
    return style.paint(line, look) if look else line


def files(changes: Mapping[Path, object]) -> list[str]:
    """The names of changed files."""
    return [shown_path(str(path)) for path in sorted(changes)]
