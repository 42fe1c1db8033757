"""Selectors: codes, prefixes, names, ALL and node ids; the narrower one wins."""

from __future__ import annotations

import pytest

from normdoctor.errors import UsageError
from normdoctor.findings import node_id
from normdoctor.selection import parse_selector, select_rules, split_node_id, split_selectors

pytestmark = pytest.mark.usefixtures("catalogue")

DEFAULT = ["TST101", "TST102", "TST201", "TST202", "TST401"]


def codes(**options):
    return [rule.code for rule in select_rules(**options).rules]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, DEFAULT),
        ({"select": ["ALL"]}, DEFAULT),
        ({"select": ["TST1"]}, ["TST101", "TST102"]),
        ({"select": ["tst101", "quiet-norm"]}, ["TST101", "TST102"]),
        ({"select": ["TST2"], "extend_select": ["TST101"]}, ["TST101", "TST201", "TST202"]),
        ({"ignore": ["TST1", "TST2"]}, ["TST401"]),
        ({"select": ["TST101"], "ignore": ["TST1"]}, ["TST101"]),
        ({"select": ["TST1"], "ignore": ["TST101"]}, ["TST102"]),
        ({"select": ["TST101"], "ignore": ["TST101"]}, []),
        ({"select": ["TST301"]}, ["TST301"]),
        ({"select": ["TST3"]}, []),
        ({"select": ["TST3"], "preview": True}, ["TST301"]),
        ({"select": ["TST1"], "levels": {"TST102": "ignore", "TST301": "error"}}, ["TST101", "TST301"]),
    ],
)
def test_selection(options, expected):
    assert codes(**options) == expected


def test_the_reason_why_a_rule_is_off():
    off = select_rules(select=["TST1", "TST3"], ignore=["loud-linear"]).off
    assert off["TST101"] == "ignored by `loud-linear`"
    assert off["TST201"] == "not selected"
    assert off["TST301"].startswith("preview")
    assert "TST102" not in off


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("TST999", "normdoctor rules"),
        ("TST109", "TST101"),
        ("loud-liner", "Did you mean `loud-linear`?"),
        ("T", "normdoctor rules"),
        ("", "normdoctor rules"),
        ("model.py::Net::TST109", "TST101"),
        ("TS", "normdoctor rules"),
    ],
)
def test_unknown_selectors(text, hint):
    with pytest.raises(UsageError, match="unknown rule") as raised:
        parse_selector(text)
    assert hint in (raised.value.hint or "")


def test_a_node_id_selects_on_its_target_only():
    wanted = {"select": ["sub/model.py::Net::TST101", "TST102"]}
    assert codes(**wanted, target="sub/model.py:Net") == ["TST101", "TST102"]
    assert codes(**wanted, target="./sub/model.py:Net") == ["TST101", "TST102"]
    assert codes(**wanted, target="sub/model.py:Network") == ["TST102"]
    assert codes(select=["model.py::TST101"], target="model.py:Net") == ["TST101"]
    assert codes(select=["model.py::TST101"], target="model.pyx:Net") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.py", ("model.py", "")),
        ("model.py:Net", ("model.py:Net", "")),
        ("model.py::Net", ("model.py:Net", "")),
        ("model.py::Net::TST101", ("model.py:Net", "TST101")),
        ("model.py::loud-linear", ("model.py", "loud-linear")),
        ("pkg.mod::build(depth=18)::TST101", ("pkg.mod:build(depth=18)", "TST101")),
    ],
)
def test_split_node_id(text, expected):
    assert split_node_id(text) == expected


@pytest.mark.parametrize("text", ["model.py::Net::TST999", "::Net", "a::b::c::d"])
def test_what_is_not_a_node_id(text):
    with pytest.raises(UsageError):
        split_node_id(text)


def test_node_ids_of_targets():
    assert node_id("model.py:Net", "ND101") == "model.py::Net::ND101"
    assert node_id("model.py:build('a:b')", "ND101") == "model.py::build('a:b')::ND101"
    assert node_id(r"C:\models\net.py:Net", "ND101") == r"C:\models\net.py::Net::ND101"
    assert node_id("Net", "ND101") == "Net::ND101"
    assert node_id("model.py:Net") == "model.py::Net"
    assert node_id("") == ""


def test_split_selectors():
    assert split_selectors(["ND1, ND2", "ND301,"]) == ("ND1", "ND2", "ND301")
