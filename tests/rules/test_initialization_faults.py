"""Faults of initialization as people write them: classes, functional calls, helpers, containers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normdoctor import check
from normdoctor.testing import check_source

VECTOR = torch.zeros(4, 32)
IMAGE = torch.zeros(2, 3, 32, 32)
init = nn.init


def codes(target, inputs, **options):
    torch.manual_seed(0)
    report = check(target, inputs=inputs, **options)
    assert not report.problems, report.problems
    return {finding.code for finding in report.findings if finding.code.startswith(("ND4", "ND5", "ND122"))}


def edited(model, edit):
    """A factory that builds a model and then runs `edit` on it."""

    def build():
        made = model()
        with torch.no_grad():
            edit(made)
        return made

    return build


class Mlp(nn.Module):
    def __init__(self, *widths):
        super().__init__()
        widths = widths or (32, 64, 64, 10)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)


class Head(nn.Module):
    """A detector's head: a tower, and an output that starts with a prior."""

    def __init__(self, act=F.relu, norm=False):
        super().__init__()
        self.tower = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) if norm else nn.Identity() for _ in range(3))
        self.score = nn.Conv2d(16, 9, 3, padding=1)
        self.act = act
        for layer in (*self.tower, self.score):
            init.normal_(layer.weight, std=0.01)
            init.zeros_(layer.bias)
        init.constant_(self.score.bias, -4.595)

    def forward(self, x):
        for conv, norm in zip(self.tower, self.norms, strict=True):
            x = self.act(norm(conv(x)))
        return self.score(x).permute(0, 2, 3, 1).flatten(1, 2)


MAP = torch.zeros(2, 16, 8, 8)


def prior_everywhere(model):
    for name, parameter in model.named_parameters():
        if name.endswith("bias") and "norms" not in name:
            parameter.fill_(-4.595)


class Made(nn.Module):
    """A weight of the user's own, made by `make`, used by `use`."""

    def __init__(self, make, use=lambda x, w: x @ w):
        super().__init__()
        self.first = nn.Linear(32, 32)
        self.weight = make()
        self.use = use
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        return self.head(torch.relu(self.use(torch.relu(self.first(x)), self.weight)))


def parameter(make):
    return lambda: nn.Parameter(make())


UNWRITTEN = {
    "empty": parameter(lambda: torch.empty(32, 32)),
    "Tensor": parameter(lambda: torch.Tensor(32, 32)),
    "FloatTensor": parameter(lambda: torch.FloatTensor(32, 32)),
    "new_empty": parameter(lambda: torch.zeros(1).new_empty(32, 32)),
    "empty_like": parameter(lambda: torch.empty_like(torch.zeros(32, 32))),
    "plain tensor": lambda: torch.FloatTensor(32, 32),
}


@pytest.mark.parametrize("make", UNWRITTEN.values(), ids=UNWRITTEN)
@pytest.mark.parametrize("use", [lambda x, w: x @ w, F.linear, lambda x, w: torch.einsum("bi,ij->bj", x, w)])
def test_uninitialized(make, use):
    assert "ND405" in codes(lambda: Made(make, use), VECTOR)


def test_partly_written():
    def half(model):
        model.weight[:16].normal_()

    assert "ND405" in codes(edited(lambda: Made(UNWRITTEN["empty"]), half), VECTOR)


def test_a_token_that_nobody_wrote():
    class Prompt(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.empty(1, 32))
            self.head = nn.Linear(32, 4)

        def forward(self, x):
            return self.head(torch.cat([self.token, x]))

    assert codes(Prompt, VECTOR) == {"ND405"}


