"""The other commands, errors, and what must not be imported."""

from __future__ import annotations

import json

import pytest

import normdoctor
from normdoctor.errors import ConfigError


@pytest.fixture(autouse=True)
def in_source(source):
    return source


@pytest.mark.usefixtures("catalogue")
class TestExplain:
    def test_page(self, cli):
        result = cli("explain", "loud-linear")
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        assert lines[:3] == ["TST101 loud-linear", "warning . confidence high . fixable . since 0.1.0", ""]
        assert "What it does" in lines
        assert "  # bad" in lines
        assert "    model = 1  # TST101" in lines
        assert "  at-most (int, default 0)" in lines
        assert "```" not in result.stdout

    def test_color_marks_headings(self, cli):
        assert "\x1b[1mWhat it does\x1b[0m" in cli("explain", "TST101", "--color", "always").stdout

    def test_json(self, cli):
        data = json.loads(cli("explain", "TST101", "--output-format", "json").stdout)
        assert (data["code"], data["fixable"], data["options"]) == (
            "TST101",
            True,
            {"at-most": 0, "label": "a linear layer"},
        )
        assert data["summary"] == "A linear layer."
        many = json.loads(cli("explain", "--all", "--output-format", "json").stdout)
        assert [one["code"] for one in many] == ["TST101", "TST102", "TST201", "TST202", "TST301", "TST401"]

    def test_all(self, cli):
        assert cli("explain", "--all").stdout.count("What it does") == 6

    @pytest.mark.parametrize("arguments", [("TST109",), (), ("TST101", "--all"), ("TST1",)])
    def test_mistakes(self, cli, arguments):
        result = cli("explain", *arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith("Error: ")
        if arguments == ("TST109",):
            assert "Did you mean" in result.stderr


@pytest.mark.usefixtures("catalogue")
class TestRules:
    def test_table(self, cli):
        lines = cli("rules", "--ignore", "TST2").stdout.splitlines()
        assert lines[0].split() == ["code", "name", "severity", "confidence", "fix", "requires", "status"]
        assert lines[2].split() == ["TST101", "loud-linear", "warning", "high", "yes", "graph", "on"]
        assert lines[4].endswith("off: ignored by `TST2`")
        assert "off: preview" in lines[6]
        assert lines[-1] == "3 of 6 rules are on."

    def test_json_and_configuration(self, cli, tmp_path):
        (tmp_path / "normdoctor.toml").write_text('[rules]\nTST102 = "ignore"\n')
        rules = json.loads(cli("rules", "--output-format", "json").stdout)["rules"]
        assert {rule["code"]: rule["on"] for rule in rules}["TST102"] is False
        rules = json.loads(cli("rules", "--output-format", "json", "--isolated").stdout)["rules"]
        assert {rule["code"]: rule["on"] for rule in rules}["TST102"] is True


@pytest.mark.usefixtures("catalogue", "asked")
class TestShow:
    def test_table(self, cli):
        result = cli("show", "model.py")
        assert result.exit_code == 0
        assert "model.py:Net" in result.stdout
        assert "1 norm: 1 LayerNorm" in result.stdout
        assert "3 layers with weights: 3 Linear" in result.stdout
        assert "Linear" not in "".join(cli("show", "model.py", "--norms").stdout.splitlines()[-2:])

    def test_json(self, cli):
        models = json.loads(cli("show", "model.py", "model.py:B", "--output-format", "json").stdout)["models"]
        assert [model["target"] for model in models] == ["model.py:Net", "model.py:B"]
        assert [row["layer"] for row in models[0]["rows"]] == ["norm", "body.0", "body.1", "body.2"]

    def test_from_facts(self, cli, asked):
        cli("check", "model.py", "--save-facts", "facts.json")
        assert "model.py:Net" in cli("show", "--from-facts", "facts.json").stdout
        assert len(asked) == 1

    def test_mistakes(self, cli):
        assert cli("show", "modle.py").stderr == "Error: no such file: modle.py\n  Did you mean model.py?\n"
        assert cli("show", "modle.py").exit_code == 2
        assert "nothing to show" in cli("show", "--isolated").stderr


class TestGroup:
    def test_help(self, cli):
        for arguments in (("--help",), ("-h",), ("check", "-h"), ("show", "--help")):
            result = cli(*arguments)
            assert result.exit_code == 0
            assert result.stdout.startswith("Usage: ")
        assert "normdoctor check model.py" in cli("-h").stdout

    def test_version(self, cli):
        for flag in ("-V", "--version"):
            assert cli(flag).stdout == f"normdoctor {normdoctor.__version__}\n"

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("chekc",), "Did you mean `check`?"),
            (("model.py",), "normdoctor check model.py"),
            (("zzz",), "normdoctor --help"),
            (("check", "model.py", "--slect", "ND1"), "--select"),
            (("check", "model.py", "--fail-on", "warn"), "'warn' is not one of"),
            (("check", "model.py", "--output-format", "jsn"), "'jsn' is not one of"),
            (("check", "model.py", "--import-timeout", "-1"), "import-timeout"),
            (("check", "model.py", "--config", "x.toml", "--isolated"), "contradict each other"),
            (("check", "model.py", "--config", "x.toml"), "no such file: x.toml"),
            (("check", "model.py", "--select", "ND9999"), "unknown rule `ND9999`"),
            (
                (
                    "check",
                    "model.py::Net::ND9999",
                ),
                "is not a node id",
            ),
            (("check", "--from-facts", "gone.json"), "cannot read facts from gone.json"),
        ],
    )
    def test_usage_errors(self, cli, arguments, said):
        result = cli(*arguments)
        assert result.exit_code == 2
        assert said in result.stderr
        assert result.stdout == ""
        assert "Traceback" not in result.output

    def test_escapes_do_not_reach_the_terminal(self, cli):
        assert "\x1b" not in cli("check", "--select", "a\x1b[31mb", "model.py").output
        assert "\x1b" not in cli("a\x1b[31mb").output


