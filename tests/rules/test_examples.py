"""The examples on the rules' pages, run through all of normdoctor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from normdoctor.rules import all_rules
from normdoctor.rules.base import fences, page_of
from normdoctor.testing import check_rule_examples, check_source

RULES = [rule for rule in all_rules() if rule.__module__.startswith("normdoctor.")]
GOLDEN = Path(__file__).parent / "good_examples.txt"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_examples_are_true(rule):
    check_rule_examples(rule)


def test_a_false_example_is_noticed(monkeypatch):
    rule = next(rule for rule in RULES if rule.code == "ND201")
    monkeypatch.setattr(rule, "__doc__", rule.__doc__.replace("  # ND201", "", 1))
    with pytest.raises(AssertionError, match="fired at lines"):
        check_rule_examples(rule)


def test_good_example_that_is_bad_is_noticed(monkeypatch):
    rule = next(rule for rule in RULES if rule.code == "ND201")
    monkeypatch.setattr(rule, "__doc__", rule.__doc__.replace("```python bad", "```python good", 1))
    with pytest.raises(AssertionError, match=r"example 1 \(good\)"):
        check_rule_examples(rule)


def test_what_other_rules_say_about_good_examples():
    """Interference between rules; rewrite the file with NORMDOCTOR_UPDATE=1 and read the difference."""
    lines = []
    for rule in RULES:
        for number, (role, source) in enumerate(fences(page_of(rule)), start=1):
            if role == "bad":
                continue
            report = check_source(source)
            assert not report.problems, (rule.code, number, report.problems)
            found = sorted(
                f"{finding.code} {finding.severity} {', '.join(finding.modules)}"
                for finding in report.findings
            )
            lines.append(f"{rule.code} example {number} ({role}): " + ("; ".join(found) or "nothing"))
    text = "\n".join(lines) + "\n"
    if os.environ.get("NORMDOCTOR_UPDATE"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")
