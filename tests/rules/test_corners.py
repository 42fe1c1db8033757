"""Corners of single rules on facts written by hand: no torch, no model."""

from __future__ import annotations

import math

import pytest

from normdoctor.findings import Applicability, Confidence, Severity
from normdoctor.rules import find_rule
from normdoctor.testing import FactsBuilder, run_rule


def codes(code, graph, **options):
    return run_rule(find_rule(code), graph, **options)


def conv_norm(build, *, kind="BatchNorm2d", channels=8, bias=True, between=(), **config):
    x = build.input(4, 3, 8, 8)
    extra = {"bias": (channels,)} if bias else {}
    y = build.layer("conv", "Conv2d", x, shape=(4, channels, 8, 8), weight=(channels, 3, 3, 3), **extra)
    for step, shape in between:
        y = build.op(step, y, shape=shape)
    norm = {"track_running_stats": True} | config
    return y, build.layer("norm", kind, y, shape=(4, channels, 8, 8), weight=(channels,), **norm)


class TestBiasBeforeNorm:
    def test_finding_holds_the_figures_and_an_edit(self):
        build = FactsBuilder()
        _, norm = conv_norm(build)
        (finding,) = codes("ND101", build.graph(norm))
        assert finding.modules == ("conv",)
        assert finding.location == build.modules["conv"].origin
        assert finding.evidence == {"parameter": "conv.bias", "values": 8, "norm": "norm"}
        assert finding.fix.applicability is Applicability.SAFE
        assert finding.fix.edits == {"bias": "False"}
        assert [place for _, place in finding.related] == [build.modules["norm"].origin]

    @pytest.mark.parametrize(("groups", "found"), [(8, 1), (4, 0), (1, 0)])
    def test_group_norm_cancels_it_only_with_one_channel_a_group(self, groups, found):
        build = FactsBuilder()
        _, norm = conv_norm(build, kind="GroupNorm", num_groups=groups)
        assert len(codes("ND101", build.graph(norm))) == found

    def test_silent_without_a_bias(self):
        build = FactsBuilder()
        _, norm = conv_norm(build, bias=False)
        assert not codes("ND101", build.graph(norm))

    def test_silent_where_the_convolution_has_another_reader(self):
        build = FactsBuilder()
        conv, norm = conv_norm(build)
        out = build.op("add", norm, conv, shape=(4, 8, 8, 8))
        assert not codes("ND101", build.graph(out))

    def test_silent_where_the_bias_has_another_reader(self):
        build = FactsBuilder()
        _, norm = conv_norm(build)
        out = build.op("add", norm, shape=(4, 8, 8, 8), parameters=("conv.bias",))
        assert not codes("ND101", build.graph(out))

    def test_silent_where_one_call_of_two_has_no_norm(self):
        build = FactsBuilder()
        _, norm = conv_norm(build)
        again = build.layer("conv", "Conv2d", 0, shape=(4, 8, 8, 8))
        assert not codes("ND101", build.graph(norm, again))

    def test_reported_once_where_each_call_has_a_norm(self):
        build = FactsBuilder()
        _, norm = conv_norm(build)
        again = build.layer("conv", "Conv2d", 0, shape=(4, 8, 8, 8))
        other = build.layer("other", "BatchNorm2d", again, shape=(4, 8, 8, 8), weight=(8,))
        assert len(codes("ND101", build.graph(norm, other))) == 1

    @pytest.mark.parametrize(
        ("between", "found"),
        [
            ([("identity", (4, 8, 8, 8))], 1),
            ([("view", (4, 8, 64)), ("view", (4, 8, 8, 8))], 1),
            ([("permute", (4, 8, 8, 8))], 0),  # which axis went where cannot be told
            ([("relu", (4, 8, 8, 8))], 0),
            ([("pad", (4, 8, 8, 8))], 0),
            ([("view", (4, 2, 4, 64)), ("view", (4, 8, 8, 8))], 0),
        ],
    )
    def test_what_may_stand_between(self, between, found):
        build = FactsBuilder()
        _, norm = conv_norm(build, between=between)
        assert len(codes("ND101", build.graph(norm))) == found

    def test_linear_over_tokens_transposed_to_channels(self):
        build = FactsBuilder()
        x = build.input(2, 5, 16)
        y = build.layer("fc", "Linear", x, shape=(2, 5, 12), weight=(12, 16), bias=(12,))
        y = build.op("transpose", y, shape=(2, 12, 5))
        norm = build.layer("norm", "BatchNorm1d", y, shape=(2, 12, 5), weight=(12,))
        assert len(codes("ND101", build.graph(norm))) == 1


