"""ND601 to ND615 on nets of several styles: planted faults at their layer, and nothing on healthy nets."""

import linecache
import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import normdoctor

HERE = runpy.run_path(str(Path(__file__).parents[1] / "models" / "activation_nets.py"))
NETS, Sequential, Residual, Transformer, Mixer, Recurrent, made = (
    HERE[name] for name in ("NETS", "Sequential", "Residual", "Transformer", "Mixer", "Recurrent", "made")
)
SqueezeExcite = runpy.run_path(str(Path(__file__).parents[1] / "models" / "gate_nets.py"))["SqueezeExcite"]
RULES = "ND601 ND602 ND603 ND604 ND605 ND607 ND609 ND610 ND611 ND613 ND614 ND615".split()


def check(model, data, **options):
    report = normdoctor.check(model, data[0], data=data, select=RULES, **options)
    assert "error" not in report.counts()
    return report.findings


def found(model, data, **options):
    """(code, layer) of every finding; a module's path, or the layer behind which a function stands."""
    return sorted((finding.code, layer(model, finding)) for finding in check(model, data, **options))


def layer(model, finding):
    """The layer that a message names, else the module."""
    if "(behind `" in finding.message or "weights of `" in finding.message:
        return (
            finding.message.partition("(behind `")[2].partition("`")[0]
            or (finding.message.partition("weights of `")[2].partition("`")[0])
        )
    return ", ".join(finding.modules)


def behind(model, k):
    """How the activation behind the k-th layer is named: by its module, or else by that layer."""
    place = model.place(k)
    paths = {id(module): path for path, module in model.named_modules()}
    return place or paths[id(model.layers[k])]


def path_of(model, module):
    return {id(one): path for path, one in model.named_modules()}[id(module)]


def each_layer(nets=NETS):
    return [pytest.param(net, k, id=f"{net.__name__}-{k}") for net in nets for k in (1, 3)]


# -- healthy nets


@pytest.mark.parametrize("act", ["relu", "gelu", "tanh"])
@pytest.mark.parametrize("net", [*NETS, Recurrent])
def test_healthy_nets_are_silent(net, act):
    model, data = made(net, act)
    assert found(model, data) == []
    train(model, net)
    assert [code for code, _ in found(model, data) if code != "ND604"] == []


