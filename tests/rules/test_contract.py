"""What holds for every rule: names, pages, one class a file, no torch."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import normdoctor.rules
from normdoctor.rules import all_rules, find_rule
from normdoctor.rules.base import REQUIRED_HEADINGS, Rule, contract_problems, fences, page_of, summary_of

RULES = [rule for rule in all_rules() if rule.__module__.startswith("normdoctor.")]
ROOT = Path(normdoctor.rules.__file__).parent
each = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)


def test_codes_and_names_are_unique():
    assert len({rule.code for rule in RULES}) == len(RULES)
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_the_first_rules_are_there():
    first = "ND101 ND102 ND105 ND109 ND114 ND201 ND202 ND301 ND302 ND310 ND315 ND401 ND405 ND502"
    assert {rule.code for rule in RULES} >= set(first.split())


@each
def test_file_and_folder_follow_the_name(rule):
    path = Path(inspect.getsourcefile(rule)).relative_to(ROOT)
    assert path == Path(rule.category) / f"{rule.name.replace('-', '_')}.py"
    tree = ast.parse((ROOT / path).read_text(encoding="ascii"))
    public = [n.name for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    assert public == [rule.__name__]


@each
def test_page_is_complete_and_in_order(rule):
    page = page_of(rule)
    found = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
    assert [heading for heading in found if heading in REQUIRED_HEADINGS] == list(REQUIRED_HEADINGS)
    assert set(found) - set(REQUIRED_HEADINGS) <= {"Fix safety", "See also", "Options"}
    assert summary_of(rule).endswith(".")
    assert len(summary_of(rule)) <= 88
    others = page.count("```text") if rule.about_run else 0
    assert page.count("```") == 2 * (len(fences(page)) + others)


@each
def test_bad_fences_are_marked_and_all_fences_are_files(rule):
    for role, source in fences(page_of(rule)):
        names = {n.id for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name)}
        assert "model" in names
        if role == "bad":
            assert f"# {rule.code}" in source


@each
def test_found_by_code_and_by_name(rule):
    assert find_rule(rule.code.lower()) is rule
    assert find_rule(rule.name.upper()) is rule


@each
def test_refuses_unknown_options(rule):
    rule({})
    with pytest.raises(Exception, match="unknown field"):
        rule({"no_such_option": 1})


def test_rules_do_not_import_torch():
    code = (
        "import sys; from normdoctor.rules import all_rules; assert all_rules(); "
        "from normdoctor.testing import FactsBuilder; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_incomplete_rule_is_refused_at_once():
    with pytest.raises(TypeError, match=r"page lacks '## References'.*no ```python good```"):

        class HalfARule(Rule):
            """A page without an end.

            ## What it does
            ## Why is this bad?
            ## Example
            ```python bad
            model = None  # XX001
            ```
            ## When to ignore
            """

            code = "XX001"
            name = "half-a-rule"


def test_a_class_name_that_is_not_the_rules_is_a_problem():
    class Odd:
        code, name, requires = "1", "Odd_Name", frozenset({"moon"})

    problems = " ".join(contract_problems(Odd))
    assert "three digits" in problems
    assert "kebab" in problems
    assert "moon" in problems
