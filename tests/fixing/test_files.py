"""Which files are written, and how: whole or not at all, with what they were."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from normdoctor.cli import main
from normdoctor.errors import UsageError
from normdoctor.fixing import workspace as module
from normdoctor.fixing.splices import Refused
from normdoctor.fixing.workspace import Workspace

BLOCK = """\
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x):
        return x + self.bn(self.conv(x))
"""
NET = """\
import torch
from torch import nn
from .block import Block

model = nn.Sequential(Block(), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
inputs = torch.randn(2, 3, 8, 8)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose model takes a block from another file."""
    folder = tmp_path / "pkg"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "block.py").write_text(BLOCK)
    (folder / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return folder


def fix(*args):
    return CliRunner().invoke(main, ["check", "--fix", "--isolated", "--select", "ND101", *args])


def listing(folder):
    return sorted(path.name for path in Path(folder).iterdir() if path.name != "__pycache__")


class TestSeveralFiles:
    @pytest.mark.parametrize("target", ["pkg/net.py", "pkg.net", "pkg.net:model", "./pkg/net.py:model"])
    def test_both_are_fixed(self, package, target):
        result = fix(target)
        assert "(2 fixed, 0 remaining)" in result.output
        assert "bias=False" in (package / "block.py").read_text()
        assert "bias=False" in (package / "net.py").read_text()
        assert listing(package) == ["__init__.py", "block.py", "net.py"]

    def test_from_another_folder(self, package, tmp_path, monkeypatch):
        other = tmp_path / "elsewhere"
        other.mkdir()
        monkeypatch.chdir(other)
        result = fix(str(package / "net.py"))
        assert "(2 fixed, 0 remaining)" in result.output
        assert "normdoctor-fix-" not in result.output

    def test_through_a_link_to_the_folder(self, package, tmp_path, monkeypatch):
        (tmp_path / "link").symlink_to(package)
        assert "(2 fixed, 0 remaining)" in fix("link/net.py").output
        assert (tmp_path / "link").is_symlink()

    def test_data_beside_the_file_is_found(self, package):
        (package / "sizes.txt").write_text("8")
        size = "from pathlib import Path\nsize = int(Path(__file__).with_name('sizes.txt').read_text())\n"
        text = NET.replace("model =", f"{size}model =")
        (package / "net.py").write_text(text.replace("Conv2d(3, 8", "Conv2d(3, size"))
        assert "(2 fixed, 0 remaining)" in fix("pkg/net.py").output

    def test_a_folder_as_target(self, package):
        (package / "net.py").unlink()
        (package / "__init__.py").unlink()
        (package / "one.py").write_text(
            BLOCK + "\n\nimport torch\nmodel = Block()\ninputs = torch.randn(2, 3, 8, 8)\n"
        )
        assert "fixed" in fix("pkg").output
        assert "bias=False" in (package / "one.py").read_text()


class TestWhatIsNeverChanged:
    def test_installed_packages(self, tmp_path, monkeypatch):
        folder = tmp_path / "site-packages" / "lib"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "block.py").write_text(BLOCK)
        (tmp_path / "net.py").write_text(NET.replace(".block", "lib.block"))
        monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
        monkeypatch.chdir(tmp_path)
        fix("net.py")
        assert (folder / "block.py").read_text() == BLOCK
        assert "nn.Conv2d(3, 8, 3, bias=False)" in (tmp_path / "net.py").read_text()

    def test_files_outside_of_the_project(self, tmp_path):
        work = Workspace((tmp_path / "project",))
        (tmp_path / "other.py").write_text("")
        with pytest.raises(Refused, match="no source file of the project"):
            work.data(str(tmp_path / "other.py"))
        with pytest.raises(Refused, match="installed"):
            work.data(os.__file__)

    def test_a_link_out_of_the_project(self, tmp_path, monkeypatch):
        project, others = tmp_path / "project", tmp_path / "others"
        for folder in (project, others):
            folder.mkdir()
        monkeypatch.chdir(project)
        (others / "block.py").write_text(BLOCK)
        (project / "linked.py").symlink_to(others / "block.py")
        (project / "pyproject.toml").write_text("")
        (project / "net.py").write_text(NET.replace("from .block", "from linked"))
        result = fix("net.py")
        assert "a link to a file outside of the project" in result.output
        assert (others / "block.py").read_text() == BLOCK
        assert "bias=False" in (project / "net.py").read_text()


class TestWriting:
    def test_mode_and_link_stay(self, package):
        package.joinpath("net.py").rename(package / "real.py")
        (package / "net.py").symlink_to("real.py")
        (package / "real.py").chmod(0o750)
        assert "fixed" in fix("pkg/net.py").output
        assert (package / "net.py").is_symlink()
        assert "bias=False" in (package / "real.py").read_text()
        assert stat.S_IMODE((package / "real.py").stat().st_mode) == 0o750

    @pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away"
    )
    def test_the_owner_stays(self, package):
        os.chown(package / "net.py", 12345, 23456)
        assert "fixed" in fix("pkg/net.py").output
        held = (package / "net.py").stat()
        assert (held.st_uid, held.st_gid) == (12345, 23456)

    def test_when_the_second_file_fails_the_first_is_taken_back(self, package, monkeypatch):
        original, done = module.write_whole, []

        def fails(path, data):
            if len(done) == 1:
                done.append(path)
                raise OSError(28, "No space left on device")
            done.append(path)
            original(path, data)

        monkeypatch.setattr(module, "write_whole", fails)
        result = fix("pkg/net.py")
        assert result.exit_code == 2
        assert "No space left" in result.stderr
        assert len(done) == 3
        assert (package / "net.py").read_text() == NET
        assert (package / "block.py").read_text() == BLOCK

    def test_a_read_only_file(self, package):
        (package / "net.py").chmod(0o444)
        result = fix("pkg/net.py")
        assert result.exit_code == 2
        assert "read-only" in result.stderr
        assert (package / "net.py").read_text() == NET
        assert (package / "block.py").read_text() == BLOCK  # all or nothing, as far as it can be foreseen

    def test_a_file_that_changed_meanwhile(self, tmp_path):
        file = tmp_path / "net.py"
        file.write_text("a = 1\n")
        work = Workspace((tmp_path,))
        assert work.data(str(file)) == b"a = 1\n"
        work.current[file] = b"a = 2\n"
        file.write_text("a = 3\n")
        with pytest.raises(UsageError, match="changed while"):
            work.write()
        assert file.read_text() == "a = 3\n"

    def test_an_error_while_writing(self, tmp_path, monkeypatch):
        file = tmp_path / "net.py"
        file.write_text("a = 1\n")
        work = Workspace((tmp_path,))
        work.data(str(file))
        work.current[file] = b"a = 2\n"

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module, "write_whole", full)
        with pytest.raises(UsageError, match="No space left"):
            work.write()
        assert file.read_text() == "a = 1\n"

    def test_copies_are_removed(self, package, monkeypatch, tmp_path):
        place = tmp_path / "temporary"
        place.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(place))
        fix("pkg/net.py")
        assert list(place.iterdir()) == []


WRITER = """
import sys
from pathlib import Path
from normdoctor.fixing.workspace import Workspace

file = Path(sys.argv[1])
texts = [bytes([65 + i]) * 200_000 for i in range(2)]
print("ready", flush=True)
for turn in range(100_000):
    work = Workspace((file.parent,))
    old = work.data(str(file))
    work.current[file] = texts[old == texts[0]]
    work.write()
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_killed_at_any_point_the_file_is_the_old_or_the_new_one(tmp_path):
    """A process that writes all the time, killed 50 times."""
    file, chance = tmp_path / "model.py", random.Random(0)
    whole = {bytes([65 + i]) * 200_000 for i in range(2)}
    file.write_bytes(min(whole))
    seen = set()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(file)]
    for _ in range(10):  # processes at once, since starting them takes longest
        running = []
        for number in range(5):
            own = tmp_path / f"{number}.py"
            own.write_bytes(min(whole))
            running.append(
                (own, subprocess.Popen([*command[:-1], str(own)], stdout=subprocess.PIPE, env=environment))
            )
        for own, process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0.0, 0.03))
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            assert own.read_bytes() in whole
            seen.add(own.read_bytes())
    assert seen == whole