class TestDropoutBeforeBatchnorm:
    def graph(self, p=0.5, between=(), kind="Dropout", **fields):
        build = FactsBuilder()
        x = build.input(4, 16)
        y = build.layer("drop", kind, x, shape=(4, 16), p=p, **fields)
        for step, inputs in between:
            extra = [build.input(4, 16, name="y")] if inputs == 2 else []
            y = build.op(step, y, *extra, shape=(4, 16))
        norm = build.layer("norm", "BatchNorm1d", y, shape=(4, 16), weight=(16,), track_running_stats=True)
        return build.graph(norm)

    def test_ratio(self):
        (finding,) = codes("ND102", self.graph(p=0.2))
        assert finding.evidence["variance_ratio"] == pytest.approx(1.25)
        assert "at least 1.25 times" in finding.message

    @pytest.mark.parametrize(
        ("between", "found"),
        [([("relu", 1)], 1), ([("mul", 1)], 1), ([("add", 2)], 0), ([("cat", 2)], 0), ([("linear", 1)], 0)],
    )
    def test_what_may_stand_between(self, between, found):
        assert len(codes("ND102", self.graph(between=between))) == found

    def test_silent_for_p_of_zero_and_one(self):
        assert not codes("ND102", self.graph(p=0.0))
        assert not codes("ND102", self.graph(p=1.0))


class TestNormOverTooFew:
    @pytest.mark.parametrize(
        ("kind", "shape", "config", "severity"),
        [
            ("LayerNorm", (4, 5, 1), {"normalized_shape": [1]}, "error"),
            ("LayerNorm", (4, 5, 2), {"normalized_shape": [2]}, "warning"),
            ("LayerNorm", (4, 1, 3), {"normalized_shape": [1, 3]}, None),
            ("LayerNorm", (4, 5, 3), {"normalized_shape": [3]}, None),
            ("RMSNorm", (4, 1), {"normalized_shape": [1]}, "error"),
            ("RMSNorm", (4, 2), {"normalized_shape": [2]}, None),
            ("GroupNorm", (4, 8), {"num_groups": 8}, "error"),
            ("GroupNorm", (4, 8), {"num_groups": 4}, "warning"),
            ("GroupNorm", (4, 8, 2, 2), {"num_groups": 8}, None),
            ("InstanceNorm2d", (4, 8, 1, 2), {"track_running_stats": False}, "warning"),
        ],
    )
    def test_counts(self, kind, shape, config, severity):
        build = FactsBuilder()
        x = build.input(*shape)
        norm = build.layer("norm", kind, x, shape=shape, **config)
        found = codes("ND114", build.graph(norm))
        assert [finding.severity for finding in found] == ([severity] if severity else [])
        assert all(finding.confidence is Confidence.HIGH for finding in found)

    def test_an_inferred_map_is_blamed_only_behind_a_pooling(self):
        for pooled, confidence in ((False, Confidence.LOW), (True, Confidence.HIGH)):
            build = FactsBuilder(source="inferred")
            x = build.input(2, 8, 1, 1)
            x = build.op("adaptive_avg_pool2d", x, shape=(2, 8, 1, 1)) if pooled else x
            norm = build.layer("norm", "GroupNorm", x, shape=(2, 8, 1, 1), num_groups=8)
            (finding,) = codes("ND114", build.graph(norm))
            assert finding.confidence is confidence

    @pytest.mark.parametrize(("source", "found"), [("inferred", 0), ("given", 1)])
    def test_the_batch_is_never_blamed_when_it_was_inferred(self, source, found):
        build = FactsBuilder(source=source)
        x = build.input(2, 8)
        norm = build.layer("norm", "BatchNorm1d", x, shape=(2, 8), track_running_stats=True)
        reported = codes("ND114", build.graph(norm))
        assert len(reported) == found
        assert all(finding.confidence is Confidence.LOW for finding in reported)