def train(model, net, steps=20):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(steps):
        x = torch.randn(net.shape)
        loss = F.cross_entropy(model(x), torch.randint(5, (len(x),)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


# -- planted faults, each at every depth of every net


@pytest.mark.parametrize(("net", "k"), each_layer())
def test_dead_layer(net, k):
    model, data = made(net)
    with torch.no_grad():
        model.layers[k].bias.fill_(-100.0)
    assert found(model, data) == [("ND602", behind(model, k))]


@pytest.mark.parametrize("act", ["gelu", "relu6"])
@pytest.mark.parametrize("net", NETS)
def test_dead_layer_of_another_rectifier(net, act):
    model, data = made(net, act)
    with torch.no_grad():
        model.layers[2].bias.fill_(-100.0)
    assert found(model, data) == [("ND602", behind(model, 2))]


@pytest.mark.parametrize(("net", "k"), each_layer())
def test_dead_units(net, k):
    model, data = made(net)
    data = [torch.cat([torch.randn_like(x) for _ in range(8)]) for x in data]
    with torch.no_grad():
        model.layers[k].bias[: len(model.layers[k].bias) // 2] = -100.0
    (finding,) = check(model, data)
    assert finding.code == "ND601"
    assert 0.5 <= finding.evidence["share"] < 0.6


@pytest.mark.parametrize(("net", "k"), each_layer([*NETS, Recurrent]))
@pytest.mark.parametrize("act", ["tanh", "sigmoid"])
def test_saturated_units(net, k, act):
    model, data = made(net, act)
    k = min(k, len(model.layers) - 1)
    with torch.no_grad():
        model.layers[k].weight.mul_(1e4)
    places = found(model, data)
    assert ("ND603", behind(model, k)) in places
    assert {code for code, _ in places} <= {"ND603", "ND609", "ND610", "ND607"}


@pytest.mark.parametrize(("net", "k"), each_layer())
def test_never_off_units(net, k):
    model, data = made(net)
    data = [torch.cat([torch.randn_like(x) for _ in range(8)]) for x in data]
    with torch.no_grad():
        model.layers[k].bias.fill_(30.0)
    places = found(model, data)
    assert [place for code, place in places if code == "ND604"] == [behind(model, k)]
    # Offsets of this size kill units further on.
    assert {code for code, _ in places} <= {"ND604", "ND601"}


@pytest.mark.parametrize(("net", "k"), each_layer())
@pytest.mark.parametrize(("act", "value"), [("relu", 0.7), ("gelu", 0.0)])
def test_constant_units(net, k, act, value):
    model, data = made(net, act)
    planted = model.layers[k]
    with torch.no_grad():
        half = len(planted.weight) // 2
        planted.weight[:half] = 0
        planted.bias[:half] = value
    assert found(model, data) == [("ND605", path_of(model, planted))]


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_constant_units_that_a_relu_stops_are_dead_units(value):
    model, data = made(Sequential)
    data = [torch.cat([torch.randn_like(x) for _ in range(8)]) for x in data]
    with torch.no_grad():
        model[2].weight[:20] = 0
        model[2].bias[:20] = value
    assert found(model, data) == [("ND601", "3")]


def test_channels_of_a_norm_that_are_scaled_to_nothing_are_left_to_nd511():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.GELU(), nn.Conv2d(16, 4, 3))
    with torch.no_grad():
        model[1].weight[:8] = 0
        model[1].bias[:8] = 0.3
    assert found(model, [torch.randn(8, 3, 12, 12) for _ in range(4)]) == []


@pytest.mark.parametrize(("net", "k"), each_layer())
def test_a_constant_layer(net, k):
    model, data = made(net)
    with torch.no_grad():
        model.layers[k].weight.zero_()
        model.layers[k].bias.uniform_(0.5, 1.0)
    assert found(model, data) == [("ND605", path_of(model, model.layers[k]))]


@pytest.mark.parametrize(("net", "k"), each_layer())
def test_clipped_units(net, k):
    model, data = made(net, "relu6")
    with torch.no_grad():
        model.layers[k].weight.mul_(60.0)
    places = found(model, data)
    assert ("ND611", behind(model, k)) in places
    assert {code for code, _ in places} <= {"ND611", "ND607"}
    with torch.no_grad():
        model.layers[k].bias.fill_(1e4)
    assert ("ND611", behind(model, k)) in found(model, data)
    assert ("ND604", behind(model, k)) not in found(model, data)


@pytest.mark.parametrize(("net", "k"), each_layer())
def test_massive_activation(net, k):
    model, data = made(net)
    planted = model.layers[k]
    with torch.no_grad():
        planted.bias[0] = 2e4
    places = found(model, data)
    assert ("ND610", path_of(model, planted)) in places
    assert {code for code, _ in places} <= {"ND601", "ND604", "ND607", "ND610"}


@pytest.mark.parametrize(("net", "k"), each_layer())
def test_half_overflow(net, k):
    model, data = made(net)
    with torch.no_grad():
        model.layers[k].weight.mul_(1e6)
    places = {(f.code, layer(model, f)): f for f in check(model, data)}
    finding = places["ND609", path_of(model, model.layers[k])]
    assert finding.severity == "info"
    assert "in float32 that is no harm, in float16 it overflows" in finding.message
    model = model.to(torch.bfloat16)
    assert "ND609" not in {code for code, _ in found(model, [x.bfloat16() for x in data])}


def test_half_overflow_in_half():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).half()
    with torch.no_grad():
        model[0].bias.fill_(4e4)
        model[2].weight.zero_()
    (finding,) = [f for f in check(model, [torch.randn(8, 8).half()] * 2) if f.code == "ND609"]
    assert (finding.severity, finding.modules) == ("warning", ("0",))


# -- the signal by depth


@pytest.mark.parametrize(("net", "gain", "verb"), [
    (Sequential, 0.02, "falls"), (Sequential, 10.0, "rises"),
    (Residual, 12.0, "rises"),
    (Transformer, 40.0, "rises"), (Mixer, 40.0, "rises"),
])  # fmt: skip
def test_propagation(net, gain, verb):
    model, data = made(net)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(gain)
    (finding,) = [f for f in check(model, data) if f.code == "ND607"]
    assert f" {verb} to " in finding.message
    ratio = finding.evidence["between_samples" if verb == "rises" else "ratio"]
    assert (ratio > 1e3) if verb == "rises" else (ratio < 1e-3)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("gain", [1e-3, 1e3])
def test_the_layer_where_the_signal_leaves(gain, k):
    model, data = made(Sequential)
    with torch.no_grad():
        model.layers[k].weight.mul_(gain)
    (finding,) = [f for f in check(model, data) if f.code == "ND607"]
    assert finding.modules == (path_of(model, model.layers[k]),)
    assert finding.severity == "warning"


def test_a_signal_that_is_lost_altogether_is_an_error():
    model, data = made(Sequential)
    with torch.no_grad():
        for layer_ in model.layers[1:]:
            layer_.weight.mul_(1e-3)
    (finding,) = check(model, data)
    assert (finding.code, finding.severity, finding.modules) == ("ND607", "error", ("2",))


def test_samples_that_grow_alike_are_a_lost_signal():
    """Biases keep the variance up, but no unit differs between samples any more."""
    torch.manual_seed(0)
    layers = [module for _ in range(10) for module in (nn.Linear(64, 64), nn.ReLU())]
    for linear in layers[::2]:
        nn.init.normal_(linear.weight, std=0.01)
    model = nn.Sequential(*layers, nn.Linear(64, 5))
    (finding,) = [f for f in check(model, [torch.randn(64, 64)] * 2) if f.code == "ND607"]
    assert "the variance between samples falls" in finding.message


def test_each_branch_is_held_against_its_own_first_layer():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.image, self.age, self.mix = nn.Linear(8, 32), nn.Linear(4, 32), nn.Linear(32, 32)
            self.head = nn.Linear(32, 5)

        def forward(self, image, age):
            return self.head(F.gelu(self.mix(F.gelu(self.image(image) + self.age(age)))))

    data = [{"image": torch.randn(32, 8), "age": torch.randn(32, 4) * 200} for _ in range(4)]
    torch.manual_seed(0)
    assert found(Two(), data) == [("ND615", "age")]


def test_default_initialization_of_usual_depth_is_silent():
    torch.manual_seed(0)
    for depth in (2, 4, 7):
        layers = [m for _ in range(depth) for m in (nn.Linear(128, 128), nn.ReLU())]
        model = nn.Sequential(*layers, nn.Linear(128, 5))
        assert found(model, [torch.randn(64, 128) for _ in range(4)]) == []


def test_norms_and_small_branches_hold_the_signal():
    model, data = made(Transformer)
    with torch.no_grad():
        for block in model.blocks:
            block[1].fc2.weight.mul_(1e-4)
            block[0].proj.weight.zero_()
    assert found(model, data) == []
    normed = nn.Sequential(
        nn.Linear(8, 64), nn.BatchNorm1d(64), nn.ReLU(),
        nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 5),
    )  # fmt: skip
    with torch.no_grad():
        normed[3].weight.mul_(1e3)
    assert found(normed, [torch.randn(64, 8)] * 2) == []


