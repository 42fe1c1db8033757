"""Every kind of target that cannot be loaded gives one error that says what to do."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import nn

from normdoctor.errors import NormDoctorError, TargetError, UsageError
from normdoctor.loading.target import from_object, load

FILES = {
    "model.py": """
import torch.nn as nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
    def forward(self, x):
        return self.fc(x)
class Wide(nn.Module):
    def __init__(self, width, depth, bias=True):
        super().__init__()
    def forward(self, x):
        return x
net = Net()
number = 3
def weights():
    return {"a": 1}
def fails():
    raise ValueError("no such width")
""",
    "needs.py": """
import torch.nn as nn
class Wide(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
    def forward(self, x):
        return x
""",
    "two_need.py": """
import torch.nn as nn
class A(nn.Module):
    def __init__(self, width):
        super().__init__()
    def forward(self, x):
        return x
class B(A):
    pass
""",
    "parts_need.py": """
import torch.nn as nn
class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
    def forward(self, x):
        return x
class Whole(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.blocks = nn.ModuleList(Block(8) for _ in range(depth))
    def forward(self, x):
        return x
class Head(nn.Module):
    def __init__(self, whole):
        super().__init__()
    def forward(self, x):
        return x
def build(width):
    return Head(Whole(width))
""",
    "slips.py": "from torch import nn\nclass Net(nn.Module):\n    def foward(self, x):\n        return x\n",
    "trains.py": "from needs import Wide\nif __name__ == '__main__':\n    net = Wide(3, 4)\n",
    "syntax.py": "import torch\n\ndef f(:\n    pass\n",
    "nothing.py": "import torch\nimport torch.nn as nn\nbatch_size = 4\ncriterion = nn.CrossEntropyLoss()\n",
    "empty.py": "",
    "endless.py": "while True:\n    pass\n",
    "sleeps.py": "import time\ntime.sleep(1e6)\n",
    "leaves.py": "import sys\nsys.exit(3)\n",
    "fails.py": "import torch\nx = torch.ones(2) @ torch.ones(3)\n",
    "fails_below.py": "from broken_helper import x\n",
    "broken_helper.py": "x = 1 / 0\n",
    "latin.py": "# \xe9t\xe9\nx = 1\n",
    "slow_build.py": """
import time
import torch.nn as nn
class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        time.sleep(1e6)
    def forward(self, x):
        return x
""",
    "notes.txt": "model",
    "lesson.ipynb": "{}",
    "folder/readme.md": "",
    "plain/utils.py": "import torch\nx = 1\n",
}

#: Target, words of the message, words of the hint.
TABLE: list[tuple[str, list[str], list[str]]] = [
    ("modle.py", ["no such file", "modle.py"], ["Did you mean `model.py`"]),
    ("absent/model.py", ["no such file", "absent/model.py"], ["absent", "does not exist"]),
    ("folder/x.py", ["no such file"], ["folder holds no Python file"]),
    ("nodels", ["no such file, directory or module: nodels"], ["model.py:Net"]),
    ("-", ["expected a target", "`-`"], ["standard input"]),
    ("", ["expected a target", "nothing"], ["name a file"]),
    ("notes.txt", ["expected a Python file (.py)", "notes.txt"], [".py file that builds the model"]),
    ("lesson.ipynb", ["expected a Python file"], ["Export the notebook"]),
    ("model.py:nett", ["no name `nett` in model.py"], ["Did you mean `net` or `Net`"]),
    ("model.py:nte.fc", ["no name `nte.fc`"], ["net"]),
    ("model.py:number", ["model.py:number", "found int (3)"], ["The file offers: net"]),
    ("model.py:weights", ["give an nn.Module", "found dict"], ["The file offers"]),
    ("model.py:fails", ["could not be built", "ValueError: no such width"], ["factory"]),
    ("model.py:Wide", ["cannot be built without arguments", "`width`, `depth`"], ["factory"]),
    ("model.py:Wide(width=3)", ["missing `depth`"], ["literals"]),
    ("model.py:Wide(torch, 3)", ["literal arguments", "`torch`"], ["factory"]),
    ("model.py:Wide(**{})", ["literal arguments", "`**{}`"], ["factory"]),
    ("model.py:Wide(3, 4, colour=5)", ["could not be built", "unexpected keyword argument"], []),
    ("model.py:net(3)", ["is a model already"], []),
    ("model.py:3 +", ["expected a name or a call", "3 +"], ["model.py:build(depth=18)"]),
    ("model.py:a + b", ["expected a name or a call", "a + b"], []),
    ("model.py::Net::nd", ["expected the code of a rule", "`nd`"], ["model.py::Net::ND101"]),
    ("needs.py", ["needs.py:Wide cannot be built", "`width`, `depth`"], ["needs.py:Wide(width=...)"]),
    ("two_need.py", ["no model that can be built", "A (missing width)", "B (missing width)"], ["factory"]),
    ("parts_need.py", ["Block (missing width)", "Whole (missing depth)"], ["parts_need.py:build(...)"]),
    ("slips.py", ["no model in slips.py"], ["Net defines `foward`", "`forward`"]),
    ("trains.py", ["no model in trains.py", "Wide"], ["Wide is defined in needs.py"]),
    ("syntax.py", ["syntax error", "syntax.py:3"], ["def f(:"]),
    ("nothing.py", ["no model in nothing.py", "batch_size", "a loss is not a model"], ["nn.Module"]),
    ("empty.py", ["no model in empty.py", "no name at all"], []),
    ("endless.py", ["had built no model", "endless.py:", "the time limit of 1 s"], []),
    ("sleeps.py", ["had built no model", "sleeps.py:2", "the time limit of 1 s"], []),
    ("leaves.py", ["had built no model", "leaves.py:2", "sys.exit(3)"], []),
    ("fails.py", ["had built no model", "fails.py:2", "RuntimeError"], []),
    ("fails_below.py", ["broken_helper.py:1", "ZeroDivisionError"], []),
    ("latin.py", ["expected Python source", "latin.py"], []),
    ("slow_build.py", ["slow_build.py", "Slow (building took more than 1 s)"], []),
    ("slow_build.py:Slow", ["slow_build.py:Slow did not return within 1 s"], []),
    ("folder", ["no model in the directory folder"], []),
    ("plain", ["no model in the directory plain", "1 Python file"], ["plain/utils.py"]),
    ("folder:Net", ["is a directory", "`Net`"], ["model.py:Net"]),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode("latin-1"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("target", "message", "hint"), TABLE, ids=[row[0] or "empty" for row in TABLE])
def test_one_clear_error(folder: Path, target: str, message: list[str], hint: list[str]) -> None:
    with pytest.raises(NormDoctorError) as caught:
        load(target, import_timeout=1)
    error = caught.value
    assert isinstance(error, TargetError | UsageError)
    assert error.exit_code == 2
    for words in message:
        assert words in error.message
    for words in hint:
        assert words in (error.hint or "")
    assert str(folder) not in str(error), "paths are printed relative to the working directory"
    assert "Traceback" not in str(error)


def test_the_time_limit_holds_outside_the_main_thread(folder: Path) -> None:
    import threading

    seen: list[BaseException] = []

    def work() -> None:
        try:
            load("endless.py", import_timeout=0.5)
        except TargetError as error:
            seen.append(error)

    thread = threading.Thread(target=work)
    started = time.monotonic()
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert time.monotonic() - started < 20
    assert "the time limit of 0.5 s" in str(seen[0])


class Needs(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()


OBJECTS: list[tuple[object, list[str]]] = [
    (3, ["expected an nn.Module", "found an int (3)"]),
    (None, ["found a NoneType"]),
    (torch.zeros(2, 3), ["a tensor of shape (2, 3)"]),
    (nn.Linear(2, 2).state_dict(), ["OrderedDict", "state dict has no forward"]),
    (Needs, ["Needs cannot be built without arguments: missing `width`"]),
    (lambda: 5, ["function `<lambda>` that gave an int (5)"]),
    ("model.py:nett", ["no name `nett`"]),
]


@pytest.mark.parametrize(("value", "words"), OBJECTS)
def test_an_object_that_is_no_model(folder: Path, value: object, words: list[str]) -> None:
    with pytest.raises(TargetError) as caught:
        from_object(value)
    for word in words:
        assert word in str(caught.value) or word == "OrderedDict"


def test_a_missing_library_is_named_where_it_left_no_model(tmp_path: Path) -> None:
    file = tmp_path / "patches.py"
    file.write_text(
        "from not_there_at_all import Rearrange\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, width):\n"
        "        super().__init__()\n"
        "        self.layers = nn.Sequential(Rearrange('b c -> c b'), nn.Linear(width, 2))\n"
        "    def forward(self, x):\n"
        "        return self.layers(x)\n"
        "class Other(nn.Module):\n"
        "    def __init__(self, width):\n"
        "        super().__init__()\n"
        "    def forward(self, x):\n"
        "        return x\n"
        "net = Net(4)\n"
    )
    with pytest.raises(TargetError) as caught:
        load(str(file))
    assert "not installed, so a placeholder stood in: not_there_at_all" in caught.value.hint


def test_factory_in_a_file_whose_import_stopped(tmp_path):
    """What is missing in the factory is missing because of the import: both are said."""
    (tmp_path / "broken_library.py").write_text("raise RuntimeError('operator nms does not exist')\n")
    file = tmp_path / "factory.py"
    file.write_text("import broken_library\ndef net():\n    return broken_library.net()\n")
    with pytest.raises(TargetError) as caught:
        load(f"{file}:net")
    assert "could not be built: NameError" in caught.value.message
    assert "broken_library.py:1: RuntimeError: operator nms does not exist" in caught.value.message
    assert "import stopped" in caught.value.hint
