"""The language server, spoken to over its pipes as an editor does."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("pygls")
pytest.importorskip("lsprotocol")

from normdoctor.lsp.diagnostics import edits_of
from normdoctor.lsp.running import job_of
from normdoctor.lsp.server import _silence

NET = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.word = "\N{GRINNING FACE}"; self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8, eps=8)

    def forward(self, x):
        return self.norm(self.conv(x))


model = Net()
inputs = torch.zeros(4, 3, 8, 8)
"""


class Client:
    """A client of JSON-RPC; what the server sends is collected."""

    def __init__(self, folder, env, *options):
        command = [sys.executable, "-m", "normdoctor", "lsp", *options]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, cwd=folder, env=env, **pipes)
        self.folder, self.number = folder, 0
        self.inbox = queue.Queue()
        self.notes = []
        threading.Thread(target=self._read, daemon=True).start()
        root = folder.as_uri()
        info = self.ask("initialize", processId=None, rootUri=root, capabilities={})["capabilities"]
        self.capabilities = info
        self.tell("initialized")

    def _read(self):
        stream = self.process.stdout
        while header := stream.readline():
            length = 0
            while header.strip():
                if header.lower().startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
                header = stream.readline()
            self.inbox.put(json.loads(stream.read(length)))

    def _send(self, **message):
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        self.process.stdin.flush()

    def tell(self, method, **params):
        self._send(method=method, params=params)

    def _next(self, seconds):
        try:
            return self.inbox.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"nothing came in {seconds:.0f} s") from None

    def ask(self, method, seconds=120, **params):
        self.number += 1
        self._send(id=self.number, method=method, params=params)
        end = time.monotonic() + seconds
        while True:
            message = self._next(end - time.monotonic())
            if message.get("id") == self.number and "method" not in message:
                assert "error" not in message, message
                return message["result"]
            self.notes.append(message)

    def diagnostics(self, file, seconds=120):
        """What is shown for a file next."""
        end = time.monotonic() + seconds
        while True:
            kept = [note for note in self.notes if note.get("method") == "textDocument/publishDiagnostics"]
            for note in kept:
                if note["params"]["uri"] == file.as_uri():
                    self.notes.remove(note)
                    return note["params"]["diagnostics"]
            self.notes.append(self._next(end - time.monotonic()))

    def open(self, file):
        document = {"uri": file.as_uri(), "languageId": "python", "version": 1, "text": file.read_text()}
        self.tell("textDocument/didOpen", textDocument=document)

    def save(self, file):
        self.tell("textDocument/didSave", textDocument={"uri": file.as_uri()})

    def end(self):
        self.ask("shutdown")
        self.tell("exit")
        return self.process.wait(20)


@pytest.fixture
def editor(tmp_path, surroundings):
    """Opens an editor in an empty folder."""
    opened = []

    def make(*options):
        opened.append(Client(tmp_path, surroundings, *options))
        return opened[-1]

    yield make
    for client in opened:
        with contextlib.suppress(OSError):
            client.process.kill()
        client.process.wait(20)
        for pipe in (client.process.stdin, client.process.stdout, client.process.stderr):
            with contextlib.suppress(OSError):
                pipe.close()


