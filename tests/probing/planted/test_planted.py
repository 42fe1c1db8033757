"""Every measured rule finds its fault where it is planted, in four nets or more; else all are silent."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pytest
import torch

from normdoctor.findings import Finding, Severity
from normdoctor.rules import all_rules

from . import activations, norms, trainings  # noqa: F401  they fill the table
from .scenes import places
from .table import FAULTS

CASES = [
    pytest.param(code, net, id=f"{code}-{net.__name__}")
    for code, fault in sorted(FAULTS.items())
    for net in fault.nets
]


@functools.cache
def healthy(scene: type, net: type) -> Sequence[Finding]:
    return scene(net).findings()


@pytest.mark.parametrize(("code", "net"), CASES)
def test_found_where_it_is_planted(code: str, net: type) -> None:
    fault = FAULTS[code]
    scene = fault.scene(net)
    with torch.no_grad():
        place = fault.plant(scene)
    findings = scene.findings()
    told = "\n".join(f"{one.code} {one.modules} {one.message}" for one in findings)
    assert place in set().union(*(places(one) for one in findings if one.code == code)), told
    loud = {one.code for one in findings if one.severity is not Severity.INFO}
    assert loud <= {code} | fault.beside, told


@pytest.mark.parametrize(("code", "net"), CASES)
def test_silent_where_nothing_is_planted(code: str, net: type) -> None:
    findings = healthy(FAULTS[code].scene, net)
    assert [one.message for one in findings if one.code == code or one.severity is not Severity.INFO] == []


def test_every_measured_rule_stands_in_the_table() -> None:
    assert set(FAULTS) == {rule.code for rule in all_rules() if rule.code[:3] in ("ND6", "ND7", "ND8")}


def test_every_fault_is_planted_in_four_nets_or_more() -> None:
    assert {code: len(set(fault.nets)) for code, fault in FAULTS.items() if len(set(fault.nets)) < 4} == {}