# -- the input


@pytest.mark.parametrize("net", [*NETS, Recurrent])
@pytest.mark.parametrize("edit", [lambda x: x * 70 + 120, lambda x: x * 0.1 + 1], ids=["pixels", "mean"])
def test_unscaled_input(net, edit):
    model, data = made(net, "gelu")
    findings = [f for f in check(model, [edit(x) for x in data]) if f.code == "ND615"]
    if net is Mixer:  # a norm comes first
        assert findings == []
    else:
        (finding,) = findings
        assert "the input `" in finding.message


class Scales(nn.Module):
    """Pixels come in, and are scaled inside."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.register_buffer("mean", torch.full((3, 1, 1), 127.0))

    def forward(self, x):
        return self.conv((x - self.mean) / 60).relu()


def test_input_that_the_model_scales():
    assert found(Scales(), [torch.randint(256, (8, 3, 12, 12)).float() for _ in range(2)]) == []


@pytest.mark.parametrize("norm", ["batch", "layer", "group", "function"])
def test_off_centre_input(norm):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.norm = {"batch": nn.BatchNorm2d(8), "group": nn.GroupNorm(2, 8)}.get(norm)
            self.layer = nn.LayerNorm(8)

        def forward(self, x):
            x = self.conv(x) + 500.0
            if norm == "layer":
                return self.layer(x.permute(0, 2, 3, 1)).relu()
            if norm == "function":
                return F.layer_norm(x, x.shape[1:]).relu()
            return self.norm(x).relu()

    ((code, place),) = found(Net(), [torch.randn(8, 3, 12, 12) for _ in range(2)])
    assert code == "ND614"
    assert place == {"layer": "layer", "function": "conv"}.get(norm, "norm")


# -- gates


SPELLINGS = ["sigmoid", "hard", "blend", "select"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_constant_gate(spelling):
    torch.manual_seed(0)
    data = [torch.randn(16, 3, 8, 8) for _ in range(4)]
    assert found(SqueezeExcite(spelling), data) == []
    ((code, _),) = found(SqueezeExcite(spelling, fault=True), data)
    assert code == "ND613"
    (finding,) = check(SqueezeExcite(spelling, fault=True), data)
    line = linecache.getline(finding.location.file, finding.location.line)
    assert "sigmoid" in line or "softmax" in line
    assert finding.evidence["value"] == (0.5 if spelling == "select" else 1.0)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_gate_behind_a_layer_that_starts_at_zero(spelling):
    model = SqueezeExcite(spelling)
    for layer_ in (model.up, model.down):
        nn.init.zeros_(layer_.weight)
        nn.init.zeros_(layer_.bias)
    assert found(model, [torch.randn(16, 3, 8, 8) for _ in range(4)]) == []


class Gated(nn.Module):
    """Gates that are nearly always open or closed, as they may be."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(32, 16)
        with torch.no_grad():
            self.b.weight.mul_(100.0)

    def forward(self, x):
        gate, candidate = torch.sigmoid(self.b(x)), torch.tanh(self.b(x))
        x = gate * self.a(x) + (1 - gate) * candidate
        y = self.b(x[:, :16])
        return self.c(y * F.relu6(y + 3) / 6)


