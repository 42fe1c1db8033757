"""A session: which rules run, what becomes of each, and what the report says of it."""

from __future__ import annotations

import pytest

from normdoctor.config import Settings
from normdoctor.errors import TraceError, UsageError
from normdoctor.findings import Confidence
from normdoctor.report import NormDoctorFailure
from normdoctor.running import Session, check_facts, load_facts, save_facts

pytestmark = pytest.mark.usefixtures("catalogue", "source")


def outcomes(report):
    return {result.code: result.outcome for result in report.results}


def test_outcomes(make_facts):
    report = check_facts([make_facts()], Settings())
    assert outcomes(report) == {
        "TST101": "failed",
        "TST102": "noted",
        "TST201": "skipped",
        "TST202": "passed",
        "TST401": "passed",
    }
    assert report.hidden == 1
    assert not report.ok
    assert report.exit_code == 1
    assert [(r.code, r.reason) for r in report.skipped] == [
        ("TST201", "no loss was given or found in the source")
    ]
    assert report.counts() == {"failed": 1, "noted": 1, "passed": 2, "skipped": 1}


def test_one_finding_for_one_source_line(make_facts):
    report = check_facts([make_facts()], Settings(select=("TST101",)))
    (finding,) = report.findings
    assert finding.modules == ("body.0", "body.1", "body.2")
    assert finding.message == "`body.*` is a linear layer"
    assert [site.evidence for site in finding.sites] == [{"features": 8}, {"features": 9}, {"features": 10}]
    assert finding.evidence == {}
    assert finding.node_id == "model.py::Net::TST101"


def test_fail_on_decides_what_fails(make_facts):
    for fail_on, code, outcome in (
        ("error", 0, {"TST101": "noted", "TST102": "noted"}),
        ("warning", 1, {"TST101": "failed", "TST102": "noted"}),
        ("info", 1, {"TST101": "failed", "TST102": "failed"}),
        ("never", 0, {"TST101": "noted", "TST102": "noted"}),
    ):
        report = check_facts([make_facts()], Settings(fail_on=fail_on, select=("TST1",)))
        assert (report.exit_code, outcomes(report)) == (code, outcome), fail_on


def test_levels(make_facts):
    settings = Settings(levels={"TST101": "info", "TST102": "error", "TST401": "ignore"})
    report = check_facts([make_facts()], settings)
    assert {f.code: str(f.severity) for f in report.findings} == {"TST101": "info", "TST102": "error"}
    assert "TST401" not in outcomes(report)


def test_min_confidence(make_facts):
    report = check_facts([make_facts()], Settings(min_confidence=Confidence.LOW, select=("TST2",)))
    assert outcomes(report)["TST202"] == "failed"
    assert report.hidden == 0


def test_options_reach_the_rule(make_facts):
    report = check_facts([make_facts()], Settings(options={"TST101": {"at_most": 2, "label": "too much"}}))
    assert report.by_rule()["TST101"][0].message == "`body.2` is too much"


def test_a_rule_that_raises(make_facts):
    report = check_facts([make_facts(bomb=True)], Settings())
    assert outcomes(report)["TST401"] == "error"
    assert outcomes(report)["TST101"] == "failed", "the others went on"
    (crash,) = report.by_rule()["ND004"]
    assert crash.message == "the rule TST401 broken-rule raised ZeroDivisionError: division by zero"
    assert "crashes.py" in next(r.detail for r in report.results if r.code == "TST401")
    assert report.exit_code == 2
    assert not report.ok


def test_nothing_recorded_skips_what_needs_a_graph(make_facts):
    report = check_facts([make_facts(nodes=(), recorded="")], Settings())
    assert set(outcomes(report).values()) == {"skipped"}
    assert {r.reason for r in report.skipped if r.code != "TST201"} == {"the forward could not be recorded"}