class TestSettings:
    @pytest.mark.parametrize(
        ("eps", "severity"),
        [(1e-5, None), (1e-3, None), (1e-2, None), (0.011, "warning"), (0.1, "error"), (64, "error"),
         (0, "error"), (-1e-5, "error"), (math.nan, None), (None, None)],
    )  # fmt: skip
    def test_eps(self, eps, severity):
        build = FactsBuilder()
        build.module("bn", "BatchNorm2d", base="BatchNorm2d", config={"eps": eps, "num_features": 64})
        found = codes("ND201", build.graph())
        assert [finding.severity for finding in found] == ([severity] if severity else [])

    @pytest.mark.parametrize(
        ("eps", "edits"),
        [(0.8, {"eps": "", "momentum": "0.2"}), (0.3, {"eps": "", "momentum": "0.3"}),
         (0.1, {"eps": ""}), (64, {"eps": ""})],
    )  # fmt: skip
    def test_what_was_most_likely_meant_by_eps(self, eps, edits):
        build = FactsBuilder()
        build.module("bn", "BatchNorm2d", base="BatchNorm2d", leaf=True, config={"eps": eps})
        (finding,) = codes("ND201", build.graph())
        assert finding.fix.edits == edits
        assert finding.fix.applicability is Applicability.UNSAFE

    def test_options(self):
        build = FactsBuilder()
        build.module("bn", "BatchNorm2d", base="BatchNorm2d", config={"eps": 5e-3})
        (finding,) = codes("ND201", build.graph(), warn_above=1e-3)
        assert finding.severity is Severity.WARNING

    def test_functional_calls_are_judged_by_their_arguments(self):
        build = FactsBuilder()
        mean = build.parameter("", "mean", 8, kind="buffer")
        x = build.input(4, 8)
        config = {"eps": 0.5, "momentum": 0.9, "training": True}
        y = build.op("batch_norm", x, shape=(4, 8), parameters=(mean,), config=config)
        graph = build.graph(y)
        assert [finding.code for finding in (*codes("ND201", graph), *codes("ND202", graph))] == [
            "ND201",
            "ND202",
        ]

    @pytest.mark.parametrize(("momentum", "fixed"), [(0.99, "0.01"), (0.5, ""), (1.0, ""), (2.0, "")])
    def test_momentum_fix(self, momentum, fixed):
        build = FactsBuilder()
        config = {"momentum": momentum, "track_running_stats": True}
        build.module("bn", "BatchNorm2d", base="BatchNorm2d", leaf=True, config=config)
        (finding,) = codes("ND202", build.graph())
        assert finding.fix.edits == {"momentum": fixed}

    def test_momentum_of_a_norm_that_does_not_use_it(self):
        build = FactsBuilder()
        frozen = {"momentum": 0.99, "track_running_stats": True}
        build.module("frozen", "BatchNorm2d", base="BatchNorm2d", training=False, config=frozen)
        untracked = {"momentum": 0.99, "track_running_stats": False}
        build.module("untracked", "BatchNorm2d", base="BatchNorm2d", config=untracked)
        assert not codes("ND202", build.graph())


