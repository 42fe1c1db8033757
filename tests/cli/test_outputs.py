"""Formats and files in pairs, statistics, settings, the baseline and comments from the command line."""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from normdoctor.cli.outputs import Output
from normdoctor.output import format_names, get_format

pytestmark = pytest.mark.usefixtures("catalogue", "source", "asked")
MACHINE = [name for name in format_names() if get_format(name).machine]


@pytest.fixture(autouse=True)
def no_summary(monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def pairs(cli, monkeypatch, *arguments):
    """What the arguments ask for, without a check."""
    from normdoctor.cli.commands import check

    made = []
    monkeypatch.setattr(check, "Reporter", lambda outputs, *_: made.append(outputs) or pytest.exit)
    cli("check", "model.py", *arguments)
    return [(output.format, output.file and output.file.name) for output in made[0]]


PAIRS = {
    "": [("full", None)],
    "--output-file a": [("full", "a")],
    "--output-format json": [("json", None)],
    "--output-format json --output-file a": [("json", "a")],
    "--output-file a --output-format json": [("json", "a")],
    "--output-format json --output-file a --output-format sarif --output-file b": [
        ("json", "a"),
        ("sarif", "b"),
    ],
    "--output-format full --output-format sarif --output-file b": [("full", None), ("sarif", "b")],
    "--output-format sarif --output-file b --output-format full": [("sarif", "b"), ("full", None)],
    "--output-file b --output-format sarif --output-file a --output-format full": [
        ("sarif", "b"),
        ("full", "a"),
    ],
}


@pytest.mark.parametrize("line", PAIRS)
def test_a_file_belongs_to_a_format(cli, monkeypatch, line):
    assert pairs(cli, monkeypatch, *line.split()) == PAIRS[line]
    assert Output("full").file is None


WRONG = {
    "--output-format json --output-format full": "2 reports would go to stdout: json, full",
    "--output-file a --output-file b": "no format goes with --output-file b",
    "--output-format json --output-file a --output-format full --output-file a": "two reports would go to a",
    "--output-format yaml": "yaml",
    "--output-file model.py": "model.py would be overwritten",
    "--baseline gone.json": "no such baseline: gone.json",
    "--write-baseline": "--write-baseline needs to know the file",
    "--prune-baseline": "--prune-baseline needs to know the file",
    "--baseline b --write-baseline --prune-baseline": "contradict each other",
    "--baseline model.py --write-baseline": "model.py would be overwritten",
    "--baseline b --write-baseline --add-ignore": "--add-ignore and --write-baseline contradict",
    "--ignore-suppressions --add-ignore": "--add-ignore and --ignore-suppressions contradict",
    "--from-facts f.json --add-ignore": "--add-ignore and --from-facts contradict",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_makes_no_sense(cli, source, line):
    before = source.read_bytes()
    result = cli("check", "model.py", *line.split())
    assert result.exit_code == 2
    assert WRONG[line] in result.stderr
    assert source.read_bytes() == before
    assert [file.name for file in source.parent.iterdir()] == ["model.py"]


def test_several_reports_of_one_check(cli, asked):
    line = "--output-format sarif --output-file a.sarif --output-format concise --output-format junit"
    result = cli("check", "model.py", *line.split(), "--output-file", "b.xml")
    assert len(asked) == 1
    assert result.exit_code == 1
    assert "model.py:9:15: TST101" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("==")
    assert json.loads(Path("a.sarif").read_text())["version"] == "2.1.0"
    assert ET.parse("b.xml").getroot().get("failures") == "1"


@pytest.mark.parametrize("name", MACHINE)
@pytest.mark.parametrize(
    "extra", ["", "-v", "-vv", "--statistics", "--show-skipped", "gone.py", "model.py:Bomb"]
)
def test_machine_formats_have_stdout_for_themselves(cli, name, extra):
    plain = cli("check", "model.py", *extra.split(), "--output-format", name).stdout
    if name == "junit":
        ET.fromstring(plain)
    elif name == "github":
        assert all(line.startswith("::") for line in plain.splitlines())
    elif name == "markdown":
        assert plain.startswith("## normdoctor\n")
    elif name == "html":
        assert plain.startswith("<!DOCTYPE html>\n")
        assert plain.endswith("</html>\n")
    else:
        json.loads(plain)
    assert "\n== " not in plain


@pytest.mark.parametrize("name", format_names())
def test_a_rule_that_raises_is_told_in_every_format(cli, name):
    result = cli("check", "model.py:Bomb", "--output-format", name)
    assert result.exit_code == 2
    assert "ZeroDivisionError: division by zero" in result.stdout
    assert "TST401" in result.stdout
    assert "loud-linear" in result.stdout, "the others went on"


def test_a_plugin_that_raises(cli, monkeypatch, tmp_path):
    from importlib.metadata import EntryPoint

    from normdoctor import rules

    words = "What it does|Why is this bad?|Example|When to ignore|References"
    fences = "\n".join(f"```python {role}\nmodel = 1\n```" for role in ("bad", "good"))
    page = "A rule of a plugin.\n" + "".join(f"## {word}\n" for word in words.split("|")) + fences
    (tmp_path / "plug.py").write_text(
        "from normdoctor.rules.base import Rule\nclass FarRule(Rule):\n"
        f"    __doc__ = {page!r}\n    code = 'FAR101'\n    name = 'far-rule'\n"
        "    def check(self, graph):\n        return {}['eps']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("far", "plug:FarRule", rules.ENTRY_POINT_GROUP)
    monkeypatch.setattr(rules, "entry_points", lambda group: (entry,))
    rules.all_rules.cache_clear()
    for name in format_names():
        result = cli("check", "model.py", "--output-format", name)
        assert result.exit_code == 2
        assert "KeyError: 'eps'" in html.unescape(result.stdout), name
    text = cli("check", "model.py", "-v").stderr
    assert "plug.py" in text
    assert "Traceback" in text
    sys.modules.pop("plug")


def test_statistics(cli):
    result = cli("check", "model.py", "--statistics")
    assert result.stdout.splitlines()[:4] == [
        "count  code    fixable  name         severity  modules",
        "-----  ------  -------  -----------  --------  -------",
        "    1  TST101  [*]      loud-linear  warning         3",
        "    1  TST102           quiet-norm   info            1",
    ]
    assert "-->" not in result.stdout
    assert result.exit_code == 1
    clean = cli("check", "model.py", "--statistics", "--select", "TST401").stdout
    assert clean.startswith("1 normalization layer (1 LayerNorm), 1 rule, no findings.")


def test_min_confidence_and_preview(cli):
    shown = cli("check", "model.py", "--min-confidence", "low", "--output-format", "concise").stdout
    assert "TST202" in shown
    assert "TST202" not in cli("check", "model.py", "--output-format", "concise").stdout
    assert "model.py::Net::TST301" not in cli("check", "model.py", "-v").stdout
    assert "model.py::Net::TST301 PASSED" in cli("check", "model.py", "-v", "--preview").stdout
    assert "model.py::Net::TST301 PASSED" in cli("check", "model.py", "-v", "--select", "TST301").stdout
    for extra, status in (((), "off: preview"), (("--preview",), "on, preview")):
        listed = cli("rules", *extra).stdout.splitlines()
        assert status in next(line for line in listed if line.startswith("TST301"))
    assert "preview" in cli("explain", "TST301").stdout.splitlines()[1]


def test_ignored_suppressions(cli, source):
    text = source.read_text().replace("range(3)],", "range(3)],  # normdoctor: ignore[TST101] -- why")
    source.write_text(text)
    assert cli("check", "model.py").exit_code == 0
    result = cli("check", "model.py", "--ignore-suppressions")
    assert result.exit_code == 1
    assert "TST101" in result.stdout


def test_the_life_of_a_baseline(cli):
    first = cli("check", "model.py", "--baseline", "b.json", "--write-baseline")
    assert first.exit_code == 0
    assert first.stderr == "2 known findings written to b.json.\n"
    second = cli("check", "model.py", "--baseline", "b.json")
    assert (second.exit_code, second.stderr) == (0, "")
    assert "2 known findings in the baseline." in second.stdout
    third = cli("check", "model.py", "--baseline", "b.json", "--prune-baseline")
    assert third.stderr == "0 stale of 2 known findings removed from b.json.\n"
    assert cli("check", "model.py").exit_code == 1
    Path("normdoctor.toml").write_text('baseline = "b.json"\n')
    assert cli("check", "model.py").exit_code == 0
    assert cli("check", "model.py", "gone.py", "--write-baseline").exit_code == 2
    assert cli("check", "model.py").exit_code == 0


def test_added_comments(cli, source):
    result = cli("check", "--add-ignore", "model.py", "--output-format", "concise")
    assert result.exit_code == 0
    assert "TST101" not in result.stdout
    assert "2 findings suppressed." in result.stdout
    assert result.stderr == "2 suppression comments written in 1 file.\n"
    assert source.read_text().count("# normdoctor: ignore[") == 2
    again = cli("check", "model.py", "--add-ignore=because", "--output-format", "json")
    assert again.exit_code == 0
    assert "because" not in source.read_text()


def test_settings_are_shown_with_their_source(cli, monkeypatch):
    Path("normdoctor.toml").write_text(
        'fail-on = "error"\nignore = ["TST102"]\n[options.TST101]\nat-most = 2\n'
    )
    result = cli("check", "model.py", "--show-settings", "--select", "TST1")
    lines = result.stdout.splitlines()
    assert lines[0].endswith("normdoctor.toml")
    assert 'targets = ["model.py"]  # command line' in lines
    assert 'fail-on = "error"  # normdoctor.toml' in lines
    assert 'select = ["TST1"]  # --select' in lines
    assert 'min-confidence = "medium"  # default' in lines
    assert "options = { TST101 = { at_most = 2 } }  # normdoctor.toml" in lines
    assert tomllib.loads(result.stdout)["fail-on"] == "error"
    shown = cli("check", "--show-settings", env={"NORMDOCTOR_OUTPUT_FORMAT": "json"}).stdout
    assert 'output-format = "json"  # NORMDOCTOR_OUTPUT_FORMAT' in shown.splitlines()


def test_more_verbose_logs_more(cli):
    once, twice = cli("check", "model.py", "-v"), cli("check", "model.py", "-vv")
    assert once.stderr == ""
    assert "DEBUG normdoctor.running: TST101 on model.py:Net: 3 found, 3 shown, in" in twice.stderr
    quiet = cli("check", "model.py", env={"NORMDOCTOR_LOG": "debug"})
    assert "TST101 on model.py:Net" in quiet.stderr
    assert cli("check", "model.py", env={"NORMDOCTOR_LOG": "loud"}).exit_code == 2


def test_config_explains_its_keys(cli):
    listed = cli("config").stdout
    assert "fail-on" in listed
    assert cli("config", "fail_on").stdout.startswith("fail-on: The severity from which on")
    assert cli("config", "tool.normdoctor.baseline").exit_code == 0
    wrong = cli("config", "fial-on")
    assert (wrong.exit_code, "Did you mean `fail-on`?" in wrong.stderr) == (2, True)
    schema = json.loads(cli("config", "--schema").stdout)
    assert schema["properties"]["options"]["properties"]["loud-linear"]["properties"]["at-most"] == {
        "type": "integer",
        "default": 0,
    }


def test_tables_in_pipes_are_whole(cli):
    assert ".." not in cli("show", "model.py").stdout.replace("...", "")
    assert ".." not in cli("rules").stdout


MODEL = """\
from torch import nn
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=0.9), nn.ReLU(), nn.ReLU())
"""
SCRIPT = """\
import sys
import normdoctor
from normdoctor.output import format_names, render
report = normdoctor.check("model.py", min_confidence="low")
for name in format_names():
    sys.stdout.write(render(report, name))
"""


def test_two_checks_write_the_same_bytes(source):
    source.write_text(MODEL)
    runs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "23")
    ]
    assert b"ND101" in runs[0]
    assert runs[0] == runs[1]
