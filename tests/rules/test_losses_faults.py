"""Reported faults of outputs and losses (ND310 to ND314, ND319), and the right forms beside them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normdoctor import check
from normdoctor.findings import Severity

X = torch.zeros(6, 32)
IMAGE = torch.zeros(2, 3, 16, 16)
CODES = ["ND310", "ND311", "ND312", "ND313", "ND314", "ND319"]


class Made(nn.Module):
    """Two linear layers and what `end` makes of the scores."""

    def __init__(self, end, classes=5):
        super().__init__()
        self.body, self.head, self.end = nn.Linear(32, 64), nn.Linear(64, classes), end

    def forward(self, x):
        return self.end(self.head(torch.relu(self.body(x))))


class Detector(nn.Module):
    """A YOLO head: box, confidence and classes in one tensor; `which` of them are squashed."""

    def __init__(self, which):
        super().__init__()
        self.conv, self.which = nn.Conv2d(3, 9, 1), which

    def forward(self, x):
        y = self.conv(x).permute(0, 2, 3, 1)
        box, conf, classes = y[..., :4], y[..., 4:5], y[..., 5:]
        if "conf" in self.which:
            conf, classes = torch.sigmoid(conf), classes.sigmoid()
        return torch.cat((box, conf, classes), dim=-1)


class Match(nn.Module):
    """Attention over a labelled support set."""

    def __init__(self, log=False, table=False):
        super().__init__()
        self.embed, self.keys, self.log = nn.Linear(32, 16), nn.Parameter(torch.randn(10, 16)), log
        self.labels, self.table = torch.arange(10) % 5, table
        self.register_buffer("rows", F.one_hot(self.labels, 5).float())

    def forward(self, x):
        attention = F.softmax(self.embed(x) @ self.keys.t(), dim=-1)
        rows = attention @ (self.rows if self.table else F.one_hot(self.labels, 5).float())
        return torch.log(rows + 1e-8) if self.log else rows


def confidence_loss(out, _):
    return F.binary_cross_entropy_with_logits(out[..., 4:5], torch.zeros(2, 16, 16, 1))


def box_loss(out, _):
    return F.binary_cross_entropy_with_logits(out[..., :2], torch.zeros(2, 16, 16, 2))


def smoothed(out, y):
    return -(F.log_softmax(out, 1) * F.one_hot(y, 5)).sum(1).mean()


def focal(out, y):
    p = torch.sigmoid(out)
    return -(y * (1 - p) ** 2 * torch.log(p) + (1 - y) * p**2 * torch.log(1 - p)).mean()


FAULTS = [
    ("ND310", Made(lambda y: F.softmax(y, dim=1)), X, nn.CrossEntropyLoss(), None),
    ("ND310", Made(lambda y: y.softmax(-1)), X, nn.CrossEntropyLoss(label_smoothing=0.1), None),
    ("ND310", Made(lambda y: {"out": y.softmax(-1)}), X, lambda o, y: F.cross_entropy(o["out"], y), None),
    ("ND310", Made(lambda y: y), X, lambda o, y: F.cross_entropy(F.softmax(o, 1), y), None),
    ("ND310", Made(lambda y: y.softmax(1)), X, smoothed, torch.zeros(6, dtype=torch.int64)),
    ("ND310", Made(lambda y: torch.softmax(y, 1)), X, lambda o, y: F.cross_entropy(o[1:], y[1:]), None),
    ("ND310", Made(lambda y: F.softmax(y, -1).clamp(1e-6, 1)), X, nn.CrossEntropyLoss(), None),
    ("ND310", Match(), X, nn.CrossEntropyLoss(), None),
    ("ND310", Match(table=True), X, nn.CrossEntropyLoss(), None),
    ("ND311", Made(nn.Sigmoid()), X, nn.BCEWithLogitsLoss(), None),
    ("ND311", Made(lambda y: torch.sigmoid(y).squeeze(-1), 1), X, nn.BCEWithLogitsLoss(), None),
    ("ND311", Made(lambda y: (y.sigmoid() + (2 * y).sigmoid()) / 2), X, nn.BCEWithLogitsLoss(), None),
    ("ND311", Made(lambda y: y), X, lambda o, y: F.binary_cross_entropy_with_logits(o.sigmoid(), y), None),
    ("ND311", Detector("conf"), IMAGE, confidence_loss, torch.zeros(1)),
    ("ND312", Made(nn.Softmax(dim=1)), X, nn.NLLLoss(), None),
    ("ND312", Made(lambda y: y), X, F.nll_loss, None),
    ("ND312", Made(nn.ReLU()), X, "nll_loss", None),
    ("ND313", Made(torch.relu), X, nn.CrossEntropyLoss(), None),
    ("ND313", Made(nn.ReLU(inplace=True), 1), X, nn.BCEWithLogitsLoss(), None),
    ("ND313", Made(lambda y: F.relu(y) * 16, 4), X, None, None),
    ("ND313", Made(torch.relu, 2), X, nn.MSELoss(), torch.randn(6, 2) - 3),
    ("ND314", Made(torch.sigmoid), X, nn.CrossEntropyLoss(), None),
    ("ND314", Made(torch.tanh), X, nn.CrossEntropyLoss(), None),
    ("ND314", Made(lambda y: y.softmax(1)), X, nn.BCELoss(), None),
    ("ND314", Made(torch.tanh, 1), X, nn.MSELoss(), torch.full((6, 1), 40.0)),
    ("ND319", Made(nn.Dropout(0.3)), X, nn.CrossEntropyLoss(), None),
    ("ND319", Made(lambda y: F.dropout(y, 0.3, True)), X, None, None),
    ("ND319", Made(lambda y: F.dropout(y, 0.3, True).sigmoid()), X, None, None),
    ("ND319", Made(lambda y: F.log_softmax(F.dropout(y, 0.3, True), 1)), X, nn.NLLLoss(), None),
    ("ND319", Made(nn.Sequential(nn.Dropout(0.3), nn.Sigmoid())), X, nn.BCELoss(), None),
    ("ND319", Made(nn.Sequential(nn.ReLU(), nn.Dropout(0.95), nn.Linear(5, 5))), X, None, None),
]  # fmt: skip

RIGHT = [
    (Made(lambda y: F.log_softmax(y, 1)), X, nn.NLLLoss(), None),
    (Made(lambda y: torch.log(F.softmax(y, 1))), X, nn.CrossEntropyLoss(), None),
    (Match(log=True), X, nn.NLLLoss(), None),
    (Made(nn.Sigmoid()), X, nn.BCELoss(), None),
    (Made(nn.Sigmoid(), 1), X, nn.BCELoss(), None),
    (Made(lambda y: (y, y.sigmoid())), X, lambda o, y: F.binary_cross_entropy_with_logits(o[0], y), None),
    (Detector(""), IMAGE, confidence_loss, torch.zeros(1)),
    (Detector("conf"), IMAGE, box_loss, torch.zeros(1)),
    (Made(lambda y: y), X, focal, torch.zeros(6, 5)),
    (Made(lambda y: y), X, lambda o, y: F.kl_div(F.log_softmax(o, 1), F.softmax(y, 1)), torch.zeros(6, 5)),
    (Made(lambda y: F.softmax(y, 1)), X, lambda o, y: F.kl_div(torch.log(o), y), torch.zeros(6, 5)),
    (Made(lambda y: y - y.logsumexp(1, keepdim=True)), X, nn.NLLLoss(), None),
    (Made(lambda y: F.relu(y), 1), X, nn.MSELoss(), None),
    (Made(lambda y: F.relu(y), 4), X, nn.PoissonNLLLoss(log_input=False), None),
    (Made(lambda y: F.relu(y), 4), X, nn.MSELoss(), torch.rand(6, 4)),
    (Made(torch.sigmoid, 12), X, nn.MSELoss(), None),
    (Made(torch.tanh, 12), X, nn.L1Loss(), torch.rand(6, 12)),
    (Made(lambda y: F.normalize(y, dim=1)), X, nn.CrossEntropyLoss(), None),
    (Made(lambda y: 20 * y.softmax(1)), X, nn.CrossEntropyLoss(), None),
    (nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 32), nn.Dropout(0.1)), X, None, None),
    (nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU()), IMAGE, None, None),
    (nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Dropout(0.5)), X, None, None),
    (Made(nn.Sequential(nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3), nn.Sigmoid())), X, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("code", "model", "inputs", "loss", "labels"), FAULTS)
def test_the_fault_is_named(code, model, inputs, loss, labels) -> None:
    report = check(model, inputs=inputs, loss=loss, labels=labels, select=CODES)
    assert not report.problems, report.problems
    assert {one.code for one in report.findings} == {code}


@pytest.mark.parametrize(("model", "inputs", "loss", "labels"), RIGHT)
def test_the_right_form_is_silent(model, inputs, loss, labels) -> None:
    report = check(model, inputs=inputs, loss=loss, labels=labels, select=CODES)
    assert not report.problems, report.problems
    assert not report.findings, [one.message for one in report.findings]


def test_the_least_loss_is_the_one_that_can_be_reached() -> None:
    for smoothing in (0.0, 0.1):
        loss = nn.CrossEntropyLoss(label_smoothing=smoothing)
        report = check(Made(nn.Softmax(dim=1), 10), inputs=X, loss=loss, select=["ND310"])
        best = loss(torch.eye(10)[:1], torch.tensor([0])).item()
        assert report.findings[0].evidence["least_loss"] == pytest.approx(best, abs=1e-3)


def test_relu_before_logits_is_an_error_and_dropout_of_all_as_well() -> None:
    (finding,) = check(Made(torch.relu), inputs=X, loss=nn.CrossEntropyLoss(), select=["ND313"]).findings
    assert finding.severity is Severity.ERROR
    (finding,) = check(Made(nn.Dropout(1.0)), inputs=X, select=["ND319"]).findings
    assert finding.severity is Severity.ERROR
