"""Suppressions: comments, found by tokenizing, and globs of files and modules."""

from __future__ import annotations

import pytest

from normdoctor.config import Settings
from normdoctor.errors import ConfigError
from normdoctor.facts import Location
from normdoctor.findings import Confidence, Finding, Severity, Site
from normdoctor.running import check_facts
from normdoctor.suppression import Suppressions

pytestmark = pytest.mark.usefixtures("catalogue")


def finding(line=1, end_line=0, code="TST101", call=None, module="body.0"):
    return Finding(
        code=code,
        name="x",
        severity=Severity.WARNING,
        confidence=Confidence.HIGH,
        message="",
        modules=(module,),
        location=Location("model.py", line, 1, end_line),
        sites=(Site(module=module, call=Location("model.py", call) if call else None),),
    )


def silenced_lines(source, text, code="TST101"):
    source.write_text(text)
    sieve = Suppressions()
    return [n for n in range(1, text.count("\n") + 2) if sieve.match(finding(n, code=code))]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a = 1\nb = 2  # normdoctor: ignore[TST101]\nc = 3\n", [2]),
        ("b = 2  # normdoctor: ignore[TST102, TST101]\n", [1]),
        ("b = 2  # normdoctor: ignore[loud-linear] -- known\n", [1]),
        ("b = 2  # normdoctor: ignore[TST1]\n", [1]),
        ("b = 2  # normdoctor:ignore[tst101]\n", [1]),
        ("b = 2  # normdoctor: ignore[TST102]\n", []),
        ("b = 2  # type: ignore  # normdoctor: ignore[TST101]\n", [1]),
        ("b = 2  # noqa: TST101\n", [1]),
        ("b = 2  # NOQA:E501,TST101 why\n", [1]),
        ("b = 2  # noqa: E501 TST101\n", [1]),
        ("b = 2  # noqa: TST1011\n", []),
        ("b = 2  # noqa\n", []),
        ('b = "# normdoctor: ignore[TST101]"\n', []),
        ('"""\n# normdoctor: ignore[TST101]\nx\n"""\n', []),
        ("# normdoctor: ignore[TST101]\nb = 2\nc = 3\n", [1 + 1]),
        ("# normdoctor: ignore[TST101]\n\n# more\nb = 2\nc = 3\n", [4]),
        ("# normdoctor: ignore[TST101]\nb = f(\n    1,\n)\nc = 3\n", [2, 3, 4]),
        ("b = f(\n    # normdoctor: ignore[TST101]\n    1,\n    2,\n)\n", [3]),
        ("def f():\n    # normdoctor: ignore[TST101]\n    b = 1\n    c = 2\n", [3]),
        ("a = 1\n# normdoctor: file-ignore[TST101]\nb = 2\n", [1, 2, 3, 4]),
        ("a = 1\n# normdoctor: ignore[TST101]\n", []),
        ("def f(:  # normdoctor: ignore[TST101]\n", []),
        ("b = (  # normdoctor: ignore[TST101]\n", []),
    ],
)
def test_comments(source, text, lines):
    assert silenced_lines(source, text) == lines


def test_any_line_of_the_span_and_the_call(source):
    source.write_text(
        "a = f(\n  1,  # normdoctor: ignore[TST101]\n)\n\ng()\nh()  # normdoctor: ignore[TST101]\n"
    )
    sieve = Suppressions()
    assert sieve.match(finding(1, end_line=3))
    assert not sieve.match(finding(3, end_line=3))
    assert sieve.match(finding(5, call=6))
    assert not sieve.match(finding(5, call=5))


def test_the_reason_is_kept(source):
    source.write_text("a = 1  # normdoctor: ignore[TST101] -- torch 1.x needs it\n")
    match = Suppressions().match(finding(1))
    assert match
    assert (match.by, match.reason) == ("model.py:1", "torch 1.x needs it")


@pytest.mark.parametrize(
    "comment", ["# normdoctor: ignore", "# normdoctor: ignore[]", "# normdoctor: file-ignore -- x"]
)
def test_a_blanket_ignore_is_refused(source, comment):
    source.write_text(f"a = 1\nb = 2  {comment}\n")
    with pytest.raises(ConfigError, match=r"model\.py:2: .* names no rule") as raised:
        Suppressions().match(finding(1))
    assert "[ND101]" in (raised.value.hint or "")


def test_an_unknown_rule_is_refused(source):
    source.write_text("b = 2  # normdoctor: ignore[loud-liner]\n")
    with pytest.raises(ConfigError, match=r"model\.py:1: unknown rule `loud-liner`") as raised:
        Suppressions().match(finding(1))
    assert "loud-linear" in (raised.value.hint or "")


def test_other_words_are_no_suppression(source):
    assert silenced_lines(source, "a = 1  # the normdoctor: ignored it\nb = 1  # ignore[TST101]\n") == []


def test_a_file_that_is_gone():
    assert Suppressions().match(finding(1)) is None


def test_encodings_and_line_ends(source):
    source.write_bytes("# -*- coding: latin-1 -*-\r\ns = '\xe9'  # noqa: TST101\r\n".encode("latin-1"))
    assert Suppressions().match(finding(2))


@pytest.mark.parametrize(
    ("pattern", "hit"),
    [("model.py", True), ("*.py", True), ("sub/*", False), ("*/model.py", True), ("other.py", False)],
)
def test_per_file_ignores(source, pattern, hit):
    sieve = Suppressions(per_file={pattern: ("TST1",)}, root=source.parent)
    assert bool(sieve.match(finding(1))) is hit
    assert not sieve.match(finding(1, code="TST201"))


def test_per_file_ignores_are_relative_to_the_configuration_file(source):
    sieve = Suppressions(per_file={f"{source.parent.name}/model.py": ("TST1",)}, root=source.parent.parent)
    assert sieve.match(finding(1))


def test_per_module_ignores():
    sieve = Suppressions(per_module={"backbone.*": ("loud-linear",)})
    assert sieve.match(finding(module="backbone.0.fc"))
    assert not sieve.match(finding(module="head.fc"))


def test_only_the_silenced_modules_of_a_line_are_taken_out(source, make_facts):
    settings = Settings(select=("TST101",), per_module_ignores={"body.1": ("TST101",)})
    report = check_facts([make_facts()], settings)
    assert report.findings[0].modules == ("body.0", "body.2")
    assert [one.finding.modules for one in report.suppressed] == [("body.1",)]
    assert report.exit_code == 1


def test_suppressed_findings_do_not_fail_but_are_reported(source, make_facts):
    text = source.read_text().replace(
        "range(3)],", "range(3)],  # normdoctor: ignore[TST101] -- wide on purpose"
    )
    source.write_text(text)
    report = check_facts([make_facts()], Settings(select=("TST101",)))
    assert report.ok
    assert report.counts() == {"passed": 1}
    assert "1 finding suppressed" in str(report)
    (found,) = report.to_dict()["findings"]
    assert found["suppressed"] is True
    assert found["suppression"] == {"by": "model.py:9", "reason": "wide on purpose"}
    assert found["modules"] == ["body.0", "body.1", "body.2"]
