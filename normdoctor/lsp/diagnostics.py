"""A report as diagnostics: for each file that findings are in, what an editor shows there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls import uris

SOURCE = "normdoctor"
SEVERITIES = {
    "error": types.DiagnosticSeverity.Error,
    "warning": types.DiagnosticSeverity.Warning,
    "info": types.DiagnosticSeverity.Information,
}
#: How the message about a file begins that holds no model, which is no fault of the file.
NO_MODEL = "no model in "
TOP = types.Range(types.Position(0, 0), types.Position(0, 0))

#: Makes the range of a place (as in the JSON report) in a file, in the units of the editor.
Ranges = Callable[[Path, dict[str, Any]], types.Range]


def diagnostics(
    report: dict[str, Any], folder: Path, uri: str, ranges: Ranges, page: Callable[[str], str]
) -> dict[str, list[types.Diagnostic]]:
    """URI to what is shown there; what has no place in the project stands at the top of the file `uri`.

    Args:
        report: What `--output-format json` printed.
        folder: Where the check ran: files of the report are relative to it.
        uri: The file that was checked.
        ranges: See `Ranges`.
        page: The address of a rule's page, or "".
    """
    own = uris.to_fs_path(uri) or ""
    several = len(report["targets"]) > 1

    def place_of(location: dict[str, Any]) -> types.Location:
        file = folder / location["file"]
        name = uri if str(file) == own else uris.from_fs_path(str(file)) or uri
        return types.Location(name, ranges(file, location))

    found: dict[str, list[types.Diagnostic]] = {uri: []}
    for finding in report["findings"]:
        if finding["baseline"] or finding["suppressed"]:
            continue
        location = finding["location"]
        inside = location is not None and (folder / location["file"]).is_relative_to(folder)
        at = place_of(location) if inside else types.Location(uri, TOP)
        shown = types.Diagnostic(
            range=at.range,
            message="\n".join(_lines(finding, inside=inside, several=several)),
            severity=SEVERITIES[finding["severity"]],
            code=finding["code"],
            code_description=types.CodeDescription(page(finding["code"])) if page(finding["code"]) else None,
            source=SOURCE,
            related_information=[
                types.DiagnosticRelatedInformation(place_of(one["location"]), one["label"])
                for one in finding["related"]
                if one["location"] is not None
            ],
            data={key: finding[key] for key in ("name", "fingerprint", "target", "modules", "fix")},
        )
        found.setdefault(at.uri, []).append(shown)
    for problem in report["problems"]:
        if not problem["message"].startswith(NO_MODEL):
            found[uri].append(unchecked(f"{problem['message']}\n{problem['hint']}".strip()))
    return found


def unchecked(reason: str) -> types.Diagnostic:
    """Says why a file could not be checked, at its top."""
    text = f"could not be checked: {reason}"
    return types.Diagnostic(TOP, text, types.DiagnosticSeverity.Information, source=SOURCE)


def _lines(finding: dict[str, Any], *, inside: bool, several: bool) -> Iterator[str]:
    count = len(finding["modules"])
    yield f"{finding['name']}: {finding['message']}" + (f" [{count} modules]" if count > 1 else "")
    location = finding["location"]
    if location is not None and not inside:
        yield f"at {location['file']}:{location['line']}"
    if several:
        yield f"in {finding['target']}"
    remedy = finding["fix"]["title"] if finding["fix"] else finding["help"]
    if remedy:
        yield remedy


_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")


def edits_of(diff: str, folder: Path) -> dict[str, list[types.TextEdit]]:
    """The edits of a unified diff of files in a folder, by URI; one for each hunk."""
    found: dict[str, list[types.TextEdit]] = {}
    current: list[types.TextEdit] = []
    old = new = 0  # lines of the hunk that are still to come
    for line in diff.split("\n"):
        if line.startswith("\\"):
            if old == new == 0:
                current[-1].new_text = current[-1].new_text.removesuffix("\n")
        elif old or new:
            old -= line[:1] != "+"
            new -= line[:1] != "-"
            current[-1].new_text += "" if line[:1] == "-" else f"{line[1:]}\n"
        elif line.startswith("--- "):
            current = found.setdefault(uris.from_fs_path(str(folder / line[4:])) or "", [])
        elif match := _HUNK.match(line):
            first, old, new = (1 if part is None else int(part) for part in match.groups())
            start = first - 1 if old else first
            lines = types.Range(types.Position(start, 0), types.Position(start + old, 0))
            current.append(types.TextEdit(lines, ""))
    return found