class TestLinearAfterLinear:
    def pair(self, into, inner, out, **fields):
        build = FactsBuilder()
        x = build.input(4, into)
        y = build.layer("a", "Linear", x, shape=(4, inner), weight=(inner, into))
        z = build.layer("b", "Linear", y, shape=(4, out), weight=(out, inner))
        return codes("ND301", build.graph(*((y, z) if fields.get("used") else (z,))))

    @pytest.mark.parametrize(
        ("sizes", "found"),
        [((8, 8, 8), 1), ((8, 16, 4), 1), ((64, 32, 10), 1), ((16, 4, 16), 0), ((9, 8, 9), 0)],
    )
    def test_only_pairs_without_a_rank_reduction(self, sizes, found):
        assert len(self.pair(*sizes)) == found

    def test_silent_where_the_tensor_between_is_used(self):
        assert not self.pair(8, 8, 8, used=True)

    @pytest.mark.parametrize(
        "fields",
        [{"groups": 4}, {"stride": [2, 2]}, {"kernel_size": [1, 7]}],
        ids=["grouped", "strided", "1x7"],
    )
    def test_silent_for_special_convolutions(self, fields):
        for special in (True, False):
            build = FactsBuilder()
            x = build.input(2, 8, 8, 8)
            y = build.layer("a", "Conv2d", x, shape=(2, 8, 8, 8), weight=(8, 8, 3, 3))
            config = fields if special else {"kernel_size": [3, 3]}
            z = build.layer("b", "Conv2d", y, shape=(2, 8, 8, 8), weight=(8, 8, 3, 3), **config)
            assert len(codes("ND301", build.graph(z))) == (not special)

    def test_silent_for_the_same_layer_again_and_beside_depthwise_convolutions(self):
        build = FactsBuilder()
        x = build.input(4, 8)
        y = build.layer("a", "Linear", x, shape=(4, 8), weight=(8, 8))
        y = build.layer("a", "Linear", y, shape=(4, 8))
        assert not codes("ND301", build.graph(y))
        for first, last in (("Conv2d", "Linear"), ("Linear", "Conv2d")):
            build = FactsBuilder()
            y = build.input(2, 8, 8, 8)
            for name, kind, groups in (
                ("a", first, 8),
                ("b", "Conv2d", 1),
                ("c", "Conv2d", 1),
                ("d", last, 8),
            ):
                if kind == "Conv2d":
                    y = build.layer(name, kind, y, shape=(2, 8, 8, 8), weight=(8, 8, 1, 1), groups=groups)
            assert not codes("ND301", build.graph(y))

    def test_a_bare_reduction_in_front_of_a_spatial_convolution_is_meant(self):
        for norm, found in ((False, 0), (True, 1)):
            build = FactsBuilder()
            y = build.layer("a", "Conv2d", build.input(2, 16, 8, 8), shape=(2, 8, 8, 8), weight=(8, 16, 1, 1))
            if norm:
                y = build.layer("n", "BatchNorm2d", y, shape=(2, 8, 8, 8), weight=(8,))
            y = build.layer("b", "Conv2d", y, shape=(2, 8, 8, 8), weight=(8, 8, 3, 3))
            assert len(codes("ND301", build.graph(y))) == found


class TestActivationAfterActivation:
    def severity(self, inner, outer, *between, gate=False):
        build = FactsBuilder()
        x = build.input(4, 16)
        y = build.op(inner, x, shape=(4, 16))
        for step in between:
            y = build.op(step, y, shape=(4, 16))
        y = build.op(outer, y, shape=(4, 16))
        if gate:
            y = build.op("mul", y, x, shape=(4, 16), role="gate")
        found = codes("ND302", build.graph(y))
        return found[0].severity if found else None

    @pytest.mark.parametrize(
        ("inner", "outer", "severity"),
        [
            ("relu", "relu", "info"), ("relu", "relu6", "info"), ("relu6", "relu", "info"),
            ("leaky_relu", "relu", "info"), ("relu", "leaky_relu", "info"), ("sigmoid", "relu", "info"),
            ("sigmoid", "sigmoid", "warning"), ("tanh", "tanh", "warning"), ("relu", "sigmoid", "warning"),
            ("relu", "softmax", "warning"), ("gelu", "gelu", "warning"), ("relu", "tanh", "warning"),
            ("softplus", "tanh", None), ("leaky_relu", "softmax", None), ("gelu", "softmax", None),
        ],
    )  # fmt: skip
    def test_pairs(self, inner, outer, severity):
        assert self.severity(inner, outer) == severity

    def test_through_pooling_and_flatten_but_not_through_a_product(self):
        assert self.severity("relu", "relu", "max_pool2d", "flatten", "dropout") == "info"
        assert self.severity("sigmoid", "sigmoid", "mul") is None

    def test_the_effect_is_said(self):
        build = FactsBuilder()
        x = build.op("tanh", build.input(4, 16), shape=(4, 16))
        (finding,) = codes("ND302", build.graph(build.op("softmax", x, shape=(4, 16))))
        assert "by a factor of 7.39" in finding.message

    def test_softmax_of_softmax_is_left_to_the_rule_that_knows_the_loss(self):
        for with_loss, found in ((True, 0), (False, 1)):
            build = FactsBuilder()
            x = build.op("softmax", build.input(4, 16), shape=(4, 16))
            y = build.op("log_softmax", x, shape=(4, 16))
            if with_loss:
                build.loss("nll_loss", y)
            assert len(codes("ND302", build.graph(y))) == found

    def test_a_softmax_that_weighs_something(self):
        assert self.severity("relu", "softmax", gate=True) is None
        assert self.severity("sigmoid", "sigmoid", gate=True) == "warning"


