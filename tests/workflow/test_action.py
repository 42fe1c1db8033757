"""The action: its scripts run in bash as on a runner, with the inputs in the environment."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")

yaml = pytest.importorskip("yaml")
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


@pytest.fixture(scope="module")
def action():
    return yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))


@pytest.fixture
def runner(action, surroundings, tmp_path):
    """Runs the action with inputs; gives the exit code, the outputs, the summary and the log."""

    def run(**given):
        inputs = {name: spec["default"] for name, spec in action["inputs"].items()}
        inputs |= {"python": sys.executable} | {key.replace("_", "-"): text for key, text in given.items()}
        files = {name: tmp_path / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_text("")
        outputs, log, code = {}, "", 0

        def value(text):
            def found(match):
                kind, *rest = match[1].split(".")
                return inputs[rest[0]] if kind == "inputs" else outputs.get(rest[-1], "")

            return EXPRESSION.sub(found, text)

        check, _, result = action["runs"]["steps"]
        for step in (check, result):
            env = surroundings | {"GITHUB_ACTIONS": "true"} | {key: str(file) for key, file in files.items()}
            env |= {key: value(text) for key, text in step["env"].items()} | {"RUNNER_TEMP": str(tmp_path)}
            command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
            folder = value(step.get("working-directory", "."))
            done = subprocess.run(
                command, env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=120
            )
            log, code = log + done.stdout + done.stderr, done.returncode
            lines = files["GITHUB_OUTPUT"].read_text().splitlines()
            outputs = dict(line.split("=", 1) for line in lines)
            assert step is result or code == 0, log  # so that the upload comes before the failure
        return code, outputs, files["GITHUB_STEP_SUMMARY"].read_text(), log

    return run


def test_no_input_is_put_into_a_script(action):
    for step in action["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
    check, upload, result = action["runs"]["steps"]
    assert {EXPRESSION.fullmatch(text)[1].removeprefix("inputs.") for text in check["env"].values()} == (
        action["inputs"].keys()
    )
    assert upload["uses"].startswith("github/codeql-action/upload-sarif@")
    assert "steps.check.outputs.sarif-file != ''" in upload["if"]
    assert upload["with"]["sarif_file"] == action["outputs"]["sarif-file"]["value"]
    assert result["if"] == "${{ always() }}"


def test_a_clean_model(runner, project):
    project("clean")
    code, outputs, summary, log = runner(summary="false")
    assert (code, outputs, summary) == (0, {"exit-code": "0"}, "")
    assert "::error" not in log


def test_findings(runner, project):
    folder = project("faulty")
    (folder / "sub").mkdir()
    (folder / "net.py").rename(folder / "sub" / "net.py")
    code, outputs, summary, log = runner(
        targets="\nnet.py:model\n",
        args="--select 'ND2,ND1' -q",
        fail_on="error",
        upload_sarif="true",
        working_directory="sub",
    )
    assert code == 1
    assert outputs == {"exit-code": "1", "sarif-file": "sub/normdoctor.sarif"}
    sarif = json.loads((folder / "sub/normdoctor.sarif").read_text())
    assert [result["ruleId"] for result in sarif["runs"][0]["results"]] == ["ND201"]
    assert re.search(r"^::error title=normdoctor ND201 batchnorm-eps,file=net.py,line=4", log, re.MULTILINE)
    assert summary.count("## normdoctor") == 1
    assert "ND201 batchnorm-eps" in summary


def test_what_cannot_be_examined_fails_loudly(runner, project):
    project("clean")
    code, outputs, summary, log = runner(targets="gone.py", sarif_file="out.sarif", annotations="false")
    assert code == 2
    assert outputs["exit-code"] == "2"
    assert "::error title=normdoctor::A model could not be examined" in log
    assert "no such file or directory: gone.py" in log
    assert "gone.py" in summary


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"python": "no-such-python"}, "no-such-python has no normdoctor"),
        ({"args": "--select 'ND1"}, "a quote has no end"),
        ({"targets": '$(touch owned)`touch owned`"; touch owned; "', "args": "'$(touch owned)'"}, "owned"),
        ({"fail_on": "error; touch owned"}, "error; touch owned"),
    ],
)
def test_inputs_are_data(runner, project, given, said):
    folder = project("clean")
    code, outputs, _, log = runner(**given)
    assert code == 2
    assert outputs["exit-code"] == "2"
    assert said in log
    assert not (folder / "owned").exists()


def test_words_with_lines_and_files_of_source_stay_whole(runner, project):
    folder = project("clean")
    source = (folder / "net.py").read_bytes()
    code, outputs, _, log = runner(sarif_file="net.py")
    assert (code, outputs) == (2, {"exit-code": "2"})
    assert "net.py would be overwritten" in log
    assert (folder / "net.py").read_bytes() == source
    (folder / "old.sarif").write_text("of another run")
    code, outputs, _, log = runner(args="--ignore 'ND1\nND2'", sarif_file="old.sarif")
    assert (code, outputs) == (2, {"exit-code": "2"})
    assert "unknown rule `ND1\nND2`" in log


def test_the_scripts_are_sound_shell(action, tmp_path):
    if shutil.which("shellcheck") is None:
        pytest.skip("there is no shellcheck")
    for number, step in enumerate(step for step in action["runs"]["steps"] if "run" in step):
        file = tmp_path / f"step{number}.sh"
        file.write_text(f"#!/bin/bash\n{step['run']}")
        done = subprocess.run(
            ["shellcheck", "-S", "warning", file], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
