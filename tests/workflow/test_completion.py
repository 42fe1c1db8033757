"""Completion: what is offered, without torch and fast, and in real shells."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from normdoctor.cli.completing import models_of, rules
from normdoctor.rules import all_rules
from normdoctor.rules.base import summary_of

NET = """\
import torch.nn as nn
import pytorch_lightning as pl
from elsewhere import helper

raise SystemExit("never imported")


def build(depth=18) -> nn.Module:
    return helper(depth)


def tower():
    made = Net()
    made.name = "tower"
    return made


def words():
    return "".join([])


class Block(nn.Module): ...
class _Hidden(nn.Module): ...
class Net(Block): ...
class Lit(pl.LightningModule): ...
class Config: ...


small, loss, net = 3, nn.CrossEntropyLoss(), Net().eval()
criterion = nn.CrossEntropyLoss()
other = nn.Sequential(nn.Linear(2, 2))
model = Net().to("cpu")
"""
MODELS = ["build", "tower", "Block", "Net", "Lit", "other", "model"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "normdoctor.toml").write_text('[targets]\nsmall = "net.py:Net"\nlarge = "net.py:tower"\n')
    return tmp_path


def asked(line, folder, env):
    """What fish would be offered for the last word; fails where torch was imported."""
    code = (
        "import sys\nfrom normdoctor.cli import main\ntry:\n    main(prog_name='normdoctor')\nfinally:\n"
        "    sys.stderr.write('TORCH' * ('torch' in sys.modules))"
    )
    env = env | {
        "_NORMDOCTOR_COMPLETE": "fish_complete",
        "COMP_WORDS": f"normdoctor {line}",
        "COMP_CWORD": line.rpartition(" ")[2],
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == "", done.stderr
    return [text.partition("\t")[0].partition(",")[2] for text in done.stdout.splitlines()]


def test_the_catalogue_is_read_as_it_is_imported():
    own = [rule for rule in all_rules() if rule.__module__.startswith("normdoctor.")]
    assert list(rules()) == [(rule.code, rule.name, summary_of(rule)) for rule in own]


def test_models_are_found_by_reading(folder):
    assert sorted(models_of(folder / "net.py")) == sorted(MODELS)
    (folder / "broken.py").write_text("class Net(nn.Module:\n")
    assert models_of(folder / "broken.py") == []


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("check --select bias-b", ["bias-before-norm"]),
        ("check --select ND101,ND102,ND10", [f"ND101,ND102,ND10{n}" for n in range(3, 10)]),
        ("check --ignore AL", ["ALL"]),
        ("explain softmax-bef", ["softmax-before-cross-entropy"]),
        ("check --output-format sa", ["sarif"]),
        ("check --fail-on=w", ["warning"]),
        ("convert --to gr", ["group"]),
        ("config per-", ["per-file-ignores", "per-module-ignores"]),
        ("completion ", ["bash", "zsh", "fish"]),
        ("check net.py:", [f"net.py:{name}" for name in MODELS]),
        ("check net.py::Ne", ["net.py::Net"]),
        ("check net.py::Net::ND31", [f"net.py::Net::ND31{n}" for n in range(10)]),
        ("check sma", ["small"]),
        ("check ne", ["ne"]),
        ("check --no-such ne", ["ne"]),
        ("completion fi", ["fish"]),
        ("chek sho", ["show"]),
    ],
)
def test_what_is_offered(line, offered, folder, surroundings):
    found = asked(line, folder, surroundings)
    assert sorted(found) == sorted(offered)


def test_it_is_fast(folder, surroundings):
    started = time.process_time(), os.times().children_user
    asked("check --select ND", folder, surroundings)
    assert os.times().children_user - started[1] < 0.6  # a third of a second is usual; torch alone takes two


def typed(shell, lines, folder, env):
    """The screen of an interactive shell in which these lines were typed."""
    descriptor, inner = pty.openpty()
    env = env | {"TERM": "dumb", "PS1": "$ ", "HOME": str(folder)}
    ends = {"stdin": inner, "stdout": inner, "stderr": inner}
    process = subprocess.Popen(shell, cwd=folder, env=env, start_new_session=True, **ends)
    os.close(inner)
    seen = b""

    def read(until, seconds=20.0):
        nonlocal seen
        end = time.monotonic() + seconds
        while until not in seen and time.monotonic() < end:
            if select.select([descriptor], [], [], 0.1)[0]:
                try:
                    seen += os.read(descriptor, 65536)
                except OSError:
                    return

    for number, (line, quiet) in enumerate(lines):
        os.write(descriptor, line.encode())
        if quiet:
            read(quiet.encode())
        os.write(descriptor, f"; echo DO''NE{number}\n".encode())
        read(f"DONE{number}".encode())
    os.write(descriptor, b"exit\n")
    process.wait(20)
    os.close(descriptor)
    return seen.decode(errors="replace").replace("\r", "")


BEGIN, END = "\x01", "\x05"


@pytest.mark.parametrize(
    "shell",
    [
        ("bash", "--norc", "--noprofile", "-i"),
        ("zsh", "-f", "-i"),
    ],
    ids=lambda shell: shell[0],
)
def test_in_a_shell(shell, folder, surroundings):
    if shutil.which(shell[0]) is None:
        pytest.skip(f"there is no {shell[0]}")
    setup = "autoload -U compinit; compinit -u -D; " if shell[0] == "zsh" else ""
    lines = [(f'{setup}eval "$(normdoctor completion {shell[0]})"', "")]
    wanted = {
        "check net.py:Ne": "check net.py:Net",
        "check --select ND101,softmax-bef": "check --select ND101,softmax-before-cross-entropy",
        "check --fail-on=err": "check --fail-on=error",
        "check --output-format sar": "check --output-format sarif",
    }
    if shell[0] == "zsh":  # it hands `--fail-on=err` to click as one word, which click answers with `error`
        del wanted["check --fail-on=err"]
    # Every line is turned into `echo ...` before it is entered, so that nothing is checked.
    lines += [(f"normdoctor {line}\t{BEGIN}echo {END}", whole) for line, whole in wanted.items()]
    screen = typed(shell, lines, folder, surroundings)
    for whole in wanted.values():
        assert re.search(rf"^normdoctor {re.escape(whole)} *$", screen, re.MULTILINE), screen


def test_in_fish(folder, surroundings):
    if shutil.which("fish") is None:
        pytest.skip("there is no fish")
    asks = 'normdoctor completion fish | source; complete -C "normdoctor check --select ND101,ND102,ND103"'
    done = subprocess.run(
        ["fish", "--no-config", "-c", asks],
        env=surroundings | {"HOME": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("ND101,ND102,ND103\t"), done.stdout + done.stderr


def test_an_unknown_shell(surroundings):
    command = [sys.executable, "-m", "normdoctor", "completion", "tcsh"]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'bash', 'zsh', 'fish'" in done.stderr
    assert not list(Path().glob("tcsh*"))
