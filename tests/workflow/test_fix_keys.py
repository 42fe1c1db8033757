"""What `--fix` may do by the configuration, and where `--show-settings` says values come from."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from normdoctor.cli import main
from normdoctor.config import Settings, override
from normdoctor.findings import Applicability, Confidence, Edit, Finding, Fix, Severity
from normdoctor.running import Session

SAFE, UNSAFE, DISPLAY = Applicability.SAFE, Applicability.UNSAFE, Applicability.DISPLAY


@pytest.mark.parametrize(
    ("fixable", "unfixable", "expected"),
    [
        ((), (), True),
        (("ND1",), (), True),
        (("ND2",), (), False),
        ((), ("ND101",), False),
        (("ND101",), ("ND1",), True),
        (("ND1",), ("bias-before-norm",), False),
        (("ND101",), ("ND101",), False),
    ],
)
def test_the_narrower_selector_says_what_may_be_fixed(fixable, unfixable, expected):
    assert Settings(fixable=fixable, unfixable=unfixable).may_fix("ND101") is expected


def test_options_over_the_file():
    file = Settings(fixable=("ND1",), unfixable=("ND101",))
    assert override(file, fixable=("ND101",)).may_fix("ND101")
    assert not override(file, unfixable=("ND102",)).may_fix("ND101")
    assert not override(file, unfixable=("ND102",)).may_fix("ND102")


@pytest.mark.parametrize("level", [SAFE, UNSAFE, DISPLAY])
def test_how_safe_a_fix_counts_as(level):
    def found(safe=(), unsafe=()):
        return Settings(extend_safe_fixes=safe, extend_unsafe_fixes=unsafe).level_of_fix("ND101", level)

    lowered, raised = (UNSAFE, SAFE) if level is not DISPLAY else (DISPLAY, DISPLAY)
    assert found() is level
    assert found(safe=("ND1",)) is raised
    assert found(unsafe=("ALL",)) is lowered
    assert found(("ND101",), ("ND1",)) is raised
    assert found(("ND1",), ("ND1",)) is (level if level is not SAFE else UNSAFE)


def test_a_raised_fix_need_not_keep_the_outputs():
    session = Session(Settings(extend_safe_fixes=("ND201",), extend_unsafe_fixes=("ND101",)))

    def weighed(code, level, **fields):
        fix = Fix(title="", applicability=level, edits={"eps": "1e-5"}, **fields)
        finding = Finding(
            code=code, name="", severity=Severity.ERROR, confidence=Confidence.HIGH, message="", fix=fix
        )
        made = session._weighed(finding).fix
        return made.applicability, made.preserving

    assert weighed("ND201", UNSAFE) == (SAFE, False)
    assert weighed("ND201", UNSAFE, steps=(Edit(action="build"),)) == (SAFE, True)
    assert weighed("ND101", SAFE) == (UNSAFE, True)
    assert weighed("ND202", UNSAFE) == (UNSAFE, False)


def check(*words):
    return CliRunner().invoke(main, ["check", *words])


def test_the_keys_steer_the_fix(project):
    pytest.importorskip("libcst")
    folder = project("faulty")
    source = (folder / "net.py").read_text()
    keys = 'targets = ["net.py"]\nextend-safe-fixes = ["ND201"]\nunfixable = ["ND2"]\n'
    (folder / "normdoctor.toml").write_text(keys)
    held = check("--diff")
    assert (held.exit_code, held.stdout) == (0, "")
    shown = check("--fixable", "ND201", "--fix", "--show-fixes", "-q")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout == "Fixed 1 finding:\n- net.py:\n    1 x ND201 (batchnorm-eps)\n"
    assert (folder / "net.py").read_text() == source.replace(", eps=8", "")


@pytest.mark.parametrize("words", [("--fixable", "ND999"), ("--unfixable", ","), ("--fixable", "")])
def test_what_names_no_rule(project, words):
    project("clean")
    assert check("net.py", *words).exit_code == 2


def test_settings_say_where_they_come_from(project):
    folder = project("clean")
    (folder / "normdoctor.toml").write_text(
        'ignore = ["ND3"]\nfail-on = "info"\nunfixable = ["ND1"]\nbatches = 4\nextend-select = ["ND4"]\n'
        '[targets]\nsmall = "net.py"\n[rules]\nND101 = "ignore"\nND102 = "error"\n'
    )

    def shown(*words, **env):
        done = CliRunner().invoke(main, ["check", "--show-settings", *words], env=env)
        assert done.exit_code == 0, done.output
        pairs = (line.rpartition("  # ") for line in done.stdout.splitlines() if " = " in line)
        return {text.partition(" = ")[0]: (text.partition(" = ")[2], source) for text, _, source in pairs}

    plain = shown()
    assert plain["batches"] == ("4", "normdoctor.toml")
    assert plain["targets"] == ('{ small = "net.py" }', "normdoctor.toml")
    assert plain["preview"] == ("false", "default")
    given = shown("net.py", "--exit-zero", "--ignore", "ND2", "--unfixable", "ND5", "--batches", "2")
    assert given["fail-on"] == ('"never"', "--exit-zero")
    assert given["ignore"] == ('["ND3", "ND2"]', "normdoctor.toml, --ignore")
    assert given["unfixable"] == ('["ND1", "ND5"]', "normdoctor.toml, --unfixable")
    assert given["batches"] == ("2", "--batches")
    assert given["targets"] == ('["net.py"]', "command line")
    chosen = shown("--select", "ND1", "--fixable", "ND1", NORMDOCTOR_OUTPUT_FORMAT="json")
    assert chosen["ignore"] == ("[]", "normdoctor.toml, set aside by --select")
    assert chosen["extend-select"] == ("[]", "normdoctor.toml, set aside by --select")
    assert chosen["unfixable"] == ("[]", "normdoctor.toml, set aside by --fixable")
    assert chosen["rules"] == ('{ ND102 = "error" }', "normdoctor.toml, less what --select sets aside")
    assert chosen["output-format"] == ('"json"', "NORMDOCTOR_OUTPUT_FORMAT")
    assert shown("--isolated")["ignore"] == ("[]", "default")
