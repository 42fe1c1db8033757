"""Comments that are written into source: where they go, and that nothing else changes."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from normdoctor.annotating import add_ignores
from normdoctor.errors import UsageError
from normdoctor.facts import Location
from normdoctor.findings import Confidence, Finding, Severity, Site
from normdoctor.report import Report, RuleResult
from normdoctor.suppression import Suppressions

pytestmark = pytest.mark.usefixtures("catalogue")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def finding(line, end_line=0, *, code="TST101", file="model.py", **fields):
    known = {
        "location": Location(file, line, 1, end_line or line, 2) if line else None,
        "modules": ("body.0",),
        "target": "model.py:Net",
    }
    return Finding(
        code=code,
        name="x",
        severity=Severity.WARNING,
        confidence=Confidence.HIGH,
        message="m",
        **(known | fields),
    )


def annotated(*findings, reason="", root=None):
    results = {(f.target, f.code): "failed" for f in findings}
    report = Report(
        findings=findings,
        results=tuple(RuleResult(target=t, code=c, name="x", outcome=o) for (t, c), o in results.items()),
    )
    return add_ignores(report, root or Path(), reason)


def after(text, *findings, reason="", encoding="utf-8"):
    """The text with comments; they must hold, and a second time must change nothing."""
    path = Path("model.py")
    path.write_bytes(text.encode(encoding))
    report = annotated(*findings, reason=reason)
    new = path.read_bytes().decode(encoding)
    if not report.findings:
        sieve = Suppressions()
        shift = new.count("\n") - text.count("\n")
        for one in findings:
            place = one.location
            moved = Location(place.file, place.line + shift, 1, place.end_line + shift, 2)
            assert sieve.match(finding(0, location=moved, code=one.code)) is not None
        assert annotated().remarks == ("0 suppression comments written in 0 files.",)
    return new


CASES = [
    ("a = 1\nb = 2\n", [finding(2)], "a = 1\nb = 2  # normdoctor: ignore[TST101]\n"),
    ("b = 2", [finding(1)], "b = 2  # normdoctor: ignore[TST101]"),
    ("b = 2   \n", [finding(1)], "b = 2  # normdoctor: ignore[TST101]\n"),
    ("b = 2\r\nc = 3\r\n", [finding(1)], "b = 2  # normdoctor: ignore[TST101]\r\nc = 3\r\n"),
    ("b = 2\rc = 3\r", [finding(2)], "b = 2\rc = 3  # normdoctor: ignore[TST101]\r"),
    ("\ufeffb = 2\n", [finding(1)], "\ufeffb = 2  # normdoctor: ignore[TST101]\n"),
    ("b = '\x0c'\n\x0cc = 3\n", [finding(2)], "b = '\x0c'\n\x0cc = 3  # normdoctor: ignore[TST101]\n"),
    ("b = 2  # why\n", [finding(1)], "b = 2  # why  # normdoctor: ignore[TST101]\n"),
    ("b = 2  # noqa: E501\n", [finding(1)], "b = 2  # noqa: E501  # normdoctor: ignore[TST101]\n"),
    (
        "b = 2\n",
        [finding(1), finding(1, code="TST102")],
        "b = 2  # normdoctor: ignore[TST101, TST102]\n",
    ),
    (
        "b = 2  # normdoctor: ignore[TST102] -- known\n",
        [finding(1)],
        "b = 2  # normdoctor: ignore[TST102, TST101] -- known\n",
    ),
    (
        "b = 2  # normdoctor: file-ignore[TST102]\n",
        [finding(1)],
        "b = 2  # normdoctor: file-ignore[TST102]  # normdoctor: ignore[TST101]\n",
    ),
    ("b = f(\n    1,\n)\n", [finding(1, 3)], "b = f(  # normdoctor: ignore[TST101]\n    1,\n)\n"),
    ("b = f(\n    g(\n  1),\n)\n", [finding(2, 3)],
     "b = f(\n    g(  # normdoctor: ignore[TST101]\n  1),\n)\n"),
    ("b = f(\n    # one\n    1,\n)\n", [finding(2, 3)],
     "b = f(\n    # one\n    1,  # normdoctor: ignore[TST101]\n)\n"),
    ("b = 1 + \\\n    2\n", [finding(1, 2)], "b = 1 + \\\n    2  # normdoctor: ignore[TST101]\n"),
    (
        "if a:\n    b = 1 + \\\n        2\n",
        [finding(2)],
        "if a:\n    # normdoctor: ignore[TST101]\n    b = 1 + \\\n        2\n",
    ),
    (
        'b = """\nx\n""" + f(1)\n',
        [finding(2)],
        '# normdoctor: ignore[TST101]\nb = """\nx\n""" + f(1)\n',
    ),
    ('b = f("""\nx\n""", 1)\n', [finding(1, 3)], 'b = f("""\nx\n""", 1)  # normdoctor: ignore[TST101]\n'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "findings", "expected"), CASES)
def test_where_the_comment_goes(text, findings, expected):
    assert after(text, *findings) == expected


def test_the_reason():
    line = "b = 2  # normdoctor: ignore[TST101] -- as published\n"
    assert after("b = 2\n", finding(1), reason="as  published ") == line
    merged = after("b = 2  # normdoctor: ignore[TST102]\n", finding(1), reason="why")
    assert merged == "b = 2  # normdoctor: ignore[TST102, TST101] -- why\n"
    for bad in ("a # b", "a\x1b"):
        with pytest.raises(UsageError, match="plain text"):
            after("b = 2\n", finding(1), reason=bad)


def test_encodings_are_kept():
    text = "# -*- coding: latin-1 -*-\nb = '\xe9'\n"
    assert after(text, finding(2), encoding="latin-1").endswith("b = '\xe9'  # normdoctor: ignore[TST101]\n")
    before = Path("model.py").read_bytes()
    with pytest.raises(UsageError, match="which lacks"):
        annotated(finding(2, code="TST102"), reason="\u2192")
    assert Path("model.py").read_bytes() == before


def test_the_report_is_as_after_a_second_check():
    Path("model.py").write_text("b = 2\nc = 3\n")
    report = annotated(finding(1), finding(2, code="TST102"), finding(0, code="TST202"))
    assert [f.code for f in report.findings] == ["TST202"]
    assert {r.code: r.outcome for r in report.results} == {
        "TST101": "passed",
        "TST102": "passed",
        "TST202": "failed",
    }
    assert [(item.finding.code, item.by) for item in report.suppressed] == [
        ("TST101", "model.py:1"),
        ("TST102", "model.py:2"),
    ]
    assert report.remarks == (
        "2 suppression comments written in 1 file. "
        "1 finding got none: no line of the project's source could take one.",
    )


def test_only_the_project_is_written(tmp_path):
    inside = tmp_path / "project"
    library = inside / ".venv" / "lib" / "site-packages" / "pkg.py"
    for file in (tmp_path / "outside.py", library, inside / "model.py", inside / "notes.txt"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("b = 2\n")
    (inside / "link.py").symlink_to(tmp_path / "outside.py")
    names = (tmp_path / "outside.py", library, inside / "link.py", inside / "notes.txt", "<cell>", "gone.py")
    report = annotated(*(finding(1, file=str(name)) for name in names), root=inside)
    assert len(report.findings) == len(names)
    assert all(file.read_text() == "b = 2\n" for file in (tmp_path / "outside.py", library))
    report = annotated(finding(1, file=str(inside / "model.py")), root=inside)
    assert report.findings == ()


def test_a_librarys_layer_is_commented_at_its_calls():
    Path("model.py").write_text("x = f(x)\ny = g(y)\n")
    sites = (
        Site(module="a", call=Location("model.py", 1, 5, 1, 9)),
        Site(module="b", call=Location("model.py", 2, 5, 2, 9)),
    )
    library = Location(ast.__file__, 1, 1)
    assert annotated(finding(0, location=library, sites=sites)).findings == ()
    assert Path("model.py").read_text().count("ignore[TST101]") == 2
    half = (*sites, Site(module="c"))
    Path("model.py").write_text("x = f(x)\ny = g(y)\n")
    assert len(annotated(finding(0, location=library, sites=half)).findings) == 1


def test_permissions_and_links_are_kept(tmp_path):
    real = tmp_path / "real.py"
    real.write_text("b = 2\n")
    real.chmod(0o755)
    Path("model.py").symlink_to(real)
    annotated(finding(1))
    assert Path("model.py").is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o755
    assert real.read_text() == "b = 2  # normdoctor: ignore[TST101]\n"
    assert sorted(os.listdir(tmp_path)) == ["model.py", "real.py"]


@pytest.mark.parametrize("text", ["b = (\n", "b = 1\n  c = 2\n", "# coding: nonsense\nb = 1\n", "b = '\n"])
def test_a_file_that_does_not_parse_is_left_alone(text):
    Path("model.py").write_text(text)
    report = annotated(finding(1))
    assert len(report.findings) == 1
    assert Path("model.py").read_text() == text


def test_a_second_check_is_clean(source):
    source.write_text(
        "from torch import nn\n\nmodel = nn.Sequential(\n    nn.Conv2d(3, 8, 3),\n    nn.BatchNorm2d(\n"
        "        8,\n        momentum=0.9,\n    ),\n)\n"
    )
    command = [sys.executable, "-m", "normdoctor", "check", "model.py", "--isolated", "-q"]
    command += ["--select", "ND101,ND202,ND002", "--output-format", "concise"]
    first = subprocess.run([*command, "--add-ignore"], capture_output=True, text=True, check=False)
    assert (first.returncode, first.stdout) == (0, ""), first.stderr
    text = source.read_text()
    assert text.count("# normdoctor: ignore[") == 2
    second = subprocess.run([*command, "--add-ignore"], capture_output=True, text=True, check=False)
    assert (second.returncode, second.stdout) == (0, "")
    assert source.read_text() == text
