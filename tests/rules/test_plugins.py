"""Rules of other packages are found, and what is not needed for a page is not loaded."""

import subprocess
import sys
from importlib import metadata

import pytest

from normdoctor.rules import ENTRY_POINT_GROUP, all_rules, find_rule, load_rule
from normdoctor.rules.plugins import entry_points


def declare(folder, text):
    (folder / "far-1.0.dist-info").mkdir()
    (folder / "far-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: far\nVersion: 1.0\n")
    (folder / "far-1.0.dist-info" / "entry_points.txt").write_text(text)


def test_the_same_as_importlib_says(tmp_path, monkeypatch):
    declare(tmp_path, f"[{ENTRY_POINT_GROUP}]\nfar = plug:FarRule\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = entry_points(ENTRY_POINT_GROUP)
    assert [(entry.name, entry.value) for entry in found] == [("far", "plug:FarRule")]
    assert found == tuple(metadata.entry_points(group=ENTRY_POINT_GROUP))


def test_other_groups_do_not_count(tmp_path, monkeypatch):
    declare(tmp_path, "[console_scripts]\nfar = plug:main\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "none"), ""])
    monkeypatch.setattr(metadata, "entry_points", lambda **_: pytest.fail("asked"))
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if not hasattr(f, "find_distributions")])
    assert entry_points(ENTRY_POINT_GROUP) == ()


def test_what_cannot_be_looked_through_is_asked(tmp_path, monkeypatch):
    archive = tmp_path / "far.zip"
    archive.write_bytes(b"")
    monkeypatch.setattr(sys, "path", [str(archive)])
    monkeypatch.setattr(metadata, "entry_points", lambda group: ["asked"])
    assert entry_points(ENTRY_POINT_GROUP) == ("asked",)


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.code)
def test_one_rule_alone_is_the_one_of_the_catalogue(rule):
    assert load_rule(rule.code.lower()) is load_rule(rule.name.upper()) is rule


@pytest.mark.parametrize("key", ["", "ND1", "placement", "plugins", "layers", "no-such-rule", 'ND101"'])
def test_no_other_file_is_taken_for_a_rule(key):
    assert load_rule(key) is find_rule(key) is None


def test_a_page_is_shown_without_the_other_rules():
    code = (
        "import sys; from normdoctor.cli import main; main(['explain', 'nd101'], standalone_mode=False); "
        "loaded = [name for name in sys.modules if name.startswith('normdoctor.rules.placement.')]; "
        "assert loaded == ['normdoctor.rules.placement.bias_before_norm'], loaded; "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ND101 bias-before-norm" in done.stdout
