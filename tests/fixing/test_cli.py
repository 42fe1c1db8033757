"""`normdoctor check --fix` and what goes with it, as users of ruff expect it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

from normdoctor.cli import main

MODEL = """\
import torch
from torch import nn

model = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1),
    nn.BatchNorm2d(16, momentum=0.99),
    nn.ReLU(),
)
inputs = torch.randn(4, 3, 8, 8)
"""
SAFE = MODEL.replace("padding=1)", "padding=1, bias=False)")
WHOLE = SAFE.replace("0.99", "0.01")


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Runs the command line in a folder that holds model.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)

    def run(*args, code=None):
        result = CliRunner().invoke(main, [*args, *(["--isolated"] if "--config" not in args else [])])
        if code is not None:
            assert result.exit_code == code, result.output
        return result

    return run


def content():
    return Path("model.py").read_text()


class TestDiff:
    def test_writes_nothing_and_fails(self, cli):
        result = cli("check", "model.py", "--diff", code=1)
        assert content() == MODEL
        lines = result.stdout.splitlines()
        assert lines[:2] == ["--- model.py", "+++ model.py"]
        assert "+    nn.Conv2d(3, 16, 3, padding=1, bias=False)," in lines
        assert "-    nn.Conv2d(3, 16, 3, padding=1)," in lines
        assert "Would fix 1 finding." in result.stderr

    def test_nothing_to_change(self, cli):
        Path("model.py").write_text(WHOLE)
        result = cli("check", "model.py", "--diff", "--unsafe-fixes", code=0)
        assert result.stdout == ""

    def test_applies_with_patch(self, cli):
        result = cli("check", "model.py", "--diff", "--unsafe-fixes")
        subprocess.run(["patch", "-p0", "-s"], input=result.stdout, text=True, check=True)
        assert content() == WHOLE


class TestFix:
    def test_safe_fixes_only(self, cli):
        result = cli("check", "model.py", "--fix", code=1)
        assert content() == SAFE
        assert "Found 2 findings (1 fixed, 1 remaining)." in result.stdout
        assert "1 hidden fix can be enabled with the `--unsafe-fixes` option." in result.stdout
        assert "ND202" in result.stdout
        assert "ND101" not in result.stdout

    def test_unsafe_fixes(self, cli):
        result = cli("check", "model.py", "--fix", "--unsafe-fixes", code=0)
        assert content() == WHOLE
        assert "(2 fixed, 0 remaining)" in result.stdout
        again = cli("check", "model.py", "--fix", "--unsafe-fixes", code=0)
        assert "fixed" not in again.stdout
        assert content() == WHOLE

    def test_unsafe_fixes_alone_change_nothing(self, cli):
        result = cli("check", "model.py", "--unsafe-fixes")
        assert content() == MODEL
        assert "[*] 2 fixable with the `--fix` option." in result.stdout

    def test_without_fix_it_says_what_it_could_do(self, cli):
        result = cli("check", "model.py")
        assert "[*] 1 fixable with the `--fix` option (1 hidden fix can be enabled with" in result.stdout

    def test_fix_only(self, cli):
        result = cli("check", "model.py", "--fix-only", code=0)
        assert content() == SAFE
        assert result.stdout == "Fixed 1 finding.\n"

    def test_show_fixes(self, cli):
        result = cli("check", "model.py", "--fix", "--show-fixes", "--unsafe-fixes")
        assert (
            "- model.py:\n    1 x ND101 (bias-before-norm)\n    1 x ND202 (batchnorm-momentum)\n"
            in result.stdout
        )

    def test_exit_non_zero_on_fix(self, cli):
        cli("check", "model.py", "--fix", "--unsafe-fixes", "--exit-non-zero-on-fix", code=1)
        cli("check", "model.py", "--fix", "--unsafe-fixes", "--exit-non-zero-on-fix", code=0)

    def test_machine_formats_have_stdout_for_themselves(self, cli):
        result = cli("check", "model.py", "--fix", "--output-format", "json")
        assert [one["code"] for one in json.loads(result.stdout)["findings"]] == ["ND202"]
        assert json.loads(result.stdout)["findings"][0]["location"]["file"] == "model.py"

    def test_places_of_what_is_left_are_those_of_the_file(self, cli):
        result = cli("check", "model.py", "--fix", "--output-format", "concise")
        assert "model.py:6:5: ND202" in result.stdout
        assert "normdoctor-fix" not in result.output


class TestSelection:
    def test_select(self, cli):
        cli("check", "model.py", "--fix", "--unsafe-fixes", "--select", "ND202")
        assert content() == MODEL.replace("0.99", "0.01")

    def test_ignore(self, cli):
        cli("check", "model.py", "--fix", "--unsafe-fixes", "--ignore", "ND1")
        assert content() == MODEL.replace("0.99", "0.01")

    def test_fixable(self, cli):
        result = cli("check", "model.py", "--fix", "--unsafe-fixes", "--fixable", "bias-before-norm")
        assert content() == SAFE
        assert "ND202" in result.stdout

    def test_unfixable(self, cli):
        cli("check", "model.py", "--fix", "--unsafe-fixes", "--unfixable", "ND1")
        assert content() == MODEL.replace("0.99", "0.01")

    def test_an_unknown_rule(self, cli):
        assert "ND999" in cli("check", "model.py", "--fix", "--fixable", "ND999", code=2).stderr

    def test_suppressed_findings_stay(self, cli):
        text = MODEL.replace("padding=1),", "padding=1),  # normdoctor: ignore[ND101] -- as published")
        Path("model.py").write_text(text)
        cli("check", "model.py", "--fix", "--unsafe-fixes", code=0)
        assert content() == text.replace("0.99", "0.01")

    def test_findings_of_the_baseline_stay(self, cli):
        cli("check", "model.py", "--select", "ND101", "--baseline", "known.json", "--write-baseline")
        cli("check", "model.py", "--fix", "--unsafe-fixes", "--baseline", "known.json")
        assert content() == MODEL.replace("0.99", "0.01")

    def test_unused_comments_go(self, cli):
        Path("model.py").write_text(
            WHOLE.replace("bias=False),", "bias=False),  # normdoctor: ignore[ND101]")
        )
        cli("check", "model.py", "--fix", code=0)
        assert content() == WHOLE

    def test_unused_codes_go_and_used_ones_stay(self, cli):
        text = MODEL.replace("padding=1),", "padding=1),  # normdoctor: ignore[ND101, ND202] -- why")
        Path("model.py").write_text(text)
        cli("check", "model.py", "--fix")
        assert "# normdoctor: ignore[ND101] -- why\n" in content()

    @pytest.mark.parametrize(
        ("comment", "wanted"),
        [
            ("# type: ignore # normdoctor: ignore[ND101] # noqa: E501", "# type: ignore # noqa: E501"),
            ("# normdoctor: ignore[ND101] # noqa: E501", "# noqa: E501"),
            ("# normdoctor: ignore[ND101] -- old  # noqa: E501", "# noqa: E501"),
            ("# type: ignore # normdoctor: ignore[ND101] -- old", "# type: ignore"),
        ],
    )
    def test_comments_of_other_tools_stay(self, cli, comment, wanted):
        Path("model.py").write_text(WHOLE.replace("bias=False),", f"bias=False),  {comment}"))
        cli("check", "model.py", "--fix", code=0)
        assert content() == WHOLE.replace("bias=False),", f"bias=False),  {wanted}")


class TestRefusals:
    @pytest.mark.parametrize("option", ["--fixable", "--unfixable"])
    @pytest.mark.parametrize("rules", ["", " , ", "NOPE"])
    @pytest.mark.parametrize("more", [["--fix"], []])
    def test_rules_that_there_are_not(self, cli, option, rules, more):
        result = cli("check", "model.py", *more, option, rules, code=2)
        assert "names no rule" in result.stderr or "unknown rule" in result.stderr
        assert content() == MODEL

    @pytest.mark.parametrize(
        "option",
        [
            "--add-ignore",
            "--save-facts=f.json",
            "--from-facts=f.json",
            "--write-baseline",
            "--prune-baseline",
        ],
    )
    def test_contradictions(self, cli, option):
        more = ["--baseline", "b.json"] if "baseline" in option else []
        result = cli("check", "model.py", "--fix", option, *more, code=2)
        assert "contradict each other" in result.stderr or "takes the place" in result.stderr
        assert content() == MODEL

    def test_no_target(self, cli):
        assert "nothing to check" in cli("check", "--fix", code=2).stderr

    def test_stdin(self, cli):
        assert "standard input" in cli("check", "-", "--fix", code=2).stderr

    def test_a_notebook(self, cli):
        Path("net.ipynb").write_text("{}")
        assert "Export the notebook" in cli("check", "net.ipynb", "--fix", code=2).stderr

    def test_a_file_that_cannot_be_loaded(self, cli):
        Path("model.py").write_text("import torch\nmodel = oops\n")
        cli("check", "model.py", "--fix", code=2)

    def test_a_fix_that_does_not_stand_is_left_with_the_reason(self, cli):
        make = """\
        def conv(a, b, c, padding):
            layer = nn.Conv2d(a, b, c, padding=padding)
            layer.bias.data.zero_()
            return layer


        model ="""
        text = MODEL.replace("model =", textwrap.dedent(make)).replace("    nn.Conv2d(3", "    conv(3")
        Path("model.py").write_text(text)
        result = cli("check", "model.py", "--fix", "--select", "ND101")
        assert content() == text
        assert (
            "model.py:5:13: ND101 was not fixed: the changed source does not build `model.py:model` any more"
            in result.stderr
        )


def test_without_libcst(tmp_path):
    """In a fresh interpreter: here, what imports libcst has been imported already."""
    (tmp_path / "model.py").write_text(MODEL)
    code = (
        "import sys; from click.testing import CliRunner; from normdoctor.cli import main\n"
        "sys.modules['libcst'] = None\n"
        "for args in (['check', '--fix'], ['check', '--diff'], ['convert', '--to', 'group']):\n"
        "    result = CliRunner().invoke(main, [args[0], 'model.py', *args[1:], '--isolated'])\n"
        "    assert result.exit_code == 2, result.output\n"
        "    assert \"pip install 'normdoctor[fix]'\" in result.stderr, result.stderr\n"
        "    assert result.stderr.count('libcst') == 1 and 'internal' not in result.stderr"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)


def test_the_start_imports_neither_torch_nor_libcst():
    code = (
        "import sys; from click.testing import CliRunner; from normdoctor.cli import main\n"
        "assert CliRunner().invoke(main, ['check', '--help']).exit_code == 0\n"
        "assert CliRunner().invoke(main, ['convert', '--help']).exit_code == 0\n"
        "assert CliRunner().invoke(main, ['explain', 'ND101']).exit_code == 0\n"
        "assert not {'torch', 'libcst'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