class TestSoftmaxBeforeCrossEntropy:
    def start(self, shape=(8, 10), dim=1, kind="softmax", **fields):
        build = FactsBuilder(**fields)
        x = build.input(*shape)
        return build, x, build.op(kind, x, shape=shape, config={"dim": dim})

    @pytest.mark.parametrize(("classes", "least"), [(2, 0.3133), (4, 0.7437), (10, 1.4612), (1000, 5.9095)])
    def test_the_least_loss(self, classes, least):
        build, _, y = self.start((8, classes))
        build.loss("cross_entropy", y)
        (finding,) = codes("ND310", build.graph(y))
        assert finding.evidence == {"classes": classes, "least_loss": least}
        assert least == pytest.approx(-math.log(math.e / (math.e + classes - 1)), abs=1e-4)
        assert finding.confidence is Confidence.HIGH

    def test_log_softmax_is_harmless_and_nll_wants_it(self):
        build, _, y = self.start(kind="log_softmax")
        build.loss("cross_entropy", y)
        (finding,) = codes("ND310", build.graph(y))
        assert finding.severity is Severity.INFO
        build, _, y = self.start(kind="log_softmax")
        build.loss("nll_loss", y)
        assert not codes("ND310", build.graph(y))

    def test_log_softmax_of_softmax(self):
        build, _, y = self.start()
        z = build.op("log_softmax", y, shape=(8, 10), config={"dim": -1})
        build.loss("nll_loss", z)
        (finding,) = codes("ND310", build.graph(z))
        assert finding.severity is Severity.ERROR

    def test_a_softmax_over_another_axis_is_none_of_its_business(self):
        build, _, y = self.start((8, 10, 6), dim=2)
        build.loss("cross_entropy", y)
        assert not codes("ND310", build.graph(y))

    def test_tokens_whose_classes_are_moved(self):
        build, _, y = self.start((8, 6, 10), dim=-1)
        z = build.op("transpose", y, shape=(8, 10, 6))
        build.loss("cross_entropy", z)
        assert len(codes("ND310", build.graph(z))) == 1
        build, _, y = self.start((8, 6, 10), dim=-1)
        z = build.op("view", y, shape=(48, 10))
        build.loss("cross_entropy", z)
        assert len(codes("ND310", build.graph(z))) == 1

    def test_an_average_over_a_stack(self):
        build, x, y = self.start()
        z = build.op("softmax", x, shape=(8, 10), config={"dim": 1})
        stacked = build.op("stack", y, z, shape=(2, 8, 10), config={"dim": 0})
        mean = build.op("mean", stacked, shape=(8, 10), config={"dim": 0})
        build.loss("cross_entropy", mean)
        assert len(codes("ND310", build.graph(mean))) == 2

    @pytest.mark.parametrize(
        ("kind", "config", "gain"),
        [
            ("mul", {"scalar": 3.0}, 3.0),
            ("div", {"scalar": 2}, 0.5),
            ("mul", {}, None),
            ("add", {"scalar": 1}, 1.0),
        ],
    )
    def test_a_factor_moves_the_bound(self, kind, config, gain):
        build, _, y = self.start()
        z = build.op(kind, y, shape=(8, 10), config=config)
        build.loss("cross_entropy", z)
        (finding,) = codes("ND310", build.graph(z))
        bound = None if gain is None else pytest.approx(math.log(1 + 9 * math.exp(-gain)), abs=1e-4)
        assert finding.evidence.get("least_loss") == bound
        build, _, y = self.start()
        z = build.op("mul", y, shape=(8, 10), config={"scalar": 20.0})
        build.loss("cross_entropy", z)
        assert not codes("ND310", build.graph(z))

    def test_a_sum_of_two_reaches_further_than_their_mean(self):
        for summed, gain in ((True, 2.0), (False, 1.0)):
            build, x, y = self.start()
            z = build.op("softmax", x, shape=(8, 10), config={"dim": 1})
            y = build.op("stack", y, z, shape=(8, 2, 10), config={"dim": 1})
            y = build.op("sum" if summed else "mean", y, shape=(8, 10), config={"dim": [1]})
            build.loss("cross_entropy", y)
            found = codes("ND310", build.graph(y))
            bound = pytest.approx(math.log(1 + 9 * math.exp(-gain)), abs=1e-4)
            assert [finding.evidence["least_loss"] for finding in found] == [bound, bound]

    def test_a_batch_that_is_put_together(self):
        for dim, found in ((0, 2), (1, 0)):
            build, x, y = self.start()
            z = build.op("softmax", x, shape=(8, 10), config={"dim": 1})
            y = build.op("cat", y, z, shape=(16, 10) if dim == 0 else (8, 20), config={"dim": dim})
            build.loss("cross_entropy", y)
            assert len(codes("ND310", build.graph(y))) == found

    @pytest.mark.parametrize(("dim", "found"), [(1, 1), (2, 0), ([1, 2], 0), (None, 0)])
    def test_a_mean_over_tokens_keeps_the_classes(self, dim, found):
        build, _, y = self.start((8, 6, 10), dim=2)
        y = build.op("mean", y, shape=(8, 10), config={"dim": dim})
        build.loss("cross_entropy", y)
        assert len(codes("ND310", build.graph(y))) == found

    @pytest.mark.parametrize(
        ("kind", "shape", "found"), [("Softmax2d", (2, 5, 8, 8), 1), ("Softmax", (8, 10), 1)]
    )
    def test_axes_that_are_not_written(self, kind, shape, found):
        build = FactsBuilder()
        x = build.input(*shape)
        y = build.layer("last", kind, x, shape=shape)
        build.loss("cross_entropy", y)
        assert len(codes("ND310", build.graph(y))) == found

    def test_a_sum_with_logits_is_no_average(self):
        build, x, y = self.start()
        z = build.op("add", y, x, shape=(8, 10))
        build.loss("cross_entropy", z)
        assert not codes("ND310", build.graph(z))

    def test_a_loss_from_the_source_is_less_sure(self):
        build, x, y = self.start()
        build.loss("cross_entropy", y, certain=False)
        (finding,) = codes("ND310", build.graph(y))
        assert finding.confidence is Confidence.MEDIUM
        build, x, y = self.start()
        build.loss("cross_entropy", y, certain=False)
        assert not codes("ND310", build.graph(y, x))  # the loss may take the logits
        build, x, y = self.start(training=False)
        build.loss("cross_entropy", y, certain=False)
        (finding,) = codes("ND310", build.graph(y))
        assert finding.confidence is Confidence.LOW


