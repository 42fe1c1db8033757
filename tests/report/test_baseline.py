"""The baseline: what it knows, what is new, what is stale, and that nothing gets lost."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from normdoctor.baseline import PRUNE, WRITE
from normdoctor.config import Settings
from normdoctor.errors import NormDoctorError
from normdoctor.facts import Location, ModuleFact
from normdoctor.findings import Confidence
from normdoctor.running import check_facts

pytestmark = pytest.mark.usefixtures("catalogue", "source")
FILE = Path("known.json")


def run(facts, mode="read", **settings):
    known = {"select": ("TST1",), "baseline": FILE, "baseline_mode": mode}
    return check_facts(list(facts), Settings(**(known | settings)))


def entries():
    return json.loads(FILE.read_text())["findings"]


def without_norm(facts):
    modules = tuple(module for module in facts.modules if module.path != "norm")
    return msgspec.structs.replace(facts, modules=modules)


def with_linear(facts, *, line=9):
    more = ModuleFact(path="body.3", type="Linear", qualname="Linear", origin=Location("model.py", line, 15))
    return msgspec.structs.replace(facts, modules=(*facts.modules, more))


def test_what_is_written_is_known(make_facts):
    report = run([make_facts()], WRITE)
    assert report.remarks == ("2 known findings written to known.json.",)
    assert report.exit_code == 0
    report = run([make_facts()])
    assert (report.exit_code, report.findings, len(report.known)) == (0, (), 2)
    assert {result.outcome for result in report.results} == {"passed"}
    assert "2 known findings in the baseline." in str(report)


def test_the_file_can_be_read(make_facts):
    run([make_facts()], WRITE)
    data = json.loads(FILE.read_text())
    assert (data["schema_version"], data["tool"]) == (1, "normdoctor")
    assert entries()[0] == {
        "code": "TST101",
        "name": "loud-linear",
        "target": "model.py:Net",
        "modules": ["body.*"],
        "message": "`body.*` is a linear layer",
        "count": 1,
        "fingerprint": entries()[0]["fingerprint"],
    }
    before = FILE.read_bytes()
    run([make_facts()], WRITE)
    assert FILE.read_bytes() == before


def test_lines_do_not_matter_and_depth_neither(make_facts):
    run([make_facts()], WRITE)
    moved = [
        msgspec.structs.replace(module, origin=module.origin and Location("model.py", 100, 3))
        for module in make_facts().modules
    ]
    assert run([make_facts(modules=tuple(moved))]).findings == ()
    place = make_facts().modules[-1].origin
    deeper = msgspec.structs.replace(make_facts().modules[-1], path="body.11", origin=place)
    assert run([make_facts(modules=(*make_facts().modules, deeper))]).findings == ()


def test_more_of_the_same_is_new(make_facts):
    run([make_facts()], WRITE)
    report = run([with_linear(make_facts(), line=20)])
    assert [finding.modules for finding in report.findings] == [("body.3",)]
    assert report.exit_code == 1


def test_another_target_is_new(make_facts):
    run([make_facts()], WRITE)
    assert len(run([make_facts("model.py:Other")]).findings) == 2


def test_targets_are_named_from_the_root(make_facts, monkeypatch, source):
    run([make_facts()], WRITE, root=source.parent)
    (source.parent / "deep").mkdir()
    monkeypatch.chdir(source.parent / "deep")
    report = run(
        [make_facts("../model.py:Net", file="../model.py")],
        root=source.parent,
        baseline=Path("../known.json"),
    )
    assert report.findings == ()


def test_nothing_of_what_was_not_examined_is_lost(make_facts):
    run([make_facts(), make_facts("model.py:Other")], WRITE)
    before = entries()
    run([make_facts()], WRITE)
    assert entries() == before
    run([make_facts()], PRUNE)
    assert entries() == before
    run([make_facts()], WRITE, select=("TST401",))
    assert entries() == before
    run([make_facts(modules=())], PRUNE, select=("TST102",))
    assert [(entry["target"], entry["code"]) for entry in entries()] == [
        ("model.py:Net", "TST101"),
        ("model.py:Other", "TST101"),
        ("model.py:Other", "TST102"),
    ]


def test_pruning_takes_out_what_is_gone_and_adds_nothing(make_facts):
    run([make_facts()], WRITE)
    report = run([without_norm(with_linear(make_facts(), line=20))], PRUNE)
    assert report.remarks == ("1 stale of 2 known findings removed from known.json.",)
    assert [entry["code"] for entry in entries()] == ["TST101"]
    assert len(report.findings) == 1


def test_counts_shrink(make_facts):
    run([with_linear(make_facts(), line=20)], WRITE)
    assert entries()[0]["count"] == 2
    run([make_facts()], PRUNE)
    assert entries()[0]["count"] == 1


def test_what_is_hidden_is_not_gone(make_facts):
    run([make_facts()], WRITE, select=("TST2",), min_confidence=Confidence.LOW)
    assert [entry["code"] for entry in entries()] == ["TST202"]
    run([make_facts()], PRUNE, select=("TST2",))
    assert [entry["code"] for entry in entries()] == ["TST202"]


def test_a_crash_is_never_known(make_facts):
    report = run([make_facts(bomb=True)], WRITE, select=("TST401",))
    assert entries() == []
    assert report.exit_code == 2


BROKEN = {
    "{": "is not a baseline",
    "[]": "is not a baseline",
    "\xff": "is not a baseline",
    '{"schema_version": 2}': "schema_version is 2, expected 1",
    '{"schema_version": 1, "tool": "normdoctor"}': "missing required field `findings`",
    '{"schema_version": 1, "tool": "normdoctor", "findings": [{"code": "a"}]}': "missing required field",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_file_is_an_error(make_facts, text):
    FILE.write_bytes(text.encode("latin-1"))
    with pytest.raises(NormDoctorError, match=r"known\.json") as caught:
        run([make_facts()])
    assert BROKEN[text] in caught.value.message
    with pytest.raises(NormDoctorError):
        run([make_facts()], WRITE)
    assert FILE.read_bytes() == text.encode("latin-1")


def test_an_edited_entry_is_an_error(make_facts):
    run([make_facts()], WRITE)
    FILE.write_text(FILE.read_text().replace('"body.*"', '"head.*"'))
    with pytest.raises(NormDoctorError, match="does not agree with its fingerprint"):
        run([make_facts()])


def test_a_missing_file_is_an_error_unless_it_is_written(make_facts):
    with pytest.raises(NormDoctorError, match="no such baseline") as caught:
        run([make_facts()])
    assert "--write-baseline" in caught.value.hint
    with pytest.raises(NormDoctorError, match="no such baseline"):
        run([make_facts()], PRUNE)
