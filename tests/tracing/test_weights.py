"""Which initialization values match, and what else is said of weights: exact where rules need it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from normdoctor import check
from normdoctor.tracing.slices import effective_spectral_norms, equal_slices
from normdoctor.tracing.weights import CHUNK, describe

DRAWS = {
    "constant": lambda t: nn.init.constant_(t, 0.3),
    "uniform": lambda t: nn.init.uniform_(t, -0.1, 0.1),
    "rand": nn.init.uniform_,
    "default": lambda t: nn.init.kaiming_uniform_(t, a=math.sqrt(5)),
    "xavier": nn.init.xavier_uniform_,
    "normal": lambda t: nn.init.normal_(t, 0.0, 0.02),
    "kaiming": nn.init.kaiming_normal_,
    "shifted": lambda t: nn.init.normal_(t, 1.0, 0.02),
    "truncated": lambda t: nn.init.trunc_normal_(t, std=0.02, a=-0.04, b=0.04),
    "absolute": lambda t: nn.init.trunc_normal_(t, std=0.02),
    "orthogonal": nn.init.orthogonal_,
}
FAMILY = {
    "rand": "uniform",
    "default": "uniform",
    "xavier": "uniform",
    "kaiming": "normal",
    "shifted": "normal",
    "absolute": "normal",
    "truncated": "truncated_normal",
}
SHAPES = st.one_of(
    st.tuples(st.integers(20, 300), st.integers(20, 300)),
    st.tuples(st.integers(16, 64), st.integers(8, 32), st.sampled_from([1, 3, 5]), st.sampled_from([3, 5])),
    st.tuples(st.integers(40, 200), st.just(1), st.just(7), st.just(7)),
)


def drawn(name, shape, dtype=torch.float32):
    tensor = torch.empty(shape)
    DRAWS[name](tensor)
    return tensor.to(dtype)


def distribution(tensor):
    init = describe(tensor).init
    return init.distribution if init is not None else None


@settings(max_examples=60, deadline=None, derandomize=True)  # a test of the 0.1 % level fails at times
@given(
    name=st.sampled_from(sorted(DRAWS)),
    shape=SHAPES,
    seed=st.integers(0, 2**20),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_a_drawn_weight_is_given_its_distribution(name, shape, seed, dtype):
    if name == "shifted" and dtype is torch.bfloat16:
        dtype = torch.float32  # around 1 bfloat16 has steps of 0.4 of this standard deviation
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = distribution(drawn(name, shape, dtype))
    expected = FAMILY.get(name, name)
    # A cut at two standard deviations is seen for certain in some thousand values.
    few = name == "truncated" and math.prod(shape) < 2000
    assert found in ({expected, "normal"} if few else {expected}), (name, shape, found)


def test_confusions_are_rare(capsys):
    shapes = [(8, 8), (16, 8), (10, 64), (64, 64), (512, 128), (16, 3, 3, 3), (64, 64, 3, 3), (96, 1, 7, 7)]
    wrong = total = 0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name in DRAWS:
            for shape in shapes:
                if name == "truncated" and math.prod(shape) < 2000:
                    continue
                for _ in range(5):
                    total += 1
                    wrong += distribution(drawn(name, shape)) != FAMILY.get(name, name)
    with capsys.disabled():
        print(f"\nconfusions: {wrong} of {total} = {wrong / total:.1%}")
    assert wrong <= 0.02 * total


@pytest.mark.parametrize("shape", [(64, 64), (256, 33), (40, 20, 3, 3)])
def test_trained_looking_weights_match_nothing(shape):
    torch.manual_seed(1)
    heavy = torch.randn(shape) ** 3 / 20
    assert distribution(heavy) == ""
    mixed = torch.randn(shape) * torch.rand(shape[0], *[1] * (len(shape) - 1)).mul(3).exp() / 20
    assert distribution(mixed) == ""


def test_identity_dirac_and_sparse():
    assert distribution(torch.eye(16)) == "identity"
    assert distribution(nn.init.eye_(torch.empty(8, 20)) * 3) == "identity"
    assert distribution(nn.init.dirac_(torch.empty(8, 8, 3, 3))) == "dirac"
    assert distribution(nn.init.dirac_(torch.empty(16, 4, 3, 3), groups=4)) == "dirac"
    mask = torch.zeros(16, 16)
    mask[0, :8] = mask[5, 2:10] = 1.0
    assert distribution(mask) == "", "as many ones as an identity, elsewhere"
    torch.manual_seed(0)
    sparse = describe(nn.init.sparse_(torch.empty(64, 64), sparsity=0.5)).init
    assert sparse is not None
    assert sparse.distribution == "normal"
    assert 0.4 < sparse.zeros < 0.6


def test_parameters_of_the_distribution():
    torch.manual_seed(0)
    cut = describe(drawn("truncated", (200, 200))).init
    assert cut is not None
    assert cut.std == pytest.approx(0.02, rel=0.03)
    assert cut.high == pytest.approx(0.04, rel=0.01)
    wide = describe(nn.init.orthogonal_(torch.empty(32, 64), gain=1.5)).init
    assert wide is not None
    assert wide.high == pytest.approx(1.5, rel=1e-3)


def test_range_and_finiteness_are_exact_and_moments_close():
    torch.manual_seed(0)
    values = torch.randn(300, 700)
    values[123, 456] = 9.5
    fact = describe(values)
    assert (fact.minimum, fact.maximum) == (float(values.min()), 9.5)
    assert fact.mean == pytest.approx(0.0, abs=0.05)
    assert fact.std == pytest.approx(1.0, rel=0.05)
    values[299, 699] = float("nan")
    assert not describe(values).finite
    assert describe(values, filled=True).uninitialized


def test_long_rows_are_not_orthogonal_by_chance():
    torch.manual_seed(0)
    assert distribution(torch.randn(64, 16384).bfloat16()) == "normal"
    assert distribution(nn.init.orthogonal_(torch.empty(64, 4096)).bfloat16()) == "orthogonal"
    assert distribution(nn.init.orthogonal_(torch.empty(512, 128)).half()) == "orthogonal"


def test_values_of_tensors_with_one_axis():
    assert describe(torch.tensor([1.0, 2.0, 4.0])).values == (1.0, 2.0, 4.0)
    assert describe(torch.ones(5)).values == (1.0,) * 5
    assert describe(torch.zeros(16385)).values == ()
    assert describe(torch.zeros(3, 3)).values == ()
    assert describe(torch.tensor([1.0, float("nan")])).values == ()


@pytest.mark.parametrize(
    "make", [torch.t, lambda t: t[:, ::2], lambda t: t[None].expand(3, -1, -1), lambda t: t[::3]]
)
def test_layouts_that_are_not_contiguous(make):
    torch.manual_seed(0)
    tensor = make(torch.randn(60, 50))
    fact, copy = describe(tensor), describe(tensor.contiguous())
    assert (fact.minimum, fact.maximum, fact.count) == (copy.minimum, copy.maximum, copy.count)
    assert fact.std == pytest.approx(copy.std, rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(2, 60),
    length=st.integers(2, 40),
    copies=st.integers(0, 5),
    zeros=st.integers(0, 3),
    seed=st.integers(0, 999),
)
def test_equal_rows_are_counted_exactly(rows, length, copies, zeros, seed):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(rows, length, generator=generator)
    tensor = torch.cat([base, base[:1].expand(copies, -1), torch.zeros(zeros, length)])
    tensor = tensor[torch.randperm(len(tensor), generator=generator)]
    assert equal_slices(tensor, 0) == (copies, zeros)
    assert equal_slices(tensor.t().contiguous(), 1) == (copies, zeros)
    assert equal_slices(tensor.t(), 1) == (copies, zeros)


def test_slices_that_differ_in_one_place_only():
    one = torch.ones(4, 4000)
    one[1, 3999] = 2.0
    assert equal_slices(one, 0) == (2, 0)


def test_nothing_is_drawn_and_nothing_is_changed():
    torch.manual_seed(5)
    tensor = torch.randn(400, 400)
    before, state = tensor.clone(), torch.get_rng_state()
    assert describe(tensor) == describe(tensor)
    assert torch.equal(tensor, before)
    assert torch.equal(state, torch.get_rng_state())


def test_effective_spectral_norm():
    torch.manual_seed(0)
    layer = nn.utils.spectral_norm(nn.Linear(64, 128))
    fresh = effective_spectral_norms(layer)["weight_orig"]
    layer.eval()(torch.zeros(1, 64))
    assert fresh == pytest.approx(float(torch.linalg.matrix_norm(layer.weight.detach(), 2)), rel=1e-2)
    assert fresh > 2
    for _ in range(60):
        layer.train()(torch.zeros(1, 64))
    assert effective_spectral_norms(layer)["weight_orig"] == pytest.approx(1.0, rel=0.05)


def test_pieces_are_bounded():
    assert CHUNK * 4 <= 1 << 26


def test_a_model_that_waits_for_its_weights():
    model = nn.Sequential(nn.Linear(4, 4, device="meta"), nn.Linear(4, 4))
    report = check(model, torch.zeros(2, 4, device="meta"))
    assert {r.reason for r in report.results if r.code == "ND405"} == {
        "the values of the weights are not known"
    }
