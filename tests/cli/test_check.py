"""`normdoctor check`: what goes where, and with which exit code."""

from __future__ import annotations

import json

import pytest

from normdoctor.findings import Confidence

pytestmark = pytest.mark.usefixtures("catalogue", "source", "asked")


def test_findings_and_coverage(cli):
    result = cli("check", "model.py")
    assert result.exit_code == 1
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == "info[TST102] quiet-norm: `norm` is a norm"
    assert "warning[TST101] loud-linear: `body.*` is a linear layer" in lines
    assert "  --> model.py:9:15" in lines
    assert " 9 |             *[nn.Linear(c, c) for _ in range(3)]," in lines
    assert "1 warning, 1 info in 1 normalization layer (1 LayerNorm), 4 rules." in lines
    assert "4 of 5 rules ran; 1 was skipped (see --show-skipped)." in lines
    assert lines[-1].startswith("==")
    assert lines[-1].endswith("==")
    assert " 1 failed, 1 noted, 2 passed, 1 skipped in " in lines[-1]
    assert len(lines[-1]) in (79, 80)


def test_a_clean_run(cli):
    result = cli("check", "model.py", "--select", "TST4")
    assert result.exit_code == 0
    assert result.stdout.startswith("1 normalization layer (1 LayerNorm), 1 rule, no findings.\n==")


def test_verbose_reads_like_pytest(cli):
    result = cli("check", "model.py", "-v")
    assert result.stdout.splitlines()[:6] == [
        "model.py::Net::TST101 FAILED",
        "model.py::Net::TST102 NOTED",
        "model.py::Net::TST201 SKIPPED (no loss was given or found in the source)",
        "model.py::Net::TST202 PASSED",
        "model.py::Net::TST401 PASSED",
        "",
    ]


def test_quiet_prints_findings_only(cli):
    result = cli("check", "model.py", "-q", "--output-format", "concise")
    assert result.stdout.splitlines() == [
        "model.py:7:21: TST102 quiet-norm: `norm` is a norm",
        "model.py:9:15: TST101 loud-linear: `body.*` is a linear layer [3 modules] [*]",
    ]
    assert cli("check", "model.py", "-q", "-v").exit_code == 2


def test_show_skipped(cli):
    result = cli("check", "model.py", "--show-skipped")
    assert "SKIPPED model.py::Net::TST201: no loss was given or found in the source" in result.stdout


def test_machine_formats_have_stdout_for_themselves(cli):
    for extra in ((), ("-v",), ("--show-skipped",), ("other.py",)):
        result = cli("check", "model.py", "--output-format", "json", *extra)
        assert json.loads(result.stdout)["schema_version"] == 1
    assert result.exit_code == 2
    assert "Error: no such file: other.py" in result.stderr


def test_the_format_may_come_from_the_environment(cli):
    result = cli("check", "model.py", env={"NORMDOCTOR_OUTPUT_FORMAT": "json"})
    assert json.loads(result.stdout)["summary"]["ok"] is False


def test_output_file(cli, tmp_path):
    result = cli(
        "check", "model.py", "--output-format", "json", "--output-file", "out.json", "--color", "always"
    )
    assert result.stdout == ""
    assert json.loads((tmp_path / "out.json").read_text())["findings"]
    result = cli("check", "model.py", "--output-file", "out.txt", "--color", "always")
    assert "\x1b" not in (tmp_path / "out.txt").read_text()
    assert len(result.stdout.splitlines()) == 1
    result = cli("check", "model.py", "--output-file", "no/such/folder.txt")
    assert result.exit_code == 2
    assert "Error: cannot write the report to no/such/folder.txt" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--fail-on", "error"), 0),
        (("--fail-on", "info"), 1),
        (("--exit-zero",), 0),
        (("--fail-on", "never"), 0),
        (("--ignore", "TST101"), 0),
        (("--ignore", "TST101", "--fail-on", "info"), 1),
        (("--exit-zero", "--fail-on", "error"), 2),
        (("--select", "TST1,TST2"), 1),
        (("--select", "TST2", "--extend-select", "loud-linear"), 1),
        (("--min-confidence", "low", "--select", "TST202"), 1),
    ],
)
def test_exit_codes(cli, arguments, code):
    assert cli("check", "model.py", *arguments).exit_code == code


def test_a_rule_that_raises(cli):
    result = cli("check", "model.py:Bomb")
    assert result.exit_code == 2
    assert "error[ND004] rule-crashed: the rule TST401 broken-rule raised ZeroDivisionError" in result.stdout
    assert "1 failed, 1 noted, 1 passed, 1 skipped, 1 error in" in result.stdout
    assert "Traceback" not in result.output
    assert "Traceback" in cli("check", "model.py:Bomb", "-v").stderr


