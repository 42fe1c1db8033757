"""Losses in source code as people write them: helpers, named outputs, evaluation paths, other files."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from normdoctor.loading.sourceloss import SourceLoss, losses_in
from normdoctor.loading.target import load

HEAD = """
import torch
import torch.nn as nn
import torch.nn.functional as F

class Net(nn.Module):
    def forward(self, x):
        return self.fc(x)

net = Net()
"""


def losses(code: str) -> list[SourceLoss]:
    return list(losses_in(HEAD + textwrap.dedent(code), "model.py"))


@pytest.mark.parametrize(
    ("code", "kind", "key", "argument", "through", "dims"),
    [
        ('out = net(x)\nF.mse_loss(out["age"], y)', "mse_loss", "age", None, (), ()),
        ("out = net(x)\nF.cross_entropy(out.scores, y)", "cross_entropy", "scores", None, (), ()),
        ("pred, *rest = net(x)\nF.cross_entropy(pred, y)", "cross_entropy", None, 0, (), ()),
        (
            "p = F.softmax(net(x), dim=-1)\nF.cross_entropy(p, y)",
            "cross_entropy", None, None, ("softmax",), (-1,),
        ),
        ("F.cross_entropy(nn.Softmax(1)(net(x)), y)", "cross_entropy", None, None, ("softmax",), (1,)),
        ("nn.NLLLoss()(torch.log(net(x)), y)", "nll_loss", None, None, ("log",), (None,)),
        ("criterion = F.cross_entropy\ncriterion(net(x), y)", "cross_entropy", None, None, (), ()),
        (
            "logp = F.log_softmax(net(x).softmax(1), 1)\nloss = -(logp * onehot).sum(1).mean()",
            "cross_entropy", None, None, ("softmax",), (1,),
        ),
        (
            "def loss_fn(out, y):\n    return F.cross_entropy(out, y)\nloss_fn(net(x), y)",
            "cross_entropy", None, None, (), ()
        ),
        (
            "def total(o, y):\n    return F.cross_entropy(torch.softmax(o['cls'], 1), y)\ntotal(net(x), y)",
            "cross_entropy", "cls", None, ("softmax",), (1,),
        ),
        (
            "def inner(a, y):\n    return F.cross_entropy(a, y)\n"
            "def outer(b, y):\n    return inner(b[1], y)\nouter(net(x), y)",
            "cross_entropy", None, 1, (), (),
        ),
        (
            "class Smooth(nn.Module):\n    def forward(self, o, y):\n        return F.cross_entropy(o, y)\n"
            "criterion = Smooth()\ncriterion(net(x).softmax(-1), y)",
            "cross_entropy", None, None, ("softmax",), (-1,),
        ),
        (
            "def step(model, loss_fn):\n    return loss_fn(model(x), y)\nstep(net, nn.BCEWithLogitsLoss())",
            "binary_cross_entropy_with_logits", None, None, (), (),
        ),
    ],
)  # fmt: skip
def test_forms(code, kind, key, argument, through, dims) -> None:
    found = losses(code)
    assert [(one.kind, one.key, one.argument, one.through, one.dims) for one in found] == [
        (kind, key, argument, through, dims)
    ]


@pytest.mark.parametrize(
    ("code", "path"),
    [
        ("F.cross_entropy(net(x), y)", ""),
        ("with torch.no_grad():\n    F.cross_entropy(net(x), y)", "evaluation"),
        ("def validate():\n    net.eval()\n    F.cross_entropy(net(x), y)", "evaluation"),
        ("@torch.inference_mode()\ndef score():\n    F.cross_entropy(net(x), y)", "evaluation"),
        ("def train_epoch():\n    F.cross_entropy(net(x), y)", ""),
        ("def retrieval():\n    F.cross_entropy(net(x), y)", ""),
    ],
)
def test_paths_that_do_not_train(code: str, path: str) -> None:
    (loss,) = losses(code)
    assert loss.path == path


@pytest.mark.parametrize(
    "code",
    [
        "out = net(x)\nF.cross_entropy(out.shape, y)",
        "out = net(x)[0]\nF.cross_entropy(out['a'], y)",  # a part of a part
        "kd = -(F.log_softmax(teacher_scores, 1) * p).sum()",  # no model's output
        "def loss_fn(out, y):\n    return F.cross_entropy(y, out)\nloss_fn(net(x), y)",
    ],
)
def test_what_is_not_known_is_not_claimed(code: str) -> None:
    assert losses(code) == []


def test_the_script_beside_the_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(HEAD.replace("net = Net()", "class Other(Net):\n    pass\n"))
    (tmp_path / "train.py").write_text(
        "import torch\nimport torch.nn.functional as F\nfrom nets import Net\n"
        "def main():\n    model = Net().cuda()\n    return F.cross_entropy(model(x), y)\n"
    )
    (tmp_path / "alien.py").write_text(
        "import torch\nimport torch.nn.functional as F\nmodel = Net()\nF.mse_loss(model(x), y)\n"
    )
    (net,) = load(f"{tmp_path / 'nets.py'}:Net")
    assert [loss.kind for loss in net.losses] == ["cross_entropy"]
    (other,) = load(f"{tmp_path / 'nets.py'}:Other")
    assert [loss.kind for loss in other.losses] == ["cross_entropy"]  # an Other is a Net


def test_a_model_of_another_class_is_not_meant(tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    file.write_text(
        HEAD.replace("net = Net()", "class Critic(Net):\n    pass\n")
        + "def main():\n    critic = Critic()\n    return nn.BCELoss()(critic(x), y)\n"
    )
    (net,) = load(f"{file}:Net")
    assert net.losses == ()
