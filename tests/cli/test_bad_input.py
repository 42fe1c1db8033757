"""Bad input of every kind gives one clear error and exit code 2, and leaves the user's files alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

TORCH = "import torch\nfrom torch import nn\n"
NET = f"""{TORCH}
class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.fc = nn.Linear(4, width)
    def forward(self, x):
        return self.fc(x)
"""
NEEDY = NET.replace("width=8", "width, depth")
UNSOUND = f"""{TORCH}
class Net(nn.Module):
    def __init__(self):
        self.depth = 3
    def forward(self, x):
        return x
"""
ABSTRACT = NET.replace("torch\n", "torch, abc\n", 1).replace("(nn.Module)", "(nn.Module, abc.ABC)") + (
    "    @abc.abstractmethod\n    def depth(self): ...\n"
)
HOSTILE = f"{TORCH}class Odd:\n    def __getattribute__(self, name): raise RuntimeError\nodd = Odd()\n"
LOOSE = (
    '{"target": "a", "nodes": [{"index": 0, "name": "x", "op": "output", "role": "output", "kind": "x", %s}]}'
)
TOOLS = f"""{TORCH}
def leaves(): raise SystemExit(3)
def make(model): raise SystemExit(3)
def nothing(): return None
def midway():
    yield torch.zeros(2, 4)
    raise SystemExit(4)
class Samples(torch.utils.data.Dataset):
    def __len__(self): return 8
    def __getitem__(self, index): raise ValueError("no such sample")