def test_scratch_memory_is_no_parameter():
    class Cache(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("cache", torch.empty(4, 32))
            self.head = nn.Linear(32, 4)

        def forward(self, x):
            self.cache.copy_(x)
            return self.head(self.cache)

    assert "ND405" not in codes(Cache, VECTOR)


def test_the_place_of_a_parameter_is_its_own_line():
    source = (
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.a = nn.Parameter(torch.rand(32, 32))\n"
        "        self.b = nn.Parameter(\n            torch.empty(32, 32)\n        )\n"
        "        self.c = nn.Parameter(torch.full((32, 32), 0.1))\n        self.d = nn.Linear(32, 4)\n\n"
        "    def forward(self, x):\n"
        "        return self.d(((x @ self.a).relu() @ self.b).relu() @ self.c)\n\n\n"
        "model = nn.Sequential(Net())\ninputs = torch.zeros(2, 32)\n"
    )
    found = {
        f.code: f.location.line for f in check_source(source, select=["ND401", "ND404", "ND405"]).findings
    }
    assert found == {"ND404": 8, "ND405": 9, "ND401": 12}


ROWS = {
    "repeat": lambda m: m.layers[1].weight.copy_(m.layers[1].weight[:1].repeat(64, 1)),
    "two rows": lambda m: m.layers[1].weight[5].copy_(m.layers[1].weight[17]),
}


@pytest.mark.parametrize("edit", ROWS.values(), ids=ROWS)
def test_duplicate_units(edit):
    assert codes(edited(Mlp, edit), VECTOR) == {"ND406"}


def test_duplicate_columns_of_a_product():
    made = Made(parameter(lambda: torch.randn(32, 1).expand(32, 32).clone() / 6))
    assert "ND406" in codes(made, VECTOR)
    rows = Made(parameter(lambda: torch.randn(1, 32).expand(32, 32).clone() / 6))
    assert "ND406" not in codes(rows, VECTOR), "equal rows of `x @ W` are equal inputs, not units"


@pytest.mark.parametrize("use", [lambda x, w: x @ w, F.linear, lambda x, w: torch.matmul(x, w.t())])
def test_weights_from_rand(use):
    assert "ND404" in codes(lambda: Made(parameter(lambda: torch.rand(32, 32)), use), VECTOR)


def test_weights_from_rand_in_layers():
    assert "ND404" in codes(edited(Mlp, lambda m: m.layers[0].weight.uniform_()), VECTOR)

    def conv():
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))

    assert "ND404" in codes(edited(conv, lambda m: m[0].weight.copy_(torch.rand_like(m[0].weight))), IMAGE)


def test_exploding_and_vanishing_scales():
    def all_layers(draw):
        return lambda m: [draw(layer.weight) for layer in m.layers]

    deep = lambda: Mlp(32, *[256] * 6, 10)  # noqa: E731
    assert "ND403" in codes(edited(deep, all_layers(lambda w: w.normal_())), VECTOR)
    assert "ND403" in codes(edited(deep, all_layers(lambda w: w.normal_(0, 0.001))), VECTOR)
    assert not codes(edited(deep, all_layers(init.kaiming_normal_)), VECTOR)
    assert not codes(edited(deep, all_layers(init.orthogonal_)), VECTOR)


def plain(depth, width):
    layers = []
    for number in range(depth):
        layers += [nn.Conv2d(width if number else 3, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


class Products(nn.Module):
    """Matrices of the user's own, one after the other."""

    def __init__(self, std, act=torch.relu):
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(128, 128) * std) for _ in range(8))
        self.lift, self.head, self.act = nn.Linear(32, 128), nn.Linear(128, 4), act

    def forward(self, x):
        x = self.lift(x)
        for weight in self.weights:
            x = self.act(x @ weight)
        return self.head(x)


def small(std, *, bias):
    def edit(model):
        for one in model.modules():
            if isinstance(one, nn.Conv2d):
                one.weight.normal_(0, std)
                if not bias:
                    one.bias.zero_()

    return edit


@pytest.mark.parametrize(
    ("depth", "width", "bias"), [(10, 64, False), (10, 64, True), (10, 256, False), (6, 32, False)]
)
def test_a_deep_stack_of_small_weights(depth, width, bias):
    made = edited(lambda: plain(depth, width), small(0.01, bias=bias))
    assert "ND403" in codes(made, IMAGE)


