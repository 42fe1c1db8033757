"""Residual blocks as people write them: ND107, ND108, ND110, ND112, ND118 and ND123."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normdoctor import check
from normdoctor.rules.blocks import residuals, trunks
from normdoctor.testing import FactsBuilder

TOKENS = torch.zeros(2, 6, 16)
MAP = torch.zeros(2, 8, 8, 8)


def said(model, inputs, *codes):
    report = check(model, inputs=inputs, select=list(codes), min_confidence="low")
    assert not report.problems, report.problems
    return [(finding.code, module) for finding in report.findings for module in finding.modules]


def mlp(d=16):
    return nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))


class Attention(nn.Module):
    def __init__(self, d=16):
        super().__init__()
        self.qkv = nn.Linear(d, 3 * d)
        self.proj = nn.Linear(d, d)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        return self.proj(weights @ v)


class RMS(nn.Module):
    def __init__(self, d=16):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(d))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale


class Block(nn.Module):
    """A transformer block whose forward is chosen by name."""

    def __init__(self, how, norm=nn.LayerNorm):
        super().__init__()
        self.how = how
        self.norm1, self.norm2, self.pre = norm(16), norm(16), norm(16)
        self.attn, self.mlp = Attention(), mlp()
        self.drop = nn.Dropout(0.1)
        self.gamma = nn.Parameter(torch.full((16,), 0.1))

    def forward(self, x):
        return getattr(self, self.how)(x)

    def prenorm(self, x):
        x = x + self.drop(self.attn(self.norm1(x)))
        return x + self.drop(self.mlp(self.norm2(x)))

    def inplace(self, x):
        x = self._add(x, self.gamma * self.attn(self.norm1(x)))
        x += self.drop_path(self.mlp(self.norm2(x)))
        return x

    @staticmethod
    def _add(x, y):
        return torch.add(x, y)

    @staticmethod
    def drop_path(x):
        keep = x.new_empty((x.shape[0], 1, 1)).bernoulli_(0.9)
        return x * keep.div_(0.9)

    def parallel(self, x):
        n = self.norm1(x)
        return self.attn(n) + self.mlp(n) + x

    def postnorm(self, x):
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))

    def sandwich(self, x):
        x = x + self.norm1(self.attn(self.pre(x)))
        return x + self.mlp(self.norm2(x))

    def normed(self, x):
        x = self.norm1(x)
        x = x + self.attn(x)
        return x + self.mlp(self.norm2(x))

    def normed_again(self, x):
        n = self.norm1(x)
        x = n + self.drop(self.attn(n))
        n = self.norm2(x)
        return n + self.drop(self.mlp(n))

    def second_half(self, x):
        x = x + self.attn(self.pre(x))
        x = self.norm1(x)
        return x + self.mlp(x)

    def raw_used(self, x):
        n = self.norm1(x)
        return torch.cat([n + self.attn(n), x], -1)[..., :16] + 0

    def gated(self, x):
        n = self.norm1(x)
        return n + n * torch.sigmoid(n)


def stack(how, *, norm=nn.LayerNorm, first=None, last=None, depth=3):
    layers = [nn.Linear(16, 16), first, *(Block(how, norm) for _ in range(depth)), last, nn.Linear(16, 5)]
    return nn.Sequential(*(layer for layer in layers if layer is not None))


class TestSkipFromNormed:
    @pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm, RMS])
    def test_of_the_first_sublayer(self, norm):
        if norm is RMS and not handwritten_norms_are_known():
            pytest.skip("hand-written norms are not recognised")
        found = said(stack("normed", norm=norm), TOKENS, "ND107")
        # The first block stands behind a linear layer, the others behind blocks: all are wrong.
        assert {code for code, _ in found} == {"ND107"}
        assert {module for _, module in found} == {f"{n}.norm1" for n in (1, 2, 3)}

    def test_of_both_sublayers(self):
        found = said(stack("normed_again"), TOKENS, "ND107")
        assert {module.rpartition(".")[2] for _, module in found} == {"norm1", "norm2"}

    def test_of_the_second_half(self):
        found = said(stack("second_half"), TOKENS, "ND107")
        assert {module.rpartition(".")[2] for _, module in found} == {"norm1"}

    def test_of_a_single_block(self):
        assert said(Block("normed"), TOKENS, "ND107") == [("ND107", "norm1")]

    def test_in_functional_style(self):
        class Functional(nn.Module):
            def __init__(self):
                super().__init__()
                self.w = nn.Parameter(torch.ones(16))
                self.b = nn.Parameter(torch.zeros(16))
                self.fc = nn.Linear(16, 16)

            def forward(self, x):
                n = F.layer_norm(x, (16,), self.w, self.b)
                return n + F.relu(self.fc(n))

        model = nn.Sequential(Functional(), Functional())
        assert len(said(model, TOKENS, "ND107")) == 2

    @pytest.mark.parametrize(
        "how", ["prenorm", "inplace", "parallel", "postnorm", "sandwich", "raw_used", "gated"]
    )
    def test_silent_for_other_blocks(self, how):
        assert not said(stack(how, first=nn.LayerNorm(16), last=nn.LayerNorm(16)), TOKENS, "ND107")

    def test_silent_for_a_norm_of_the_input(self):
        class Tabular(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm = nn.BatchNorm1d(16)
                self.one, self.two = mlp(), mlp()

            def forward(self, x):
                x = self.norm(x)
                x = x + self.one(x)
                return x + self.two(x)

        assert not said(Tabular(), torch.zeros(4, 16), "ND107")

    def test_silent_for_bert_whose_parts_are_modules(self):
        class Output(nn.Module):
            def __init__(self):
                super().__init__()
                self.dense, self.norm = nn.Linear(16, 16), nn.LayerNorm(16)

            def forward(self, hidden, given):
                return self.norm(F.dropout(self.dense(hidden), 0.1, self.training) + given)

        class Layer(nn.Module):
            def __init__(self):
                super().__init__()
                self.attn, self.one = Attention(), Output()
                self.up, self.two = nn.Linear(16, 16), Output()

            def forward(self, x):
                x = self.one(self.attn(x), x)
                return self.two(F.gelu(self.up(x)), x)

        model = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), Layer(), Layer())
        assert not said(model, TOKENS, "ND107", "ND112")


def handwritten_norms_are_known():
    from normdoctor.loading.target import from_object
    from normdoctor.tracing.examine import Request, examine

    return bool(examine(from_object(RMS()), Request(inputs=TOKENS)).facts.handwritten)


class TestMissingFinalNorm:
    @pytest.mark.parametrize("how", ["prenorm", "inplace", "parallel", "sandwich"])
    def test_behind_a_prenorm_trunk(self, how):
        assert said(stack(how), TOKENS, "ND112") == [("ND112", "4")]

    def test_through_pooling_and_dropout(self):
        class Net(nn.Module):
            def __init__(self, norm):
                super().__init__()
                self.blocks = nn.ModuleList(Block("prenorm") for _ in range(3))
                self.norm = nn.LayerNorm(16) if norm else nn.Identity()
                self.drop = nn.Dropout(0.1)
                self.head = nn.Linear(16, 5)

            def forward(self, x):
                for block in self.blocks:
                    x = block(x)
                return {"logits": self.head(self.drop(self.norm(x.mean(1))))}

        assert said(Net(False), TOKENS, "ND112") == [("ND112", "head")]
        assert not said(Net(True), TOKENS, "ND112")

    def test_of_torchs_own_encoder(self):
        layer = nn.TransformerEncoderLayer(16, 4, 32, norm_first=True, batch_first=True)
        bare = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        whole = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(16), enable_nested_tensor=False)
        assert said(nn.Sequential(bare, nn.Linear(16, 5)), TOKENS, "ND112") == [("ND112", "1")]
        assert not said(nn.Sequential(whole, nn.Linear(16, 5)), TOKENS, "ND112")

    def test_of_a_pre_activation_resnet(self):
        class Pre(nn.Module):
            def __init__(self):
                super().__init__()
                self.bn1, self.bn2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
                self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
                self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)

            def forward(self, x):
                y = self.conv1(F.relu(self.bn1(x)))
                return x + self.conv2(F.relu(self.bn2(y)))

        def net(*extra):
            tail = [*extra, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)]
            return nn.Sequential(Pre(), Pre(), Pre(), *tail)

        assert said(net(), MAP, "ND112") == [("ND112", "5")]
        assert not said(net(nn.BatchNorm2d(8), nn.ReLU()), MAP, "ND112")

    @pytest.mark.parametrize("how", ["postnorm", "normed"])
    def test_silent_for_other_blocks(self, how):
        assert not said(stack(how, depth=4), TOKENS, "ND112")

    def test_silent_for_a_backbone_a_restoration_head_and_a_norm_by_another_name(self):
        class MyNorm(nn.Module):
            def forward(self, x):
                return x / x.abs().mean(-1, keepdim=True)

        backbone = nn.Sequential(Block("prenorm"), Block("prenorm"))
        assert not said(backbone, TOKENS, "ND112")
        assert not said(stack("prenorm", last=MyNorm()), TOKENS, "ND112")
        assert not said(stack("prenorm", depth=1), TOKENS, "ND112")


class Residual(nn.Module):
    """A convolutional block, with the sum at its end chosen by name."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.shortcut = nn.Identity()

    def forward(self, x):
        return getattr(self, self.how)(x)

    def right(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))

    def branch_twice(self, x):
        x = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        x += x
        return F.relu(x)

    def input_twice(self, x):
        self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(x + self.shortcut(x))

    def relu_then_add(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return x + F.relu(self.bn2(self.conv2(y)))

    def leaky_then_add(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return x + F.leaky_relu(self.bn2(self.conv2(y)), 0.1)

    def pre(self, x):
        y = self.conv1(F.relu(self.bn1(x)))
        return x + F.relu(self.conv2(y))

    def halves(self, x):
        one, two = torch.cat([self.conv1(x), x], 1).chunk(2, 1)
        return one + two

    def symmetric(self, x):
        y = self.conv1(x)
        return y + y.transpose(2, 3)

    def stopped(self, x):
        y = self.conv1(x)
        return y + y.detach()

    def scaled(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return self.conv2(y + y)


class TestSelfAdd:
    @pytest.mark.parametrize("how", ["branch_twice", "input_twice"])
    def test_at_the_end_of_a_block(self, how):
        assert {code for code, _ in said(Residual(how), MAP, "ND108")} == {"ND108"}
        assert len(said(nn.Sequential(Residual(how), Residual("right")), MAP, "ND108")) == 1

    def test_beside_another_skip(self):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.attn, self.mlp = Attention(), mlp()
                self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)

            def forward(self, x):
                y = self.attn(self.norm1(x))
                x = y + y
                return x + self.mlp(self.norm2(x))

        assert said(Two(), TOKENS, "ND108") == [("ND108", "")]

    @pytest.mark.parametrize("how", ["halves", "symmetric", "stopped"])
    def test_other_tensors_of_one_origin_are_others(self, how):
        assert not said(Residual(how), MAP, "ND108", "ND118")

    @pytest.mark.parametrize("how", ["right", "scaled", "relu_then_add"])
    def test_silent_elsewhere(self, how):
        assert not said(Residual(how), MAP, "ND108")


class TestReluBeforeAdd:
    @pytest.mark.parametrize(
        ("how", "found"), [("relu_then_add", 1), ("right", 0), ("leaky_then_add", 0), ("pre", 0)]
    )
    def test_only_where_the_branch_ends_so(self, how, found):
        assert len(said(Residual(how), MAP, "ND118")) == found


class Decoder(nn.Module):
    """A layer that names its norms in one place and uses them in another."""

    def __init__(self, norm=nn.LayerNorm, second="ln2", beside=True):
        super().__init__()
        self.ln1 = norm(16)
        self.ln2 = norm(16) if beside else None
        self.attn, self.mlp, self.second = Attention(), mlp(), second

    def forward(self, x):
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(getattr(self, self.second)(x))


class TestNormReused:
    def test_wins_over_the_norm_that_never_ran(self):
        found = said(nn.Sequential(Decoder(second="ln1"), Decoder()), TOKENS, "ND109", "ND110")
        assert found == [("ND110", "0.ln1")]

    def test_of_a_norm_by_hand(self):
        if not handwritten_norms_are_known():
            pytest.skip("hand-written norms are not recognised")
        assert said(Decoder(RMS, second="ln1"), TOKENS, "ND109", "ND110") == [("ND110", "ln1")]

    def test_of_a_subclass_with_a_forward_of_its_own(self):
        class Cast(nn.LayerNorm):
            def forward(self, x):
                return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps)

        assert said(Decoder(Cast, second="ln1"), TOKENS, "ND109", "ND110") == [("ND110", "ln1")]

    @pytest.mark.parametrize(("second", "beside"), [("ln2", True), ("ln1", False)])
    def test_silent_where_no_norm_is_left_over(self, second, beside):
        assert not said(Decoder(second=second, beside=beside), TOKENS, "ND109", "ND110")

    def test_another_shape_is_not_stood_in_for(self):
        class Net(Decoder):
            def __init__(self):
                super().__init__(second="ln1")
                self.ln2 = nn.LayerNorm(8)

        assert said(Net(), TOKENS, "ND109", "ND110") == [("ND109", "ln2")]

    def test_one_block_that_runs_twice_is_no_reuse(self):
        block = Decoder()
        block.spare = nn.LayerNorm(16)
        assert said(nn.Sequential(block, block), TOKENS, "ND109", "ND110") == [("ND109", "0.spare")]


class TestBlocks:
    """What `rules.blocks` finds in facts that are written by hand."""

    def block(self, build, x, path, norm="LayerNorm"):
        shape = (2, 6, 16)
        n = build.layer(f"{path}.norm", norm, x, shape=shape, weight=(16,))
        y = build.layer(f"{path}.fc", "Linear", n, shape=shape, weight=(16, 16))
        return build.op("add", x, y, shape=shape, scope=path)

    def test_a_trunk_of_prenorm_blocks(self):
        build = FactsBuilder()
        x = build.input(2, 6, 16)
        for path in ("a", "b", "c"):
            build.module(path, "Block", calls=1)
            x = self.block(build, x, path)
        graph = build.graph(x)
        found = residuals(graph)
        assert [residual.scope for residual in found] == ["a", "b", "c"]
        assert all(len(residual.prenorm) == 1 and not residual.skip for residual in found)
        assert [len(trunk) for trunk in trunks(graph)] == [3]
        assert residuals(graph) is found

    def test_a_norm_by_hand_at_the_start(self):
        build = FactsBuilder()
        x = build.input(2, 6, 16)
        build.module("a", "Block", calls=1)
        square = build.op("pow", x, shape=(2, 6, 16), scope="a.norm")
        mean = build.op("mean", square, shape=(2, 6, 1), scope="a.norm")
        n = build.op("mul", x, mean, shape=(2, 6, 16), scope="a.norm")
        build.norm_by_hand("rms_norm", x, n, module="a.norm", reduced=(2,))
        y = build.layer("a.fc", "Linear", n, shape=(2, 6, 16), weight=(16, 16))
        (residual,) = residuals(build.graph(build.op("add", x, y, shape=(2, 6, 16), scope="a")))
        assert [norm.kind for norm in residual.prenorm] == ["rms_norm"]

    def test_a_position_that_every_layer_adds_is_no_skip(self):
        build = FactsBuilder()
        x, position = build.input(2, 6, 16), build.input(2, 6, 16, name="position")
        for path in ("a", "b"):
            build.module(path, "Block", calls=1)
            q = build.op("add", x, position, shape=(2, 6, 16), scope=path)
            x = build.layer(f"{path}.fc", "Linear", q, shape=(2, 6, 16), weight=(16, 16))
        assert not residuals(build.graph(x))

    def test_concatenations_are_none(self):
        build = FactsBuilder()
        x = build.input(2, 6, 16)
        y = build.layer("fc", "Linear", x, shape=(2, 6, 16), weight=(16, 16))
        assert not residuals(build.graph(build.op("cat", x, y, shape=(2, 6, 32))))

    def test_a_projection_is_named(self):
        build = FactsBuilder()
        x = build.input(2, 3, 8, 8)
        shape = (2, 8, 8, 8)
        y = build.layer("conv1", "Conv2d", x, shape=shape, weight=(8, 3, 3, 3))
        y = build.layer("conv2", "Conv2d", y, shape=shape, weight=(8, 8, 3, 3))
        side = build.layer("side", "Conv2d", x, shape=shape, weight=(8, 3, 1, 1))
        side = build.layer("norm", "BatchNorm2d", side, shape=shape, weight=(8,))
        (residual,) = residuals(build.graph(build.op("add", y, side, shape=shape)))
        assert [node.module for node in residual.skip] == ["side", "norm"]
        assert residual.source.index == x


class TestParts:
    def test_the_parts_of_a_split_are_different_tensors(self):
        class Res2(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)

            def forward(self, x):
                one, two = x.split(4, 1)
                one = F.relu(self.bn(self.conv(one)))
                return torch.cat([one, one + two], 1)

        assert not said(Res2(), MAP, "ND118")


class TestPostnormSkipFromRaw:
    class Mixed(Block):
        def forward(self, x):
            s = x + self.attn(x)
            return self.norm2(s + self.mlp(self.norm1(s)))

    def test_only_where_asked_for(self):
        assert said(self.Mixed(""), TOKENS, "ND123") == [("ND123", "norm1")]
        assert not [f for f in check(self.Mixed(""), inputs=TOKENS).findings if f.code == "ND123"]

    @pytest.mark.parametrize("how", ["prenorm", "postnorm", "parallel", "sandwich"])
    def test_silent_for_other_blocks(self, how):
        assert not said(stack(how), TOKENS, "ND123")


class Sometimes(nn.Module):
    """A norm on a path that short inputs do not take, and one that no path takes."""

    def __init__(self, named):
        super().__init__()
        self.mix = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.named = named

    def forward(self, x):
        x = self.mix(x)
        return self.squeezed(x) if self.named and x.shape[1] > 100 else x


class Named(Sometimes):
    def squeezed(self, x):
        return self.norm(x.mean(1, keepdim=True))


class Lost(Sometimes):
    def squeezed(self, x):
        return x.mean(1, keepdim=True)


def test_a_norm_on_a_path_that_was_not_taken():
    found = {kind: check(kind(True), torch.randn(2, 5, 8), select="ND109") for kind in (Named, Lost)}
    assert [f.modules for f in found[Lost].findings] == [("norm",)]
    assert not found[Named].findings


class Weighed(nn.Module):
    def __init__(self, alpha, d=16):
        super().__init__()
        self.norm, self.mlp, self.alpha = nn.LayerNorm(d), mlp(d), alpha

    def forward(self, x):
        x = self.norm(x)
        return (x if self.alpha is None else x * self.alpha) + self.mlp(x)


@pytest.mark.parametrize(("alpha", "found"), [(None, 1), (1.0, 0)])
def test_a_skip_with_a_factor_is_meant_to_start_there(alpha, found):
    assert bool(said(nn.Sequential(*(Weighed(alpha) for _ in range(3))), TOKENS, "ND107")) == bool(found)