class TestInplace:
    def late(self, reader="add", *, used=True, before="conv2d", views=()):
        build = FactsBuilder()
        x = build.op(before, build.input(2, 8), shape=(2, 8))
        old = build.op("view", x, shape=views, view_of=x) if views else x
        y = build.op("relu", x, shape=(2, 8), mutates=x, config={"inplace": True})
        z = build.op("linear", y, shape=(2, 8)) if used else x
        out = (
            build.op(reader, old, z, shape=(2, 8)) if reader == "add" else build.op(reader, old, shape=(2, 8))
        )
        return codes("ND315", build.graph(out, z))

    def test_the_old_name_is_read(self):
        (finding,) = self.late()
        assert finding.severity is Severity.ERROR
        assert finding.evidence["reader_kind"] == "add"

    def test_silent_where_nothing_changes_or_nothing_minds(self):
        assert not self.late(before="relu")
        assert not self.late(before="sigmoid")
        assert not self.late("relu")
        assert not self.late(used=False)
        assert self.late("sigmoid")

    def test_a_whole_view_shares_the_memory_and_a_part_is_left_alone(self):
        assert self.late(views=(4, 4))
        assert not self.late("linear", views=(2, 4))

    def test_dropout_and_parts(self):
        for p, mutated, found in ((0.5, (2, 8), 1), (0.0, (2, 8), 0), (0.5, (4, 8), 0)):
            build = FactsBuilder()
            whole = build.op("conv2d", build.input(2, 8), shape=mutated)
            part = whole if mutated == (2, 8) else build.op("getitem", whole, shape=(2, 8), view_of=whole)
            y = build.op("dropout", part, shape=(2, 8), mutates=whole, config={"p": p})
            out = build.op("add", whole, y, shape=(2, 8))
            assert len(codes("ND315", build.graph(out))) == found

    def test_silent_for_readers_before_the_call(self):
        build = FactsBuilder()
        x = build.op("conv2d", build.input(2, 8), shape=(2, 8))
        early = build.op("linear", x, shape=(2, 8))
        y = build.op("relu", x, shape=(2, 8), mutates=x)
        assert not codes("ND315", build.graph(build.op("add", y, early, shape=(2, 8))))


