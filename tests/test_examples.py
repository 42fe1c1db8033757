"""The examples: each runs, and `check` and `show` say of it what a teacher would."""

import linecache
import runpy
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import normdoctor
from normdoctor.cli import main

ROOT = Path(__file__).parent.parent
#: Scripts that need a framework; tests/integrations runs them.
FRAMEWORKS = {"train_accelerate.py", "train_lightning.py", "train_transformers.py"}
#: Suites for pytest, which tests/plugin runs, are none either.
FILES = sorted(
    file
    for file in (ROOT / "examples").glob("*.py")
    if file.name not in FRAMEWORKS and not file.name.startswith("test_")
)

#: Every finding: file, code, severity, module, and how the line that it points at begins.
FINDINGS = [
    *(
        ("faulty_net.py", code, level, f"blocks.{block}.{layer}", line)
        for block in range(3)
        for code, level, layer, line in (
            ("ND101", "info", "conv", "self.conv = nn.Conv2d(width, width, 3, padding=1)"),
            ("ND201", "error", "norm", "self.norm = nn.BatchNorm2d(width, width)"),
            ("ND315", "error", "relu", "self.relu = nn.ReLU(inplace=True)"),
        )
    ),
    ("faulty_net.py", "ND310", "error", "", "return torch.softmax(self.head(x), dim=1)"),
    ("lenet_bn.py", "ND101", "info", "classifier.1", "nn.Linear(16 * 5 * 5, 120),"),
    ("lenet_bn.py", "ND101", "info", "classifier.4", "nn.Linear(120, 84),"),
    ("lenet_bn.py", "ND101", "info", "features.0", "nn.Conv2d(1, 6, kernel_size=5, padding=2),"),
    ("lenet_bn.py", "ND101", "info", "features.4", "nn.Conv2d(6, 16, kernel_size=5),"),
    ("lenet_sigmoid_bn.py", "ND101", "info", "classifier.1", "nn.Linear(16 * 5 * 5, 120),"),
    ("lenet_sigmoid_bn.py", "ND101", "info", "classifier.4", "nn.Linear(120, 84),"),
    ("lenet_sigmoid_bn.py", "ND101", "info", "features.0", "nn.Conv2d(1, 6, kernel_size=5, padding=2),"),
    ("lenet_sigmoid_bn.py", "ND101", "info", "features.4", "nn.Conv2d(6, 16, kernel_size=5),"),
    *(
        ("lenet_sigmoid_bn.py", code, level, norm, line)
        for norm in ("features.1", "features.5", "classifier.2", "classifier.5")
        for code, level, line in (
            (
                "ND503",
                "error",
                "self.moving_mean = (1 - self.momentum) * self.moving_mean + self.momentum * mean.detach()",
            ),
            (
                "ND503",
                "error",
                "self.moving_var = (1 - self.momentum) * self.moving_var + self.momentum * var.detach()",
            ),
            ("ND901", "info", "return self.gamma * (x - mean) / torch.sqrt(var + self.eps) + self.beta"),
            ("ND903", "error", "return self.gamma * (x - mean) / torch.sqrt(var + self.eps) + self.beta"),
        )
    ),
    ("mlp_init.py", "ND304", "info", "net.1", "nn.Sigmoid(),"),
    *(
        ("tutorial_net.py", code, level, f"features.{block}.{layer}", line)
        for block in (0, 2)
        for code, level, layer, line in (
            ("ND101", "info", "conv", "self.conv = nn.Conv2d(inner, outer, 3, padding=1)"),
            ("ND202", "error", "norm", "self.norm = nn.BatchNorm2d(outer, momentum=0.99)"),
        )
    ),
    ("tutorial_net.py", "ND301", "warning", "head", "self.head = nn.Linear(64, classes)"),
    ("tutorial_net.py", "ND310", "error", "", "return torch.softmax(self.head(self.hidden(x)), dim=1)"),
]

