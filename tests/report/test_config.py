"""The configuration file: what it may say, and what is said of its mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from normdoctor.config import Settings, anchor, override
from normdoctor.configfile import load_settings
from normdoctor.errors import ConfigError
from normdoctor.findings import Confidence

pytestmark = pytest.mark.usefixtures("catalogue")

FULL = """
[tool.normdoctor]
select = ["TST1"]
ignore = ["quiet-norm"]
extend-select = ["TST202"]
preview = true
fail-on = "error"
min-confidence = "low"
output-format = "concise"
loss = "cross_entropy"
device = "cpu"
import-timeout = 5

[tool.normdoctor.targets]
net = "model.py:Net"
big = "pkg.mod:build(depth=18)"

[tool.normdoctor.inputs]
net = "2,8"
"pkg.mod:build(depth=18)" = ["x=2,3", "y=2"]

[tool.normdoctor.rules]
TST101 = "warn"
needs-loss = "ignore"

[tool.normdoctor.options.loud-linear]
at-most = 3

[tool.normdoctor.per-file-ignores]
"vendor/*" = ["ALL"]

[tool.normdoctor.per-module-ignores]
"backbone.*" = ["TST1"]

[tool.normdoctor.roles]
MyNorm = "norm"
"""


def write(folder: Path, text: str, name: str = "pyproject.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_every_key(source):
    write(source.parent, FULL)
    assert load_settings() == Settings(
        targets=("model.py:Net", "pkg.mod:build(depth=18)"),
        aliases={"net": "model.py:Net", "big": "pkg.mod:build(depth=18)"},
        select=("TST1",),
        ignore=("quiet-norm",),
        extend_select=("TST202",),
        preview=True,
        levels={"TST101": "warning", "TST201": "ignore"},
        options={"TST101": {"at_most": 3}},
        fail_on="error",
        min_confidence=Confidence.LOW,
        output_format="concise",
        per_file_ignores={"vendor/*": ("ALL",)},
        per_module_ignores={"backbone.*": ("TST1",)},
        target_inputs={"model.py:Net": ("2,8",), "pkg.mod:build(depth=18)": ("x=2,3", "y=2")},
        roles={"MyNorm": "norm"},
        loss="cross_entropy",
        device="cpu",
        import_timeout=5.0,
        root=source.parent,
    )


def test_inputs_for_a_target():
    settings = Settings(inputs=("1,2",), target_inputs={"a.py": ("3,4",)})
    assert settings.inputs_for("a.py") == ("3,4",)
    assert settings.inputs_for("b.py") == ("1,2",)


def test_the_nearest_file_wins_and_none_are_merged(tmp_path, monkeypatch):
    write(tmp_path, '[tool.normdoctor]\nselect = ["TST1"]\nfail-on = "info"\n')
    write(tmp_path / "a", "[tool.ruff]\n")
    write(tmp_path / "a" / "b", 'ignore = ["TST2"]\n', "normdoctor.toml")
    write(tmp_path / "a" / "b", '[tool.normdoctor]\nselect = ["TST2"]\n')
    monkeypatch.chdir(tmp_path / "a")
    assert load_settings().fail_on == "info"
    (tmp_path / "a" / "b" / "c").mkdir()
    monkeypatch.chdir(tmp_path / "a" / "b" / "c")
    settings = load_settings()
    assert (settings.select, settings.ignore, settings.fail_on) == ((), ("TST2",), "warning")
    assert load_settings(isolated=True) == Settings()
    assert load_settings(tmp_path / "pyproject.toml").select == ("TST1",)


def test_targets_are_seen_from_the_current_folder(tmp_path, monkeypatch):
    write(tmp_path, '[tool.normdoctor]\ntargets = ["src/net.py:Net", "pkg.mod:Net", "gone.py"]\n')
    write(tmp_path / "src", "", "net.py")
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    assert load_settings().targets == ("../src/net.py:Net", "pkg.mod:Net", "gone.py")
    monkeypatch.chdir(tmp_path)
    assert anchor("src/net.py::Net::TST101", tmp_path) == "src/net.py::Net::TST101"


TABLE = "[tool.normdoctor]\n"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('selct = ["TST1"]', "tool.normdoctor.selct: unknown option, did you mean `select`?", None),
        ('fail_on = "error"', "tool.normdoctor.fail_on: unknown option, did you mean `fail-on`?", None),
        ("zzz = 1", "tool.normdoctor.zzz: unknown option", "select"),
        ('select = "TST1"', "tool.normdoctor.select: expected `array`, found `str`", None),
        ("select = [1]", "tool.normdoctor.select[0]: expected `str`, found `int`", None),
        ('select = ["TST999"]', "tool.normdoctor.select: unknown rule `TST999`", "normdoctor rules"),
        ('ignore = ["loud-liner"]', "tool.normdoctor.ignore: unknown rule `loud-liner`", "`loud-linear`"),
        ('preview = "yes"', "tool.normdoctor.preview: expected `bool`, found `str`", None),
        (
            'fail-on = "warn"',
            "tool.normdoctor.fail-on: expected one of `error`, `warning`, `info`, `never`; found `warn`",
            "`warning`",
        ),
        ('min-confidence = "hi"', "tool.normdoctor.min-confidence: expected one of `low`", None),
        ('output-format = "jsn"', "tool.normdoctor.output-format: expected one of", "`json`"),
        ("import-timeout = []", "tool.normdoctor.import-timeout: expected `float`, found `array`", None),
        ('rules = {TST999 = "error"}', "tool.normdoctor.rules.TST999: unknown rule `TST999`", None),
        ('rules = {TST101 = "loud"}', "tool.normdoctor.rules.TST101: expected one of `error`", None),
        (
            "options = {TST101 = {atmost = 1}}",
            "options.TST101.atmost: unknown option, did you mean `at-most`",
            None,
        ),
        ('options = {TST101 = {at-most = "1"}}', "options.TST101.at-most: expected `int`, found `str`", None),
        ("options = {TST999 = {}}", "tool.normdoctor.options.TST999: unknown rule", None),
        ('roles = {MyNorm = "nrm"}', "tool.normdoctor.roles.MyNorm: expected one of", "`norm`"),
        ('per-file-ignores = {"a/*" = ["TST999"]}', 'per-file-ignores."a/*": unknown rule `TST999`', None),
        ('per-module-ignores = {"a.*" = "TST101"}', "per-module-ignores", None),
        ("inputs = {a = 3}", "tool.normdoctor.inputs", None),
        ("targets = 3", "tool.normdoctor.targets: expected `table | array`, found `int`", None),
    ],
)
def test_mistakes(source, text, message, hint):
    write(source.parent, TABLE + text + "\n")
    with pytest.raises(ConfigError) as raised:
        load_settings()
    assert raised.value.message.startswith("pyproject.toml: ")
    assert message in raised.value.message
    assert (hint or "") in (raised.value.hint or "")


def test_other_mistakes(source):
    pyproject = write(source.parent, "[tool.normdoctor\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_settings()
    pyproject.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings()
    pyproject.write_text("[tool]\nnormdoctor = 3\n")
    with pytest.raises(ConfigError, match="expected a table, found 3"):
        load_settings()
    pyproject.write_text("tool = 3\n")
    assert load_settings() == Settings()
    with pytest.raises(ConfigError, match=r"no such file: gone\.toml"):
        load_settings(Path("gone.toml"))
    own = write(source.parent, "selct = []\n", "normdoctor.toml")
    with pytest.raises(ConfigError, match=r"^normdoctor\.toml: selct: unknown option"):
        load_settings(own)


def test_the_command_line_is_laid_over_the_file():
    file = Settings(
        select=("TST1",),
        ignore=("TST2",),
        levels={"TST101": "error", "TST102": "ignore"},
        fail_on="info",
        target_inputs={"a.py": ("1",)},
    )
    assert override(file, ignore=("TST4",)).ignore == ("TST2", "TST4")
    assert override(file, select=None, fail_on=None) == file
    selected = override(file, select=("TST2",))
    assert (selected.select, selected.ignore, selected.levels) == (("TST2",), (), {"TST101": "error"})
    assert override(file, inputs=("2",)).inputs_for("a.py") == ("2",)
    assert override(file, exitfirst=True).exitfirst
