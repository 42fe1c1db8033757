from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from normdoctor.loading.sourceloss import SourceLoss, losses_in

HEAD = """
import torch
import torch.nn as nn
import torch.nn.functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x)

net = Net()
"""


def losses(code: str, head: str = HEAD) -> list[SourceLoss]:
    return list(losses_in(head + textwrap.dedent(code), "model.py"))


def brief(code: str, head: str = HEAD) -> list[tuple[object, ...]]:
    return [(loss.kind, loss.model, loss.argument, loss.through) for loss in losses(code, head)]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("c = nn.CrossEntropyLoss()\nout = net(x)\nloss = c(out, y)", ("cross_entropy", "net", None, ())),
        ("loss = F.cross_entropy(net(x), y)", ("cross_entropy", "net", None, ())),
        ("loss = torch.nn.functional.nll_loss(net(x), y)", ("nll_loss", "net", None, ())),
        ("loss = nn.BCELoss()(net(x), y)", ("binary_cross_entropy", "net", None, ())),
        (
            "c = nn.BCEWithLogitsLoss()\nc(net(x).squeeze(1), y)",
            ("binary_cross_entropy_with_logits", "net", None, ()),
        ),
        ("F.mse_loss(input=net(x), target=y)", ("mse_loss", "net", None, ())),
        (
            "c = nn.CrossEntropyLoss()\nc(F.softmax(net(x), dim=1), y)",
            ("cross_entropy", "net", None, ("softmax",)),
        ),
        (
            "out = torch.log_softmax(net(x), 1)\nF.nll_loss(out, y)",
            ("nll_loss", "net", None, ("log_softmax",)),
        ),
        (
            "p = net(x).softmax(-1)\nF.nll_loss(torch.log(p), y)",
            ("nll_loss", "net", None, ("softmax", "log")),
        ),
        ("s = nn.Sigmoid()\nF.mse_loss(s(net(x)), y)", ("mse_loss", "net", None, ("sigmoid",))),
        ("out, aux = net(x)\nF.cross_entropy(aux, y)", ("cross_entropy", "net", 1, ())),
        ("out = net(x)\nF.cross_entropy(out[0], y)", ("cross_entropy", "net", 0, ())),
        ("out = net(x)\nF.cross_entropy(out.logits, y)", ("cross_entropy", "net", None, ())),
        (
            "for x, y in data:\n    with torch.no_grad():\n        F.l1_loss(net(x), y)",
            ("l1_loss", "net", None, ()),
        ),
    ],
)
def test_one_loss(code: str, expected: tuple[object, ...]) -> None:
    assert brief(code) == [expected]


def test_a_function_that_trains_takes_the_name_of_its_caller() -> None:
    code = """
    def train(model, criterion):
        model.train()
        output = model(x)
        loss = criterion(output, y)

    train(net, nn.CrossEntropyLoss())
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    """
    (loss,) = losses(code)
    assert (loss.kind, loss.model, loss.config) == ("cross_entropy", "net", {})  # what the caller gives


def test_both_losses_of_a_sum_are_found_with_their_outputs() -> None:
    code = "c = nn.CrossEntropyLoss()\nout, aux = net(x)\nloss = c(out, y) + 0.4 * c(aux, y)"
    assert [row[2] for row in brief(code)] == [0, 1]


def test_a_gan_names_the_model_of_each_loss() -> None:
    code = """
    netD, netG = Net(), Net()
    netD.train(); netG.train()
    bce = nn.BCELoss()
    real = bce(netD(x).view(-1), ones)
    fake = netG(z)
    pixel = F.l1_loss(fake, x)
    loss = bce(netD(fake), zeros)
    """
    assert [row[:2] for row in brief(code)] == [
        ("binary_cross_entropy", "netD"),
        ("l1_loss", "netG"),
        ("binary_cross_entropy", "netD"),
    ]


