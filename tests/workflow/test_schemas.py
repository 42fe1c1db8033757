"""The published schemas: they are those of the code, and real files of every kind fit them, key by key."""

from __future__ import annotations

import copy
import json
import os
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from normdoctor.cli import main
from normdoctor.schemas import FOLDER, names, text

jsonschema = pytest.importorskip("jsonschema")
ROOT = Path(__file__).parents[2]


def closed(schema):
    """The schema with no room for keys that it does not name, and none that may be missing."""
    schema = copy.deepcopy(schema)

    def close(part):
        if isinstance(part, dict):
            if "properties" in part and part.get("type") == "object":
                part["additionalProperties"] = False
            for value in part.values():
                close(value)
        elif isinstance(part, list):
            for value in part:
                close(value)

    close(schema)
    return schema


def errors(name, data, *, close=True):
    schema = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(closed(schema) if close else schema)
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(data)]


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("name", names())
def test_the_files_are_those_of_the_code(name):
    file = FOLDER / f"{name}.json"
    assert file.read_text(encoding="utf-8") == text(name), "run: python -m normdoctor.schemas"
    assert run("schema", name).stdout == text(name)
    schema = json.loads(text(name))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:normdoctor:{name}:1"
    assert sorted(file.name for file in FOLDER.glob("*.json")) == sorted(f"{one}.json" for one in names())


def test_the_command_for_the_configuration_prints_the_same():
    assert run("config", "--schema").stdout == text("config")
    assert run("schema", "reprt").exit_code == 2


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A measured report with known and suppressed findings, skipped rules, a problem; facts; a baseline."""
    folder = tmp_path_factory.mktemp("written")
    source = (ROOT / "examples/faulty_net.py").read_text(encoding="utf-8")
    line = "self.norm = nn.BatchNorm2d(width, width)"
    (folder / "net.py").write_text(source.replace(line, f"{line}  # normdoctor: ignore[ND201] -- as it was"))
    (folder / "hand.py").write_text((ROOT / "examples/lenet_sigmoid_bn.py").read_text(encoding="utf-8"))
    before = Path.cwd()
    os.chdir(folder)
    try:
        run("check", "net.py", "--isolated", "--select", "ND315", "--baseline", "b.json", "--write-baseline")
        words = ("--isolated", "--baseline", "b.json", "--data", "synthetic", "--batches", "2")
        kinds = ("--output-format", "json", "--output-file", "report.json", "--output-format", "concise")
        done = run("check", "net.py", "hand.py", "gone.py", *words, *kinds, "--save-facts", "facts.json")
        assert done.exit_code == 2, done.output
    finally:
        os.chdir(before)
    return {
        name: json.loads((folder / file).read_text(encoding="utf-8"))
        for name, file in (("report", "report.json"), ("facts", "facts.json"), ("baseline", "b.json"))
    }


@pytest.mark.parametrize("name", ["report", "facts", "baseline"])
def test_real_files_fit(name, written):
    assert errors(name, written[name]) == []
    assert errors(name, written[name], close=False) == []


def test_the_report_shows_every_part(written):
    report = written["report"]
    assert {finding["baseline"] for finding in report["findings"]} == {True, False}
    assert {finding["suppressed"] for finding in report["findings"]} == {True, False}
    assert any("steps" in finding["fix"] for finding in report["findings"] if finding["fix"])
    assert any(finding["related"] for finding in report["findings"])
    assert any(finding["code"] >= "ND6" for finding in report["findings"])
    assert report["skipped"]
    assert report["problems"]
    assert report["targets"][0]["name"] == "net.py:model"


def test_what_does_not_fit_is_seen(written):
    for spoil in (
        lambda report: report.update(extra=1),
        lambda report: report["findings"][0].update(extra=1),
        lambda report: report["targets"][0].update(extra=1),
        lambda report: report["findings"][0].pop("fingerprint"),
        lambda report: report["summary"].update(fail_on="often"),
    ):
        report = copy.deepcopy(written["report"])
        spoil(report)
        assert len(errors("report", report)) == 1
    newer = written["report"] | {"added_later": True}
    assert errors("report", newer, close=False) == []


@pytest.mark.parametrize(
    ("toml", "fits"),
    [
        ('targets = ["net.py"]\nfixable = ["ND1"]\n[options.ND202]\nwarn-from = 0.3\n', True),
        ('selct = ["ND1"]\n', False),
        ('[rules]\nND101 = "loud"\n', False),
    ],
)
def test_configurations(toml, fits):
    assert (errors("config", tomllib.loads(toml), close=False) == []) is fits
