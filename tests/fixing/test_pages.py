"""The pages of rules: what their fixes make of the bad examples."""

from __future__ import annotations

import pytest

from normdoctor.rules import all_rules
from normdoctor.rules.base import fences, page_of
from normdoctor.testing import check_rule_fixes

pytest.importorskip("libcst")

#: Rules with a `fixed` example and without a fix that a machine can apply, and why.
BY_HAND: dict[str, str] = {}
RULES = all_rules()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rule", [one for one in RULES if one.fixable], ids=lambda rule: rule.code)
def test_fixes_of_the_page(rule):
    check_rule_fixes(rule)


def test_rules_with_a_fixed_example_have_a_fix():
    shown = {rule.code for rule in RULES if any(role == "fixed" for role, _ in fences(page_of(rule)))}
    assert shown - {rule.code for rule in RULES if rule.fixable} == set(BY_HAND)


def test_the_rules_of_the_plan_are_fixable():
    safe = {"ND101", "ND306", "ND315", "ND318", "ND502", "ND503"}
    unsafe = {
        "ND117",
        "ND120",
        "ND201",
        "ND202",
        "ND203",
        "ND204",
        "ND310",
        "ND311",
        "ND312",
        "ND316",
        "ND901",
    }
    assert safe | unsafe <= {rule.code for rule in RULES if rule.fixable}