def test_gates_may_saturate():
    places = found(Gated(), [torch.randn(64, 16) for _ in range(4)])
    assert {code for code, _ in places} <= {"ND607"}


# -- one finding, at the first place


class Ladder(nn.Module):
    """A U-Net: what is dead at the top makes all that follows constant, but for the padding."""

    def __init__(self):
        super().__init__()
        self.top, self.down = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1, stride=2)
        self.up, self.join = nn.ConvTranspose2d(32, 16, 2, 2), nn.Conv2d(32, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 2, 1)
        self.acts = nn.ModuleList(nn.ReLU(inplace=True) for _ in range(3))

    def forward(self, x):
        top = self.acts[0](self.top(x))
        bottom = self.acts[1](self.down(top))
        return self.head(self.acts[2](self.join(torch.cat([top, self.up(bottom)], 1))))


@pytest.mark.parametrize(("name", "place"), [("top", "acts.0"), ("down", "acts.1"), ("join", "acts.2")])
def test_what_follows_a_dead_layer_is_not_reported(name, place):
    torch.manual_seed(0)
    model = Ladder()
    with torch.no_grad():
        getattr(model, name).bias.fill_(-100.0)
    assert found(model, [torch.randn(8, 3, 16, 16) for _ in range(4)]) == [("ND602", place)]


class Raw(nn.Module):
    """Weights without layers."""

    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(16, 16) * 0.35) for _ in range(6))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(16)) for _ in range(6))

    def forward(self, x):
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = (x @ weight + bias).relu()
        return x.mean(-1)


def test_weights_without_layers():
    torch.manual_seed(0)
    model, data = Raw(), [torch.randn(64, 16) for _ in range(4)]
    assert found(model, data) == []
    with torch.no_grad():
        model.biases[2].fill_(-100.0)
    assert found(model, data) == [("ND602", "biases.2")]


@pytest.mark.parametrize("mode", [True, False])
def test_torch_s_own_transformer(mode):
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(block, 3, enable_nested_tensor=False), nn.Linear(32, 5))
    model.train(mode)
    data = [torch.randn(8, 10, 32) for _ in range(4)]
    assert found(model, data) == []
    with torch.no_grad():
        model[0].layers[1].linear1.bias.fill_(-100.0)
    assert found(model, data) == [("ND602", "0.layers.1.linear1")]


def test_in_a_watch():
    model, _ = made(Sequential, "tanh")
    model[5] = nn.ReLU()
    with torch.no_grad():
        model[0].weight.mul_(1e4)
        model[4].bias.fill_(-100.0)
    with normdoctor.watch(model, every=1, on_finding="ignore") as watch:
        for _ in range(4):
            model(torch.randn(64, 24))
            watch.step()
    places = {(f.code, *f.modules) for f in watch.report().findings}
    assert {("ND603", "1"), ("ND602", "5")} <= places


# -- what is zero by design


class Experts(nn.Module):
    """A mixture whose last expert is never chosen; the others get zeros for what is not theirs."""

    def __init__(self, sparse):
        super().__init__()
        self.router, self.head, self.sparse = nn.Linear(16, 4), nn.Linear(16, 5), sparse
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16)) for _ in range(4)
        )
        with torch.no_grad():
            self.router.bias[3] = -100.0

    def forward(self, x):
        weights = self.router(x).softmax(-1)
        best, y = weights.argmax(-1), torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            mine = best == k
            if self.sparse:
                rows = mine.nonzero()[:, 0]
                if len(rows):
                    y = y.index_add(0, rows, expert(x[rows]) * weights[rows, k : k + 1])
            else:
                y = y + expert(x.masked_fill(~mine.unsqueeze(-1), 0.0)) * mine.unsqueeze(-1)
        return self.head(y)