def test_a_lightning_step_belongs_to_its_class() -> None:
    code = """
    class Lit(pl.LightningModule):
        def __init__(self):
            self.model = Net()
            self.criterion = nn.CrossEntropyLoss()

        def forward(self, x):
            return self.model(x)

        def training_step(self, batch, index):
            return self.criterion(self(batch[0]), batch[1])

        def validation_step(self, batch, index):
            logits = self.model(batch[0])
            return F.cross_entropy(logits, batch[1])

        def other(self, batch):
            return F.mse_loss(self.encoder(batch), batch)
    """
    assert [row[:2] for row in brief(code)] == [
        ("cross_entropy", "Lit"),
        ("cross_entropy", "Lit"),
        ("mse_loss", "Lit.encoder"),
    ]


def test_a_trainer_class_names_the_model_that_it_holds() -> None:
    code = """
    class Trainer:
        def __init__(self, model):
            self.model = model
            self.criterion = nn.CrossEntropyLoss()

        def step(self, x, y):
            self.model.train()
            out = self.model(x)
            return self.criterion(out, y)
    """
    assert brief(code) == [("cross_entropy", "model", None, ())]


def test_a_loss_inside_forward_counts_only_for_what_is_returned() -> None:
    code = """
    class GPT(nn.Module):
        def forward(self, idx, targets=None):
            x = self.blocks(idx)
            hidden = self.side(x)
            balance = F.mse_loss(hidden, idx)
            if targets is not None:
                logits = self.head(x)
                loss = F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)
            else:
                logits = self.head(x[:, [-1], :])
                loss = None
            return logits, loss
    """
    (loss,) = losses(code)
    assert (loss.kind, loss.model, loss.argument) == ("cross_entropy", "GPT", 0)
    assert loss.config == {"ignore_index": -1}


def test_the_location_is_the_call_in_characters() -> None:
    code = "é = 'é'; loss = F.cross_entropy(net(x), y)"
    (loss,) = losses(code)
    text = (HEAD + code).splitlines()[loss.location.line - 1]
    assert text[loss.location.column - 1 : loss.location.end_column - 1] == "F.cross_entropy(net(x), y)"


@pytest.mark.parametrize(
    "code",
    [
        "class Focal(nn.Module):\n    pass\nc = Focal()\nc(net(x), y)",  # the user's own loss
        "c = nn.CrossEntropyLoss() if a else nn.MSELoss()\nc(net(x), y)",
        "c = nn.CrossEntropyLoss()\nc = nn.MSELoss()\nc(net(x), y)",  # two meanings of one name
        "F.cross_entropy(net(x) * 2, y)",
        "F.cross_entropy(load(x), y)",  # not a model
        "F.cross_entropy(x, y)",
        "out = net(x)\nout = prepare(out)\nF.cross_entropy(out, y)",
        "crossentropy = lambda a, b: a\ncrossentropy(net(x), y)",
        "out, aux = net(x)\nF.cross_entropy(aux.mean(), y)",
    ],
)
def test_what_is_not_known_is_not_claimed(code: str) -> None:
    assert losses(code) == []


def test_imports_decide_what_a_name_means() -> None:
    head = HEAD.replace(
        "import torch.nn.functional as F", "from torch.nn.functional import cross_entropy as ce"
    )
    assert brief("ce(net(x), y)", head) == [("cross_entropy", "net", None, ())]
    assert brief("F.cross_entropy(net(x), y)", head) == []


def test_it_does_not_import_torch() -> None:
    code = "import sys, normdoctor.loading.sourceloss; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_loss_that_is_built_and_handed_on_counts_when_it_is_the_only_one() -> None:
    source = (
        "from torch import nn\nloss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)\ntrainer(net, loss_fn)\n"
    )
    (loss,) = losses_in(source, "train.py")
    assert (loss.kind, loss.model, loss.location.line) == ("cross_entropy", None, 2)
    assert loss.config == {"label_smoothing": 0.1}
    assert losses_in(source + "other = nn.NLLLoss()\n", "train.py") == ()


def test_a_model_that_a_function_is_given() -> None:
    source = (
        "from torch import nn\n"
        "class Net(nn.Module):\n    pass\n"
        "criterion = nn.CrossEntropyLoss()\n"
        "def step(net: Net, x, y):\n    return criterion(net(x), y)\n"
    )
    (loss,) = losses_in(source, "train.py")
    assert (loss.model, loss.location.line) == ("Net", 6)
