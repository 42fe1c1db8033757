"""The rules about the run: unrecorded targets, idle comments, stale entries, crashes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from normdoctor import rules
from normdoctor.config import Settings
from normdoctor.errors import TraceError
from normdoctor.facts import Location
from normdoctor.findings import Confidence
from normdoctor.running import Session, check_facts

TOOL = Path(rules.__file__).parent / "tool"


@pytest.fixture(autouse=True)
def tool(catalogue, source, monkeypatch):
    """The rules of the tests' catalogue and those about the run."""
    monkeypatch.setattr(rules, "__path__", [*rules.__path__, str(TOOL)])
    rules.all_rules.cache_clear()
    return source


def check(*facts, **settings):
    return check_facts(list(facts), Settings(**settings))


def told(report, code):
    return [finding.message for finding in report.by_rule().get(code, ())]


def commented(source, comment, line=9):
    lines = source.read_text().splitlines()
    lines[line - 1] += f"  # {comment}"
    source.write_text("\n".join(lines) + "\n")


def test_they_are_listed_and_can_be_turned_off(make_facts):
    assert {"ND001", "ND002", "ND003", "ND004"} <= {rule.code for rule in rules.all_rules()}
    assert rules.find_rule("unused-suppression").code == "ND002"
    assert check(make_facts(nodes=()), ignore=("ND001",)).by_rule().get("ND001") is None
    assert "ND001" in check(make_facts(nodes=())).by_rule()
    assert "ND001" not in check(make_facts(nodes=()), select=("TST",)).by_rule()


def test_a_target_that_was_not_recorded(make_facts):
    session = Session(Settings(select=("ALL",)))
    session.problem("model.py:Net", TraceError("no inputs fit", hint="Give some."))
    session.check(make_facts(nodes=(), recorded=""))
    (finding,) = session.report().by_rule()["ND001"]
    assert finding.message == "the forward could not be recorded, 5 rules were skipped: no inputs fit"
    assert finding.evidence["skipped"] == ["TST101", "TST102", "TST201", "TST202", "TST401"]
    assert (finding.target, finding.severity, finding.help) == ("model.py:Net", "info", "Give some.")


def test_a_level_makes_them_fail(make_facts):
    report = check(make_facts(nodes=()), levels={"ND001": "error"})
    assert report.exit_code == 1
    assert [(r.code, r.outcome) for r in report.results if r.code == "ND001"] == [("ND001", "failed")]


def test_a_crash_is_told_whatever_is_selected(make_facts):
    for settings in ({}, {"select": ("TST401",)}, {"select": ("TST4",), "fail_on": "never"}):
        report = check(make_facts(bomb=True), **settings)
        assert len(told(report, "ND004")) == 1
        assert report.exit_code == 2
    report = check(make_facts(bomb=True), ignore=("ND004",))
    assert told(report, "ND004") == []
    assert report.exit_code == 2


def test_two_crashes_are_two_findings(make_facts):
    report = check(make_facts("a.py:A", bomb=True), make_facts("b.py:B", bomb=True))
    assert [finding.target for finding in report.by_rule()["ND004"]] == ["a.py:A", "b.py:B"]


IDLE = {
    "normdoctor: ignore[TST102]": ["TST102 in this `normdoctor: ignore` comment silences nothing"],
    "normdoctor: ignore[TST101]": [],
    "normdoctor: ignore[TST101, TST102]": ["TST102 in this `normdoctor: ignore` comment silences nothing"],
    "normdoctor: ignore[quiet-norm] -- why": [
        "quiet-norm in this `normdoctor: ignore` comment silences nothing"
    ],
    "normdoctor: ignore[TST1]": [],
    "normdoctor: ignore[TST401, TST102]": [
        "TST401, TST102 in this `normdoctor: ignore` comment silence nothing"
    ],
    "normdoctor: ignore[TST201]": [],  # it was skipped
    "normdoctor: ignore[TST202]": [],  # it silences what is hidden
    "normdoctor: ignore[ND002]": [],
    "normdoctor: file-ignore[TST101]": [],
    "normdoctor: file-ignore[TST401]": ["TST401 in this `normdoctor: file-ignore` comment silences nothing"],
    "noqa: TST102": ["TST102 in this `noqa` comment silences nothing"],
    "noqa: TST101, E501": [],
    "noqa: E501": [],
}


@pytest.mark.parametrize("comment", IDLE)
def test_idle_comments(make_facts, tool, comment):
    low = next(r for r in rules.all_rules() if r.code == "TST202")
    assert low.confidence is Confidence.LOW
    commented(tool, comment, line=7 if "TST202" in comment else 9)
    assert told(check(make_facts()), "ND002") == IDLE[comment]


def test_the_place_of_an_idle_comment_and_its_fix(make_facts, tool):
    commented(tool, "normdoctor: ignore[TST102, TST101]")
    (finding,) = check(make_facts()).by_rule()["ND002"]
    line = tool.read_text().splitlines()[8]
    assert finding.location == Location("model.py", 9, line.index("#") + 1, 9, len(line) + 1)
    assert (finding.fix.title, finding.fix.applicability) == ("Remove TST102 from it", "safe")


def test_idle_is_said_only_of_what_ran(make_facts, tool):
    commented(tool, "normdoctor: ignore[TST102]")
    assert told(check(make_facts(), ignore=("TST102",)), "ND002") == []
    assert told(check(make_facts(), select=("TST101", "ND002")), "ND002") == []
    assert told(check(make_facts(), ignore_suppressions=True), "ND002") == []
    elsewhere = make_facts(file="other.py")
    assert told(check(elsewhere), "ND002") == []


def test_lines_that_were_not_built_are_not_judged(make_facts, tool):
    commented(tool, "normdoctor: ignore[TST102]", line=6)
    assert told(check(make_facts()), "ND002") == []


def test_a_comment_that_one_of_two_targets_needs_is_used(make_facts, tool):
    commented(tool, "normdoctor: ignore[TST101]", line=7)
    linear = msgspec.structs.replace(make_facts().modules[2], origin=Location("model.py", 7, 21))
    other = make_facts("model.py:Other", modules=(linear,))
    assert told(check(make_facts(), other), "ND002") == []
    assert len(told(check(make_facts()), "ND002")) == 1


def test_a_file_of_which_a_model_was_not_built_keeps_its_file_ignore(make_facts, tool):
    commented(tool, "normdoctor: file-ignore[TST401]")
    with tool.open("a") as stream:
        stream.write("\n\nclass Other(nn.Module):\n    def forward(self, x):\n        return x\n")
    assert told(check(make_facts()), "ND002") == []


def test_stale_entries(make_facts):
    known = Path("known.json")
    check(make_facts(), select=("TST1",), baseline=known, baseline_mode="write")
    gone = make_facts(modules=())
    report = check(gone, baseline=known)
    assert told(report, "ND003") == [
        "TST101 loud-linear of `body.*` is in the baseline and no longer found",
        "TST102 quiet-norm of `norm` is in the baseline and no longer found",
    ]
    line = known.read_text().splitlines()[report.by_rule()["ND003"][0].location.line - 1]
    assert '"fingerprint"' in line
    assert report.exit_code == 0
    assert told(check(gone, baseline=known, select=("TST102", "ND003")), "ND003") == [
        "TST102 quiet-norm of `norm` is in the baseline and no longer found"
    ]
    assert told(check(make_facts("b.py:Net"), baseline=known), "ND003") == []
    assert told(check(gone, baseline=known, baseline_mode="prune"), "ND003") == []