class TestUnexpected:
    @pytest.fixture
    def broken(self, monkeypatch):
        from normdoctor import configfile

        def install(error):
            def load(*_, **__):
                raise error

            monkeypatch.setattr(configfile, "load_settings", load)

        return install

    def test_internal_errors(self, cli, broken):
        broken(RuntimeError("odd\x1b[31m"))
        result = cli("check", "model.py")
        assert result.exit_code == 2
        assert result.stderr.splitlines() == [
            "Error: internal error: RuntimeError: odd\\x1b[31m",
            "  This is a fault of normdoctor; please report it. -v shows the traceback.",
        ]
        assert "Traceback" in cli("check", "model.py", "-v").stderr

    def test_interrupt(self, cli, broken):
        broken(KeyboardInterrupt())
        result = cli("check", "model.py")
        assert (result.exit_code, result.stderr) == (2, "Interrupted.\n")

    def test_own_errors_show_their_traceback_only_when_asked(self, cli, broken):
        broken(ConfigError("bad", hint="mend it"))
        assert cli("check", "model.py").stderr == "Error: bad\n  mend it\n"
        assert "Traceback" in cli("check", "model.py", "-v").stderr


class TestWithoutTorch:
    """In a new process: none of these may import torch (or numpy)."""

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (("--help",), 0),
            (("check", "--help"), 0),
            (("--version",), 0),
            (("explain", "ND101"), 0),
            (("explain", "--all", "--output-format", "json"), 0),
            (("explain", "ND999"), 2),
            (("rules",), 0),
            (("check", "model.py", "--select", "ND999"), 2),
        ],
    )
    def test_instant_answers(self, without_torch, arguments, code):
        result = without_torch(*arguments)
        assert (result.returncode, "IMPORTED" in result.stderr) == (code, False), result.stderr

    def test_config_errors(self, without_torch, tmp_path):
        (tmp_path / "pyproject.toml").write_text('[tool.normdoctor]\nselct = ["ND1"]\n')
        result = without_torch("check", "model.py")
        assert result.returncode == 2
        assert result.stderr == (
            "Error: pyproject.toml: tool.normdoctor.selct: unknown option, did you mean `select`?\n"
        )

    def test_saved_facts_are_checked(self, without_torch, tmp_path, make_facts):
        (tmp_path / "facts.json").write_bytes(make_facts().to_json())
        result = without_torch("check", "--from-facts", "facts.json", "--isolated", "--select", "ND1")
        assert result.returncode == 0, result.stdout + result.stderr
        assert "1 normalization layer (1 LayerNorm)" in result.stdout

    def test_the_check_itself_sees_torch(self, without_torch):
        """Otherwise the tests above would prove nothing."""
        result = without_torch("check", "model.py", "--isolated")
        assert "IMPORTED torch" in result.stderr
        assert result.returncode == 99


def test_every_command_says_what_it_does():
    from click import Context

    from normdoctor.cli import main

    context = Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command
        assert command.get_short_help_str()
        assert command.help
