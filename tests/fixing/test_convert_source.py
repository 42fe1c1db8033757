"""`normdoctor convert`: norms in source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from normdoctor.cli import main
from normdoctor.loading.target import load

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
NET = """\
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self, norm_layer=nn.BatchNorm2d):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, bias=False)
        self.bn = nn.BatchNorm2d(16, eps=1e-3, momentum=0.01)  # first
        self.made = norm_layer(16)
        self.plain = nn.BatchNorm2d(16, affine=False)
        self.fc = nn.Linear(16, 8)
        self.vector = nn.BatchNorm1d(8)
        self.last = nn.LayerNorm(8)

    def forward(self, x):
        x = torch.relu(self.plain(self.made(self.bn(self.conv(x)))))
        x = self.vector(self.fc(x.mean((2, 3))))
        return F.layer_norm(self.last(x), (8,))


model = Net()
inputs = torch.randn(4, 3, 8, 8)
"""


@pytest.fixture
def convert(tmp_path, monkeypatch):
    """Runs the command on model.py; gives the result and the text of the file afterwards."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(NET)

    def run(*args, code=None, text=None):
        if text is not None:
            Path("model.py").write_text(text)
        result = CliRunner().invoke(main, ["convert", "model.py", "--isolated", *args])
        assert code is None or result.exit_code == code, result.output
        return result, Path("model.py").read_text()

    return run


def line(text, attribute):
    """What `self.attribute` is assigned."""
    return re.search(rf"self\.{attribute} = (.*)", text)[1]


class TestDecisions:
    def test_group(self, convert):
        result, text = convert("--to", "group", "--write", code=0)
        assert line(text, "bn") == "nn.GroupNorm(4, 16, eps=1e-3)  # first"
        assert line(text, "made") == "norm_layer(16)"
        assert "norm_layer=functools.partial(nn.GroupNorm, 4)" in text
        assert "import functools\n" in text
        assert line(text, "plain") == "nn.GroupNorm(4, 16, affine=False)"
        assert line(text, "vector") == "nn.GroupNorm(2, 8)"
        assert line(text, "last") == "nn.LayerNorm(8)"
        said = result.stdout
        assert "LayerNorm has no counterpart" in said
        assert "a call in a forward" in said
        assert "Wrote model.py." in said
        assert len(load("model.py")) == 1

    def test_comments_among_the_arguments_are_not_lost(self, convert):
        old = NET.replace("(16, eps=1e-3, momentum=0.01)", "(\n            16,  # width\n        )")
        result, text = convert("--to", "group", "--write", code=0, text=old)
        assert "nn.BatchNorm2d(\n            16,  # width\n        )" in text
        assert "a comment stands among the arguments in line 10" in result.stdout
        assert line(text, "plain") == "nn.GroupNorm(4, 16, affine=False)"

    def test_device_and_dtype_stay(self, convert):
        old = NET.replace("eps=1e-3, momentum=0.01", 'device="cpu", dtype=torch.float32')
        _, text = convert("--to", "group", "--write", code=0, text=old)
        assert line(text, "bn") == 'nn.GroupNorm(4, 16, device="cpu", dtype=torch.float32)  # first'

    def test_the_diff_is_the_default_and_writes_nothing(self, convert):
        for flags in ((), ("--diff",)):
            result, text = convert("--to", "instance", *flags, code=1)
            assert text == NET
            assert "+        self.bn = nn.InstanceNorm2d(16, eps=1e-3, affine=True)  # first" in result.stdout
            assert "Outputs differ" in result.stderr

    def test_ours_and_back(self, convert):
        _, text = convert("--to", "ours", "--write", code=0)
        assert "from normdoctor import layers\n" in text
        assert line(text, "bn") == "layers.BatchNorm2d(16, eps=1e-3, momentum=0.01)  # first"
        assert "norm_layer=layers.BatchNorm2d" in text
        assert line(text, "last") == "layers.LayerNorm(8)"
        _, again = convert("--to", "ours", "--write", code=0)
        assert again == text
        _, back = convert("--to", "torch", "--write", code=0)
        assert back.replace("from normdoctor import layers\n", "") == NET

    def test_layer_and_back_to_batch(self, convert):
        _, text = convert("--to", "layer", "--write", code=0)
        assert line(text, "bn").startswith("nn.GroupNorm(1, 16, eps=1e-3)")
        assert line(text, "vector") == "nn.LayerNorm(8)"
        _, text = convert("--to", "batch", "--write", code=0)
        assert line(text, "bn").startswith("nn.BatchNorm2d(16, eps=1e-3)")

    def test_rms(self, convert):
        _, text = convert("--to", "rms", "--write", code=0)
        assert line(text, "last") == "nn.RMSNorm(8, eps=1e-05)"
        assert line(text, "bn") == "nn.BatchNorm2d(16, eps=1e-3, momentum=0.01)  # first"

    def test_where(self, convert):
        _, text = convert("--to", "group", "--where", "b*", "--write", code=0)
        assert line(text, "bn").startswith("nn.GroupNorm")
        assert line(text, "plain").startswith("nn.BatchNorm2d")

    def test_number_of_groups(self, convert):
        result, text = convert("--to", "group", "--num-groups", "16", "--write")
        assert line(text, "bn").startswith("nn.GroupNorm(16, 16")
        assert "16 groups do not divide 8 channels" in result.stdout

    def test_a_factory_with_settings(self, convert):
        made = "norm_layer=functools.partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)"
        text = NET.replace("norm_layer=nn.BatchNorm2d", made).replace(
            "import torch\n", "import functools\nimport torch\n", 1
        )
        _, found = convert("--to", "group", "--write", code=0, text=text)
        assert "norm_layer=functools.partial(nn.GroupNorm, 4, eps=1e-3)" in found

    def test_isinstance_is_left_alone(self, convert):
        text = NET.replace(
            "model = Net()",
            "model = Net()\nfor m in model.modules():\n    if isinstance(m, (nn.BatchNorm2d, nn.Linear)):\n"
            "        m.requires_grad_(True)",
        )
        _, found = convert("--to", "group", "--write", code=0, text=text)
        assert "isinstance(m, (nn.BatchNorm2d, nn.Linear))" in found

    def test_a_name_that_the_file_has(self, convert):
        text = NET.replace("self.conv = ", "layers = 1\n        self.conv = ")
        _, found = convert("--to", "ours", "--write", code=0, text=text)
        assert line(found, "bn").startswith("normdoctor.layers.BatchNorm2d(16")
        assert "import normdoctor.layers\n" in found

    def test_a_subclass_with_a_forward_of_its_own(self, convert):
        text = NET.replace(
            "class Net", "class Act(nn.BatchNorm2d):\n    def forward(self, x):\n"
            "        return torch.relu(super().forward(x))\n\n\nclass Net",
        ).replace("self.plain = nn.BatchNorm2d(16, affine=False)", "self.plain = Act(16)")  # fmt: skip
        result, found = convert("--to", "group", "--write", code=0, text=text)
        assert line(found, "plain") == "Act(16)"
        assert "a forward of its own" in result.stdout

    def test_nothing_to_convert(self, convert):
        text = "import torch\nfrom torch import nn\nmodel = nn.Linear(2, 2)\ninputs = torch.randn(2, 2)\n"
        result, found = convert("--to", "group", code=0, text=text)
        assert found == text
        assert "No norms were found." in result.stdout


