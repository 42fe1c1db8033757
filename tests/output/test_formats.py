"""The formats against golden files; `python tests/output/test_formats.py` writes those anew."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from normdoctor.facts import InputFact, Location, TensorFact
from normdoctor.findings import Applicability, Confidence, Finding, Fix, Severity, Site
from normdoctor.grouping import group
from normdoctor.output import format_names, get_format, render
from normdoctor.output.formats import sarif
from normdoctor.output.style import Style
from normdoctor.report import Problem, Report, RuleResult, TargetSummary
from normdoctor.suppression import Suppressed

GOLDEN = Path(__file__).parent / "golden"
TARGET = "model.txt:Net"


def finding(code, name, message, *modules, severity=Severity.WARNING, **fields):
    known = {"confidence": Confidence.HIGH, "target": TARGET}
    return Finding(
        code=code, name=name, severity=severity, message=message, modules=modules, **(known | fields)
    )


def findings():
    conv, norm = Location("model.txt", 8, 21, 8, 50), Location("model.txt", 9, 19, 9, 36)
    yield from (
        finding(
            "ND101",
            "bias-before-norm",
            "the bias of {modules} has no effect",
            f"blocks.{i}.conv",
            location=norm,
            related=(("subtracts the channel mean", norm), ("bias=True here", conv)),
            evidence={"values": 8},
            sites=(
                Site(module=f"blocks.{i}.conv", evidence={"values": 8}, call=Location("model.txt", 20, 5)),
            ),
            fix=Fix(title="set bias=False", applicability=Applicability.SAFE, edits={"bias": "False"}),
        )
        for i in range(12)
    )
    yield finding(
        "ND310",
        "softmax-before-cross-entropy",
        "{modules} ends in a softmax, and cross_entropy applies another",
        "head.4",
        severity=Severity.ERROR,
        location=Location("model.txt", 10, 21, 16, 10),
        related=(("the loss", Location("train.txt", 3, 8, 3, 34)),),
        help="cross_entropy takes logits",
        fix=Fix(title="return the logits"),
    )
    yield finding(
        "ND201",
        "batchnorm-eps",
        "eps of {modules} is 0.9 \x1b[31m\u202e",
        "tabbed",
        location=Location("model.txt", 17, 16, 17, 38),
        confidence=Confidence.MEDIUM,
        evidence={"eps": 0.9, "ratio": float("nan")},
    )
    yield finding("ND105", "shared-batchnorm", "{modules} serves two layers", "", severity=Severity.INFO)
    yield finding("ND502", "unregistered-module", "gone", "a\nb", location=Location("missing.py", 3, 1))


def report(**fields):
    results = [
        ("ND101", "failed", ""),
        ("ND102", "passed", ""),
        ("ND105", "noted", ""),
        ("ND201", "failed", ""),
    ]
    results += [("ND310", "failed", ""), ("ND401", "skipped", "the values of the weights are not known")]
    known = {
        "findings": group(findings()),
        "results": tuple(
            RuleResult(target=TARGET, code=code, name="x", outcome=outcome, reason=reason)
            for code, outcome, reason in results
        ),
        "targets": (
            TargetSummary(
                name=TARGET,
                recorded="meta",
                inputs=(InputFact(name="x", tensor=TensorFact((8, 3, 32, 32)), source="inferred"),),
                notes=("inputs inferred: x: float32 (8, 3, 32, 32)",),
                norms={"BatchNorm2d": 13, "LayerNorm": 1},
                modules=40,
                parameters=1234,
            ),
        ),
        "suppressed": (
            Suppressed(
                finding=finding("ND102", "dropout-before-batchnorm", "m", "d"), by="model.txt:4", reason="why"
            ),
        ),
        "known": (finding("ND202", "batchnorm-momentum", "m of {modules}", "stem.bn"),),
        "problems": (
            Problem(target="other.py", message="no such file: other.py", hint="Did you mean `othr.py`?"),
        ),
        "hidden": 1,
        "environment": {"normdoctor": "0", "torch": "2", "python": "3", "platform": "linux"},
    }
    return Report(**(known | fields))


CASES = {
    "grouped.txt": ("grouped", Style()),
    "github.txt": ("github", Style()),
    "gitlab.txt": ("gitlab", Style()),
    "junit.txt": ("junit", Style()),
    "markdown.txt": ("markdown", Style()),
    "sarif.txt": ("sarif", Style()),
    "full.txt": ("full", Style()),
    "full-color.txt": ("full", Style(color=True, show_skipped=True)),
    "concise.txt": ("concise", Style(show_skipped=True)),
    "concise-quiet.txt": ("concise", Style(verbosity=-1, unicode=False)),
    "json.txt": ("json", Style()),
}


def rendered(name):
    text = render(report(), *CASES[name])
    version = __import__("normdoctor").__version__
    for key in ("version", "semanticVersion"):
        text = text.replace(f'"{key}": "{version}"', f'"{key}": "0"')
    return text


@pytest.fixture(autouse=True)
def folder(monkeypatch):
    monkeypatch.chdir(GOLDEN)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    # Pages of rules are rewritten now and then: the golden file of SARIF has none.
    monkeypatch.setattr(sarif, "find_rule", lambda code: None)


@pytest.mark.parametrize("name", CASES)
def test_golden(name):
    assert rendered(name) == (GOLDEN / name).read_text(encoding="utf-8")


def test_formats_are_found_by_their_files():
    assert set(format_names()) >= {"full", "concise", "json"}
    assert all(get_format(name).name == name for name in format_names())


@pytest.mark.parametrize("name", format_names())
def test_equal_reports_give_equal_bytes(name):
    assert render(report(), name) == render(report(), name)


@pytest.mark.parametrize("name", format_names())
@pytest.mark.parametrize("unicode", [True, False])
def test_no_control_character_passes(name, unicode):
    text = render(report(), name, Style(unicode=unicode))
    assert not [char for char in text if not char.isprintable() and char != "\n"]
    assert unicode or text.isascii()


def test_json_in_ascii_says_the_same():
    odd = report(findings=(finding("ND101", "x", "\u00e9 \U0001f600", "m"),))
    plain, ascii_only = (render(odd, "json", Style(unicode=unicode)) for unicode in (True, False))
    assert ascii_only.isascii()
    assert json.loads(plain) == json.loads(ascii_only)


def test_json_layout():
    data = json.loads(render(report(), "json"))
    assert list(data)[:6] == ["schema_version", "tool", "environment", "targets", "findings", "skipped"]
    assert data["schema_version"] == 1
    assert data == json.loads(msgspec.json.encode(report().to_dict()))
    assert data["summary"]["findings"] == {"error": 1, "warning": 3, "info": 1}
    assert [f["suppressed"] for f in data["findings"]] == [False] * 6 + [True]
    assert [f["baseline"] for f in data["findings"]] == [False] * 5 + [True, False]
    assert data["summary"]["statistics"][0] == {
        "code": "ND101",
        "name": "bias-before-norm",
        "severity": "warning",
        "count": 1,
        "modules": 12,
        "fixable": 1,
    }
    assert data["targets"][0]["rules"]["skipped"] == ["ND401"]


def test_paths_below_the_current_folder_are_relative():
    inside = finding("ND1", "x", "m", "a", location=Location(str(GOLDEN / "model.txt"), 9, 19, 9, 36))
    outside = finding("ND1", "x", "m", "a", location=Location(str(GOLDEN.parent / "gone.py"), 9, 19))
    for name in format_names():
        text = render(report(findings=(inside,)), name)
        assert str(GOLDEN) not in text
    assert f"{(GOLDEN.parent / 'gone.py').as_posix()}:9:19" in render(report(findings=(outside,)), "concise")


def test_nothing_found_is_never_a_bare_tick():
    clean = report(findings=(), suppressed=(), known=(), problems=(), hidden=0)
    assert str(clean).splitlines()[-2:] == [
        "14 normalization layers (13 BatchNorm2d, 1 LayerNorm), 5 rules, no findings.",
        "5 of 6 rules ran; 1 was skipped (see report.skipped).",
    ]
    assert "1 was skipped (see --show-skipped)." in render(clean, "full")
    skipped = tuple(msgspec.structs.replace(r, outcome="skipped", reason="x") for r in clean.results)
    assert "no findings" not in str(msgspec.structs.replace(clean, results=skipped))
    assert "no rule could run" in str(msgspec.structs.replace(clean, results=skipped))
    assert "No rule was selected." in str(msgspec.structs.replace(clean, results=()))
    partly = msgspec.structs.replace(clean, problems=report().problems)
    assert "5 rules, no findings in what could be examined." in str(partly)


def test_several_targets_are_told_apart():
    second = TargetSummary(name="b.py:Net", notes=("careful",), norms={"LayerNorm": 1})
    text = str(report(targets=(*report().targets, second)))
    assert "note: b.py:Net: careful" in text
    assert "= target: model.txt:Net" in text
    assert "15 normalization layers (13 BatchNorm2d, 2 LayerNorm) in 2 models" in text


def test_html_is_escaped_and_has_no_script():
    evil = finding("ND101", "x", "<script>alert(1)</script>", "<b>", location=Location("<i>.py", 1, 1))
    html = report(findings=(evil,), problems=(Problem(target="t", message="<u>"),))._repr_html_()
    for tag in ("<script", "<b>", "<i>", "<u>"):
        assert tag not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert html.count("<tr class=") == 1
    assert "ND401" in html


def write() -> None:
    os.chdir(GOLDEN)
    vars(sarif)["find_rule"] = lambda code: None
    for name in CASES:
        (GOLDEN / name).write_text(rendered(name), encoding="utf-8")


if __name__ == "__main__":
    write()