def test_exitfirst(cli):
    result = cli("check", "model.py:Net", "model.py:Other", "-v", "-x")
    assert [line for line in result.stdout.splitlines() if "::" in line] == ["model.py::Net::TST101 FAILED"]


def test_node_ids_are_targets(cli, asked):
    result = cli("check", "model.py::Net::TST102", "model.py::Other", "-v")
    ran = [line.split()[0] for line in result.stdout.splitlines() if "::" in line]
    assert ran == ["model.py::Net::TST102", *(f"model.py::Other::TST{n}" for n in (101, 102, 201, 202, 401))]
    result = cli("check", "model.py::Net::TST102", "model.py::Net", "-v")
    assert "model.py::Net::TST101 FAILED" in result.stdout, "the whole target was asked for too"


def test_node_ids_are_selectors(cli):
    result = cli(
        "check",
        "model.py:Net",
        "model.py:Other",
        "-v",
        "--ignore",
        "model.py::Net::TST101",
        "--select",
        "TST1",
    )
    ran = [line.split()[0] for line in result.stdout.splitlines() if "::" in line]
    assert ran == ["model.py::Net::TST102", "model.py::Other::TST101", "model.py::Other::TST102"]


def test_one_target_that_fails(cli):
    result = cli("check", "modle.py")
    assert result.exit_code == 2
    assert result.stderr == "Error: no such file: modle.py\n  Did you mean model.py?\n"
    assert result.stdout == ""
    assert "Traceback" in cli("check", "modle.py", "-v").stderr


def test_the_others_are_still_checked(cli):
    result = cli("check", "modle.py", "model.py", "--select", "TST101")
    assert result.exit_code == 2
    assert "loud-linear" in result.stdout
    assert "1 failed, 1 error in" in result.stdout
    assert result.stderr.count("Error:") == 1


def test_no_target(cli):
    result = cli("check", "--isolated")
    assert result.exit_code == 2
    assert "Error: nothing to check" in result.stderr
    assert "normdoctor check model.py" in result.stderr


def test_targets_of_the_configuration_file(cli, tmp_path, asked):
    (tmp_path / "normdoctor.toml").write_text('[targets]\nnet = "model.py:Other"\n[inputs]\nnet = "2,8"\n')
    for arguments in ((), ("net",)):
        result = cli("check", "-v", *arguments)
        assert "model.py::Other::TST101 FAILED" in result.stdout
        assert asked[-1].inputs_for("model.py:Other") == ("2,8",)
    assert cli("check", "--isolated").exit_code == 2


def test_options_reach_the_doctor(cli, asked):
    arguments = [
        "--input",
        "2,8",
        "--input",
        "y=3",
        "--loss",
        "mse_loss",
        "--device",
        "cpu",
        "--import-timeout",
        "7",
    ]
    cli("check", "model.py", *arguments, "--min-confidence", "high", "--preview")
    (settings,) = asked
    assert settings.inputs_for("model.py") == ("2,8", "y=3")
    assert (settings.loss, settings.device, settings.import_timeout) == ("mse_loss", "cpu", 7.0)
    assert settings.min_confidence is Confidence.HIGH
    assert settings.preview


def test_facts_are_saved_and_checked(cli, tmp_path, asked):
    cli("check", "model.py", "--save-facts", "facts.json")
    result = cli("check", "--from-facts", "facts.json", "-q", "--output-format", "concise")
    assert len(asked) == 1, "the doctor was not needed"
    assert len(result.stdout.splitlines()) == 2
    result = cli("check", "model.py", "--from-facts", "facts.json")
    assert result.exit_code == 2
    assert "takes the place of TARGET" in result.stderr


def test_suppression_problems_are_errors(cli, source):
    source.write_text(source.read_text().replace("nn.LayerNorm(c)", "nn.LayerNorm(c)  # normdoctor: ignore"))
    result = cli("check", "model.py")
    assert result.exit_code == 2
    assert "Error: model.py:7: `# normdoctor: ignore` names no rule" in result.stderr


def test_color(cli):
    assert "\x1b[" in cli("check", "model.py", "--color", "always").stdout
    assert "\x1b[" in cli("check", "model.py", env={"FORCE_COLOR": "1"}).stdout
    assert "\x1b[" not in cli("check", "model.py", "--color", "never", env={"FORCE_COLOR": "1"}).stdout
    assert "\x1b[" not in cli("check", "model.py").stdout


def test_columns(cli):
    assert len(cli("check", "model.py", env={"COLUMNS": "133"}).stdout.splitlines()[-1]) in (132, 133)


def test_two_runs_are_byte_equal(cli):
    runs = {"\n".join(cli("check", "model.py").stdout.splitlines()[:-1]) for _ in range(2)}
    assert len(runs) == 1