class TestInitialization:
    def graph(self, value, *, behind="relu", units=8, checkpoint=False, **weight):
        build = FactsBuilder(checkpoint=checkpoint)
        x = build.input(4, 8)
        y = build.layer("a", "Linear", x, shape=(4, units), weight=(units, 8))
        out = y = build.op(behind, *((y, x) if behind in ("add", "mul") else (y,)), shape=(4, units))
        if behind != "output":
            out = build.layer("b", "Linear", y, shape=(4, 3), weight=(3, units))
            build.weight("b.weight")
        build.constant("a.weight", value)
        if weight:
            build.weight("a.weight", **weight)
        return build.graph(out)

    @pytest.mark.parametrize(
        ("value", "behind", "found"),
        [
            (0.0, "relu", 1),
            (0.5, "relu", 1),
            (0.0, "add", 0),
            (0.0, "mul", 0),
            (0.5, "add", 1),
            (0.0, "softmax", 0),
        ],
    )
    def test_where_a_constant_is_wrong(self, value, behind, found):
        reported = codes("ND401", self.graph(value, behind=behind))
        assert [finding.severity for finding in reported] == ["error"] * found

    def test_the_output_layer(self):
        for value, severities in ((0.5, ["info"]), (0.0, [])):
            build = FactsBuilder()
            x = build.input(4, 8)
            y = build.layer("a", "Linear", x, shape=(4, 8), weight=(8, 8))
            out = build.layer("b", "Linear", build.op("relu", y, shape=(4, 8)), shape=(4, 3), weight=(3, 8))
            build.weight("a.weight")
            build.constant("b.weight", value)
            assert [finding.severity for finding in codes("ND401", build.graph(out))] == severities

    def test_silent_for_single_units_checkpoints_and_other_diagnoses(self):
        assert not codes("ND401", self.graph(0.5, units=1))
        assert not codes("ND401", self.graph(0.5, checkpoint=True))
        unwritten = self.graph(0.0, finite=False, uninitialized=True, minimum=0.0, maximum=0.0)
        assert not codes("ND401", unwritten)
        assert len(codes("ND405", unwritten)) == 1

    def test_not_finite_counts_for_trainable_parameters(self):
        build = FactsBuilder()
        for name, fields in (("a", {}), ("mask", {"trainable": False}), ("cache", {"kind": "buffer"})):
            build.weight(build.parameter("", name, 4, **fields), finite=False)
        (finding,) = codes("ND405", build.graph())
        assert finding.evidence["parameter"] == "a"
        assert "not finite" in finding.message


class TestUnregistered:
    def test_one_place_for_a_container_of_many_lines(self):
        build = FactsBuilder()
        from normdoctor.facts import Location

        for index in range(3):
            path = f"blocks[{index}]"
            place = Location("model.py", 5 + index)
            build.module(path, "Linear", base="Linear", registered=False, container="blocks", origin=place)
            build.parameter(path, "weight", 4, 4)
        build.module("blocks[0].inner", "Linear", registered=False, container="blocks")
        found = codes("ND502", build.graph())
        assert [finding.modules for finding in found] == [("blocks[0]",), ("blocks[1]",), ("blocks[2]",)]
        assert {finding.location.line for finding in found} == {5}
        assert found[0].evidence == {"container": "blocks", "modules": 3, "parameters": 48}

    def test_silent_for_a_plain_attribute_that_was_hidden_by_hand(self):
        build = FactsBuilder()
        build.module("teacher", "Linear", registered=False, container="teacher")
        build.parameter("teacher", "weight", 4, 4)
        assert not codes("ND502", build.graph())

    def test_parameters_in_a_list(self):
        build = FactsBuilder()
        build.module("block", "Block")
        for index in range(2):
            build.parameter("block", f"scales[{index}]", 4, kind="attribute")
        build.parameter("block", "sizes[0]", 4, kind="attribute", trainable=False)
        build.parameter("block", "plain", 4, kind="attribute")
        (finding,) = codes("ND502", build.graph())
        assert finding.modules == ("block",)
        assert finding.evidence == {"container": "block.scales", "parameters": 2, "values": 8}
