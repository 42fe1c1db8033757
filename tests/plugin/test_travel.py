"""How a report travels from a worker of xdist: whole, also what no encoding takes."""

import math

import msgspec
import pytest

from normdoctor.baseline import Changes, Entry, apply
from normdoctor.facts import InputFact, Location, TensorFact
from normdoctor.findings import Applicability, Confidence, Finding, Fix, Severity, Site, fingerprint
from normdoctor.report import Problem, Report, RuleResult, TargetSummary
from normdoctor.suite.closing import pack, unpack
from normdoctor.suite.state import Record
from normdoctor.suppression import Suppressed


def finding(**fields):
    place = Location("net.py", 3, 5, 3, 20)
    given = {
        "code": "ND101", "name": "bias-before-norm", "severity": Severity.INFO, "confidence": Confidence.HIGH,
        "message": "the bias of `a`", "modules": ("a",), "location": place, "related": (("here", place),),
        "evidence": {"share": math.inf, "3": [1, 2.5], "none": None},
        "sites": (Site(module="a", evidence={"n": 2**40}, call=place),),
        "fix": Fix(title="Drop it", applicability=Applicability.SAFE, edits={"bias": "False"}),
        "target": "net.py:Net",
    }  # fmt: skip
    return Finding(**(given | fields))


def test_a_report_arrives_as_it_was():
    inputs = (InputFact(name="x", tensor=TensorFact((2, 3)), source="given"),)
    report = Report(
        findings=(finding(),),
        results=(RuleResult(target="net.py:Net", code="ND101", name="bias-before-norm", outcome="noted"),),
        targets=(TargetSummary(name="net.py:Net", recorded="meta", inputs=inputs, norms={"BatchNorm2d": 2}),),
        suppressed=(Suppressed(finding=finding(), by="net.py:3", reason="known"),),
        problems=(Problem(target="b.py", message="no such file", detail="Traceback"),),
        environment={"torch": "2.13"},
    )
    (record,) = unpack(pack([Record(key="k", report=report, test="t.py::t", told=True)]))
    assert record.report == report
    assert (record.key, record.test, record.told) == ("k", "t.py::t", True)


def test_what_no_encoding_takes_is_written_out():
    odd = finding(message="in \ud800.py", evidence={"nan": math.nan, 3: {1}, "odd": object}, target="\udcff")
    (record,) = unpack(pack([Record(key="\ud800", report=Report(findings=(odd,)))]))
    (found,) = record.report.findings
    assert (found.message, found.target, record.key) == ("in \\ud800.py", "\\udcff", "\\ud800")
    assert math.isnan(found.evidence["nan"])


def entry(target, module, count=1):
    print_ = fingerprint("ND101", (module,), target)
    return Entry(
        code="ND101", name="n", target=target, modules=(module,), message="", count=count, fingerprint=print_
    )


def test_changes_of_two_workers_meet_in_one_baseline(tmp_path):
    file = tmp_path / "known.json"
    old, new, other = entry("a.py:A", "x"), entry("a.py:A", "y", 2), entry("b.py:B", "z")
    assert apply(file, tmp_path, [Changes(new=(old, other))]) == f"2 known findings written to {file}."
    apply(file, tmp_path, [Changes(gone=(old.fingerprint,), new=(new,)), Changes()])
    kept = msgspec.json.decode(file.read_bytes())["findings"]
    assert [(one["target"], one["modules"], one["count"]) for one in kept] == [
        ("a.py:A", ["y"], 2),
        ("b.py:B", ["z"], 1),
    ]


@pytest.mark.parametrize("share", [True, -0.1, 1.5, "0.1", math.nan])
def test_a_share_is_a_number_from_0_to_1(share):
    from normdoctor.errors import UsageError
    from normdoctor.suite.limits import Limits

    with pytest.raises(UsageError, match="expected a share"):
        Limits.taken({"max_dead": share, "data": []})
    with pytest.raises(UsageError, match="contradict"):
        Limits.taken({"min_batch": 4, "batch_size": 8, "data": []})
