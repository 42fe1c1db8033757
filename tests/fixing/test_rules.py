"""Fixes rule by rule, in the forms that people write besides those of the pages."""

from __future__ import annotations

import textwrap

import pytest

from normdoctor.testing import fix_source

pytestmark = pytest.mark.filterwarnings("ignore")

BLOCK = """\
import torch
import torch.nn.functional as F
from torch import nn
{imports}

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = {conv}
        self.bn = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        y = self.conv(x)
        {body}


model = Net(){ending}
inputs = torch.randn(4, 3, 8, 8){ending}
{loss}
"""


def fixed(*codes, body="return self.head(torch.relu(y))", conv="nn.Conv2d(3, 8, 3)", unsafe=True, **parts):
    parts = {"imports": "", "ending": "", "loss": ""} | parts
    text, outcome = fix_source(BLOCK.format(body=body, conv=conv, **parts), *codes, unsafe=unsafe)
    return text, [one.reason for one in outcome.unfixed]


class TestInPlace:
    @pytest.mark.parametrize(
        ("call", "wanted"),
        [
            ("F.relu(y, inplace=True)", "F.relu(y, inplace=False)"),
            ("F.relu(y, True)", "F.relu(y, inplace=False)"),
            ("F.relu_(y)", "F.relu(y)"),
            ("torch.relu_(y)", "torch.relu(y)"),
            ("y.relu_()", "y.relu()"),
            ("F.leaky_relu(y, 0.1, True)", "F.leaky_relu(y, 0.1, inplace=False)"),
        ],
    )
    def test_calls(self, call, wanted):
        text, reasons = fixed(
            "ND315", body=f"z = {call}\n        return self.head(y + self.bn(z))", unsafe=False
        )
        assert reasons == []
        assert f"z = {wanted}\n" in text


class TestSoftmax:
    @pytest.mark.parametrize(
        ("call", "wanted"),
        [
            ("F.softmax(y)", "F.softmax(y, dim=1)"),
            ("F.log_softmax(self.bn(y))", "F.log_softmax(self.bn(y), dim=1)"),
            ("nn.Softmax()(y)", "nn.Softmax(dim=1)(y)"),
        ],
    )
    def test_the_axis_is_written_down(self, call, wanted):
        text, reasons = fixed("ND306", body=f"return {call}", unsafe=False)
        assert reasons == [] or "Softmax()" in call
        assert f"return {wanted}\n" in text or "Softmax()" in call

    def test_two_fixes_of_one_call_come_one_after_the_other(self):
        body = "return F.softmax(self.head(y).mean((2, 3)))"
        text, reasons = fixed("ND306", "ND310", body=body, loss="loss = nn.CrossEntropyLoss()")
        assert reasons == []
        assert "return self.head(y).mean((2, 3))\n" in text


class TestLikelihood:
    @pytest.mark.parametrize(
        ("call", "wanted"),
        [
            ("F.softmax(z, dim=1)", "F.log_softmax(z, dim=1)"),
            ("torch.softmax(z, 1)", "torch.log_softmax(z, 1)"),
            ("z.softmax(1)", "z.log_softmax(1)"),
            ("torch.sigmoid(z)", "F.logsigmoid(z)"),
            ("z.sigmoid()", "F.logsigmoid(z)"),
            ("(z + 1).sigmoid()", "F.logsigmoid((z + 1))"),
        ],
    )
    def test_the_logarithm_takes_its_place(self, call, wanted):
        body = f"z = self.head(y).mean((2, 3))\n        return {call}"
        text, reasons = fixed("ND312", body=body, loss="loss = nn.NLLLoss()")
        assert reasons == []
        assert f"return {wanted}\n" in text

    @pytest.mark.parametrize(
        ("loss", "wanted"),
        [
            ("loss = nn.NLLLoss(reduction='sum')", "loss = nn.CrossEntropyLoss(reduction='sum')"),
            (
                "def loss(output, labels):\n    return F.nll_loss(output, labels)",
                "def loss(output, labels):\n    return F.cross_entropy(output, labels)",
            ),
        ],
    )
    def test_scores_get_another_loss(self, loss, wanted):
        text, reasons = fixed("ND312", body="return self.head(y).mean((2, 3))", loss=loss)
        assert reasons == []
        assert wanted in text


class TestReparametrizations:
    @pytest.mark.parametrize(
        ("imports", "conv", "wanted"),
        [
            (
                "from torch.nn.utils import spectral_norm",
                "spectral_norm(nn.Conv2d(3, 8, 3))",
                "nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 8, 3))",
            ),
            (
                "",
                "torch.nn.utils.weight_norm(nn.Conv2d(3, 8, 3), name='weight')",
                "torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3), name='weight')",
            ),
            (
                "",
                "nn.Conv2d(3, 8, 3)\n        self.conv = nn.utils.weight_norm(self.conv)",
                "nn.Conv2d(3, 8, 3)\n        self.conv = nn.utils.parametrizations.weight_norm(self.conv)",
            ),
        ],
    )
    def test_old_forms(self, imports, conv, wanted):
        text, reasons = fixed("ND120", imports=imports, conv=conv)
        assert reasons == []
        assert f"self.conv = {wanted}\n" in text


class TestPrecision:
    @pytest.mark.parametrize(
        ("body", "wanted"),
        [
            ("return self.head(y / (y.abs().mean(1, keepdim=True) + 1e-8))", "+ 1e-05))"),
            ("return self.head(y / y.abs().mean(1, keepdim=True).clamp(min=1e-8))", ".clamp(min=1e-05))"),
            ("return self.head(F.normalize(y, 2, 1, 1e-8))", "F.normalize(y, 2, 1, eps=1e-05))"),
        ],
    )
    def test_eps_in_half_precision(self, body, wanted):
        text, reasons = fixed("ND203", body=body, ending=".half()")
        assert reasons == []
        assert wanted in text

    def test_an_eps_that_has_a_name_is_left(self):
        body = "eps = 1e-8\n        return self.head(y / (y.abs().mean(1, keepdim=True) + eps))"
        text, reasons = fixed("ND203", body=body, ending=".half()")
        assert "eps = 1e-8" in text
        assert "is not written as such" in reasons[0]


def test_statistics_of_the_batch_in_eval_mode():
    source = """\
    import torch
    import torch.nn.functional as F
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8, bias=False)
            self.register_buffer("mean", torch.zeros(8))
            self.register_buffer("var", torch.ones(8))

        def forward(self, x):
            return torch.relu(F.batch_norm(self.fc(x), self.mean, self.var, training=True, eps=0.2))


    model = Net()
    inputs = torch.randn(4, 8)
    """
    text, outcome = fix_source(textwrap.dedent(source), "ND204", "ND201")
    assert not outcome.unfixed
    assert "self.var, training=self.training, momentum=0.2)" in text


def test_fixes_of_lower_rules_do_not_hide_each_other():
    text, _ = fixed("ND101", "ND202", body="return self.head(torch.relu(self.bn(y)))")
    assert "self.conv = nn.Conv2d(3, 8, 3, bias=False)" in text
