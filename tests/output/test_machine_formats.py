"""What services expect of the formats they read, on reports with everything odd in them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from normdoctor.facts import Location
from normdoctor.findings import Applicability, Confidence, Finding, Fix, Severity, Site
from normdoctor.output import format_names, get_format, render
from normdoctor.output.style import Style
from normdoctor.report import Problem, Report, RuleResult, TargetSummary
from normdoctor.suppression import Suppressed

EVIL = "<script>alert(1)</script>|`*_[x](y) & %0A::error::\r\n\x1b[31m\x00\u202e\ufffe\ud800,:"
MACHINE = [name for name in format_names() if get_format(name).machine]


def finding(code="ND101", message="m", **fields):
    known = {
        "name": "bias-before-norm",
        "severity": Severity.WARNING,
        "confidence": Confidence.HIGH,
        "modules": ("a.b",),
        "location": Location("model.py", 3, 5, 3, 9),
        "target": "model.py:Net",
    }
    return Finding(code=code, message=message, **(known | fields))


def make(*findings, **fields):
    return Report(
        findings=findings,
        results=fields.pop(
            "results",
            tuple(RuleResult(target=f.target, code=f.code, name=f.name, outcome="failed") for f in findings),
        ),
        **fields,
    )


def evil():
    odd = finding(
        message=f"the bias of `{EVIL}` {EVIL}",
        name="x",
        modules=(EVIL, ""),
        target=f"{EVIL}.py:Net",
        location=Location(f"{EVIL}.py", 1, 1),
        related=((EVIL, Location("b.py", 1, 1)),),
        evidence={EVIL: EVIL, "object": object},
        sites=(Site(module=EVIL, evidence={"x": {"one", "two", "three"}}),),
        help=EVIL,
        fix=Fix(title=EVIL, applicability=Applicability.SAFE, edits={EVIL: EVIL}),
    )
    return make(
        odd,
        targets=(TargetSummary(name=odd.target, notes=(EVIL,), norms={EVIL: 1}),),
        problems=(Problem(target=EVIL, message=EVIL, hint=EVIL),),
        known=(odd,),
        suppressed=(Suppressed(finding=odd, by=EVIL, reason=EVIL),),
        results=(
            RuleResult(target=odd.target, code="ND101", name="x", outcome="failed"),
            RuleResult(target=odd.target, code="ND102", name="x", outcome="skipped", reason=EVIL),
            RuleResult(target=odd.target, code="ND103", name="x", outcome="error", reason=EVIL),
        ),
    )


def many():
    """Without a place, in a library, in two targets, alike, known, suppressed, crashed, failed."""
    library = Location("/usr/lib/python3/site-packages/timm/layers/norm.py", 7, 9, 8, 3)
    return make(
        finding(),
        finding(modules=("a.c",), location=Location("model.py", 4, 5, 6, 2), severity=Severity.ERROR),
        finding(modules=("a.1",), location=None, severity=Severity.INFO),
        finding(modules=("a.2",), location=library),
        finding(modules=("a.3",), location=library),
        finding(target="Net", location=None),
        finding(target="sub/other.py:make(1)", location=None, modules=()),
        finding("ND004", target="", location=None, modules=()),
        known=(finding("ND202"),),
        suppressed=(
            Suppressed(finding=finding("ND301"), by="model.py:3", reason="why"),
            Suppressed(finding=finding("ND302"), by='per-file-ignores "*.py"'),
        ),
        problems=(Problem(target="gone.py", message="no such file: gone.py", hint="Look elsewhere."),),
        targets=(
            TargetSummary(name="model.py:Net"),
            TargetSummary(name="Net"),
            TargetSummary(name="sub/other.py:make(1)"),
        ),
        results=(
            RuleResult(target="model.py:Net", code="ND101", name="bias-before-norm", outcome="failed"),
            RuleResult(target="model.py:Net", code="ND401", name="x", outcome="skipped", reason="no weights"),
            RuleResult(target="model.py:Net", code="ND502", name="x", outcome="error", reason="KeyError: 1"),
            RuleResult(target="Net", code="ND101", name="bias-before-norm", outcome="failed"),
            RuleResult(
                target="sub/other.py:make(1)", code="ND101", name="bias-before-norm", outcome="failed"
            ),
            RuleResult(target="sub/other.py:make(1)", code="ND102", name="x", outcome="passed"),
        ),
    )


REPORTS = {"empty": Report, "evil": evil, "many": many, "one": lambda: make(finding())}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.mark.parametrize("name", format_names())
@pytest.mark.parametrize("which", REPORTS)
@pytest.mark.parametrize("unicode", [True, False])
def test_every_format_takes_every_report(name, which, unicode):
    text = render(REPORTS[which](), name, Style(unicode=unicode))
    text.encode()
    assert not [char for char in text if not char.isprintable() and char not in "\n\ufffe"]
    assert text == "" or text.endswith("\n")
    if not unicode:
        assert text.isascii()


class Tags(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)


@pytest.mark.parametrize("name", ["json", "sarif", "gitlab", "junit", "markdown"])
def test_no_script_in_what_pages_show(name):
    assert "<script" not in render(evil(), name)


def test_markdown_means_what_it_says():
    MarkdownIt = pytest.importorskip("markdown_it").MarkdownIt
    page = MarkdownIt("commonmark").enable("table").render(render(evil(), "markdown"))
    tags = Tags()
    tags.feed(page)
    assert tags.found <= {"h2", "p", "strong", "br", "table", "thead", "tbody", "tr", "th", "td", "code"}
    assert page.count("<tr>") == 2
    assert "&lt;script&gt;" in page
    many_page = MarkdownIt("commonmark").enable("table").render(render(many(), "markdown"))
    assert many_page.count("<tr>") == 9
    assert many_page.index("<td>error</td>") < many_page.index("<td>warning</td>")


COMMAND = re.compile(r"::(error|warning|notice) ([^:]*)::(.*)")


@pytest.mark.parametrize("which", REPORTS)
def test_github_commands_parse(which):
    lines = render(REPORTS[which](), "github").splitlines()
    for line in lines:
        _, fields, text = COMMAND.fullmatch(line).groups()
        keys = [field.partition("=")[0] for field in fields.split(",")]
        assert keys[0] == "title"
        assert set(keys) <= {"title", "file", "line", "endLine", "col", "endColumn"}
        assert text
    report = REPORTS[which]()
    assert len(lines) == len(report.findings) + len(report.problems)


def test_github_order_and_places():
    lines = render(many(), "github").splitlines()
    levels = [COMMAND.match(line)[1] for line in lines]
    assert levels == sorted(levels, key=["error", "warning", "notice"].index)
    assert "file=model.py,line=4,endLine=6,col=5::" in lines[1]
    assert "site-packages" not in "".join(COMMAND.match(line)[2] for line in lines)


def test_the_summary_of_a_step_is_appended(tmp_path, monkeypatch):
    aside = get_format("github").aside
    aside(many())
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    aside(many())
    assert summary.read_text() == "before\n" + render(many(), "markdown")


@pytest.mark.parametrize("which", REPORTS)
def test_gitlab(which):
    report = REPORTS[which]()
    rows = json.loads(render(report, "gitlab"))
    assert len(rows) == len(report.findings) + len(report.problems)
    prints = [row["fingerprint"] for row in rows]
    assert len(set(prints)) == len(prints)
    for row in rows:
        assert set(row) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert row["severity"] in ("info", "minor", "major", "critical", "blocker")
        lines = row["location"]["lines"]
        assert 1 <= lines["begin"] <= lines["end"]
        assert not row["location"]["path"].startswith(("/", "./"))


@pytest.mark.parametrize("which", REPORTS)
def test_junit(which):
    report = REPORTS[which]()
    root = ET.fromstring(render(report, "junit"))
    cases = list(root.iter("testcase"))
    assert len(cases) == len(report.results) + len(report.problems) == int(root.get("tests"))
    for tag, key in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        assert len(list(root.iter(tag))) == int(root.get(key))
    assert sum(int(suite.get("tests")) for suite in root) == len(cases)


def test_junit_follows_fail_on():
    lenient = msgspec.structs.replace(many(), fail_on="error")
    root = ET.fromstring(render(lenient, "junit"))
    case = next(case for case in root.iter("testcase") if case.get("classname") == "model.py::Net")
    assert case.find("failure").get("type") == "error"
    assert len(case.find("failure").text.splitlines()) == 1
    assert len(case.find("system-out").text.splitlines()) == 4
    known = root.find("testsuite/properties/property[@name='known']")
    assert known.get("value") == "1"


#: The objects of SARIF 2.1.0 that are written here: their properties, the required ones first.
SARIF = {
    "log": ("version runs", "$schema"),
    "run": ("tool", "results invocations columnKind"),
    "tool": ("driver", ""),
    "driver": ("name", "version semanticVersion rules"),
    "rule": (
        "id",
        "name shortDescription fullDescription help helpUri defaultConfiguration properties",
    ),
    "invocation": ("executionSuccessful", "toolExecutionNotifications"),
    "notification": ("message", "level descriptor associatedRule"),
    "result": (
        "message",
        "ruleId ruleIndex level locations relatedLocations partialFingerprints suppressions properties",
    ),
    "location": ("", "id physicalLocation logicalLocations message"),
    "physical": ("", "artifactLocation region"),
    "artifact": ("", "uri uriBaseId"),
    "region": ("", "startLine startColumn endLine endColumn"),
    "logical": ("", "name fullyQualifiedName kind"),
    "suppression": ("kind", "justification"),
    "message": ("", "text markdown"),
}


def shape(item, kind):
    required, others = (set(words.split()) for words in SARIF[kind])
    assert required <= set(item) <= required | others, (kind, item)


def check_place(place):
    shape(place, "location")
    if physical := place.get("physicalLocation"):
        shape(physical, "physical")
        shape(physical["artifactLocation"], "artifact")
        uri = physical["artifactLocation"]["uri"]
        assert re.fullmatch(r"(file:///)?[A-Za-z0-9._~%/@:!$&'()*+,;=-]+", uri)
        assert uri.startswith("file:///") != ("uriBaseId" in physical["artifactLocation"])
        region = physical["region"]
        shape(region, "region")
        assert all(number >= 1 for number in region.values())
        assert region.get("endLine", region["startLine"]) >= region["startLine"]
    logical = place.get("logicalLocations", [])
    for one in logical:
        shape(one, "logical")
    assert len({json.dumps(one) for one in logical}) == len(logical), "items must differ"


@pytest.mark.parametrize("which", REPORTS)
def test_sarif_structure(which):
    log = json.loads(render(REPORTS[which](), "sarif"))
    shape(log, "log")
    assert (log["version"], log["$schema"]) == ("2.1.0", "https://json.schemastore.org/sarif-2.1.0.json")
    (run,) = log["runs"]
    shape(run, "run")
    shape(run["tool"], "tool")
    driver = run["tool"]["driver"]
    shape(driver, "driver")
    ids = [rule["id"] for rule in driver["rules"]]
    assert ids == sorted(set(ids))
    for rule in driver["rules"]:
        shape(rule, "rule")
        for key in ("shortDescription", "fullDescription", "help"):
            assert not rule.get(key) or rule[key]["text"]
        assert rule.get("defaultConfiguration", {}).get("level") in (None, "none", "note", "warning", "error")
    for call in run["invocations"]:
        shape(call, "invocation")
        for note in call["toolExecutionNotifications"]:
            shape(note, "notification")
    for result in run["results"]:
        shape(result, "result")
        shape(result["message"], "message")
        assert ids[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert all(isinstance(value, str) for value in result["partialFingerprints"].values())
        for place in (*result["locations"], *result.get("relatedLocations", ())):
            check_place(place)
        for mark in result["suppressions"]:
            shape(mark, "suppression")
            assert mark["kind"] in ("inSource", "external")


def test_sarif_says_what_is_open():
    (run,) = json.loads(render(many(), "sarif"))["runs"]
    kinds = [[mark["kind"] for mark in result["suppressions"]] for result in run["results"]]
    assert kinds == [[]] * 8 + [["external"], ["inSource"], ["external"]]
    assert run["invocations"][0]["executionSuccessful"] is False
    prints = [result["partialFingerprints"]["normdoctor/v1"] for result in run["results"]]
    assert len(set(prints)) == len(prints)
    rule = next(rule for rule in run["tool"]["driver"]["rules"] if rule["id"] == "ND101")
    assert rule["fullDescription"]["text"].startswith("Finds")
    assert "## Why is this bad?" in rule["help"]["markdown"]
    assert '"fixes"' not in render(many(), "sarif")
    places = [result["locations"] for result in run["results"]]
    assert places[0][0]["physicalLocation"]["artifactLocation"] == {
        "uri": "model.py",
        "uriBaseId": "%SRCROOT%",
    }
    assert places[2][0]["physicalLocation"]["artifactLocation"]["uri"] == "model.py", "that of the target"
    assert places[7] == []


def test_json_and_text_count_what_is_known():
    data = json.loads(render(many(), "json"))
    assert (data["summary"]["known"], data["summary"]["suppressed"]) == (1, 2)
    assert [row["code"] for row in data["summary"]["statistics"]] == ["ND101", "ND004"]
    for name in ("full", "concise", "grouped", "markdown"):
        assert "1 known finding in the baseline." in render(many(), name)


SCRIPT = """\
import sys
sys.path.insert(0, {folder!r})
import test_machine_formats as cases
from normdoctor.output import format_names, render
for name in format_names():
    for which in ("many", "evil", "one"):
        sys.stdout.write(render(cases.REPORTS[which](), name))
"""


def test_two_processes_write_the_same_bytes():
    script = SCRIPT.format(folder=str(Path(__file__).parent))
    runs = [
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] != b""