class TestByHand:
    @pytest.mark.parametrize("to", ["torch", "ours"])
    def test_the_lenet_with_a_hand_written_batchnorm(self, convert, to):
        text = (EXAMPLES / "lenet_sigmoid_bn.py").read_text()
        result, found = convert("--to", to, "--write", code=0, text=text)
        assert "4 of 4 sites converted, 0 left." in result.stdout
        assert len(re.findall(r"BatchNorm[12]d\(\d+\)", found)) == 4
        before, _ = load(str(EXAMPLES / "lenet_sigmoid_bn.py"))[0], None
        after = load("model.py")[0]
        names = {"gamma": "weight", "beta": "bias"}
        state = after.model.state_dict()
        for name, value in before.model.state_dict().items():
            head, _, last = name.rpartition(".")
            state[f"{head}.{names.get(last, last)}"] = value.flatten() if last in names else value
        after.model.load_state_dict(state)
        x = torch.randn(8, 1, 28, 28)
        torch.testing.assert_close(after.model(x), before.model(x))
        with torch.no_grad():
            torch.testing.assert_close(after.model.eval()(x), before.model.eval()(x), rtol=1e-4, atol=1e-4)

    def test_the_size_is_said_as_before(self, convert):
        text = """\
import torch
from torch import nn


class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


def build(width=16):
    return nn.Sequential(nn.Linear(8, width), RMSNorm(width, 1e-6), nn.ReLU())


model = build()
inputs = torch.randn(4, 8)
"""
        _, found = convert("--to", "torch", "--write", code=0, text=text)
        assert "nn.RMSNorm(width, eps=1e-06)" in found

    def test_what_divides_by_n_minus_one_is_left(self, convert):
        text = """\
import torch
from torch import nn


class Norm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        return self.weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + self.bias


model = nn.Sequential(nn.Linear(8, 16), Norm(16), nn.ReLU())
inputs = torch.randn(4, 8)
"""
        result, found = convert("--to", "torch", "--write", text=text)
        assert found == text
        assert "it divides by n - 1" in result.stdout


class TestRefusals:
    def test_options(self, convert):
        convert("--to", "group", "--diff", "--write", code=2)
        convert("--to", "rms", "--num-groups", "2", code=2)
        convert("--to", "nothing", code=2)
        convert(code=2)

    def test_a_file_without_model(self, convert):
        convert("--to", "group", code=2, text="x = 1\n")