#: What `show` says: rows as their cells without the shapes between, and the totals.
SHOWN = {
    "bn_to_gn.py": (
        ["stem.1 BatchNorm2d", "blocks.2.skip.1 BatchNorm2d", "head Linear"],
        ["15 norms: 15 BatchNorm2d", "174,970 parameters"],
    ),
    "cnn_instancenorm.py": (
        ["down.0.1 InstanceNorm2d", "blocks.0.norm InstanceNorm2d", "up.2 ReLU", "out Conv2d"],
        ["7 norms: 7 InstanceNorm2d", "54,243 parameters"],
    ),
    "faulty_net.py": (
        ["stem Conv2d", "blocks.2.norm BatchNorm2d", "head Linear"],
        ["3 norms: 3 BatchNorm2d", "7,674 parameters"],
    ),
    "lenet_bn.py": (
        ["features.1 BatchNorm2d", "features.2 Sigmoid", "classifier.5 BatchNorm1d"],
        ["4 norms: 2 BatchNorm1d, 2 BatchNorm2d", "4 activations: 4 Sigmoid", "62,158 parameters"],
    ),
    "lenet_sigmoid_bn.py": (
        ["features.0 Conv2d", "features.2 Sigmoid", "classifier.7 Linear"],
        ["4 activations: 4 Sigmoid", "62,158 parameters"],
    ),
    "lstm_layernorm.py": (
        ["embedding Embedding", "lstm LSTM", "norm LayerNorm", "head Linear"],
        ["1 LayerNorm", "551,938 parameters"],
    ),
    "mlp_init.py": (
        ["net.0 Linear", "net.1 Sigmoid", "net.3 ReLU", "net.5 Softmax"],
        ["3 activations: 1 ReLU, 1 Sigmoid, 1 Softmax", "269,322 parameters"],
    ),
    "prenorm_transformer.py": (
        ["blocks.0.norm1 LayerNorm", "blocks.3.attention.qkv Linear", "blocks.1 gelu", "head Linear"],
        ["9 norms: 9 LayerNorm", "241,024 parameters"],
    ),
    "train_plain.py": (
        ["body.0.1 BatchNorm2d", "body.1.2 ReLU", "head Linear"],
        ["2 norms: 2 BatchNorm2d", "5,268 parameters"],
    ),
    "watch_ddp.py": (
        ["body.0.1 BatchNorm2d", "body.2.2 ReLU", "head Linear"],
        ["3 norms: 3 BatchNorm2d", "24,346 parameters"],
    ),
    "small_batch.py": (
        ["blocks.0.1 BatchNorm2d", "blocks.5.2 ReLU", "head Linear"],
        ["6 norms: 6 BatchNorm2d", "6 activations: 6 ReLU", "72,666 parameters"],
    ),
    "small_resnet.py": (
        ["stem.1 BatchNorm2d", "blocks.2.skip.1 BatchNorm2d", "blocks.5 relu", "head Linear"],
        ["15 norms: 15 BatchNorm2d", "175,258 parameters"],
    ),
    "tutorial_net.py": (
        ["stem Conv2d", "features.2.norm BatchNorm2d", "hidden Linear"],
        ["2 norms: 2 BatchNorm2d", "9,978 parameters"],
    ),
    "tutorial_net_mended.py": (
        ["stem Conv2d", "features.2.norm BatchNorm2d", "head Linear"],
        ["2 norms: 2 BatchNorm2d", "9,930 parameters"],
    ),
}


@pytest.fixture(autouse=True)
def _root(monkeypatch):
    monkeypatch.chdir(ROOT)


def load(name):
    return runpy.run_path(str(ROOT / "examples" / name))


def test_all_are_pinned():
    assert sorted(SHOWN) == [file.name for file in FILES]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_check(file):
    report = normdoctor.check(f"examples/{file.name}")
    found = {
        (file.name, f.code, f.severity.value, module, linecache.getline(str(file), f.location.line).strip())
        for f in report.findings
        for module in f.modules
    }
    assert found == {expected for expected in FINDINGS if expected[0] == file.name}
    assert report.ok == all(finding.severity == "info" for finding in report.findings)
    assert not report.problems
    assert report.targets[0].recorded == "meta"
    assert [entry.source for entry in report.targets[0].inputs] == ["declared"]
    # Whatever did not run was not asked for: a loss, an optimizer, data.
    assert all(
        "recorded" not in result.reason and "weights" not in result.reason for result in report.skipped
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_show(file):
    result = CliRunner().invoke(main, ["show", f"examples/{file.name}"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    rows, totals = SHOWN[file.name]
    for row in rows:
        assert any(line.startswith(row + " ") for line in lines), row
    for total in totals:
        assert total in result.output


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_trains(file):
    found = load(file.name)
    model = found["model"].train()
    model(found["inputs"]).float().square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_softmax_of_the_mlp_does_not_go_with_cross_entropy():
    found = load("mlp_init.py")
    report = normdoctor.check(
        found["model"], found["inputs"], loss=nn.CrossEntropyLoss(), labels=torch.zeros(32).long()
    )
    assert [(f.code, f.severity.value) for f in report.findings] == [("ND304", "info"), ("ND310", "error")]
    labels = torch.randint(10, (32,))
    fitting = normdoctor.check(
        found["model"], found["inputs"], loss=found["negative_log_likelihood"], labels=labels
    )
    assert [(f.code, f.severity.value) for f in fitting.findings] == [("ND304", "info")]


class TestHandWritten:
    """What the docstring of lenet_sigmoid_bn.py says of its BatchNorm."""

    def pair(self):
        return load("lenet_sigmoid_bn.py")["BatchNorm"](6, dims=4), nn.BatchNorm2d(6)

    def test_the_formula_is_right(self):
        own, theirs = self.pair()
        x = torch.randn(4, 6, 5, 5) * 3 + 1
        torch.testing.assert_close(own(x), theirs(x))
        torch.testing.assert_close(own.moving_mean.flatten(), theirs.running_mean)
        with torch.no_grad():
            torch.testing.assert_close(own(x), theirs.eval()(x), rtol=1e-2, atol=1e-2)

    def test_the_statistics_are_not_saved(self):
        own, _ = self.pair()
        assert list(own.state_dict()) == ["gamma", "beta"]

    def test_eval_has_no_effect(self):
        own, _ = self.pair()
        before = own.eval().moving_mean
        own(torch.randn(4, 6, 5, 5))
        assert not torch.equal(own.moving_mean, before)


def test_hand_written_norms_are_counted():
    (target,) = normdoctor.check("examples/lenet_sigmoid_bn.py").targets
    assert target.norms == {"BatchNorm": 4}
    assert not any("hand-written" in note for note in target.notes)