def test_four_small_layers_are_a_tower():
    assert "ND403" not in codes(edited(lambda: plain(4, 64), small(0.01, bias=False)), IMAGE)


@pytest.mark.parametrize("act", [torch.relu, torch.tanh, F.gelu, F.silu, lambda x: F.leaky_relu(x, 0.2)])
@pytest.mark.parametrize("std", [0.001, 0.01, 1.0])
def test_scales_of_own_matrices(act, std):
    assert "ND403" in codes(lambda: Products(std, act), VECTOR)


@pytest.mark.parametrize("act", [torch.relu, torch.tanh, torch.sigmoid])
def test_standard_normal_weights_of_a_small_net(act):
    def build():
        model = nn.Sequential(nn.Linear(64, 64), Act(act), nn.Linear(64, 64), Act(act), nn.Linear(64, 10))
        for layer in model[::2]:
            init.normal_(layer.weight)
        return model

    assert "ND403" in codes(build, torch.zeros(2, 64))


class Act(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.act = act

    def forward(self, x):
        return self.act(x)


def test_the_first_of_the_layers_that_lose_the_signal_is_named():
    def build():
        model = Mlp(*[128] * 12, 10)
        for layer in model.layers[3:]:
            init.normal_(layer.weight, std=0.01)
        return model

    torch.manual_seed(0)
    report = check(build, inputs=torch.zeros(2, 128), select="ND403")
    (finding,) = report.findings
    assert finding.modules == ("layers.3",)
    assert finding.evidence["layers"] == 5
    assert finding.evidence["left"] < 1e-4


def test_only_the_first_layer_of_a_chain_is_reported():
    def explode(model):
        for layer in model.layers:
            layer.weight.normal_()

    torch.manual_seed(0)
    report = check(edited(lambda: Mlp(32, *[256] * 6, 10), explode), inputs=VECTOR, select="ND403")
    assert len([site for finding in report.findings for site in finding.sites]) == 1


@pytest.mark.parametrize("act", [F.relu, F.silu, F.gelu, F.relu6])
@pytest.mark.parametrize("norm", [False, True])
def test_the_prior_of_an_output_on_every_layer(act, norm):
    found = codes(edited(lambda: Head(act, norm), prior_everywhere), MAP)
    assert "ND408" in found
    assert "ND408" not in codes(lambda: Head(act, norm), MAP)


def test_norms_that_start_wrong():
    def stack():
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.LeakyReLU(0.1),
            nn.Conv2d(16, 16, 3, bias=False), nn.BatchNorm2d(16), nn.LeakyReLU(0.1),
            nn.Flatten(), nn.Linear(16 * 28 * 28, 4),
        )  # fmt: skip

    assert "ND407" in codes(edited(stack, lambda m: (m[1].weight.zero_(), m[4].weight.zero_())), IMAGE)
    assert "ND407" in codes(edited(stack, lambda m: m[1].weight.normal_(0, 0.02)), IMAGE)
    assert "ND407" in codes(edited(stack, lambda m: m[1].weight.fill_(50)), IMAGE)
    assert "ND407" not in codes(edited(stack, lambda m: m[1].weight.normal_(1, 0.02)), IMAGE)


class Adapted(nn.Module):
    def __init__(self, zero_down):
        super().__init__()
        self.base = nn.Linear(32, 32)
        self.down = nn.Parameter(torch.zeros(32, 4) if zero_down else torch.randn(32, 4) / 6)
        self.up = nn.Parameter(torch.zeros(4, 32))
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.base(x) + 2.0 * (x @ self.down @ self.up))


class Gated(nn.Module):
    """tanh of a zero gate in front of a branch, as in Flamingo."""

    def __init__(self, zero_out):
        super().__init__()
        self.inner, self.out, self.head = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 4)
        self.gate = nn.Parameter(torch.zeros(1))
        if zero_out:
            init.zeros_(self.out.weight)
            init.zeros_(self.out.bias)

    def forward(self, x):
        return self.head(x + torch.tanh(self.gate) * self.out(F.gelu(self.inner(x))))