@pytest.mark.parametrize("sparse", [True, False])
def test_unused_experts_are_silent(sparse):
    torch.manual_seed(0)
    assert found(Experts(sparse), [torch.randn(256, 16) for _ in range(4)]) == []


def test_masked_positions_are_silent():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.norm = nn.Embedding(50, 32), nn.LayerNorm(32)
            self.attend = nn.MultiheadAttention(32, 4, batch_first=True)
            self.up, self.down, self.head = nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 5)

        def forward(self, x):
            pad = (torch.arange(x.shape[1]) >= 8).expand(x.shape)
            y = self.norm(x := self.embed(x))
            x = x + self.attend(y, y, y, key_padding_mask=pad)[0]
            y = F.relu(self.up(x)).masked_fill(pad.unsqueeze(-1), 0.0)
            return self.head(self.down(y).masked_fill(pad.unsqueeze(-1), -torch.inf).amax(1))

    torch.manual_seed(0)
    assert found(Net(), [torch.randint(50, (32, 12)) for _ in range(4)]) == []


class ZeroStart(nn.Module):
    """Residual branches that start at zero: gammas, last layers, a ReLU behind one, an unused expert."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.conv, self.norm = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.control = nn.Conv2d(16, 16, 1)
        self.film = nn.Linear(16, 32)
        self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.head = nn.Linear(16, 5)
        nn.init.zeros_(self.norm.weight)
        for layer_ in (self.control, self.film):
            nn.init.zeros_(layer_.weight)
            nn.init.zeros_(layer_.bias)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = x + F.gelu(self.norm(self.conv(x)))
        x = x + F.relu(self.control(x))
        x = x.mean((2, 3))
        scale, shift = self.film(x).chunk(2, -1)
        x = x * (1 + scale) + shift
        hidden = torch.zeros(len(x), 1, dtype=torch.bool)
        picked = [
            F.relu(expert(x.masked_fill(hidden == (k > 0), 0.0))) for k, expert in enumerate(self.experts)
        ]
        return self.head(x + picked[0] + 0 * picked[1])


def test_zero_by_design_is_silent():
    torch.manual_seed(0)
    assert found(ZeroStart(), [torch.randn(32, 3, 8, 8) for _ in range(4)]) == []


class Localization(nn.Module):
    """A spatial transformer starts at the identity: a layer of weight zero whose bias is not."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(192, 32)
        self.theta = nn.Linear(32, 6)
        self.conv = nn.Conv2d(3, 8, 3)
        nn.init.zeros_(self.theta.weight)
        with torch.no_grad():
            self.theta.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))

    def forward(self, x):
        theta = self.theta(F.relu(self.fc(x.flatten(1)))).view(-1, 2, 3)
        return self.conv(F.grid_sample(x, F.affine_grid(theta, x.shape, False), align_corners=False)).relu()


def test_a_spatial_transformer_is_silent():
    assert found(Localization(), [torch.randn(16, 3, 8, 8) for _ in range(4)]) == []


def test_positions_and_queries_do_not_vary_and_are_silent():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.position = nn.Embedding(50, 16), nn.Embedding(8, 16)
            self.query = nn.Parameter(torch.randn(1, 16))
            self.q, self.kv, self.head = nn.Linear(16, 16), nn.Linear(16, 32), nn.Linear(16, 5)

        def forward(self, x):
            x = self.embed(x) + self.position(torch.arange(x.shape[1]))
            k, v = self.kv(x).chunk(2, -1)
            q = torch.tanh(self.q(self.query)).expand(len(x), 1, 16)
            return self.head(F.scaled_dot_product_attention(q, k, v)[:, 0])

    assert found(Net(), [torch.randint(50, (32, 8)) for _ in range(4)]) == []


def test_outputs_may_saturate_and_be_constant():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 40), nn.Sigmoid())
    with torch.no_grad():
        model[2].weight.mul_(200.0)
    assert found(model, [torch.randn(64, 8)] * 4) == []


def test_synthetic_data_give_warnings_at_most():
    model, _ = made(Sequential)
    with torch.no_grad():
        model.layers[2].bias.fill_(-100.0)
    (finding,) = normdoctor.check(model, torch.randn(64, 24), data="synthetic", select=["ND602"]).findings
    assert finding.severity == "warning"
