"""What each axis stands for, on models of many styles: labels are asserted where they were read by hand."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from normdoctor.facts import from_json
from normdoctor.loading.target import from_object
from normdoctor.tracing.axes import with_axes
from normdoctor.tracing.axes.atoms import Atoms
from normdoctor.tracing.examine import Request, examine

NCHW = ("batch", "channel", "space", "space")
NHWC = ("batch", "space", "space", "channel")
NTC = ("batch", "time", "channel")
NLC = ("batch", "space", "channel")


def labelled(model, *inputs, training=False):
    """The nodes of a recorded forward, by module path or by kind (the n-th of a kind as `kind#n`)."""
    facts = examine(from_object(model.train(training)), Request(inputs=inputs)).facts
    found = {}
    counts = {}
    for node in facts.nodes:
        number = counts[node.kind] = counts.get(node.kind, -1) + 1
        found[node.module or f"{node.kind}#{number}"] = node.axes
        found.setdefault(f"{node.kind}#{number}", node.axes)
    return found


def lambda_net(function, *layers):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(layers)

        def forward(self, *inputs):
            return function(self.layers, *inputs)

    return Net()


class TestConvolutions:
    def test_resnet_style(self):
        net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        net.append(nn.Linear(8, 2))
        axes = labelled(net, torch.randn(2, 3, 9, 9))
        assert axes["input#0"] == axes["1"] == axes["2"] == NCHW
        assert axes["3"] == axes["4"] == ("batch", "channel")

    def test_flatten_joins_channels_and_positions(self):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 49, 5))
        axes = labelled(net, torch.randn(2, 3, 9, 9))
        assert axes["1"] == ("batch", "channel*space")
        assert axes["2"] == ("batch", "channel")

    def test_volumes_and_signals(self):
        axes = labelled(nn.Conv3d(1, 4, 3), torch.randn(2, 1, 5, 6, 7))
        assert axes["conv3d#0"] == ("batch", "channel", "space", "space", "space")
        points = lambda_net(lambda m, x: m[0](x.transpose(1, 2)).max(2)[0], nn.Conv1d(3, 16, 1))
        axes = labelled(points, torch.randn(2, 32, 3))  # PointNet
        assert axes["input#0"] == NTC
        assert axes["layers.0"] == ("batch", "channel", "time")
        assert axes["select_output#0"] == ("batch", "channel")

    def test_an_image_without_a_batch(self):
        assert labelled(nn.Conv2d(3, 4, 3), torch.randn(3, 8, 8))["conv2d#0"] == ("channel", "space", "space")

    def test_frames_of_a_video_are_not_the_batch(self):
        net = lambda_net(lambda m, x: m[0](x.flatten(0, 1)).unflatten(0, (2, 5)), nn.Conv2d(3, 4, 3))
        axes = labelled(net, torch.randn(2, 5, 3, 8, 8))
        assert axes["input#0"] == ("batch", "", "channel", "space", "space")
        assert axes["layers.0"] == ("", "channel", "space", "space")
        assert axes["unflatten#0"] == ("batch", "", "channel", "space", "space")

    def test_unet_joins_channels(self):
        def run(m, x):
            down = m[0](x)
            up = F.interpolate(m[1](F.max_pool2d(down, 2)), scale_factor=2)
            return m[2](torch.cat([F.pad(up, (0, 1, 0, 1)), down], dim=1))

        net = lambda_net(run, nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(8, 2, 1))
        axes = labelled(net, torch.randn(2, 3, 9, 9))
        assert axes["cat#0"] == axes["layers.2"] == axes["interpolate#0"] == axes["pad#0"] == NCHW

    def test_channel_shuffle_and_pixel_shuffle_by_hand(self):
        def run(m, x):
            x = m[0](x).view(2, 2, 4, 6, 6).transpose(1, 2).reshape(2, 8, 6, 6)
            y = x.view(2, 2, 2, 2, 6, 6).permute(0, 3, 4, 1, 5, 2).reshape(2, 2, 12, 12)
            return x, y

        axes = labelled(lambda_net(run, nn.Conv2d(3, 8, 1)), torch.randn(2, 3, 6, 6))
        assert axes["reshape#0"] == NCHW
        assert axes["reshape#1"][:2] == ("batch", "channel")
        assert "batch" not in axes["reshape#1"][2:]


class TestTokens:
    def test_convnext_goes_to_channels_last_and_back(self):
        def run(m, x):
            x = m[0](x)
            y = m[2](m[1](x.permute(0, 2, 3, 1)))
            return x + y.permute(0, 3, 1, 2)

        axes = labelled(
            lambda_net(run, nn.Conv2d(3, 8, 2, 2), nn.LayerNorm(8), nn.Linear(8, 8)), torch.randn(2, 3, 8, 8)
        )
        assert axes["layers.1"] == axes["layers.2"] == NHWC
        assert axes["add#0"] == NCHW

    def test_vit(self):
        class Vit(nn.Module):
            def __init__(self):
                super().__init__()
                self.patch, self.qkv, self.proj = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 48), nn.Linear(16, 16)
                self.cls = nn.Parameter(torch.zeros(1, 1, 16))
                self.pos = nn.Parameter(torch.zeros(1, 5, 16))
                self.q_norm = nn.LayerNorm(8)

            def forward(self, x):
                x = self.patch(x).flatten(2).transpose(1, 2)
                x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos
                q, k, v = self.qkv(x).reshape(2, 5, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
                w = (self.q_norm(q) @ k.mT).softmax(-1)
                return self.proj((w @ v).transpose(1, 2).flatten(2))[:, 0]

        axes = labelled(Vit(), torch.randn(2, 3, 8, 8))
        assert axes["cat#0"] == axes["add#0"] == axes["proj"] == NLC
        assert axes["q_norm"] == ("batch", "heads", "space", "channel")
        assert axes["softmax#0"] == ("batch", "heads", "space", "space")
        assert axes["getitem#0"] == ("batch", "channel")

    def test_windows_of_swin(self):
        def run(m, x):
            x = m[0](x.permute(0, 2, 3, 1))
            x = torch.roll(x, (-1, -1), (1, 2))
            w = x.view(2, 2, 4, 2, 4, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 8)
            w = m[1](w)
            x = w.view(2, 2, 2, 4, 4, 8).permute(0, 1, 3, 2, 4, 5).reshape(2, 8, 8, 8)
            return m[2](x.permute(0, 3, 1, 2))

        net = lambda_net(run, nn.Linear(3, 8), nn.LayerNorm(8), nn.Conv2d(8, 1, 1))
        axes = labelled(net, torch.randn(2, 3, 8, 8))
        assert axes["layers.1"] == ("batch*space", "space", "channel")
        assert axes["layers.2"] == NCHW
        assert axes["input#0"] == ("batch", "", "space", "space"), "the last convolution tells of the input"

    def test_attention_over_channels_of_xcit(self):
        def run(m, x):
            x = m[0](x).flatten(2).transpose(1, 2)
            q, k, v = m[1](x).reshape(2, 16, 3, 2, 4).permute(2, 0, 3, 4, 1).unbind(0)
            a = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)).softmax(-1)
            return (a @ v).permute(0, 3, 1, 2).reshape(2, 16, 8)

        axes = labelled(lambda_net(run, nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 24)), torch.randn(2, 3, 8, 8))
        assert axes["normalize#0"] == ("batch", "heads", "channel", "space")
        assert axes["softmax#0"] == ("batch", "heads", "channel", "channel")
        assert axes["reshape#1"] == NLC

    def test_mixer_does_not_take_tokens_for_channels(self):
        def run(m, x):
            x = m[0](x).flatten(2).transpose(1, 2)
            y = m[2](F.gelu(m[1](x.transpose(1, 2)))).transpose(1, 2)
            return x + y

        net = lambda_net(run, nn.Conv2d(3, 8, 2, 2), nn.Linear(16, 5), nn.Linear(5, 16))
        axes = labelled(net, torch.randn(2, 3, 8, 8))
        assert axes["layers.1"] == ("batch", "channel", "")
        assert axes["layers.2"] == ("batch", "channel", "space")
        assert axes["add#0"] == NLC


class TestSequences:
    def test_bert_style(self):
        def run(m, ids):
            x = m[0](ids) + m[1](torch.arange(7)[None])
            q, k, v = (f(x).view(2, 7, 4, 4).transpose(1, 2) for f in (m[2], m[3], m[4]))
            x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 7, 16)
            return torch.tanh(x[:, 0]), x.mean(1), x.mean(1, keepdim=True)

        net = lambda_net(run, nn.Embedding(9, 16), nn.Embedding(7, 16), *(nn.Linear(16, 16) for _ in "qkv"))
        axes = labelled(net, torch.randint(0, 9, (2, 7)))
        assert axes["input#0"] == ("batch", "time")
        assert axes["add#0"] == NTC
        assert axes["layers.1"][1:] == ("time", "channel"), "positions are the time of what they are added to"
        assert axes["scaled_dot_product_attention#0"] == ("batch", "heads", "time", "channel")
        assert axes["tanh#0"] == axes["mean#0"] == ("batch", "channel")
        assert axes["mean#1"] == NTC

    @pytest.mark.parametrize("first", [True, False])
    def test_layouts_follow_batch_first(self, first):
        net = nn.TransformerEncoderLayer(8, 2, 16, batch_first=first)
        axes = labelled(net, torch.randn(3, 5, 8))
        assert axes["input#0"] == axes["norm1"] == (NTC if first else ("time", "batch", "channel"))

    @pytest.mark.parametrize("first", [True, False])
    def test_lstm_tagger(self, first):
        net = lambda_net(
            lambda m, ids: m[2](m[1](m[0](ids))[0]),
            nn.Embedding(9, 4), nn.LSTM(4, 6, batch_first=first), nn.Linear(6, 3),
        )  # fmt: skip
        axes = labelled(net, torch.randint(0, 9, (3, 5)))
        expected = NTC if first else ("time", "batch", "channel")
        assert axes["input#0"] == expected[:2]
        assert axes["layers.0"] == axes["layers.1"] == axes["layers.2"] == expected

    def test_states_of_an_lstm(self):
        net = lambda_net(lambda m, x: m[0](x)[1][0][-1], nn.LSTM(4, 6, batch_first=True))
        assert labelled(net, torch.randn(3, 5, 4))["getitem#0"] == ("batch", "channel")

    def test_permuted_for_a_layer_that_wants_time_first(self):
        net = lambda_net(lambda m, x: m[0](x.permute(1, 0, 2))[0], nn.GRU(4, 6))
        axes = labelled(net, torch.randn(3, 5, 4))
        assert axes["input#0"] == NTC
        assert axes["layers.0"] == ("time", "batch", "channel")

    def test_grouped_queries_and_rotation(self):
        def run(m, ids):
            x = m[0](ids)
            q = m[1](x).view(2, 6, 4, 4).transpose(1, 2)
            k = m[2](x).view(2, 6, 2, 4).transpose(1, 2)
            angle = torch.arange(6.0)[:, None] * torch.ones(4)
            q = q * angle.cos() + torch.cat([-q[..., 2:], q[..., :2]], -1) * angle.sin()
            k = k[:, :, None].expand(2, 2, 2, 6, 4).reshape(2, 4, 6, 4)
            return (q @ k.transpose(2, 3) / 2).softmax(-1) @ k

        net = lambda_net(run, nn.Embedding(9, 16), nn.Linear(16, 16), nn.Linear(16, 8))
        axes = labelled(net, torch.randint(0, 9, (2, 6)))
        assert axes["softmax#0"] == ("batch", "heads", "time", "time")
        assert axes["matmul#1"] == ("batch", "heads", "time", "channel")

    def test_relative_positions_of_t5_and_cross_attention(self):
        def run(m, ids, memory):
            q = m[1](m[0](ids)).view(2, 6, 2, 4).transpose(1, 2)
            k = m[2](memory).view(2, 5, 2, 4).transpose(1, 2)
            return torch.einsum("bhqd,bhkd->bhqk", q, k).softmax(-1)

        net = lambda_net(run, nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(3, 8))
        axes = labelled(net, torch.randint(0, 9, (2, 6)), torch.randn(2, 5, 3))
        assert axes["softmax#0"] == ("batch", "heads", "time", "time")

    def test_merged_heads_of_bmm(self):
        def run(m, x):
            q = m[0](x).view(2, 5, 2, 4).transpose(1, 2).reshape(4, 5, 4)
            return torch.bmm(q, q.transpose(1, 2)).softmax(-1)

        axes = labelled(lambda_net(run, nn.Linear(8, 8)), torch.randn(2, 5, 8))
        assert axes["softmax#0"] in (("batch*heads", "time", "time"), ("batch*channel", "time", "time"))

    def test_a_linear_layer_along_time_writes_no_channels(self):
        net = lambda_net(lambda m, x: m[0](x.transpose(1, 2)).transpose(1, 2), nn.Linear(12, 3))
        axes = labelled(net, torch.randn(2, 12, 7))
        assert axes["input#0"] == ("batch", "", "")
        assert axes["transpose#1"] in ((), ("batch", "", ""))


class TestSilence:
    def test_a_view_that_cuts_across_axes_is_told_from_a_transpose(self):
        net = lambda_net(lambda m, x: m[0](x).view(5, 3, 8), nn.Linear(4, 8))
        axes = labelled(net, torch.randn(3, 5, 4))
        assert axes["view#0"] == ("", "", "channel")

    def test_a_view_in_the_wrong_order_shows(self):
        net = lambda_net(lambda m, x: m[0](x).view(4, 2, 8), nn.Linear(4, 8))
        assert labelled(net, torch.randn(2, 4, 4))["view#0"] == ("batch*time", "time", "channel")

    def test_unknown_calls_give_unknown_axes(self):
        net = lambda_net(lambda m, x: torch.linalg.inv(m[0](x)), nn.Linear(4, 4))
        assert labelled(net, torch.randn(4, 4))["linalg_inv#0"] == ()

    def test_contradictions_are_unknown(self):
        net = lambda_net(lambda m, x: m[0](x) + m[0](x).transpose(1, 2), nn.Conv2d(3, 5, 1))
        assert labelled(net, torch.randn(2, 3, 5, 5))["add#0"] == ("batch", "", "", "space")

    def test_edges_of_a_graph_are_no_batch(self):
        net = lambda_net(lambda m, x, e: m[0](x)[e[0]] + m[0](x)[e[1]], nn.Linear(4, 4))
        axes = labelled(net, torch.randn(6, 4), torch.randint(0, 6, (2, 9)))
        assert axes["input#1"] == ()


class TestAtoms:
    def test_split_and_merged_is_the_same(self):
        atoms = Atoms()
        whole = atoms.new(56, "space")
        parts = atoms.cut(whole, [8, 7])
        assert parts is not None
        assert [atoms.text(part) for part in parts] == ["space", "space"]
        again = atoms.cut((*parts[0], *parts[1]), [56])
        assert again == [whole]
        grid = atoms.cut(whole, [7, 8])
        assert grid is not None
        assert [atoms.size(part) for part in grid] == [7, 8]

    def test_what_is_learned_late_is_known_early(self):
        atoms = Atoms()
        first, second = atoms.new(12), atoms.new(12)
        parts = atoms.cut(first, [3, 4])
        atoms.unify(first, second)
        atoms.mark(second, "space")
        assert parts is not None
        assert [atoms.text(part) for part in parts] == ["space", "space"]

    def test_cutting_across_factors_fails(self):
        atoms = Atoms()
        assert atoms.cut((*atoms.new(3), *atoms.new(5)), [5, 3]) is None

    def test_certain_labels_do_not_give_way(self):
        atoms = Atoms()
        axis = atoms.new(4, "time")
        atoms.mark(axis, "channel")
        assert atoms.text(axis) == "time"
        assert atoms.text(atoms.unify(axis, atoms.new(4, "channel"))) == ""


def test_axes_are_saved_with_the_facts():
    facts = examine(from_object(nn.Conv2d(3, 4, 3)), Request(inputs=torch.randn(2, 3, 8, 8))).facts
    again = from_json(facts.to_json())
    assert [node.axes for node in again.nodes] == [node.axes for node in facts.nodes]


def test_cost_grows_with_the_nodes_only():
    def net(depth):
        layers = [nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU()) for _ in range(depth)]
        return examine(from_object(nn.Sequential(*layers)), Request(inputs=torch.randn(2, 5, 8))).facts

    def seconds(facts):
        best = 9.0
        for _ in range(5):
            start = time.process_time()
            with_axes(facts)
            best = min(best, time.process_time() - start)
        return best

    short, long = net(40), net(400)
    assert seconds(long) < 30 * seconds(short)


def test_asking_along_many_paths_ends():
    atoms = Atoms()
    axis = atoms.new(8)
    for _ in range(60):  # two ways from each atom to the next: 2**60 paths
        before, axis = axis, atoms.new(8)
        atoms._follows[axis[0]] += [(before[0], 0), (before[0], 0)]
    assert atoms.text(axis) == ""
