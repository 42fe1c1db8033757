"""How source is edited: the ways that people write models, and the ways that they write files."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from normdoctor.config import Settings
from normdoctor.findings import Confidence
from normdoctor.fixing.fixer import fix_targets
from normdoctor.testing import fix_source

pytestmark = pytest.mark.filterwarnings("ignore")


def fixed(source, *codes, unsafe=True):
    """The text after the fix, and the reasons why fixes were not applied."""
    text, outcome = fix_source(textwrap.dedent(source), *codes, unsafe=unsafe)
    return text, [one.reason for one in outcome.unfixed]


def fix_bytes(folder, data, *codes, name="model.py"):
    path = Path(folder) / name
    path.write_bytes(data)
    settings = Settings(select=codes, min_confidence=Confidence.LOW, root=Path(folder))
    outcome = fix_targets([str(path)], settings, unsafe=True)
    return path.read_bytes(), outcome


NET = """\
import torch
from torch import nn

model = nn.Sequential(
    nn.Conv2d(3, 16, 3),
    nn.BatchNorm2d(16),
    nn.ReLU(),
)
inputs = torch.randn(4, 3, 8, 8)
"""
DONE = NET.replace("16, 3)", "16, 3, bias=False)")


class TestFiles:
    def test_crlf(self, tmp_path):
        data, _ = fix_bytes(tmp_path, NET.replace("\n", "\r\n").encode(), "ND101")
        assert data == DONE.replace("\n", "\r\n").encode()

    def test_crlf_on_a_line_of_its_own(self, tmp_path):
        text = NET.replace("nn.Conv2d(3, 16, 3)", "nn.Conv2d(\n        3,\n        16,\n        3,\n    )")
        data, _ = fix_bytes(tmp_path, text.replace("\n", "\r\n").encode(), "ND101")
        wanted = text.replace("        3,\n    )", "        3,\n        bias=False,\n    )")
        assert data == wanted.replace("\n", "\r\n").encode()

    def test_tabs(self, tmp_path):
        data, _ = fix_bytes(tmp_path, NET.replace("    ", "\t").encode(), "ND101")
        assert data == DONE.replace("    ", "\t").encode()

    def test_a_byte_order_mark(self, tmp_path):
        data, _ = fix_bytes(tmp_path, b"\xef\xbb\xbf" + NET.encode(), "ND101")
        assert data == b"\xef\xbb\xbf" + DONE.encode()

    @pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "iso8859-15"])
    def test_a_declared_encoding(self, tmp_path, encoding):
        head = f"# -*- coding: {encoding} -*-\n# Gr\u00f6\u00dfe \u00e9\n"
        data, _ = fix_bytes(tmp_path, (head + NET).encode(encoding), "ND101")
        assert data == (head + DONE).encode(encoding)

    def test_wide_characters_in_front_on_the_line(self, tmp_path):
        text = NET.replace("nn.Conv2d", "*[nn.Identity() for _ in '\u5927\U0001f600'], nn.Conv2d")
        data, _ = fix_bytes(tmp_path, text.encode(), "ND101")
        assert data == text.replace("16, 3)", "16, 3, bias=False)").encode()

    def test_no_newline_at_the_end(self, tmp_path):
        data, _ = fix_bytes(tmp_path, NET.rstrip("\n").encode(), "ND101")
        assert data == DONE.rstrip("\n").encode()


class TestArguments:
    def test_comments_and_formatting_stay(self):
        source = """\
        import torch
        from torch import nn

        model = nn.Sequential(
            # the stem
            nn.Conv2d(  # three channels
                3, 16,
                kernel_size = (3),  # small
                # and no padding
            ),
            nn.BatchNorm2d(16),  # norm
        )
        inputs = torch.randn(4, 3, 8, 8)
        """
        text, _ = fixed(source, "ND101")
        wanted = "        kernel_size = (3),  # small\n        bias=False,\n"
        assert text == textwrap.dedent(source).replace("        kernel_size = (3),  # small\n", wanted)

    def test_the_bias_is_stated(self):
        text, _ = fixed(NET.replace("16, 3)", "16, 3, bias = True)"), "ND101")
        assert "nn.Conv2d(3, 16, 3, bias = False)" in text

    def test_the_bias_is_positional(self):
        source = NET.replace("nn.Conv2d(3, 16, 3)", "nn.Flatten(), nn.Linear(192, 16, True)")
        text, _ = fixed(source.replace("BatchNorm2d", "BatchNorm1d"), "ND101")
        assert "nn.Linear(192, 16, bias=False)" in text

    def test_arguments_behind_a_dropped_one_are_named(self):
        text, _ = fixed(NET.replace("BatchNorm2d(16)", "BatchNorm2d(16, 16, 0.2)"), "ND201")
        assert "nn.BatchNorm2d(16, momentum=0.2)" in text

    def test_starred_arguments(self):
        source = NET.replace("nn.BatchNorm2d(16)", "nn.BatchNorm2d(*(16, 0.8))")
        text, reasons = fixed(source, "ND201")
        assert text == source
        assert "starred" in reasons[0]

    def test_keyword_arguments_from_a_dict(self):
        source = NET.replace("nn.Conv2d(3, 16, 3)", "nn.Conv2d(3, 16, 3, **{'bias': True})")
        text, _ = fixed(source, "ND101")
        assert text == source.replace("True", "False")

    def test_keyword_arguments_that_come_from_elsewhere(self):
        source = NET.replace("nn.Conv2d(3, 16, 3)", "nn.Conv2d(3, 16, 3, **dict([('bias', True)]))")
        text, reasons = fixed(source, "ND101")
        assert text == source
        assert reasons

    @pytest.mark.parametrize("settings", ["{'momentum': 0.99, 'eps': 1e-3}", "dict(momentum=0.99)"])
    def test_settings_in_a_dict(self, settings):
        source = NET.replace("model =", f"settings = {settings}\nmodel =")
        text, reasons = fixed(source.replace("BatchNorm2d(16)", "BatchNorm2d(16, **settings)"), "ND202")
        assert reasons == []
        assert f"settings = {settings.replace('0.99', '0.01')}\n" in text

    def test_a_value_from_a_dict_that_holds_others(self):
        text, _ = fixed(NET.replace("nn.Conv2d(3, 16, 3)", "nn.Conv2d(3, 16, **{'kernel_size': 3})"), "ND101")
        assert "nn.Conv2d(3, 16, bias=False, **{'kernel_size': 3})" in text

    def test_other_names_of_torch(self):
        source = NET.replace(
            "from torch import nn", "from torch import nn as N\nfrom torch.nn import Conv2d as C"
        )
        text, _ = fixed(source.replace("nn.Conv2d(", "C(").replace("nn.", "N."), "ND101")
        assert "C(3, 16, 3, bias=False)" in text

    def test_a_walrus_a_lambda_and_a_decorator(self):
        source = """\
        import functools
        import torch
        from torch import nn

        @functools.lru_cache
        def build(make=lambda a, b: (conv := nn.Conv2d(a, b, 3))):
            return nn.Sequential(make(3, 16), nn.BatchNorm2d(16))

        model = build()
        inputs = torch.randn(4, 3, 8, 8)
        """
        text, _ = fixed(source, "ND101")
        assert "(conv := nn.Conv2d(a, b, 3, bias=False))" in text

    def test_a_class_of_the_users_own_without_the_argument(self):
        source = NET.replace(
            "model =",
            "class Conv(nn.Conv2d):\n    def __init__(self, a, b):\n        super().__init__(a, b, 3)\n\n"
            "model =",
        ).replace("nn.Conv2d(3, 16, 3)", "Conv(3, 16)")
        text, reasons = fixed(source, "ND101")
        assert text == source
        assert not reasons or "takes no `bias`" in reasons[0]


class TestSites:
    def test_one_line_that_builds_many(self):
        source = """\
        import torch
        from torch import nn

        sizes = (3, 8), (8, 8)
        model = nn.Sequential(*[m for a, b in sizes for m in (nn.Conv2d(a, b, 3), nn.BatchNorm2d(b))])
        inputs = torch.randn(4, 3, 8, 8)
        """
        text, _ = fixed(source, "ND101")
        assert text.count("bias=False") == 1

    def test_one_line_of_which_only_some_layers_are_at_fault(self):
        source = """\
        import torch
        from torch import nn

        convs = [nn.Conv2d(a, b, 3) for a, b in ((3, 8), (8, 4))]
        model = nn.Sequential(convs[0], nn.BatchNorm2d(8), nn.ReLU(), convs[1])
        inputs = torch.randn(4, 3, 8, 8)
        """
        text, reasons = fixed(source, "ND101")
        assert text == textwrap.dedent(source)
        assert "also makes `3`" in reasons[0]

    def test_a_factory_that_partial_made(self):
        source = """\
        from functools import partial

        import torch
        from torch import nn


        class Net(nn.Module):
            def __init__(self, norm_layer=partial(nn.BatchNorm2d, momentum=0.99)):
                super().__init__()
                self.conv = nn.Conv2d(3, 8, 3, bias=False)
                self.bn = norm_layer(8)

            def forward(self, x):
                return torch.relu(self.bn(self.conv(x)))


        model = Net()
        inputs = torch.randn(4, 3, 8, 8)
        """
        text, _ = fixed(source, "ND202")
        assert "partial(nn.BatchNorm2d, momentum=0.01)" in text
        assert "norm_layer(8)" in text

    def test_a_factory_that_is_called_with_the_argument(self):
        source = NET.replace("model =", "norm = nn.BatchNorm2d\nmodel =").replace(
            "nn.BatchNorm2d(16)", "norm(16, momentum=0.99)"
        )
        text, _ = fixed(source, "ND202")
        assert "norm(16, momentum=0.01)" in text

    def test_a_factory_that_says_nothing(self):
        source = NET.replace("model =", "conv = nn.Conv2d\nmodel =").replace("nn.Conv2d(3", "conv(3")
        text, _ = fixed(source, "ND101")
        assert "conv(3, 16, 3, bias=False)" in text

    def test_two_fixes_of_one_call(self):
        source = NET.replace("BatchNorm2d(16)", "BatchNorm2d(16, 0.5, 0.99)")
        text, _ = fixed(source, "ND101", "ND201", "ND202")
        assert "nn.Conv2d(3, 16, 3, bias=False)" in text
        assert "0.99" not in text
        assert "nn.BatchNorm2d(16" in text
        assert fixed(text, "ND101", "ND201", "ND202")[0] == text


LOGITS = """\
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 4)
        {made}

    def forward(self, x):
        {body}


