"""Faults that people reported in real models, each rebuilt small, beside its mended form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normdoctor import check

IMAGE = torch.zeros(2, 3, 32, 32)
MAP = torch.zeros(2, 16, 8, 8)
VECTOR = torch.zeros(4, 16)


class Ported(nn.Sequential):
    """eps = channels, a Keras momentum as eps, a Caffe momentum: googlenet ports, GANs, deeplab."""

    def __init__(self, fixed=False, **fields):
        norm = nn.BatchNorm2d(16) if fixed else nn.BatchNorm2d(16, **fields)
        super().__init__(nn.Conv2d(16, 16, 3, bias=False), norm, nn.ReLU())


class RefineHead(nn.Module):
    """A head that builds its ReLU and never calls it, shared by two levels."""

    def __init__(self, fixed=False):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(2))
        self.relu = nn.ReLU()
        self.fixed = fixed

    def forward(self, x):
        out = []
        for level in (x, F.max_pool2d(x, 2)):
            y = level
            for conv in self.convs:
                y = self.relu(conv(y)) if self.fixed else conv(y)
            out.append(y)
        return out


class Bottleneck(nn.Module):
    """A ResNet block of which one ReLU was lost, behind a norm."""

    def __init__(self, fixed=False):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(16, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv3, self.bn3 = nn.Conv2d(4, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.act = nn.ReLU(inplace=True) if fixed else nn.Identity()

    def forward(self, x):
        out = self.act(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(x + self.bn3(self.conv3(out)))


class LostBeforeFlatten(nn.Module):
    """A convolution, flattened, into a linear layer."""

    def __init__(self, fixed=False):
        super().__init__()
        act = nn.ReLU() if fixed else nn.Identity()
        self.body = nn.Sequential(
            nn.Conv2d(16, 16, 3), act, nn.Dropout(0.2), nn.Flatten(), nn.Linear(576, 10)
        )

    def forward(self, x):
        return self.body(x)


class ResidualOfVqvae(nn.Module):
    """The residual branch starts with an in-place ReLU."""

    def __init__(self, fixed=False):
        super().__init__()
        self.stem = nn.Conv2d(16, 16, 3, padding=1)
        self.conv = nn.Sequential(
            nn.ReLU(inplace=not fixed),
            nn.Conv2d(16, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 16, 1),
        )

    def forward(self, x):
        x = self.stem(x)
        out = self.conv(x)
        out += x
        return out


class SkipByConvolution(nn.Module):
    """Xception: the skip convolution reads the block's input behind an in-place ReLU of it."""

    def __init__(self, fixed=False):
        super().__init__()
        self.relu = nn.ReLU(inplace=not fixed)
        self.stem, self.conv = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3, padding=1)
        self.skip = nn.Conv2d(16, 16, 1)

    def forward(self, x):
        x = self.stem(x)
        out = self.conv(self.relu(x))
        return out + self.skip(x)


class LateView(nn.Module):
    """A view that was taken before shares the memory."""

    def __init__(self, fixed=False):
        super().__init__()
        self.fixed = fixed
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x):
        x = self.one(x)
        old = x.view(2, 2, 16)
        y = F.relu(x, inplace=not self.fixed)
        return self.two(y) + old.flatten(0, 1)


class DecoderLayer(nn.Module):
    """`ln1` is used twice and `ln2` never."""

    def __init__(self, fixed=False):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.mix, self.mlp = nn.Linear(16, 16), nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.fixed = fixed

    def forward(self, x):
        x = x + self.mix(self.ln1(x))
        return x + self.mlp((self.ln2 if self.fixed else self.ln1)(x))


class SharedNorm(nn.Module):
    """One BatchNorm behind three convolutions."""

    def __init__(self, fixed=False):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1, bias=False) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(3 if fixed else 1))

    def forward(self, x):
        for index, conv in enumerate(self.convs):
            x = F.relu(self.norms[index % len(self.norms)](conv(x)))
        return x


class GateOfGate(nn.Module):
    """The gate is stored as a sigmoid and gets a second one where it is used."""

    def __init__(self, fixed=False):
        super().__init__()
        self.gate, self.score = nn.Linear(16, 16), nn.Linear(16, 16)
        self.fixed = fixed

    def forward(self, x):
        gate = torch.sigmoid(self.gate(x))
        again = gate if self.fixed else torch.sigmoid(gate)
        return again * self.score(x), gate


class RectifiedLogits(nn.Module):
    def __init__(self, fixed=False):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 10), nn.Identity() if fixed else nn.ReLU())

    def forward(self, x):
        return F.log_softmax(self.body(x), dim=1)


class DropoutFirst(nn.Sequential):
    """Convolution, dropout, norm, activation."""

    def __init__(self, fixed=False):
        inner = [nn.BatchNorm2d(16), nn.ReLU()]
        drop = [nn.Dropout2d(0.25)]
        super().__init__(nn.Conv2d(16, 16, 3, bias=False), *(inner + drop if fixed else drop + inner))


class HiddenLayers(nn.Module):
    def __init__(self, fixed=False):
        super().__init__()
        layers = {"a": nn.Linear(16, 16), "b": (nn.Linear(16, 16), nn.ReLU())}
        self.layers = nn.ModuleDict({"a": layers["a"], "b": nn.Sequential(*layers["b"])}) if fixed else layers
        scales = [nn.Parameter(torch.ones(16)) for _ in range(2)]
        self.scales = nn.ParameterList(scales) if fixed else scales

    def forward(self, x):
        x = torch.relu(self.layers["a"](x)) * self.scales[0]
        b = self.layers["b"]
        return (b(x) if isinstance(b, nn.Module) else b[1](b[0](x))) * self.scales[1]


