"""Losses that are given: whatever form the result, the labels and the loss have, its call is recorded."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normdoctor.errors import UsageError
from normdoctor.loading.target import from_object
from normdoctor.tracing.examine import Examination, Request, examine
from normdoctor.tracing.losses import find_loss

LABELS = torch.tensor([0, 1, 2, 1, 0])


@dataclass
class Output:
    logits: torch.Tensor
    aux: torch.Tensor


class Net(nn.Module):
    def __init__(self, form="tensor"):
        super().__init__()
        self.fc, self.aux, self.form = nn.Linear(4, 3), nn.Linear(4, 1), form

    def forward(self, x):
        y, a = self.fc(x), self.aux(x)
        forms = {
            "tensor": y, "tuple": (y, a), "dict": {"cls": y, "age": a}, "named": {"aux": a, "logits": y},
            "dataclass": Output(y, a), "three": (y, y + 1, y.exp()),
        }  # fmt: skip
        return forms[self.form]


class Focal(nn.Module):
    """A loss with a buffer, a norm with statistics, and logarithms of its own."""

    def __init__(self):
        super().__init__()
        self.register_buffer("alpha", torch.ones(3))
        self.norm = nn.BatchNorm1d(3)

    def forward(self, out, y):
        logs = F.log_softmax(self.norm(out), -1)
        return -(self.alpha[y] * ((1 - logs.exp()) ** 2 * logs).gather(1, y[:, None])[:, 0]).mean()


def both(out, y):
    return F.cross_entropy(out["cls"], y["cls"]) + F.mse_loss(out["age"], y["age"])


def one_hot(out, y):
    return -(F.log_softmax(out, 1) * F.one_hot(y, 3)).sum(1).mean()


def masked(out, y):
    return F.cross_entropy(out[y != 1], y[y != 1])


def examined(loss, labels=None, form="tensor") -> Examination:
    model = Net(form)
    return examine(from_object(model), Request(inputs=torch.zeros(5, 4), loss=loss, labels=labels))


@pytest.mark.parametrize(
    ("form", "loss", "labels", "expected"),
    [
        ("tensor", nn.CrossEntropyLoss(weight=torch.ones(3), ignore_index=1), LABELS, ["cross_entropy"]),
        ("tensor", nn.CrossEntropyLoss(), F.one_hot(LABELS, 3).float(), ["cross_entropy"]),
        ("tensor", nn.CrossEntropyLoss, None, ["cross_entropy"]),
        ("tensor", "BCEWithLogitsLoss", None, ["binary_cross_entropy_with_logits"]),
        ("tensor", Focal(), LABELS, ["cross_entropy"]),
        ("tuple", Focal(), None, ["cross_entropy"]),
        ("tensor", one_hot, LABELS, ["cross_entropy"]),
        ("tensor", masked, LABELS, ["cross_entropy"]),
        ("dict", both, {"cls": LABELS, "age": torch.zeros(5, 1)}, ["cross_entropy", "mse_loss"]),
        ("dict", both, None, ["cross_entropy", "mse_loss"]),
        ("named", nn.CrossEntropyLoss(), LABELS, ["cross_entropy"]),
        ("dataclass", nn.CrossEntropyLoss(), LABELS, ["cross_entropy"]),
        ("dataclass", lambda out, y: F.cross_entropy(out.logits, y), LABELS, ["cross_entropy"]),
        ("tuple", lambda out, a, b: F.cross_entropy(out[0], a) + F.l1_loss(out[1], b),
         (LABELS, torch.zeros(5, 1)), ["cross_entropy", "l1_loss"]),
        ("three", nn.TripletMarginLoss(), None, []),
        ("three", lambda r, x, mu, logvar: F.mse_loss(r, x) + (mu * logvar).sum(), None, ["mse_loss"]),
        ("tensor", lambda out: F.mse_loss(out, torch.zeros(5, 3)), None, ["mse_loss"]),
    ],
)  # fmt: skip
def test_the_call_is_recorded(form, loss, labels, expected) -> None:
    examination = examined(loss, labels, form)
    assert examination.error is None, examination.error
    facts = examination.facts
    assert sorted({one.kind for one in facts.losses}) == expected
    assert all(one.certain for one in facts.losses)
    assert {node.scope for node in facts.nodes} <= {"", "<loss>", "<loss>.norm"}


def test_the_modules_of_a_loss_stay_as_they_were() -> None:
    loss = Focal()
    before = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    facts = examined(loss, LABELS).facts
    assert all(torch.equal(before[name], tensor) for name, tensor in loss.state_dict().items())
    assert loss.alpha.device.type == "cpu"
    assert {one.container for one in facts.modules if one.path.startswith("<loss>")} == {"loss"}


def test_attempts_that_failed_leave_nothing() -> None:
    def picky(out, y):
        F.cross_entropy(out, torch.zeros(5, dtype=torch.int64))
        return F.mse_loss(out[:, :1], y["age"])

    def loss(out, y):
        if isinstance(y, torch.Tensor) and y.dim() == 1:
            torch.softmax(out, 1)
            raise ValueError("not these")
        return F.l1_loss(out, y)

    facts = examined(loss).facts
    assert [one.kind for one in facts.losses] == ["l1_loss"]
    assert "softmax" not in {node.kind for node in facts.nodes}
    failed = examined(picky)
    assert failed.error is not None
    assert "the loss raised" in failed.error.message
    assert failed.facts.nodes, "the model itself runs, and is judged"
    assert not failed.facts.losses


def test_a_loss_that_needs_values_gets_them() -> None:
    def loss(out, y):
        return F.cross_entropy(out, y) * (1.0 if F.cross_entropy(out, y).item() > 0 else 2.0)

    facts = examined(loss, LABELS).facts
    assert facts.recorded == "real"
    assert {one.kind for one in facts.losses} == {"cross_entropy"}


def test_the_range_of_the_labels_is_noted() -> None:
    (loss,) = examined(nn.MSELoss(), torch.linspace(-1, 3, 15).view(5, 3)).facts.losses
    assert (loss.config["target_min"], loss.config["target_max"]) == (-1.0, 3.0)
    assert loss.config["target_shape"] == [5, 3]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("crossentropy", "unknown loss"),
        (3, "`loss` is an int"),
        (type("Settings", (), {}), "cannot be called"),
        (type("Weighted", (nn.Module,), {"__init__": lambda self, w: None}), "cannot be made without"),
    ],
)
def test_what_is_no_loss(loss, message) -> None:
    with pytest.raises(UsageError, match=message):
        find_loss(loss)