model = Net()
inputs = torch.randn(4, 8)
loss = nn.CrossEntropyLoss()
"""


def logits(body, made="self.other = 1"):
    text, reasons = fixed(LOGITS.format(body=body, made=made), "ND310")
    lines = text.splitlines()
    start, end = lines.index("    def forward(self, x):") + 1, lines.index("model = Net()")
    return "\n".join(line.strip() for line in lines[start:end] if line), text, reasons


class TestDrop:
    @pytest.mark.parametrize(
        ("body", "wanted"),
        [
            ("return F.softmax(self.fc(x), dim=1)", "return self.fc(x)"),
            ("return F.softmax(input=self.fc(x), dim=1)", "return self.fc(x)"),
            ("return self.fc(x).softmax(-1)", "return self.fc(x)"),
            ("return torch.softmax(self.fc(x) + 1, 1) * 1.0", "return (self.fc(x) + 1) * 1.0"),
            ("return torch.softmax((self.fc(x) + 1), 1)", "return (self.fc(x) + 1)"),
            ("return torch.softmax(self.fc(x) + 1, 1)", "return self.fc(x) + 1"),
            ("y = self.fc(x)\n        y = F.softmax(y, dim=1)\n        return y", "y = self.fc(x)\nreturn y"),
            ("y = self.fc(x)\n        return F.softmax(y, dim=1)", "y = self.fc(x)\nreturn y"),
            ("return F.softmax((y := self.fc(x)), dim=1)", "return (y := self.fc(x))"),
            ("return F.softmax(self.fc(x)\n            + 1, dim=1)", "return (self.fc(x)\n+ 1)"),
            ("return F.softmax(F.log_softmax(self.fc(x), 1).exp(), dim=1)", None),
        ],
    )
    def test_calls(self, body, wanted):
        found, _, reasons = logits(body)
        if wanted is None:
            assert "softmax" in found
        else:
            assert (found, reasons) == (wanted, [])

    def test_a_layer_with_its_use(self):
        found, text, _ = logits("return self.prob(self.fc(x))", "self.prob = nn.Softmax(dim=1)")
        assert found == "return self.fc(x)"
        assert "prob" not in text

    def test_a_layer_that_is_used_elsewhere_too(self):
        body = "w = self.prob(x)\n        return self.prob(self.fc(x * w))"
        found, text, _ = logits(body, "self.prob = nn.Softmax(dim=1)")
        assert found == "w = self.prob(x)\nreturn self.fc(x * w)"
        assert "self.prob = nn.Softmax(dim=1)" in text

    def test_a_layer_in_a_list(self):
        made = "self.layers = nn.ModuleList([nn.Softmax(dim=1)])"
        body = "y = self.fc(x)\n        for layer in self.layers:\n            y = layer(y)\n        return y"
        _, text, _ = logits(body, made)
        assert "nn.ModuleList([nn.Identity()])" in text

    @pytest.mark.parametrize(
        ("layers", "wanted"),
        [
            ("nn.Linear(8, 4), nn.Softmax(dim=1)", "nn.Linear(8, 4)"),
            ("nn.Linear(8, 4), nn.Softmax(dim=1),", "nn.Linear(8, 4),"),
            ("nn.Linear(8, 4), nn.Softmax(dim=1), nn.Dropout(0.0)", "nn.Linear(8, 4), nn.Dropout(0.0)"),
            ("nn.Softmax(dim=1)", "nn.Identity()"),
        ],
    )
    def test_an_element_of_a_sequential(self, layers, wanted):
        made = f"self.head = nn.Sequential({layers})"
        body = "return self.head(x)" if "Linear" in layers else "return self.head(self.fc(x))"
        _, text, reasons = logits(body, made)
        assert f"self.head = nn.Sequential({wanted})" in text.replace(", )", ",)")
        assert reasons == []

    def test_bare_names(self):
        source = """\
        import torch
        from torch.nn import CrossEntropyLoss, Linear, Sequential, Softmax

        model = Sequential(Softmax(dim=1))
        model = Sequential(Linear(8, 4), Sequential(Softmax(dim=1)))
        inputs = torch.randn(4, 8)
        loss = CrossEntropyLoss()
        """
        text, reasons = fixed(source, "ND310")
        assert reasons == []
        assert "Sequential(torch.nn.Identity())" in text


class TestRegistration:
    @pytest.mark.parametrize(
        ("made", "wanted"),
        [
            (
                "self.blocks = [nn.Linear(8, 8), nn.Linear(8, 8)]",
                "nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])",
            ),
            (
                "self.blocks = nn.Linear(8, 8), nn.Linear(8, 8)",
                "nn.ModuleList((nn.Linear(8, 8), nn.Linear(8, 8)))",
            ),
            ("self.blocks = []\n        self.blocks.append(nn.Linear(8, 8))", "nn.ModuleList()"),
            ("b = [nn.Linear(8, 8)]\n        self.blocks = b", "nn.ModuleList(b)"),
            ("self.blocks: list = [nn.Linear(8, 8)]", "nn.ModuleList([nn.Linear(8, 8)])"),
        ],
    )
    def test_lists(self, made, wanted):
        body = "for block in self.blocks:\n            x = torch.relu(block(x))\n        return self.fc(x)"
        text, reasons = fixed(LOGITS.format(made=made, body=body), "ND502", unsafe=False)
        assert reasons == []
        assert f"= {wanted}\n" in text

    def test_a_dict(self):
        made, body = "self.heads = {'a': nn.Linear(8, 8)}", "return self.fc(self.heads['a'](x))"
        text, _ = fixed(LOGITS.format(made=made, body=body), "ND502", unsafe=False)
        assert "self.heads = nn.ModuleDict({'a': nn.Linear(8, 8)})" in text

    def test_a_dict_that_ModuleDict_does_not_take(self):
        made, body = "self.heads = {0: nn.Linear(8, 8)}", "return self.fc(self.heads[0](x))"
        source = LOGITS.format(made=made, body=body)
        text, reasons = fixed(source, "ND502", unsafe=False)
        assert text == source
        assert reasons

    def test_a_buffer(self):
        made = "self.mean = torch.zeros(8)  # running"
        body = "self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()\n        return self.fc(x - self.mean)"
        text, _ = fixed(LOGITS.format(made=made, body=body), "ND503", unsafe=False)
        assert 'self.register_buffer("mean", torch.zeros(8))  # running' in text


class TestDropout:
    @pytest.mark.parametrize(
        ("body", "wanted"),
        [
            ("return self.fc(F.dropout(x))", "F.dropout(x, training=self.training)"),
            (
                "return self.fc(F.dropout(x, 0.5, self.other == 1))",
                "F.dropout(x, 0.5, training=self.training)",
            ),
            (
                "return self.fc(torch.dropout(x, 0.5, self.other == 1))",
                "torch.dropout(x, 0.5, train=self.training)",
            ),
            ("return self.fc(nn.Dropout(0.2)(x))", "F.dropout(x, p=0.2, training=self.training)"),
        ],
    )
    def test_calls(self, body, wanted):
        text, reasons = fixed(LOGITS.format(made="self.other = 1", body=body), "ND318", unsafe=False)
        assert reasons == []
        assert wanted in text

    def test_another_name_of_self(self):
        source = LOGITS.format(made="self.other = 1", body="return self.fc(F.dropout(x))")
        text, _ = fixed(source.replace("self", "net"), "ND318", unsafe=False)
        assert "training=net.training" in text

    def test_a_function_outside_of_the_class(self):
        source = LOGITS.format(made="self.other = 1", body="return self.fc(drop(x))")
        source = source.replace("class Net", "def drop(x):\n    return F.dropout(x)\n\n\nclass Net")
        text, reasons = fixed(source, "ND318", unsafe=False)
        assert text == source
        assert "outside of a class" in reasons[0]
