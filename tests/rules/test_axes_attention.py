"""Rules about axes, softmaxes and attention, on faults and their harmless neighbours in many spellings."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from normdoctor.findings import Confidence, Severity
from normdoctor.graph import Graph
from normdoctor.loading.target import from_object
from normdoctor.rules import find_rule
from normdoctor.rules.attention import attention_at, attentions, weighs
from normdoctor.rules.axes import back, forth, implicit_axis, permutation
from normdoctor.testing import FactsBuilder
from normdoctor.tracing.examine import Request, examine

F = nn.functional
CODES = ("ND111", "ND115", "ND116", "ND119", "ND306", "ND307", "ND308", "ND309")


def graph_of(function, layers, *inputs):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(layers)

        def forward(self, *given):
            return function(self.layers, *given)

    return Graph(examine(from_object(Net()), Request(inputs=inputs)).facts)


def findings(function, layers, *inputs):
    graph = graph_of(function, layers, *inputs)
    return {code: found for code in CODES if (found := list(find_rule(code)().check(graph)))}


def linears(*shapes):
    return [nn.Linear(*shape) for shape in shapes]


class TestNormWrongAxis:
    @pytest.mark.parametrize("norm", [nn.BatchNorm1d(6), nn.GroupNorm(2, 6)])
    def test_channels_last_into_a_norm_of_channels_first(self, norm):
        def run(m, x):
            return m[1](m[0](x)[0])

        found = findings(run, [nn.LSTM(3, 8, batch_first=True), norm], torch.randn(4, 6, 3))
        (one,) = found["ND116"]
        assert (one.severity, one.confidence) == (Severity.ERROR, Confidence.HIGH)
        assert one.evidence["axes"] == ["batch", "time", "channel"]
        assert "the features are axis 2" in one.message

    def test_time_first_batch_for_channels(self):
        found = findings(
            lambda m, x: m[1](m[0](x)[0]), [nn.GRU(3, 8), nn.BatchNorm1d(4)], torch.randn(6, 4, 3)
        )
        assert "takes axis 1, batch" in found["ND116"][0].message

    def test_batchnorm2d_behind_a_permute(self):
        def run(m, x):
            return m[1](m[0](x).permute(0, 2, 3, 1))

        found = findings(run, [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(6)], torch.randn(2, 3, 8, 8))
        assert set(found) == {"ND116"}

    def test_layernorm_over_the_width_in_functional_style(self):
        def run(m, x):
            x = m[0](x)
            return F.layer_norm(x, x.shape[-1:])

        (one,) = findings(run, [nn.Conv2d(3, 8, 3)], torch.randn(2, 3, 10, 10))["ND116"]
        assert one.severity is Severity.ERROR

    def test_layernorm_over_all_positions_is_a_warning(self):
        def run(m, x):
            x = m[0](x)
            return F.layer_norm(x, x.shape[2:])

        (one,) = findings(run, [nn.Conv2d(3, 5, 3)], torch.randn(2, 3, 9, 10))["ND116"]
        assert (one.severity, one.confidence) == (Severity.WARNING, Confidence.MEDIUM)

    def test_by_hand_over_the_width(self):
        def run(m, x):
            x = m[0](x)
            mean = x.mean(-1, keepdim=True)
            var = x.var(-1, unbiased=False, keepdim=True)
            return m[1]((x - mean) / torch.sqrt(var + 1e-5))

        found = findings(run, [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)], torch.randn(2, 3, 10, 10))
        assert set(found) == {"ND116"}

    @pytest.mark.parametrize("dims", [1, (1, 2, 3)])
    def test_silent_by_hand_over_channels_first(self, dims):
        def run(m, x):
            x = m[0](x)
            mean = x.mean(dims, keepdim=True)
            var = (x - mean).pow(2).mean(dims, keepdim=True)
            return m[1]((x - mean) / torch.sqrt(var + 1e-6))

        layers = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)]
        assert not findings(run, layers, torch.randn(2, 3, 10, 10))

    def test_tokens_and_features_together(self):
        (one,) = findings(
            lambda m, ids: m[1](m[0](ids)), [nn.Embedding(9, 4), nn.LayerNorm([5, 4])],
            torch.randint(0, 9, (2, 5)),
        )["ND116"]  # fmt: skip
        assert (one.severity, one.confidence) == (Severity.WARNING, Confidence.MEDIUM)
        assert "over time and channel together" in one.message

    @pytest.mark.parametrize(
        ("layers", "run", "shape"),
        [
            ([nn.Conv2d(3, 8, 1), nn.LayerNorm([8, 6, 6])], lambda m, x: m[1](m[0](x)), (2, 3, 6, 6)),
            ([nn.Conv1d(3, 8, 1), nn.LayerNorm([8, 6])], lambda m, x: m[1](m[0](x)), (2, 3, 6)),
            ([nn.Conv2d(3, 8, 1), nn.LayerNorm(8)], lambda m, x: m[1](m[0](x).movedim(1, 3)), (2, 3, 8, 8)),
            ([nn.Conv2d(3, 8, 1), nn.LayerNorm(72)], lambda m, x: m[1](m[0](x).flatten(1)), (2, 3, 3, 3)),
            ([nn.Linear(3, 8), nn.BatchNorm1d(8)], lambda m, x: m[1](m[0](x)), (2, 3)),
            ([nn.Linear(3, 8), nn.BatchNorm1d(8)], lambda m, x: m[1](m[0](x).flatten(0, 1)), (2, 5, 3)),
            ([nn.Linear(3, 8), nn.BatchNorm1d(8)], lambda m, x: m[1](m[0](x).mT).mT, (2, 5, 3)),
            ([nn.BatchNorm1d(5), nn.LayerNorm(3)], lambda m, x: m[1](m[0](x)), (2, 5, 3)),
            ([nn.Conv2d(3, 8, 1), nn.GroupNorm(1, 8)], lambda m, x: m[1](m[0](x)), (2, 3, 8, 8)),
        ],
    )  # fmt: skip
    def test_silent(self, layers, run, shape):
        assert not findings(run, layers, torch.randn(*shape))


class TestInstanceNorm:
    def test_images_without_channels(self):
        def run(m, x):
            return m[1](m[0](x)[:, 0])

        found = findings(run, [nn.Conv2d(3, 1, 1), nn.InstanceNorm2d(4)], torch.randn(4, 3, 6, 6))
        assert set(found) == {"ND115"}
        assert "batch of 4" in found["ND115"][0].message

    def test_silent_on_one_signal_and_on_a_batch(self):
        layers = [nn.Conv1d(3, 4, 3), nn.InstanceNorm1d(4)]
        assert not findings(lambda m, x: m[1](m[0](x)), layers, torch.randn(3, 9))
        assert not findings(lambda m, x: m[1](m[0](x)), layers, torch.randn(2, 3, 9))


class TestSoftmax:
    @pytest.mark.filterwarnings("ignore:Implicit dimension")
    def test_without_an_axis(self):
        found = findings(lambda m, x: F.log_softmax(m[0](x)), linears((4, 3)), torch.randn(2, 4))
        (one,) = found["ND306"]
        assert one.evidence == {"axes": 2, "axis": 1, "size": 3, "label": "channel"}
        found = findings(lambda m, x: F.softmax(m[0](x)), linears((4, 3)), torch.randn(2, 5, 4))
        assert found["ND306"][0].severity is Severity.ERROR
        assert set(found) == {"ND306"}, "the more specific finding alone"

    @pytest.mark.parametrize(
        ("run", "layers", "shape"),
        [
            (lambda m, x: m[0](x).softmax(1), [nn.Conv2d(3, 1, 1)], (2, 3, 4, 4)),
            (lambda m, x: torch.log_softmax(m[0](x) / 2 + 1, -1), [nn.Linear(3, 1)], (2, 5, 3)),
            (
                lambda m, x: m[1](m[0](x).squeeze(-1).unsqueeze(1)),
                [nn.Linear(3, 1), nn.Softmax(1)],
                (2, 5, 3),
            ),
            (
                lambda m, x: m[0](x).masked_fill(x[..., :1] > 0, -9.0).softmax(-1),
                [nn.Linear(3, 1)],
                (2, 5, 3),
            ),
            (lambda m, x: m[0](x).mT.softmax(1), [nn.Linear(3, 1)], (2, 5, 3)),
            (lambda m, x: m[0](x).mean(1, keepdim=True).softmax(1), [nn.Linear(3, 4)], (2, 5, 3)),
        ],
    )
    def test_over_one(self, run, layers, shape):
        assert set(findings(run, layers, torch.randn(*shape))) == {"ND307"}

    @pytest.mark.parametrize(
        ("run", "layers", "shape"),
        [
            (lambda m, x: m[0](x).softmax(1), [nn.Linear(3, 4)], (2, 1, 3)),
            (lambda m, x: (m[0](x) @ x.mT).softmax(-1) @ x, [nn.Linear(3, 3)], (2, 1, 3)),
            (lambda m, x: m[0](x).softmax(1), [nn.Linear(3, 1)], (2, 5, 3)),
            (lambda m, x: m[0](x).squeeze(-1).softmax(-1), [nn.Linear(3, 1)], (2, 5, 3)),
            (lambda m, x: m[0](x).unsqueeze(1).expand(-1, 4, -1).softmax(1), [nn.Linear(3, 4)], (2, 3)),
        ],
    )
    def test_silent_over_more_than_one(self, run, layers, shape):
        assert "ND307" not in findings(run, layers, torch.randn(*shape))

    @pytest.mark.parametrize(
        ("run", "layers", "shape"),
        [
            (lambda m, x: m[0](x).softmax(0), [nn.Linear(3, 4)], (2, 3)),
            (lambda m, x: m[0](x).mT.softmax(-1), [nn.Linear(3, 4)], (2, 3)),
            (lambda m, x: (m[0](x).mT.softmax(0).mT * x).sum(1), [nn.Linear(3, 1)], (4, 5, 3)),
            (lambda m, x: (m[0](x.transpose(0, 1)).softmax(1) * x.transpose(0, 1)).sum(0), linears((3, 1)),
             (4, 5, 3)),
            (lambda m, x: m[0](m[1](x)[0]).softmax(1), [nn.Linear(3, 4), nn.GRU(3, 3)], (5, 2, 3)),
            (lambda m, x: torch.stack([m[0](x), m[1](x)]).softmax(1).sum(0), linears((3, 4), (3, 4)), (2, 3)),
        ],
    )  # fmt: skip
    def test_over_the_batch(self, run, layers, shape):
        assert set(findings(run, layers, torch.randn(*shape))) == {"ND308"}

    @pytest.mark.parametrize(
        ("run", "layers", "shape"),
        [
            # a bag of instances
            (lambda m, x: m[0](x).mT.softmax(1) @ x, [nn.Linear(3, 1)], (7, 3)),
            (lambda m, x: (m[0](x).softmax(0) * x).sum(0), [nn.Linear(3, 1)], (7, 3)),
            # a matrix of batch by batch
            (lambda m, x: (m[0](x) @ m[0](x).mT).softmax(0), [nn.Linear(3, 4)], (7, 3)),
            # one row without a batch
            (lambda m, x: m[0](x).softmax(0), [nn.Linear(3, 4)], (3,)),
            # the branches of a selective kernel
            (lambda m, x: torch.stack([m[0](x), m[1](x)]).softmax(0).sum(0), linears((3, 4), (3, 4)), (2, 3)),
        ],
    )
    def test_silent_where_no_samples_compete(self, run, layers, shape):
        assert not findings(run, layers, torch.randn(*shape))

    def test_query_axis(self):
        def run(m, x):
            return (m[0](x) @ m[1](x).mT / 2).softmax(-2) @ m[2](x)

        found = findings(run, linears((4, 4), (4, 4), (4, 4)), torch.randn(2, 5, 4))
        assert [one.confidence for one in found["ND309"]] == [Confidence.LOW]
        assert "these are the queries" in found["ND309"][0].message

    def test_head_axis(self):
        def run(m, x):
            q, k, v = (one(x).view(2, 5, 2, 4).transpose(1, 2) for one in m)
            return ((q @ k.mT / 2).softmax(1) @ v).transpose(1, 2).reshape(2, 5, 8)

        (one,) = findings(run, linears((8, 8), (8, 8), (8, 8)), torch.randn(2, 5, 8))["ND309"]
        assert one.confidence is Confidence.MEDIUM
        assert "heads" in one.message.rpartition(":")[2]

    @pytest.mark.parametrize(
        "run",
        [
            lambda m, x: (m[0](x) @ m[1](x).mT / 2).softmax(-1) @ m[2](x),
            lambda m, x: (m[1](x) @ m[0](x).mT / 2).softmax(-2).mT @ m[2](x),
            lambda m, x: torch.einsum("bqk,bkd->bqd", (m[0](x) @ m[1](x).mT / 2).softmax(2), m[2](x)),
            # slots: softmax over them, then a mean over the inputs
            lambda m, x: (a := (m[0](x) @ m[1](x).mT / 2).softmax(1)) / a.sum(-1, keepdim=True) @ m[2](x),
            # linear attention
            lambda m, x: m[0](x).softmax(-1) @ (m[1](x).softmax(1).mT @ m[2](x)),
        ],
    )
    def test_silent_where_the_sum_runs_along_the_softmax(self, run):
        assert "ND309" not in findings(run, linears((4, 4), (4, 4), (4, 4)), torch.randn(2, 5, 4))


class Temperature(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.factor


class TestAttentionScale:
    layers = linears((16, 16), (16, 16), (16, 16))

    @pytest.mark.parametrize(
        "run",
        [
            lambda m, x: (m[0](x) @ m[1](x).mT).softmax(-1) * 16**-0.5 @ m[2](x),
            lambda m, x: F.dropout((m[0](x) @ m[1](x).mT).softmax(-1) / 4, 0.1) @ m[2](x),
            lambda m, x: torch.einsum(
                "bij,bjd->bid", torch.bmm(m[0](x), m[1](x).mT).softmax(2).div(4), m[2](x)
            ),
        ],
    )
    def test_behind_the_softmax(self, run):
        (one,) = findings(run, self.layers, torch.randn(2, 5, 16))["ND119"]
        assert (one.severity, one.confidence) == (Severity.ERROR, Confidence.HIGH)
        assert one.evidence == {"factor": 0.25, "width": 16}

    def test_nowhere_has_low_confidence(self):
        def run(m, x):
            return (m[0](x) @ m[1](x).mT).softmax(-1) @ m[2](x)

        (one,) = findings(run, self.layers, torch.randn(2, 5, 16))["ND119"]
        assert (one.severity, one.confidence) == (Severity.WARNING, Confidence.LOW)

    @pytest.mark.parametrize(
        "run",
        [
            lambda m, x: (m[0](x) / 4 @ m[1](x).mT).softmax(-1) @ m[2](x),
            lambda m, x: (m[0](x) @ (m[1](x) * 0.25).mT).softmax(-1) @ m[2](x),
            lambda m, x: ((m[0](x) @ m[1](x).mT) * 0.25 + 1).softmax(-1) @ m[2](x),
            lambda m, x: (F.normalize(m[0](x), dim=-1) @ F.normalize(m[1](x), dim=-1).mT).softmax(-1) @ x,
            lambda m, x: (m[3](m[0](x)) @ m[1](x).mT).softmax(-1) @ m[2](x),
            lambda m, x: m[4](m[0](x) @ m[1](x).mT).softmax(-1) @ m[2](x),
            lambda m, x: (50 * torch.tanh(m[0](x) @ m[1](x).mT / 50)).softmax(-1) @ m[2](x),
            lambda m, x: torch.einsum("bid,bjd->bij", m[0](x) * 16**-0.5, m[1](x)).softmax(-1) @ m[2](x),
            lambda m, x: torch.baddbmm(x @ x.mT, m[0](x), m[1](x).mT, beta=0, alpha=0.25).softmax(-1) @ x,
            lambda m, x: F.scaled_dot_product_attention(m[0](x), m[1](x), m[2](x)),
            lambda m, x: (m[0](x) @ m[1](x).mT / 4).softmax(-1) * 0.25 @ m[2](x),
            lambda m, x: m[0](x).softmax(-1) * 0.25 @ (m[1](x).softmax(1).mT @ m[2](x)),
        ],
    )  # fmt: skip
    def test_silent_where_something_scales(self, run):
        layers = [*linears((16, 16), (16, 16), (16, 16)), nn.LayerNorm(16), Temperature()]
        assert "ND119" not in findings(run, layers, torch.randn(2, 5, 16))

    def test_silent_behind_a_factor_that_is_no_root(self):
        def run(m, x):
            return (m[0](x) @ m[1](x).mT).softmax(-1) * 0.9 @ m[2](x)

        assert "ND119" not in findings(run, self.layers, torch.randn(2, 5, 16))


class TestPartialPrenorm:
    def test_dot_product_by_hand(self):
        def run(m, x):
            q, (k, v) = m[1](m[0](x)), m[2](x).chunk(2, -1)
            return x + (q @ k.mT / 4).softmax(-1) @ v

        found = findings(run, [nn.LayerNorm(16), *linears((16, 16), (16, 32))], torch.randn(2, 5, 16))
        assert found["ND111"][0].evidence["without norm"] == ["keys", "values"]

    def test_values_alone(self):
        def run(m, x):
            n = m[0](x)
            return x + m[1](n, n, x)[0]

        layers = [nn.LayerNorm(16), nn.MultiheadAttention(16, 2, batch_first=True)]
        assert findings(run, layers, torch.randn(2, 5, 16))["ND111"][0].evidence["without norm"] == ["values"]

    @pytest.mark.parametrize(
        "run",
        [
            lambda m, x, y: x + m[1](n := m[0](x), n, n)[0],
            lambda m, x, y: x + m[1](m[0](x), y, y)[0],
            lambda m, x, y: m[0](x + m[1](x, x, x)[0]),
            lambda m, x, y: x + m[1](m[0](x), m[2](y), m[2](y))[0],
        ],
    )
    def test_silent(self, run):
        layers = [nn.LayerNorm(16), nn.MultiheadAttention(16, 2, batch_first=True), nn.LayerNorm(16)]
        assert not findings(run, layers, torch.randn(2, 5, 16), torch.randn(2, 7, 16))


class TestAttentionPattern:
    def test_parts(self):
        def run(m, x):
            q, k, v = m[0](x).chunk(3, -1)
            scores = (q @ k.mT * 0.5).masked_fill(torch.ones(5, 5).triu(1).bool(), -1e9)
            return m[1](F.dropout(scores.softmax(-1), 0.1) @ v)

        graph = graph_of(run, linears((4, 12), (4, 4)), torch.randn(2, 5, 4))
        (one,) = attentions(graph)
        assert one.scores is not None
        assert (one.scores.kind, one.product.kind, one.scale.config["scalar"]) == ("matmul", "matmul", 0.5)
        assert [node.kind for node in one.before] == ["mul", "masked_fill"]
        assert [node.kind for node in one.after] == ["dropout"]
        assert attention_at(graph, one.softmax) is one
        assert weighs(graph, one.softmax) is one.product

    def test_gates_weigh_and_features_do_not(self):
        def run(m, x):
            gate = m[0](x).mean(1, keepdim=True).sigmoid()
            return m[1](m[0](x).sigmoid()) + x * gate

        graph = graph_of(run, linears((4, 4), (4, 4)), torch.randn(2, 5, 4))
        gate, hidden = (node for node in graph.nodes if node.kind == "sigmoid")
        assert weighs(graph, gate) is not None
        assert weighs(graph, hidden) is None

    def test_a_classifier_is_no_attention(self):
        graph = graph_of(lambda m, x: m[0](x).softmax(-1), linears((4, 3)), torch.randn(2, 4))
        assert attentions(graph) == ()

    def test_pooling_attention_has_no_scores(self):
        def run(m, x):
            return (m[0](x).softmax(1) * x).sum(1)

        (one,) = attentions(graph_of(run, linears((4, 1)), torch.randn(2, 5, 4)))
        assert (one.scores, one.product.kind) == (None, "mul")


class TestAxesOfRules:
    @pytest.mark.parametrize(("rank", "axis"), [(1, 0), (2, 1), (3, 0), (4, 1)])
    def test_implicit_axis_is_that_of_torch(self, rank, axis):
        assert implicit_axis(rank) == axis
        x = torch.randn(*range(2, 2 + rank))
        with pytest.warns(UserWarning, match="Implicit"):
            assert torch.equal(F.softmax(x), x.softmax(axis))

    def test_axes_through_moves(self):
        build = FactsBuilder()
        x = build.input(2, 4, 4)
        build.op("permute", x, shape=(4, 2, 4), config={"dims": [2, 0, 1]})
        build.op("transpose", x, shape=(2, 4, 4), config={"dim0": "mT"})
        build.op("unsqueeze", x, shape=(2, 1, 4, 4), config={"dim": 1})
        build.op("getitem", x, shape=(4, 1, 2), config={"index": [0, "::", "None", "2::"]})
        graph = build.graph()
        source, permuted, transposed, wider, indexed = graph.nodes
        assert permutation(permuted, 3) == [2, 0, 1]
        assert [back(graph, transposed, axis, source) for axis in range(3)] == [0, 2, 1]
        assert [back(graph, wider, axis, source) for axis in range(4)] == [0, None, 1, 2]
        assert [back(graph, indexed, axis, source) for axis in range(3)] == [1, None, 2]
        assert [forth(graph, source, axis, permuted) for axis in range(3)] == [1, 2, 0]
