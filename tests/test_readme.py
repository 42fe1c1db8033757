"""The README: its picture and its commands are true, and its two set-up commands are those that CI runs."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from normdoctor.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("  #")[0].strip() for line in README.splitlines() if line.startswith("    normdoctor ")
]
#: What the commands speak of.
FILES = {
    "model.py": """
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(3, 8, 3, bias=False)
                self.norm = nn.BatchNorm2d(8)
                self.head = nn.Linear(8, 10)

            def forward(self, x):
                return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))
    """,
    "nets.py": """
        from torch import nn

        def build(depth):
            blocks = [
                nn.Sequential(nn.Conv2d(3, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU())
                for _ in range(depth)
            ]
            return nn.Sequential(*blocks)
    """,
    "train.py": """
        import torch
        from torch.nn import functional as F

        loader = [(torch.randn(16, 3, 32, 32), torch.randint(10, (16,))) for _ in range(4)]

        def loss_fn(output, labels):
            return F.cross_entropy(output, labels)

        def make_optimizer(model):
            return torch.optim.SGD(model.parameters(), lr=0.1)
    """,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in FILES.items():
        lines = [line.removeprefix(" " * 8) for line in text.splitlines()]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def test_it_has_commands():
    assert len(COMMANDS) > 5


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command, folder):
    space = {}
    exec((folder / "model.py").read_text(encoding="utf-8"), space)
    net = space["Net"]()
    for _ in range(50):  # its running statistics are no longer those of a new net
        net(torch.randn(8, 3, 8, 8))
    torch.save(net.state_dict(), folder / "best.pt")
    result = CliRunner().invoke(main, shlex.split(command)[1:])
    sys.modules.pop("train", None)
    # --diff ends with 1 where there is something to change.
    assert result.exit_code == (1 if command.endswith("--to group --diff") else 0), result.output


def test_the_picture_is_what_the_terminal_shows(monkeypatch):
    spec = importlib.util.spec_from_file_location("terminal", ROOT / "docs" / "pictures" / "terminal.py")
    terminal = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "terminal", terminal)  # dataclasses look their module up
    spec.loader.exec_module(terminal)
    monkeypatch.chdir(ROOT)
    again = "run `python docs/pictures/terminal.py`"
    assert terminal.drawn(terminal.printed()) == terminal.PICTURE.read_text(encoding="utf-8"), again


def test_there_are_two_set_up_commands():
    block = README[README.index("<!-- commands -->") : README.index("<!-- end -->")]
    commands = [line for line in block.splitlines() if line.startswith("    ")]
    assert len(commands) == 2
    assert all(command.startswith("    python3 -m venv .venv && ") for command in commands)


def test_pictures_have_words_for_those_who_do_not_see_them():
    pictures = re.findall(r"<img [^>]*>", README)
    assert len(pictures) == 2
    for picture in pictures:
        assert len(re.search(r'alt="([^"]*)"', picture).group(1)) > 60
        assert (ROOT / re.search(r'src="([^"]*)"', picture).group(1)).is_file()
