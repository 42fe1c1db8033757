"""Where a norm stands: ND101 to ND106, ND113, ND114, ND117, ND120 and ND121, in both styles."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from normdoctor import check
from normdoctor.findings import Applicability, Severity
from normdoctor.rules import find_rule
from normdoctor.testing import FactsBuilder, run_rule

IMAGE = torch.zeros(2, 3, 16, 16)
MAP = torch.zeros(2, 8, 8, 8)
VECTOR = torch.zeros(8, 16)


def findings(model, inputs, *codes, **settings):
    report = check(model, inputs=inputs, select=list(codes), min_confidence="low", **settings)
    assert not report.problems, report.problems
    return report.findings


def said(model, inputs, *codes, **settings):
    return [(f.code, name) for f in findings(model, inputs, *codes, **settings) for name in f.modules]


def on_facts(code, graph, **options):
    return run_rule(find_rule(code), graph, **options)


def conv(inner=8, outer=8, **fields):
    return nn.Conv2d(inner, outer, 3, padding=1, **fields)


class Functional(nn.Module):
    """Everything by function: conv2d, dropout, batch_norm."""

    def __init__(self, drop=0.0, training=None):
        super().__init__()
        self.drop, self.fixed = drop, training
        self.weight = nn.Parameter(torch.randn(8, 3, 3, 3))
        self.bias = nn.Parameter(torch.zeros(8))
        self.gamma, self.beta = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("var", torch.ones(8))

    def forward(self, x):
        x = F.conv2d(x, self.weight, self.bias, padding=1)
        training = self.training if self.fixed is None else self.fixed
        if self.drop:
            x = F.dropout(x, self.drop, training)
        return F.relu(F.batch_norm(x, self.mean, self.var, self.gamma, self.beta, training=self.training))


def by_hand(build, x, shape, kind, reduced, *, path="norm", **fields):
    build.module(path, "Norm", calls=1)
    mean = build.op("mean", x, shape=shape, scope=path)
    centred = build.op("sub", x, mean, shape=shape, scope=path)
    build.norm_by_hand(kind, x, centred, module=path, reduced=reduced, **fields)
    return centred


class TestBiasBeforeNorm:
    def test_of_a_functional_pair(self):
        (finding,) = findings(Functional(), IMAGE, "ND101")
        assert finding.evidence["parameter"] == "bias"
        assert finding.fix.applicability is Applicability.DISPLAY

    @pytest.mark.parametrize(
        ("kind", "reduced", "centred", "found"),
        [
            ("batch_norm", (0, 2, 3), True, 1),
            ("instance_norm", (2, 3), True, 1),
            ("layer_norm", (1, 2, 3), True, 0),
            ("rms_norm", (2, 3), False, 0),
            ("batch_norm", (), True, 0),
        ],
    )
    def test_of_a_norm_by_hand(self, kind, reduced, centred, found):
        build = FactsBuilder()
        x = build.input(4, 3, 8, 8)
        shape = (4, 8, 8, 8)
        y = build.layer("conv", "Conv2d", x, shape=shape, weight=(8, 3, 3, 3), bias=(8,))
        norm = by_hand(build, y, shape, kind, reduced, centred=centred)
        assert len(on_facts("ND101", build.graph(norm))) == found

    def test_silent_where_more_than_the_norm_by_hand_reads_it(self):
        build = FactsBuilder()
        x = build.input(4, 3, 8, 8)
        shape = (4, 8, 8, 8)
        y = build.layer("conv", "Conv2d", x, shape=shape, weight=(8, 3, 3, 3), bias=(8,))
        norm = by_hand(build, y, shape, "batch_norm", (0, 2, 3))
        assert not on_facts("ND101", build.graph(build.op("add", norm, y, shape=shape)))

    def test_of_tokens_turned_for_batchnorm1d(self):
        class Tokens(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.bn = nn.Linear(16, 12), nn.BatchNorm1d(12)

            def forward(self, x):
                return self.bn(self.fc(x).transpose(1, 2)).transpose(1, 2)

        assert said(Tokens(), torch.zeros(2, 6, 16), "ND101") == [("ND101", "fc")]


class TestDropoutBeforeBatchnorm:
    @pytest.mark.parametrize(("drop", "training", "found"), [(0.5, None, 1), (0.0, None, 0), (0.5, False, 0)])
    def test_of_functions(self, drop, training, found):
        assert len(said(Functional(drop, training), IMAGE, "ND102")) == found

    @pytest.mark.parametrize("layer", [nn.Dropout(0.0), nn.AlphaDropout(0.5), nn.Identity()])
    def test_silent_for_what_keeps_the_variance(self, layer):
        model = nn.Sequential(conv(3), layer, nn.BatchNorm2d(8), nn.ReLU())
        assert not said(model, IMAGE, "ND102")

    def test_silent_behind_a_concatenation(self):
        class Dense(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.bn = conv(3), nn.BatchNorm2d(11)

            def forward(self, x):
                return F.relu(self.bn(torch.cat([x, F.dropout(self.conv(x), 0.2, self.training)], 1)))

        assert not said(Dense(), IMAGE, "ND102")

    @pytest.mark.parametrize(("running", "found"), [(True, 1), (False, 0)])
    def test_of_a_norm_by_hand(self, running, found):
        build = FactsBuilder()
        x = build.input(4, 16)
        y = build.layer("drop", "Dropout", x, shape=(4, 16), p=0.5)
        norm = by_hand(build, y, (4, 16), "batch_norm", (0,), running=running)
        assert len(on_facts("ND102", build.graph(norm))) == found


class TestNormAfterNorm:
    def test_of_a_stack_that_ends_in_a_norm(self):
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        model = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(16), enable_nested_tensor=False)
        (finding,) = findings(model, torch.zeros(2, 6, 16), "ND103")
        assert (finding.modules, finding.severity) == (("norm",), Severity.INFO)

    def test_of_functions_and_through_dropout(self):
        class Twice(nn.Module):
            def forward(self, x):
                x = F.dropout(F.layer_norm(x, (16,)), 0.1, self.training)
                return F.rms_norm(x.reshape(-1, 16), (16,))

        assert len(said(Twice(), VECTOR, "ND103")) == 1

    def test_of_norms_by_hand(self):
        build = FactsBuilder()
        x = by_hand(build, build.input(4, 16), (4, 16), "layer_norm", (1,), path="one")
        y = by_hand(build, x, (4, 16), "layer_norm", (1,), path="two")
        assert [f.modules for f in on_facts("ND103", build.graph(y))] == [("two",)]

    def test_silent_where_the_first_goes_on_as_a_skip_and_for_unit_length(self):
        class Conformer(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two, self.fc = nn.LayerNorm(16), nn.LayerNorm(16), nn.Linear(16, 16)

            def forward(self, x):
                x = self.one(x)
                return F.normalize(self.one(x + self.fc(self.two(x))), dim=-1)

        assert not said(Conformer(), VECTOR, "ND103")


def head(*last):
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), *last)


class TestBatchnormOnOutput:
    @pytest.mark.parametrize("width", [1, 5, 10, 100, 1000])
    def test_of_class_scores(self, width):
        assert len(said(head(nn.Linear(32, width), nn.BatchNorm1d(width)), VECTOR, "ND104")) == 1

    @pytest.mark.parametrize("last", [nn.Softmax(-1), nn.Sigmoid(), nn.Tanh(), nn.LogSoftmax(-1)])
    def test_through_what_squashes(self, last):
        assert len(said(head(nn.Linear(32, 10), nn.BatchNorm1d(10), last), VECTOR, "ND104")) == 1

    def test_in_a_dictionary_and_by_function(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.bn = nn.Linear(16, 3), nn.BatchNorm1d(3)

            def forward(self, x):
                bn = self.bn
                y = F.batch_norm(self.fc(x), bn.running_mean, bn.running_var, bn.weight, bn.bias, True)
                return {"logits": y}

        assert len(said(Net(), VECTOR, "ND104")) == 1

    @pytest.mark.parametrize(
        "last",
        [
            (nn.Linear(32, 64), nn.BatchNorm1d(64)),
            (nn.Linear(32, 10), nn.BatchNorm1d(10, affine=False)),
            (nn.Linear(32, 10), nn.BatchNorm1d(10), nn.ReLU()),
            (nn.Linear(32, 10), nn.LayerNorm(10)),
            (nn.BatchNorm1d(32), nn.Linear(32, 10)),
        ],
        ids=["embedding", "no scale", "relu", "layer norm", "in front of the head"],
    )
    def test_silent_for(self, last):
        assert not said(head(*last), VECTOR, "ND104")

    def test_a_loss_decides(self):
        model = head(nn.Linear(32, 64, bias=False), nn.BatchNorm1d(64))
        (finding,) = findings(model, VECTOR, "ND104", loss=nn.CrossEntropyLoss())
        assert finding.evidence["width"] == 64

    def test_silent_for_the_features_of_a_backbone(self):
        assert not said(nn.Sequential(conv(3, 48), nn.BatchNorm2d(48)), IMAGE, "ND104")

    def test_silent_for_a_scale_that_is_not_trained(self):
        norm = nn.BatchNorm1d(10)
        norm.weight.requires_grad_(False)
        norm.bias.requires_grad_(False)
        assert not said(head(nn.Linear(32, 10), norm), VECTOR, "ND104")


class TestNormAfterReparametrization:
    @pytest.mark.parametrize(
        ("wrap", "severity"),
        [
            (parametrizations.spectral_norm, Severity.WARNING),
            (nn.utils.spectral_norm, Severity.WARNING),
            (parametrizations.weight_norm, Severity.INFO),
        ],
        ids=["spectral", "old spectral", "weight"],
    )
    @pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
    def test_both_forms(self, wrap, severity, norm):
        model = nn.Sequential(wrap(conv(3)), norm(8), nn.LeakyReLU(0.2))
        (finding,) = findings(model, IMAGE, "ND106")
        assert (finding.modules, finding.severity) == (("1",), severity)

    def test_silent_where_the_norm_stands_elsewhere(self):
        wrap = parametrizations.spectral_norm
        model = nn.Sequential(wrap(conv(3)), nn.LeakyReLU(0.2), conv(), nn.BatchNorm2d(8))
        assert not said(model, IMAGE, "ND106")


def deep(layers, act=nn.ReLU, init=None, wrap=lambda layer: layer):
    chain = []
    for _ in range(layers):
        layer = nn.Linear(16, 16)
        if init is not None:
            init(layer.weight)
        chain += [wrap(layer), act()]
    return nn.Sequential(*chain)


class TestDeepWithoutNorm:
    @pytest.mark.parametrize(("layers", "found"), [(20, 0), (21, 1)])
    def test_beyond_twenty(self, layers, found):
        assert len(said(deep(layers), VECTOR, "ND113")) == found

    def test_the_figures(self):
        (finding,) = findings(deep(24), VECTOR, "ND113")
        assert finding.evidence["layers"] == 24
        assert finding.evidence["gain"] == pytest.approx(1 / 3, rel=0.1)

    @pytest.mark.parametrize(
        "model",
        [
            deep(24, nn.SELU),
            deep(24, init=lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
            deep(24, nn.Tanh, init=nn.init.orthogonal_),
            deep(24, wrap=parametrizations.weight_norm),
            deep(24, lambda: nn.Sequential(nn.LayerNorm(16), nn.ReLU())),
        ],
        ids=["selu", "he", "orthogonal", "weight norm", "norm"],
    )
    def test_silent_for_what_keeps_the_scale(self, model):
        assert not said(model, VECTOR, "ND113")

    def test_silent_with_skips(self):
        class Skips(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(24))

            def forward(self, x):
                for layer in self.layers:
                    x = x + F.relu(layer(x))
                return x

        assert not said(Skips(), VECTOR, "ND113")


class TestNormOverTooFew:
    @pytest.mark.parametrize(("shape", "reduced", "found"), [((4, 1), (1,), 1), ((4, 16), (1,), 0)])
    def test_of_a_norm_by_hand(self, shape, reduced, found):
        build = FactsBuilder()
        norm = by_hand(build, build.input(*shape), shape, "layer_norm", reduced)
        assert len(on_facts("ND114", build.graph(norm))) == found

    def test_a_batch_by_hand_is_not_blamed(self):
        build = FactsBuilder()
        norm = by_hand(build, build.input(1, 16), (1, 16), "batch_norm", (0,))
        assert not on_facts("ND114", build.graph(norm))

    def test_behind_global_pooling_by_function(self):
        class Squeeze(nn.Module):
            def forward(self, x):
                return F.group_norm(x.mean((2, 3), keepdim=True), 8)

        (finding,) = findings(Squeeze(), MAP, "ND114")
        assert (finding.severity, finding.evidence["elements"]) == (Severity.ERROR, 1)


class TestNoShiftLeft:
    @pytest.mark.parametrize("act", [nn.ReLU(), nn.LeakyReLU(0.2), nn.GELU(), nn.Sigmoid()])
    def test_in_front_of_an_activation(self, act):
        (finding,) = findings(nn.Sequential(conv(3), nn.BatchNorm2d(8, affine=False), act), IMAGE, "ND117")
        assert finding.severity is Severity.WARNING
        assert finding.fix.edits == {"affine": ""}

    def test_by_function(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("mean", torch.zeros(3))
                self.register_buffer("var", torch.ones(3))

            def forward(self, x):
                return F.batch_norm(x, self.mean, self.var, training=self.training).relu()

        assert len(said(Net(), IMAGE, "ND117")) == 1

    @pytest.mark.parametrize(
        "behind",
        [(), (conv(),), (nn.MaxPool2d(2), conv()), (nn.Flatten(), nn.Linear(2048, 4))],
        ids=["output", "conv", "pool", "head"],
    )
    def test_silent_without_an_activation(self, behind):
        model = nn.Sequential(conv(3), nn.BatchNorm2d(8, affine=False), *behind)
        assert not said(model, IMAGE, "ND117")

    def test_instance_norms_only_where_others_differ(self):
        alike = [conv(3), nn.InstanceNorm2d(8), nn.ReLU(), conv(), nn.InstanceNorm2d(8), nn.ReLU()]
        assert not said(nn.Sequential(*alike), IMAGE, "ND117")
        mixed = nn.Sequential(*alike, conv(), nn.InstanceNorm2d(8, affine=True), nn.ReLU())
        assert {f.severity for f in findings(mixed, IMAGE, "ND117")} == {Severity.INFO}

    def test_silent_where_scale_and_shift_come_from_elsewhere(self):
        class Spade(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm, self.gamma = nn.BatchNorm2d(3, affine=False), conv(3, 3)

            def forward(self, x):
                return F.relu(self.norm(x) * (1 + self.gamma(x)) + self.gamma(x))

        assert not said(Spade(), IMAGE, "ND117")


class TestLegacyNorm:
    @pytest.mark.parametrize(
        "layer",
        [
            nn.LocalResponseNorm(5),
            nn.utils.spectral_norm(nn.Conv2d(3, 3, 3)),
            nn.utils.spectral_norm(nn.ConvTranspose2d(3, 3, 3)),
        ],
        ids=["lrn", "conv", "transposed"],
    )
    def test_of_old_forms(self, layer):
        assert len(said(nn.Sequential(conv(3, 3), layer), IMAGE, "ND120")) == 1

    @pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
    def test_of_old_weight_norm(self):
        model = nn.Sequential(nn.utils.weight_norm(conv(3)), nn.ReLU())
        (finding,) = findings(model, IMAGE, "ND120")
        assert "weight_norm" in finding.message

    def test_silent_for_the_new_form(self):
        assert not said(nn.Sequential(parametrizations.weight_norm(conv(3))), IMAGE, "ND120")


def ordered(*orders):
    layers = [nn.Conv2d(3, 8, 1)]
    for order in orders:
        pair = [nn.BatchNorm2d(8), nn.ReLU()]
        layers += [conv(), *(pair if order == "norm" else pair[::-1])]
    return nn.Sequential(*layers, conv())


class TestActivationBeforeNorm:
    def test_of_the_odd_one(self):
        assert said(ordered("norm", "norm", "act", "norm"), IMAGE, "ND121") == [("ND121", "9")]

    @pytest.mark.parametrize("orders", [("act",) * 3, ("act", "norm"), ("norm",) * 3])
    def test_silent_where_it_is_the_rule(self, orders):
        assert not said(ordered(*orders), IMAGE, "ND121")