def test_a_session(editor, tmp_path):
    net = tmp_path / "net.py"
    net.write_text(NET, encoding="utf-8")
    client = editor()
    assert client.capabilities["hoverProvider"]
    client.open(net)
    found = {item["code"]: item for item in client.diagnostics(net)}
    assert set(found) == {"ND101", "ND201"}
    bias, eps = found["ND101"], found["ND201"]
    # The face is one character of Python's and two units of the editor's.
    line = NET.splitlines()[7]
    start = len(line[: line.index("nn.Conv2d")].encode("utf-16-le")) // 2
    end = {"line": 7, "character": len(line.encode("utf-16-le")) // 2}
    assert bias["range"] == {"start": {"line": 7, "character": start}, "end": end}
    assert (bias["severity"], eps["severity"], bias["source"]) == (3, 1, "normdoctor")
    assert bias["message"].startswith("bias-before-norm: the bias of `conv`")
    assert eps["data"]["modules"] == ["norm"]
    assert bias["data"]["fix"]["applicability"] == "safe"

    at = {"textDocument": {"uri": net.as_uri()}, "position": {"line": 8, "character": 22}}
    page = client.ask("textDocument/hover", **at)["contents"]["value"]
    assert page.startswith("# ND201 batchnorm-eps")
    assert client.ask("textDocument/hover", **at | {"position": {"line": 0, "character": 0}}) is None

    where = {"textDocument": {"uri": net.as_uri()}, "range": bias["range"]}
    actions = client.ask("textDocument/codeAction", **where, context={"diagnostics": [bias]})
    fix, silence = actions
    assert fix["title"].startswith("Fix ND101 where it is found (safe): ")
    assert "edit" not in fix
    (edit,) = silence["edit"]["changes"][net.as_uri()]
    assert edit == {"range": {"start": end, "end": end}, "newText": "  # normdoctor: ignore[ND101]"}
    pytest.importorskip("libcst")
    (edit,) = client.ask("codeAction/resolve", **fix)["edit"]["changes"][net.as_uri()]
    lines = NET.splitlines(keepends=True)
    low, high = edit["range"]["start"]["line"], edit["range"]["end"]["line"]
    fixed = "".join([*lines[:low], edit["newText"], *lines[high:]])
    assert fixed == NET.replace("nn.Conv2d(3, 8, 3)", "nn.Conv2d(3, 8, 3, bias=False)")

    net.write_text(fixed.replace(", eps=8", ""), encoding="utf-8")
    client.save(net)
    assert client.diagnostics(net) == []
    assert client.end() == 0


def test_files_that_cannot_be_checked(editor, tmp_path):
    texts = {
        "words.py": "print('no model')\n",
        "none.py": "import torch\n\n\ndef helper(x):\n    return x\n",
        "broken.py": "from torch import nn\nclass Net(nn.Module:\n",
        "sleeps.py": "import time, os\nimport torch\nopen('started', 'a').write('x')\ntime.sleep(600)\n",
    }
    files = {name: tmp_path / name for name in texts}
    for name, text in texts.items():
        files[name].write_text(text)
    client = editor()
    for name in ("words.py", "none.py", "broken.py"):
        client.open(files[name])
    assert client.diagnostics(files["words.py"]) == []
    assert client.diagnostics(files["none.py"]) == []
    (item,) = client.diagnostics(files["broken.py"])
    assert item["message"].startswith("could not be checked: expected Python source")
    assert (item["severity"], item["range"]["start"]["line"]) == (3, 0)
    logged = [note["params"]["message"] for note in client.notes if note.get("method") == "window/logMessage"]
    assert any("no model in none.py" in text for text in logged)
    (tmp_path / "normdoctor.toml").write_text('selct = ["ND1"]\n')
    client.save(files["none.py"])
    (item,) = client.diagnostics(files["none.py"])
    assert "selct: unknown option" in item["message"]
    (tmp_path / "normdoctor.toml").unlink()

    # While a check runs, the server answers; a second save stops the first check, the end the second.
    client.open(files["sleeps.py"])
    (first,) = wait_for(lambda: (tmp_path / "started").exists() and children_of("sleeps.py", tmp_path))
    before = time.monotonic()
    where = {"textDocument": {"uri": files["sleeps.py"].as_uri()}, "position": {"line": 0, "character": 0}}
    assert client.ask("textDocument/hover", **where) is None
    assert time.monotonic() - before < 5
    client.save(files["sleeps.py"])
    (second,) = wait_for(
        lambda: (tmp_path / "started").read_text() == "xx" and children_of("sleeps.py", tmp_path)
    )
    assert first != second
    assert client.end() == 0
    assert wait_for(lambda: not children_of("sleeps.py", tmp_path))


def test_a_check_that_takes_too_long(editor, tmp_path):
    file = tmp_path / "sleeps.py"
    file.write_text("import time\nimport torch\ntime.sleep(600)\n")
    client = editor("--timeout", "1")
    client.open(file)
    (item,) = client.diagnostics(file)
    assert item["message"] == "could not be checked: it took more than 1 s"
    assert not children_of("sleeps.py", tmp_path)


def test_only_when_saved(editor, tmp_path):
    words = tmp_path / "words.py"
    words.write_text("print('no model')\n")
    client = editor("--on-save")
    client.open(words)
    where = {"textDocument": {"uri": words.as_uri()}, "position": {"line": 0, "character": 0}}
    assert client.ask("textDocument/hover", **where) is None
    assert not [note for note in client.notes if note.get("method") == "textDocument/publishDiagnostics"]
    client.save(words)
    assert client.diagnostics(words) == []
    client.tell("textDocument/didClose", textDocument={"uri": words.as_uri()})
    assert client.diagnostics(words) == []
    assert client.end() == 0


def wait_for(what, seconds=30):
    """What this gives, once that is something."""
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def children_of(name, folder):
    """The processes that still check a file of this folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (
                name.encode() in (place / "cmdline").read_bytes()
                and place.joinpath("cwd").resolve() == folder
            ):
                found.append(place.name)
    return found


def test_targets_of_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    (tmp_path / "models").mkdir()
    net, other = tmp_path / "models/net.py", tmp_path / "models/other.py"
    for file in (net, other):
        file.write_text("x = 1\n")
    assert job_of(net, "import torch", tmp_path).targets == ("models/net.py",)
    assert job_of(net, "import torch", None).folder == net.parent
    assert job_of(net, "x = 1", tmp_path) is None
    (tmp_path / "normdoctor.toml").write_text(
        'targets = ["models/net.py:build(depth=2)", "models/net.py:Net"]\n'
    )
    job = job_of(net, "x = 1", Path("/"))
    assert (job.folder, job.targets) == (tmp_path, ("models/net.py:build(depth=2)", "models/net.py:Net"))
    assert job_of(other, "import torch", None).targets == ("models/other.py",)


def test_a_diff_as_edits(tmp_path):
    unended = "\\ No newline at end of file\n"
    diff = (
        "--- a.py\n+++ a.py\n@@ -1,2 +1,3 @@\n one\n--- two\n+++ zwei\n+drei\n@@ -9,0 +11 @@\n+end\n"
        f"--- b.py\n+++ b.py\n@@ -1 +1 @@\n-x\n{unended}+y\n{unended}"
    )
    found = edits_of(diff, tmp_path)
    assert list(found) == [(tmp_path / name).as_uri() for name in ("a.py", "b.py")]
    spans = [(e.range.start.line, e.range.end.line, e.new_text) for edits in found.values() for e in edits]
    assert spans == [(0, 2, "one\n++ zwei\ndrei\n"), (9, 9, "end\n"), (0, 1, "y")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("x = 1\n", "x = 1  # normdoctor: ignore[ND101]"),
        ("x = 1  # normdoctor: ignore[ND2]\n", "x = 1  # normdoctor: ignore[ND2, ND101]"),
        ("x = 1  # said\n", None),
        ("x = 1 + \\\n", None),
    ],
)
def test_a_comment_that_silences(line, expected):
    edit = _silence("ND101", 0, [line])
    if expected is None:
        assert edit is None
    else:
        at = edit.range.start.character
        assert line[:at] + edit.new_text + line[at:].rstrip("\n") == expected


def test_without_the_extra(surroundings, tmp_path):
    (tmp_path / "pygls").mkdir()
    (tmp_path / "pygls/__init__.py").write_text("raise ModuleNotFoundError('gone', name='pygls')\n")
    path = os.pathsep.join([str(tmp_path), surroundings["PYTHONPATH"]])
    command = [sys.executable, "-m", "normdoctor", "lsp"]
    env = surroundings | {"PYTHONPATH": path}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'normdoctor[lsp]'" in done.stderr
    assert "Traceback" not in done.stderr