@pytest.mark.parametrize("model", [Adapted, Gated])
def test_two_zero_factors(model):
    assert codes(lambda: model(True), VECTOR) == {"ND402"}
    assert not codes(lambda: model(False), VECTOR)


class Perceptual(nn.Module):
    """A frozen feature extractor that nothing was loaded into."""

    def __init__(self, freeze=True):
        super().__init__()
        self.net = nn.Conv2d(3, 3, 3, padding=1)
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU()
        )
        for one in self.features.parameters():
            one.requires_grad = not freeze

    def forward(self, x):
        y = self.net(x)
        return y, F.mse_loss(self.features(y), self.features(x))


def test_a_model_that_is_frozen_as_a_whole():
    def build():
        return nn.ModuleDict({"features": Perceptual().features}).requires_grad_(False)

    class Alone(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = build()

        def forward(self, x):
            return self.parts["features"](x)

    assert not codes(Alone, IMAGE)
    assert codes(Alone, IMAGE, min_confidence="low") == {"ND411"}


def test_frozen_random_features():
    assert codes(Perceptual, IMAGE) == {"ND411"}
    assert not codes(lambda: Perceptual(freeze=False), IMAGE)

    def trained(model):
        for one in model.features.parameters():
            one.copy_(torch.randn_like(one) ** 3 / 10)

    assert "ND411" not in codes(edited(Perceptual, trained), IMAGE)


def conv_net():
    layers = []
    for a, b in ((3, 32), (32, 32), (32, 32)):
        layers += [nn.Conv2d(a, b, 3, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 26 * 26, 4))


def train_like(model):
    for one in model.parameters():
        if one.dim() > 1:
            one.copy_(torch.randn_like(one) ** 3 / math.sqrt(15 * one[0].numel()))


def test_statistics_that_were_left_behind():
    assert "ND504" in codes(edited(conv_net, train_like), IMAGE)

    def both(model):
        train_like(model)
        for one in model.buffers():
            if one.is_floating_point():
                one.copy_(torch.rand_like(one) + 0.2)

    assert "ND504" not in codes(edited(conv_net, both), IMAGE)
    assert "ND504" not in codes(conv_net, IMAGE)


def test_spectral_norm_before_training():
    def critic():
        return nn.Sequential(
            nn.utils.spectral_norm(nn.Conv2d(3, 32, 3)), nn.LeakyReLU(0.2),
            nn.utils.spectral_norm(nn.Conv2d(32, 32, 3)),
        )  # fmt: skip

    assert "ND122" in codes(lambda: critic().eval(), IMAGE)
    assert "ND122" not in codes(critic, IMAGE)
    ready = critic()
    for _ in range(20):
        ready(torch.randn(2, 3, 32, 32))
    assert "ND122" not in codes(ready.eval(), IMAGE)


def test_previews_run_when_asked_for():
    assert codes(edited(Mlp, train_like), VECTOR, select="ND409", min_confidence="low") == {"ND409"}
    assert not codes(Mlp, VECTOR, select="ND409", min_confidence="low")

    def absolute():
        made = Mlp()
        for layer in made.layers:
            init.trunc_normal_(layer.weight, std=0.02)
        return made

    assert codes(absolute, VECTOR, select="ND410") == {"ND410"}
    assert not codes(absolute(), VECTOR, select="ND410"), "values alone cannot tell"


def test_weights_given_live_that_were_trained_are_not_judged():
    torch.manual_seed(0)
    made = edited(lambda: Mlp(32, 64, 64, 64, 10), train_like)()
    with torch.no_grad():
        made.layers[1].weight.mul_(50).add_(3)
        made.layers[2].bias.fill_(-20)
    found = codes(made, VECTOR)
    assert not found & {"ND403", "ND404", "ND408"}
