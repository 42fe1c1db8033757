"""What docs/why.md and docs/comparison.md quote is what the rules have, and what the results say."""

from __future__ import annotations

import csv
import fnmatch
import re
from pathlib import Path

import pytest

from normdoctor.output.catalogue import options
from normdoctor.rules import find_rule

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"
THRESHOLD = re.compile(r"^\| \[(ND\d{3})\]\(rules/([\w-]+)\.md\) `([\w-]+)` \| ([^|]+) \|", re.MULTILINE)


def page(name):
    return (DOCS / name).read_text(encoding="utf-8")


def results(name):
    return (RESULTS / name).read_text(encoding="utf-8")


def test_the_page_gives_reasons_for_many_thresholds():
    assert len(THRESHOLD.findall(page("why.md"))) >= 35


@pytest.mark.parametrize(("code", "name", "option", "value"), THRESHOLD.findall(page("why.md")))
def test_a_threshold_is_the_default_of_its_rule(code, name, option, value):
    rule = find_rule(code)
    assert rule.name == name
    assert {key: str(default) for key, _, default in options(rule)}[option] == value.strip()


def quotes(text):
    """Each figure in a table with the file that its row names."""
    return re.findall(r"^\| [^|\n]+ \| `([^`\n]+)` \| `benchmarks/results/([\w.]+)` \|$", text, re.MULTILINE)


@pytest.mark.parametrize(("figure", "file"), quotes(page("why.md")))
def test_a_quoted_figure_stands_in_its_file(figure, file):
    assert " ".join(figure.split()) in " ".join(results(file).split())


def test_enough_figures_are_quoted():
    assert len(quotes(page("why.md"))) >= 9


def test_rows_of_small_batches_are_those_of_the_results():
    measured = results("small_batch.md")
    rows = re.findall(r"`(\\\| .*? \\\|)`", page("why.md"))
    assert len(rows) == 2
    assert all(row.replace("\\", "") in measured for row in rows)
    assert "largest deviation: 9.0%" in measured
    course = page("learn/small-batches.md")
    header = "| batch | n_eff of the last norm | SE(mean)/sigma | accuracy with batch statistics |"
    table = course[course.index(header) :].split("\n\n")[0]
    assert table in measured
    assert "with running statistics: 98.8%" in measured


def test_what_is_said_of_the_zoo_follows_from_the_tables():
    with (RESULTS / "zoo_findings.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (RESULTS / "zoo_verdicts.csv").open(encoding="utf-8") as file:
        verdicts = list(csv.DictReader(file))
    loud = [r for r in rows if r["severity"] in ("warning", "error") and r["confidence"] != "low"]
    said = []
    for row in loud:
        (verdict,) = (
            v["verdict"]
            for v in verdicts
            if (v["zoo"], v["code"]) == (row["zoo"], row["code"])
            and fnmatch.fnmatch(row["model"], v["model"])
        )
        said.append(verdict)
    models = len({(row["zoo"], row["model"]) for row in rows})
    text = (
        f"{models} models, {len(loud)} findings at warning and above, {said.count('true')} of them true "
        f"and {said.count('by design')} by design"
    )
    (shown,) = re.findall(r"<!-- zoo -->(.*?)<!-- end -->", page("why.md"), re.DOTALL)
    assert " ".join(shown.split()) == text


@pytest.mark.parametrize("name", ["watch.md", "peer.md", "converters.md", "layers_cpu.md"])
def test_rows_of_the_comparison_are_those_of_the_results(name):
    """Below a mark that names the file, each row of a table is a row of that file."""
    marked = re.search(rf"<!-- rows of {name} -->\n\n(.*?)\n\n", page("comparison.md"), re.DOTALL)
    measured = results(name).splitlines()
    rows = marked[1].splitlines()[2:]
    assert rows
    assert all(row in measured for row in rows)