loader = torch.utils.data.DataLoader(Samples(), batch_size=4, num_workers=1)
meta = [torch.zeros(2, 4, device="meta")]
"""
ESC = "\x1b[31m"


def net(forward: str, extra: str = "") -> str:
    """A model with this statement in its forward."""
    return NET.replace("return self.fc(x)", forward) + extra


def built(extra: str) -> str:
    """A model whose `__init__` ends with this statement."""
    return NET.replace("    def forward", f"        {extra}\n    def forward")


#: What is wrong, the model.py (or other files), the command line, words of the error.
Row = tuple[str, str | dict[str, str | bytes | None], str | list[str], list[str]]

FILES: list[Row] = [
    ("missing file", NET, "check modle.py", ["no such file", "modle.py", "Did you mean `model.py`?"]),
    ("missing folder", NET, "check src/model.py", ["no such file", "The directory src does not exist"]),
    ("no file at all", {}, "check a.py", ["no such file", "The current folder holds no Python file"]),
    ("name too long", {}, f"check {'a' * 5000}.py", ["no such file"]),
    ("null byte in the name", {}, ["check", "a\0b.py"], ["no such file", "\\x00"]),
    ("controls in the name", {}, ["check", f"{ESC}model.py"], ["no such file", "\\x1b[31m"]),
    ("symlink to itself", {"loop.py": "-> loop.py"}, "check loop.py", ["symbolic link that leads nowhere"]),
    ("directory named like a file", {"x.py/readme.md": ""}, "check x.py", ["no model in the directory x.py"]),
    ("folder without models", {"sub/a.py": "x = 1"}, "check sub", ["no model in the directory sub"]),
    ("name in a folder", {"sub/a.py": NET}, "check sub:Net", ["is a directory", "sub/model.py:Net"]),
    ("text file", {"notes.txt": NET}, "check notes.txt", ["expected a Python file (.py)", "notes.txt"]),
    ("notebook", {"a.ipynb": "{}"}, "check a.ipynb", ["expected a Python file", "Export the notebook"]),
    ("syntax error", "class Net(:\n", "check model.py", ["syntax error at model.py:1", "class Net(:"]),
    ("null bytes", "x = 1\0\n", "check model.py", ["syntax error at model.py", "null bytes"]),
    ("not utf-8", {"model.py": b"x = '\xff'\n"}, "check model.py", ["expected Python source", "model.py"]),
    ("unknown encoding", "# coding: klingon\n", "check model.py", ["syntax error at model.py", "klingon"]),
    ("binary", {"model.py": bytes(range(256))}, "check model.py", ["expected Python source in model.py"]),
]  # fmt: skip

TARGETS: list[Row] = [
    ("empty file", "", "check model.py", ["no model in model.py", "nn.Module", "no name at all"]),
    ("no model in the file", "x = 1\n", "check model.py", ["no model in model.py", "found x"]),
    ("unknown name", NET, "check model.py:Nett", ["no name `Nett` in model.py", "Did you mean `Net`?"]),
    ("unknown name, none near", NET, "check model.py:Zzzz", ["no name `Zzzz`", "The file offers: Net"]),
    ("unknown attribute", NET, "check model.py:Net.a.b", ["no name `Net.a.b`", "Did you mean `Net`?"]),
    ("unknown module", NET, "check pkg.mod:Net", ["no such file, directory or module: pkg.mod"]),
    ("module without source", NET, "check math:sin", ["the module math has no Python source"]),
    ("no file before the colon", NET, "check :Net",
     ["expected a file or module before the colon", "model.py:Net"]),
    ("nothing", NET, ["check", " "], ["expected a target such as model.py:Net, found nothing"]),
    ("no target", NET, "check", ["nothing to check: expected a TARGET", "normdoctor check model.py"]),
    ("standard input", NET, "check -", ["expected a target", "name a file"]),
    ("arguments are missing", NEEDY, "check model.py",
     ["Net cannot be built", "`width`, `depth`", "(width=...)"]),
    ("arguments are missing by name", NEEDY, "check model.py:Net(3)",
     ["missing `depth`", "Give them as literals"]),
    ("unknown argument", NET, "check model.py:Net(deep=3)",
     ["could not be built", "'deep'", "Net(width=64)"]),
    ("argument given twice", NET, "check model.py:Net(width=1,width=2)", ["`width` is given twice"]),
    ("code as an argument", NET, ["check", "model.py:Net(os.system('x'))"],
     ["expected literal arguments", "os.system"]),
    ("argument without value", NET, "check model.py:Net(width=)",
     ["expected a name or a call", "build(depth=18)"]),
    ("open parenthesis", NET, "check model.py:Net(1", ["expected a name or a call", "`Net(1`"]),
    ("a number", f"{NET}x = 3\n", "check model.py:x",
     ["to be an nn.Module, a class or a factory, found int (3)"]),
    ("an empty list", f"{NET}x = []\n", "check model.py:x", ["found list ([])"]),
    ("a module", NET, "check model.py:torch", ["found module", "The file offers: Net"]),
    ("a state dict", f"{TORCH}x = nn.Linear(1, 1).state_dict()\n", "check model.py:x", ["found OrderedDict"]),
    ("factory of a number", f"{NET}def f(): return 3\n", "check model.py:f",
     ["to give an nn.Module, found int (3)"]),
    ("factory that exits", f"{NET}def f(): exit(0)\n", "check model.py:f",
     ["could not be built: SystemExit"]),
    ("abstract class", ABSTRACT, "check model.py:Net", ["could not be built", "abstract"]),
    ("node id without rule", NET, "check model.py::Net::banana",
     ["is not a node id", "model.py::Net::ND101"]),
    ("node id of no model", NET, "check model.py::Nett::ND101", ["no name `Nett`", "Did you mean `Net`?"]),
    ("object whose repr raises", f"{NET}class R:\n    def __repr__(self): 1/0\nr = R()\n", "check model.py:r",
     ["found R"]),
    ("property that raises", f"{NET}class R:\n    def __getattr__(self, n): 1/0\nr = R()\n",
     "check model.py:r.a", ["no name"]),
    ("object that answers nothing", HOSTILE, "check model.py",
     ["its own code raised RuntimeError at model.py:4"]),
]  # fmt: skip

IMPORTS: list[Row] = [
    ("exits with a text", "import sys\nsys.exit('bye')\n", "check model.py",
     ["model.py:2", "sys.exit('bye')"]),
    ("exits without", "raise SystemExit\n", "check model.py", ["stopped at model.py:1", "sys.exit()"]),
    ("leaves the process", "import os\nos._exit(0)\n", "check model.py",
     ["stopped at model.py:2", "sys.exit(0)"]),
    ("raises", "raise ValueError('no data')\n", "check model.py",
     ["stopped at model.py:1", "ValueError: no data"]),
    ("raises controls", f"raise ValueError('{ESC}')\n", "check model.py", ["ValueError: \\x1b[31m"]),
    ("error without text", "class E(Exception):\n    def __str__(self): 1/0\nraise E\n", "check model.py",
     ["model.py:3", "E: (its text cannot be had: ZeroDivisionError)"]),
    ("endless", "while True: pass\n", "check model.py --import-timeout 0.2",
     ["model.py:1", "time limit of 0.2 s"]),
    ("import cycle", {"a.py": "from b import y\nx = 1\n", "b.py": "from a import x\ny = 1\n"}, "check a.py",
     ["stopped at b.py:1", "cannot import name 'x'"]),
    ("missing sibling", "import torch\nfrom .layers import Block\n", "check model.py",
     ["placeholder stood in: "]),
    ("checkpoint that is missing", f"{TORCH}net = torch.load('w.pt')\n", "check model.py",
     ["model.py:3", "w.pt"]),
    ("checkpoint of garbage", {"model.py": f"{TORCH}net = torch.load('w.pt')\n", "w.pt": "garbage"},
     "check model.py",
     ["stopped at model.py:3"]),
    ("model of a petabyte", f"{TORCH}net = nn.Linear(1 << 40, 1 << 40)\n", "check model.py",
     ["model.py:3", "RuntimeError"]),
    ("class of a terabyte", NET.replace("4, width", "1 << 18, 1 << 20"), "check model.py",
     ["Net (RuntimeError"]),
    ("model within itself", NET.replace("nn.Linear(4, width)", "Net()"), "check model.py",
     ["Net (RecursionError"]),
    ("model that is its own part", built("self._modules['me'] = self"), "check model.py",
     ["a part of itself (`me`)"]),
    ("no super().__init__()", UNSOUND, "check model.py", ["does not call super().__init__()"]),
    ("no super().__init__(), by name", UNSOUND, "check model.py:Net",
     ["Net is no working nn.Module", "super()"]),
    ("no hash", built("pass") + "    __eq__ = lambda self, other: True\n", "check model.py",
     ["no hash", "eq=False"]),
    ("no forward", NET.replace("def forward", "def forwards"), "check model.py",
     ["Net defines `forwards`, which nothing calls", "did you mean `forward`?"]),
    ("no forward of any name", NET.replace("def forward", "def run"), "check model.py",
     ["is an nn.Module without a forward"]),
    ("property of the model's raises",
     NET + "    def named_parameters(self, *a, **k): raise ValueError('p')\n", "check model.py",
     ["its own code raised ValueError: p at model.py:"]),
    ("replaces the streams", f"{NET}import sys, io\nsys.stdout = sys.stderr = io.StringIO()\n",
     "check model.py:A", ["no name `A`"]),
    ("closes the streams", f"{NET}import sys\nsys.stdout.close()\nsys.stderr.close()\n", "check model.py:A",
     ["no name `A`"]),
    ("changes the folder", f"{NET}import os\nos.chdir('/')\n", "check model.py:A",
     ["no name `A` in model.py"]),
    ("prints ten megabytes", f"{NET}print('x' * 10_000_000)\n", "check model.py:A", ["no name `A`"]),
]  # fmt: skip

FORWARDS: list[Row] = [
    ("raises", net("raise ValueError('boom')"), "check model.py",
     ["no inputs were given", "model.py:9: boom", "--input"]),
    ("raises on what is given", net("raise ValueError('boom')"), "check model.py --input 1,4",
     ["ValueError at model.py:9: boom"]),
    ("raises controls", net(f"raise ValueError('{ESC}')"), "check model.py --input 1,4",
     ["model.py:9: \\x1b[31m"]),
    ("exits", net("exit(0)"), "check model.py", ["the forward raised SystemExit at model.py:9: 0"]),
    ("exits on what is given", net("raise SystemExit(0)"), "check model.py --input 1,4",
     ["SystemExit at model.py:9"]),
    ("raises no Exception", net("raise BaseException('odd')"), "check model.py --input 1,4",
     ["BaseException at model.py:9: odd"]),
    ("calls itself", net("return self(x)"), "check model.py", ["RecursionError at model.py:9"]),
    ("is a number", f"{NET}net = Net()\nnet.forward = 3\n", "check model.py",
     ["'int' object is not callable"]),
    ("wrong shape", NET, "check model.py --input 2,7",
     ["RuntimeError at model.py:9", "(2x7 and 4x8)", "Check the inputs"]),
    ("wrong name", NET, "check model.py --input y=2,4", ["argument 'y'", "The forward takes (x)"]),
    ("too many", NET, "check model.py --input 2,4 --input 2,4", ["3 were given", "The forward takes (x)"]),
    ("wrong shape, shown", {"model.py": NET}, "show model.py --input banana",
     ["`--input banana` is not an input"]),
]  # fmt: skip

INPUTS: list[Row] = [
    (f"--input {text}", NET, ["check", "model.py", "--input", text], words)
    for text, words in {
        "": ["`--input ` is not an input: expected [NAME=]SHAPE[:DTYPE][<BOUND]"],
        "banana": ["is not an input", "For example `--input 8,3,224,224`"],
        "-1": ["`--input -1` is not an input"],
        "2,-4": ["`--input 2,-4` is not an input"],
        "\u0662,4": ["is not an input"],
        "0,4": ["expected a batch with something in it", "(0, 4)"],
        "999999999,999999999": ["expected at most", "(999999999, 999999999)"],
        f"{10**30},4": ["expected at most"],
        "2,4:flot32": ["unknown dtype `flot32`", "Did you mean `float32`"],
        "2,4:float32<7": ["a bound (`<7`) is for integers, not for float32"],
        "2,4:int64<0": ["expected a bound from 1 to", "found 0"],
        "2,4:int8<50257": ["expected a bound from 1 to 127, found 50257"],
        f"2,4:int64<{10**30}": ["expected a bound from 1 to"],
    }.items()
]  # fmt: skip

OPTIONS: list[Row] = [
    ("input given twice", NET, "check model.py --input x=2,4 --input x=3,4", ["`x` is given twice"]),
    ("unknown command", NET, "chekc model.py", ["no such command: chekc", "Did you mean `check`?"]),
    ("file for a command", NET, "model.py", ["no such command", "normdoctor check model.py"]),
    ("unknown option", NET, "check model.py --banana", ["--banana"]),
    ("unknown rule", NET, "check model.py --select ND999", ["unknown rule `ND999`", "Did you mean"]),
    ("misspelt rule", NET, "check model.py --select bias-befor-norm", ["Did you mean `bias-before-norm`"]),
    ("unknown rule to ignore", NET, "check model.py --ignore zz", ["unknown rule `zz`", "normdoctor rules"]),
    ("empty selection", NET, ["check", "model.py", "--select", ""], ["--select names no rule"]),
    ("selection of commas", NET, "check model.py --select ,", ["--select names no rule"]),
    ("unknown severity", NET, "check model.py --fail-on banana", ["--fail-on", "'warning'"]),
    ("unknown confidence", NET, "check model.py --min-confidence x", ["--min-confidence", "'medium'"]),
    ("unknown format", NET, "check model.py --output-format xml", ["'xml'", "'json'"]),
    ("unknown device", NET, "check model.py --device banana",
     ["the device 'banana' cannot be used here", "cpu, cuda"]),
    ("device that is not there", NET, "check model.py --device xpu:77 --input 1,4",
     ["the device 'xpu:77' cannot be used here"]),
    ("unknown loss", NET, "check model.py --loss banana",
     ["unknown loss `banana`", "For example cross_entropy"]),
    ("misspelt loss", NET, "check model.py --loss cros_entropy", ["Did you mean `cross_entropy`"]),
    ("loss with arguments", NET, "check model.py --loss AdaptiveLogSoftmaxWithLoss",
     ["cannot be made without arguments"]),
    *((f"import timeout of {text}", NET, f"check model.py --import-timeout {text}",
     ["--import-timeout", text])
      for text in ("0", "-1", "nan", "inf", "1e+30", "abc")),
    ("report in a missing folder", NET, "check model.py --output-file no/such/a.txt",
     ["cannot write the report to no/such/a.txt"]),
    ("report over a folder", NET, "check model.py --output-file .", ["cannot write the report to ."]),
    ("report over the source", NET, "check model.py --output-file model.py",
     ["model.py would be overwritten", "report.txt"]),
    ("report over the source, by a link", {"model.py": NET, "out.txt": "-> model.py"},
     "check model.py --output-file out.txt", ["out.txt would be overwritten"]),
    ("two reports of one file by two names", {"model.py": NET, "sub/a": ""},
     "check model.py --output-format json --output-file a.json --output-format sarif"
     " --output-file sub/../a.json", ["two reports would go to a.json"]),
    ("report over the facts", NET, "check model.py --output-file a.json --save-facts a.json",
     ["--output-file a.json and --save-facts would be one file", "Name two files"]),
    ("report over the weights", {"model.py": NET, "w.pt": "weights"},
     "check model.py --output-file w.pt --weights w.pt", ["--weights and --output-file w.pt"]),
    ("report over the baseline", NET,
     "check model.py --baseline b.json --write-baseline --output-file b.json",
     ["--baseline and --output-file b.json"]),
    ("report of links that go round", {"model.py": NET, "a.txt": "-> a.txt"},
     "check model.py --output-file a.txt", ["cannot write"]),
    ("baseline of another schema", {"model.py": NET, "b.json": '{"schema_version": 9}'},
     "check model.py --baseline b.json --write-baseline", ["schema_version is 9", "Remove it and write"]),
    *((f"{option} that is empty", NET, f"check model.py {option}=", [f"{option} is empty", "leave it out"])
      for option in ("--loss", "--optimizer", "--reference", "--data", "--device")),
    *((f"{option}: object that answers nothing", {"model.py": NET, "odd.py": HOSTILE},
     f"check model.py {option} odd.py:odd", ["own code raised RuntimeError at odd.py:4"])
      for option in ("--loss", "--optimizer", "--reference", "--data")),
    *((f"{option}: {name}", {"model.py": NET, "t.py": TOOLS}, f"check model.py {option} t.py:{name}", [words])
      for option, name, words in (
        ("--loss", "leaves()", "could not be made: SystemExit: 3"),
        ("--optimizer", "make", "SystemExit: 3"),
        ("--data", "leaves", "could not be made: SystemExit: 3"),
        ("--data", "midway", "could not be read after 1 batches: SystemExit: 4"),
        ("--data", "nothing", "found t.py:nothing to be a NoneType (None)"),
        ("--data", "meta", "batch 0 of t.py:meta cannot be put on cpu: NotImplementedError"),
        ("--data", "loader", "could not be read after 0 batches: ValueError: no such sample"),
    )),
    ("too many batches", NET, f"check model.py --data synthetic --batches {10**20}", ["of at most"]),
    ("a batch of terabytes", NET, f"check model.py --data synthetic --input 2,4 --batch-size {10**14}",
     ["a synthetic batch cannot be made", "Try a smaller batch size"]),
    ("facts over the source", NET, "check model.py --save-facts model.py", ["model.py would be overwritten"]),
    ("facts in a missing folder", NET, "check model.py --save-facts no/such/a.json",
     ["cannot write the facts"]),
    ("flags that contradict", NET, "check model.py --exit-zero --fail-on info",
     ["--exit-zero", "contradict each other"]),
    ("config and no config", NET, "check model.py --config c.toml --isolated",
     ["contradict each other", "Give one of them"]),
    ("facts and a target", NET, "check model.py --from-facts f.json",
     ["--from-facts takes the place of TARGET"]),
    ("show nothing", NET, "show", ["nothing to show: expected a TARGET"]),
    ("explain an unknown rule", NET, "explain ND998", ["unknown rule `ND998`"]),
    ("explain nothing", NET, "explain", ["expected one rule, or --all"]),
    ("explain two rules", NET, "explain ND101 ND102", ["ND102"]),
    ("list an unknown rule", NET, "rules --select nope", ["unknown rule `nope`"]),
]  # fmt: skip

CONFIGS: list[Row] = [
    (f"config: {text!r}", {"model.py": NET, "c.toml": text}, "check model.py --config c.toml",
     ["c.toml", *words])
    for text, words in {
        "a = = 1": ["not valid TOML"],
        b"\xff": ["cannot be read"],
        "select = 3": ["select: expected `array`, found `int`"],
        "selcet = ['ND1']": ["selcet: unknown option, did you mean `select`?"],
        "select = ['ND987']": ["select: unknown rule `ND987`"],
        "fail-on = 'banana'": ["fail-on", "`warning`"],
        "import-timeout = -3": ["import-timeout: expected more than 0", "found -3"],
        "import-timeout = nan": ["import-timeout: expected more than 0", "found nan"],
        "[rules]\nND101 = 'loud'": ["rules.ND101: expected one of", "found `loud`"],
        "[options.ND101]\nfoo = 1": ["options.ND101.foo: unknown option"],
    }.items()
] + [
    ("config that is missing", NET, "check model.py --config no.toml", ["no such file: no.toml", "TOML"]),
    ("config that is a folder", NET, "check model.py --config .", ["cannot be read"]),
    ("pyproject.toml that is none", {"model.py": NET, "pyproject.toml": "a ="}, "check model.py",
     ["pyproject.toml: not valid TOML"]),
    ("pyproject.toml with a text", {"pyproject.toml": "[tool]\nnormdoctor = 'x'\n"}, "check model.py",
     ["pyproject.toml: tool.normdoctor: expected a table, found 'x'"]),
    ("config with a missing target", {"model.py": NET, "c.toml": "targets = ['modle.py']"},
     "check --config c.toml",
     ["no such file", "Did you mean `model.py`?"]),
    ("config with a bad input", {"model.py": NET, "c.toml": "inputs = ['nope']"},
     "check model.py --config c.toml",
     ["`--input nope` is not an input"]),
]  # fmt: skip

FACTS: list[Row] = [
    (f"facts: {text!r}", {"f.json": text}, "check --from-facts f.json",
     ["f.json does not hold facts", "--save-facts", *words])
    for text, words in {
        "": ["truncated"],
        b"\x80\x02": ["malformed"],
        '{"a": 1}': ["missing required field `target`"],
        "[]": ["the list is empty"],
        "[[]]": ["Expected `object`"],
        LOOSE % '"inputs": [7]': ["node 0 refers to node 7 of 1"],
        LOOSE % '"module": "fc"': ["node 0 is of the module `fc`, which is missing"],
    }.items()
] + [
    ("facts that are missing", {}, "check --from-facts no.json",
     ["cannot read facts from no.json", "--save-facts"]),
    ("facts that are a folder", {}, "show --from-facts .", ["cannot read facts from ."]),
]  # fmt: skip

TABLE = [*FILES, *TARGETS, *IMPORTS, *FORWARDS, *INPUTS, *OPTIONS, *CONFIGS, *FACTS]


def written(folder: Path, files: str | dict[str, str | bytes | None]) -> None:
    for name, content in ({"model.py": files} if isinstance(files, str) else files).items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, str) and content.startswith("-> "):
            path.symlink_to(content[3:])
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content or b"")


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def assert_one_error(stdout: str, stderr: str, words: list[str]) -> None:
    errors = [line for line in stderr.splitlines() if line.startswith("Error:")]
    assert len(errors) == 1, stderr[-2000:]
    assert not [line for line in stdout.splitlines() if line.startswith("Error:")]
    assert "Traceback" not in stdout + stderr
    assert "internal error" not in errors[0]
    assert "\x1b" not in stdout + stderr
    message = stderr[stderr.index(errors[0]) :]
    assert len(message.splitlines()) <= 2, "the error, and at most one line of advice"
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("files", "line", "words"), [row[1:] for row in TABLE], ids=[row[0][:60] for row in TABLE]
)
def test_one_clear_error(
    cli: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: str | dict[str, str | bytes | None],
    line: str | list[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, files)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    before, modules = snapshot(tmp_path), set(sys.modules)
    streams = sys.stdout, sys.stderr, sys.stdin
    result = cli(*(line.split() if isinstance(line, str) else line))
    assert result.exit_code == 2, result.output[-2000:]
    assert_one_error(result.stdout, result.stderr, words)
    assert snapshot(tmp_path) == before, "the folder is as it was, without __pycache__"
    assert Path.cwd() == tmp_path
    assert (sys.stdout, sys.stderr, sys.stdin) == streams
    assert not {"model", "a", "b"} & (set(sys.modules) - modules)


def test_every_kind_is_its_own() -> None:
    names = [row[0] for row in TABLE]
    assert len({(str(row[1]), str(row[2])) for row in TABLE}) == len(names) >= 34


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_read_permission(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, NET)
    (tmp_path / "model.py").chmod(0)
    result = cli("check", "model.py")
    assert result.exit_code == 2
    assert_one_error(
        result.stdout, result.stderr, ["expected Python source in model.py", "Permission denied"]
    )


#: What can only be seen from outside of the process: a model.py, words of the error.
PROCESSES = {
    "swallows every exception": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass\n",
        ["time limit of 1 s"],
    ),
    "leaves the process": ("import os\nos._exit(0)\n", ["model.py:2", "sys.exit(0)"]),
    "closes the streams": ("import sys\nsys.stdout.close()\nsys.stderr.close()\n", ["no model in model.py"]),
    "thread without end": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1e6,)).start()\n",
        ["no model in model.py"],
    ),
    "child that leaves": (
        "import os\nif os.fork() == 0: os._exit(0)\nos.wait()\n",
        ["no model in model.py"],
    ),
    "asks a question": ("name = input()\n", ["EOFError"]),
}


@pytest.mark.parametrize("kind", PROCESSES)
def test_the_process_ends_in_one_clear_error(tmp_path: Path, kind: str) -> None:
    source, words = PROCESSES[kind]
    written(tmp_path, source)
    result = subprocess.run(
        [sys.executable, "-m", "normdoctor", "check", "model.py", "--import-timeout", "1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 2, result.stderr
    assert_one_error(result.stdout, result.stderr, words)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "model.py"]


def test_an_endless_forward_is_interrupted(tmp_path: Path) -> None:
    mark = "open('running', 'w').close()"
    written(tmp_path, net(f"{mark}\n        while True: pass"))
    command = [sys.executable, "-m", "normdoctor", "check", "model.py"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # shells' jobs ignore it
    )  # fmt: skip
    try:
        for _ in range(1200):
            if (tmp_path / "running").exists():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 2
    assert stderr == "Interrupted.\n"


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    code = "import os; os.rmdir(os.getcwd()); from normdoctor.cli import main; main(['check', 'model.py'])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "gone", capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert_one_error(result.stdout, result.stderr, ["the current folder does not exist any more"])


def test_one_bad_model_does_not_hide_the_others(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raises = NET + "    def named_parameters(self, *a, **k): raise ValueError('p')\n"
    written(tmp_path, {"good.py": NET, "bad.py": raises, "worse.py": UNSOUND})
    result = cli("check", "bad.py", "worse.py:Net", "good.py")
    assert result.exit_code == 2
    assert [line[:6] for line in result.stderr.splitlines() if line.startswith("Error")] == ["Error:"] * 2
    assert "2 errors in" in result.stdout
    assert "13 rules" in result.stdout or "passed" in result.stdout