class HiddenDropout(nn.Module):
    """`eval()` does not switch it off."""

    def __init__(self, fixed=False):
        super().__init__()
        drops = [nn.Dropout(0.5), nn.Dropout(0.1)]
        self.drops = nn.ModuleList(drops) if fixed else drops
        self.fc = nn.Linear(16, 16)

    def forward(self, x):
        return self.drops[1](self.fc(self.drops[0](x)))


class SingleElement(nn.Sequential):
    """GroupNorm with one channel a group behind a global pooling."""

    def __init__(self, fixed=False, groups=16):
        super().__init__(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.GroupNorm(4 if fixed else groups, 16), nn.ReLU()
        )


class Unwritten(nn.Module):
    def __init__(self, fixed=False):
        super().__init__()
        self.prompt = nn.Parameter(torch.zeros(1, 16) if fixed else torch.empty(1, 16))
        self.weight = nn.Parameter(torch.randn(16, 16) if fixed else torch.Tensor(16, 16))

    def forward(self, x):
        return (x + self.prompt) @ self.weight


class Constant(nn.Module):
    def __init__(self, fixed=False, value=0.0):
        super().__init__()
        self.fc1, self.bn = nn.Linear(16, 32, bias=False), nn.BatchNorm1d(32)
        self.lstm, self.fc2 = nn.LSTM(32, 8), nn.Linear(8, 4)
        if not fixed:
            nn.init.constant_(self.fc1.weight, value)

    def forward(self, x):
        return self.fc2(self.lstm(F.relu(self.bn(self.fc1(x))))[0])


class Twice(nn.Module):
    """Softmax in the model, cross entropy behind it."""

    def __init__(self, fixed=False):
        super().__init__()
        self.fc = nn.Linear(16, 4)
        self.fixed = fixed

    def forward(self, x):
        return self.fc(x) if self.fixed else F.softmax(self.fc(x), dim=-1)


CASES = [
    ("BN02 eps is the number of channels", "ND201", Ported, {"eps": 16}, MAP, "error"),
    ("BN10 eps of zero", "ND201", Ported, {"eps": 0.0}, MAP, "error"),
    ("eps between", "ND201", Ported, {"eps": 0.05}, MAP, "warning"),
    ("BN04 momentum 0.999", "ND202", Ported, {"momentum": 0.999}, MAP, "error"),
    ("BN10 momentum above 1", "ND202", Ported, {"momentum": 1.5}, MAP, "error"),
    ("momentum below 0", "ND202", Ported, {"momentum": -0.1}, MAP, "error"),
    ("momentum 0", "ND202", Ported, {"momentum": 0.0}, MAP, "warning"),
    ("momentum 0.5", "ND202", Ported, {"momentum": 0.5}, MAP, "warning"),
    ("AC12 a head without its ReLU", "ND301", RefineHead, {}, MAP, "warning"),
    ("AC04 a residual block without one", "ND301", Bottleneck, {}, MAP, "warning"),
    ("flattened", "ND301", LostBeforeFlatten, {}, MAP, "warning"),
    ("AC14 in-place ReLU", "ND315", ResidualOfVqvae, {}, MAP, "error"),
    ("in-place ReLU and a skip convolution", "ND315", SkipByConvolution, {}, MAP, "error"),
    ("in-place ReLU and an older view", "ND315", LateView, {}, VECTOR, "error"),
    ("TR06 a norm that is used twice", "ND110", DecoderLayer, {}, VECTOR, "error"),
    ("SH02 a shared norm", "ND105", SharedNorm, {}, MAP, "warning"),
    ("SG08 sigmoid of sigmoid", "ND302", GateOfGate, {}, VECTOR, "warning"),
    ("AC06 ReLU in front of log_softmax", "ND302", RectifiedLogits, {}, VECTOR, "warning"),
    ("DO02 dropout in front of BatchNorm", "ND102", DropoutFirst, {}, MAP, "warning"),
    ("UR02 plain containers", "ND502", HiddenLayers, {}, VECTOR, "error"),
    ("plain list of dropouts", "ND502", HiddenDropout, {}, VECTOR, "error"),
    ("SB02 GroupNorm over one element", "ND114", SingleElement, {}, MAP, "error"),
    ("GroupNorm over two elements", "ND114", SingleElement, {"groups": 8}, MAP, "warning"),
    ("IN08 IN10 uninitialized parameters", "ND405", Unwritten, {}, VECTOR, "error"),
    ("zeros in a hidden layer", "ND401", Constant, {}, VECTOR, "error"),
    ("one value in a hidden layer", "ND401", Constant, {"value": 0.02}, VECTOR, "error"),
    ("DS08 softmax in front of cross entropy", "ND310", Twice, {}, VECTOR, "error"),
]


@pytest.mark.parametrize(
    ("code", "model", "fields", "inputs", "severity"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_found_in_the_faulty_model_and_nothing_in_the_mended_one(code, model, fields, inputs, severity):
    loss = nn.CrossEntropyLoss() if code == "ND310" else None
    faulty = check(lambda: model(**fields), inputs=inputs, loss=loss)
    assert {finding.code for finding in faulty.findings if finding.severity != "info"} == {code}, faulty
    assert {finding.severity for finding in faulty.findings if finding.code == code} == {severity}
    mended = check(lambda: model(fixed=True, **fields), inputs=inputs, loss=loss)
    assert code not in {finding.code for finding in mended.findings}, mended
    assert all(finding.severity == "info" for finding in mended.findings), mended