def test_exitfirst(make_facts):
    seen = []
    session = Session(Settings(exitfirst=True), seen.append)
    session.check(make_facts())
    assert session.stopped
    assert [result.code for result in seen] == ["TST101"]
    crashed = Session(Settings(exitfirst=True, select=("TST401",)))
    crashed.check(make_facts(bomb=True))
    assert crashed.stopped
    passed = Session(Settings(exitfirst=True, select=("TST401",)))
    passed.check(make_facts())
    assert not passed.stopped


def test_a_target_that_cannot_be_examined(make_facts):
    session = Session(Settings(select=("TST102",)))
    session.problem("other.py:Net", TraceError("forward raised ValueError", hint="Give --input."))
    session.check(make_facts())
    report = session.report()
    assert report.exit_code == 2
    assert not report.ok
    assert report.counts() == {"noted": 1, "error": 1}
    assert report.to_dict()["problems"] == [
        {"target": "other.py:Net", "message": "forward raised ValueError", "hint": "Give --input."}
    ]


def test_node_ids_select(make_facts):
    both = [make_facts(), make_facts("model.py:Other")]
    report = check_facts(both, Settings(select=("model.py::Net::TST102",)))
    assert [r.node_id for r in report.results] == ["model.py::Net::TST102"]
    report = check_facts(both, Settings(select=("TST102",), ignore=("./model.py::Other::TST102",)))
    assert [r.node_id for r in report.results] == ["model.py::Net::TST102"]
    report = check_facts(both, Settings(select=("TST102",), only={"model.py:Net": ("TST101",)}))
    assert [r.node_id for r in report.results] == ["model.py::Net::TST101", "model.py::Other::TST102"]


def test_requirements():
    assert Session(Settings(select=("TST2",))).requirements() == {"graph", "loss"}
    assert Session(Settings(select=("TST101",))).requirements() == {"graph"}


def test_facts_are_saved_and_read(make_facts, tmp_path):
    one, two = make_facts(), make_facts("model.py:Two")
    for facts in ([one], [one, two]):
        path = tmp_path / "facts.json"
        save_facts(path, facts)
        assert load_facts(path) == tuple(facts)
    check_facts([one], Settings(save_facts=tmp_path / "again.json"))
    assert load_facts(tmp_path / "again.json") == (one,)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"{", "does not hold facts"),
        (b'{"target": 3}', "Expected `str`"),
        (b'"facts"', "does not hold facts"),
        (b"\xff\xfe", "does not hold facts"),
    ],
)
def test_unreadable_facts(tmp_path, content, said):
    path = tmp_path / "facts.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        load_facts(path)


def test_report_answers(make_facts):
    report = check_facts([make_facts()], Settings())
    assert report.coverage == "1 norm layer, 4 rules"
    assert list(report.by_module()) == ["body.0", "body.1", "body.2", "norm"]
    assert {code: len(found) for code, found in report.by_rule().items()} == {"TST101": 1, "TST102": 1}
    assert report.environment["normdoctor"]
    assert report.targets[0].norms == {"LayerNorm": 1}


def test_raise_for_findings(make_facts):
    report = check_facts([make_facts()], Settings())
    with pytest.raises(NormDoctorFailure) as raised:
        report.raise_for_findings()
    assert isinstance(raised.value, AssertionError)
    assert str(raised.value).splitlines() == [
        "1 finding (1 norm layer, 4 rules)",
        "model.py:9:15: TST101 loud-linear: `body.*` is a linear layer [3 modules]",
    ]
    report.raise_for_findings("error")
    with pytest.raises(NormDoctorFailure, match="TST102"):
        report.raise_for_findings("info")
    with pytest.raises(UsageError, match="fail_on is 'warnings'"):
        report.raise_for_findings("warnings")


def test_equal_checks_give_equal_bytes(make_facts):
    from normdoctor.output import format_names, render

    for name in format_names():
        texts = {render(check_facts([make_facts(bomb=True)], Settings()), name) for _ in range(2)}
        assert len(texts) == 1, name
