"""Layers that torch does not have, against their formulas written anew."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from normdoctor import layers
from normdoctor.layers.weightnorm import WeightNorm
from normdoctor.layers.weightstandardization import WeightStandardization

from .norms import BUILD, HALF, error, scatter

OWN = (
    "BatchRenorm GhostBatchNorm MaskedBatchNorm FrozenBatchNorm LayerNorm2d "
    "FilterResponseNorm ScaleNorm GRN DyT"
).split()


def spread(value):
    return value.detach().view(-1, *(1,) * 2)


@pytest.fixture
def x():
    return torch.randn(4, 6, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 + 1


def test_layer_norm_of_channels(x):
    layer = scatter(layers.LayerNorm2d(6).double())
    right = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-6).sqrt()
    right = right * spread(layer.weight) + spread(layer.bias)
    for given in (x, x.to(memory_format=torch.channels_last)):
        y = layer(given)
        assert error(y.detach(), right) < 1e-12
        assert y.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match="expected 4D"):
        layer(x[0])


def test_filter_response_norm(x):
    layer = scatter(layers.FilterResponseNorm(6, learnable_eps=True).double())
    nu2 = x.square().mean((2, 3), keepdim=True)
    right = x / (nu2 + 1e-6 + spread(layer.eps_l).abs()).sqrt() * spread(layer.weight) + spread(layer.bias)
    assert error(layer(x).detach(), right.maximum(spread(layer.tau))) < 1e-12
    plain = layers.FilterResponseNorm(6, tlu=False).double()
    assert error(plain(x).detach(), x / (nu2 + 1e-6).sqrt()) < 1e-12
    assert list(layers.FilterResponseNorm(6).state_dict()) == ["weight", "bias", "tau"]
    assert layers.FilterResponseNorm(6)(torch.randn(2, 6, 7)).min() >= 0
    with pytest.raises(ValueError, match="3D or higher"):
        layer(x[0, 0])


def test_scale_norm(x):
    rows = x.movedim(1, -1)
    layer = layers.ScaleNorm(6).double()
    y = layer(rows)
    torch.testing.assert_close(y.norm(dim=-1), torch.full(y.shape[:-1], 6**0.5, dtype=y.dtype))
    torch.testing.assert_close(y, nn.RMSNorm(6, eps=0.0).double()(rows))
    assert layer(rows * 0).abs().max() == 0


@pytest.mark.parametrize("channels_last", [True, False])
def test_global_response_norm(x, channels_last):
    layer = scatter(layers.GRN(6, channels_last=channels_last).double())
    length = x.square().sum((2, 3), keepdim=True).sqrt()
    share = length / (length.mean(1, keepdim=True) + 1e-6)
    right = x + spread(layer.weight) * x * share + spread(layer.bias)
    y = layer(x.movedim(1, -1)).movedim(-1, 1) if channels_last else layer(x)
    assert error(y.detach(), right) < 1e-12
    assert torch.equal(layers.GRN(6, channels_last=False).double()(x), x)
    with pytest.raises(RuntimeError, match="channels"):
        layer(x.movedim(2, 1) if not channels_last else x)


def test_dynamic_tanh(x):
    layer = scatter(layers.DyT((5, 3), alpha=0.8).double())
    right = layer.weight * torch.tanh(layer.alpha * x) + layer.bias
    assert error(layer(x).detach(), right.detach()) < 1e-12
    assert layers.DyT(3, alpha=0.8).alpha.item() == pytest.approx(0.8)


def test_frozen_batch_norm(x):
    theirs = scatter(nn.BatchNorm2d(6).double()).eval()
    frozen = layers.FrozenBatchNorm.of(theirs)
    for training in (True, False):
        assert error(frozen.train(training)(x), theirs(x).detach()) < 1e-12
    net = layers.FrozenBatchNorm.convert(
        nn.Sequential(nn.Conv2d(6, 6, 1), nn.Sequential(copy.deepcopy(theirs)))
    )
    assert isinstance(net[1][0], layers.FrozenBatchNorm)
    assert torch.equal(net[1][0].running_var, theirs.running_var)
    with pytest.raises(ValueError, match="keeps none"):
        layers.FrozenBatchNorm.of(nn.BatchNorm2d(6, track_running_stats=False))
    for options in ({"affine": False}, {"bias": False}):
        other = scatter(nn.BatchNorm2d(6, **options).double()).eval()
        assert error(layers.FrozenBatchNorm.of(other)(x), other(x).detach()) < 1e-12


class TestBatchRenorm:
    def test_without_room_it_is_batch_norm(self, x):
        own, theirs = (
            layers.BatchRenorm(6, momentum=0.1, rmax=1.0, dmax=0.0).double(),
            nn.BatchNorm2d(6).double(),
        )
        for _ in range(3):
            assert error(own(x).detach(), theirs(x).detach()) < 1e-12
        assert error(own.running_var, theirs.running_var) < 1e-12

    def test_without_limits_it_is_eval_mode(self, x):
        own = scatter(layers.BatchRenorm(6, rmax=1e9, dmax=1e9).double())
        right = copy.deepcopy(own).eval()(x)
        assert error(own(x).detach(), right.detach()) < 1e-12

    def test_limits(self, x):
        own = scatter(layers.BatchRenorm(6, rmax=1.5, dmax=0.3).double())
        mean, deviation = x.mean((0, 2, 3)), (x.var((0, 2, 3), correction=0) + 1e-5).sqrt()
        running = (own.running_var + 1e-5).sqrt()
        r = (deviation / running).clamp(1 / 1.5, 1.5)
        d = ((mean - own.running_mean) / running).clamp(-0.3, 0.3)
        right = (x - spread(mean)) / spread(deviation) * spread(r) + spread(d)
        right = right * spread(own.weight) + spread(own.bias)
        assert error(own(x).detach(), right) < 1e-12

    def test_gradient_does_not_go_through_the_correction(self, x):
        own = scatter(layers.BatchRenorm(6).double())
        mean, deviation = x.mean((0, 2, 3)), (x.var((0, 2, 3), correction=0) + 1e-5).sqrt()
        running = (own.running_var + 1e-5).sqrt()
        factor = (deviation / running).clamp(1 / 3, 3) * own.weight.detach()
        theirs = nn.BatchNorm2d(6, affine=False).double()
        seed, grads = torch.randn_like(x), []
        for call in (own, lambda v: theirs(v) * spread(factor)):
            leaf = x.clone().requires_grad_()
            grads += torch.autograd.grad(call(leaf), leaf, seed)
        assert error(*grads) < 1e-12
        assert mean.shape == (6,)

    def test_refusals(self):
        for options in ({"rmax": 0.5}, {"dmax": -1.0}):
            with pytest.raises(ValueError, match="expected rmax"):
                layers.BatchRenorm(6, **options)


class TestGhostBatchNorm:
    @pytest.mark.parametrize("momentum", [0.1, None])
    @pytest.mark.parametrize(
        ("batch", "size", "parts"), [(8, 4, (4, 4)), (11, 4, (6, 5)), (3, 4, (3,)), (9, 2, (3, 2, 2, 2))]
    )
    def test_equals_batch_norm_in_turn(self, batch, size, parts, momentum):
        own, theirs = layers.GhostBatchNorm(6, size, momentum=momentum), nn.BatchNorm1d(6, momentum=momentum)
        for layer in (own, theirs):
            scatter(layer.double())
        for _ in range(2):
            x = torch.randn(batch, 6, 3, dtype=torch.float64)
            right = torch.cat([theirs(part) for part in x.split(parts)])
            assert error(own(x).detach(), right.detach()) < 1e-12
        for one, other in zip(own.buffers(), theirs.buffers(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)

    def test_residual_is_cut_too(self):
        own, theirs = layers.GhostBatchNorm(6, 2, activation="relu"), nn.BatchNorm1d(6)
        x, residual = torch.randn(4, 6), torch.randn(4, 6)
        right = torch.cat([theirs(x[:2]), theirs(x[2:])]) + residual
        torch.testing.assert_close(own(x, residual), right.relu())

    def test_refusal(self):
        with pytest.raises(ValueError, match="ghost_size"):
            layers.GhostBatchNorm(6, 0)


class TestMaskedBatchNorm:
    def build(self, **options):
        return scatter(layers.MaskedBatchNorm(6, **options).double()), scatter(
            nn.BatchNorm1d(6, **options).double()
        )

    @pytest.mark.parametrize("momentum", [0.1, None])
    def test_equals_batch_norm_of_the_valid_values(self, momentum):
        own, theirs = self.build(momentum=momentum)
        for lengths in ([5, 2, 1], [7, 7, 7], [3, 0, 4]):
            mask = torch.arange(7) < torch.tensor(lengths)[:, None]
            x = torch.randn(3, 6, 7, dtype=torch.float64)
            packed = x.movedim(1, 2)[mask].requires_grad_()
            right = theirs(packed)
            seed = torch.randn_like(x)
            x = x.masked_fill(~mask[:, None], float("nan")).requires_grad_()
            y = own(x, mask[:, None] if momentum else mask)
            assert error(y.movedim(1, 2)[mask].detach(), right.detach()) < 1e-12
            assert (y.movedim(1, 2)[~mask] == 0).all()
            (found,) = torch.autograd.grad(y, x, seed)
            (grad,) = torch.autograd.grad(right, packed, seed.movedim(1, 2)[mask])
            assert error(found.movedim(1, 2)[mask], grad) < 1e-12
            assert (found.movedim(1, 2)[~mask] == 0).all()
        for one, other in zip(own.buffers(), theirs.buffers(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        own.eval()
        theirs.eval()
        torch.testing.assert_close(own(x, mask).movedim(1, 2)[mask], theirs(packed))
        assert (own(x, mask).movedim(1, 2)[~mask] == 0).all()

    def test_without_any_valid_value(self):
        own, _ = self.build()
        before = {name: value.clone() for name, value in own.named_buffers()}
        y = own(torch.randn(3, 6, 7, dtype=torch.float64), torch.zeros(3, 7, dtype=torch.bool))
        assert (y == 0).all()
        assert torch.equal(own.running_var, before["running_var"])
        assert own.num_batches_tracked == 1

    def test_activation_and_residual(self):
        own, theirs = self.build()
        own.activation = "silu"
        x, residual = torch.randn(2, 3, 6, 4, dtype=torch.float64)
        y = own(x, torch.ones(3, 4, dtype=torch.bool), residual)
        torch.testing.assert_close(y, nn.functional.silu(theirs(x) + residual))

    @pytest.mark.parametrize(
        "mask", [torch.ones(3, 7), torch.ones(3, 6, dtype=torch.bool), torch.ones(3, 6, 7, dtype=torch.bool)]
    )
    def test_refusals(self, mask):
        with pytest.raises(ValueError, match="boolean mask of shape"):
            layers.MaskedBatchNorm(6)(torch.randn(3, 6, 7), mask)


@pytest.mark.parametrize(
    ("name", "training"),
    # By design, no gradient goes through the correction of BatchRenorm.
    [(n, t) for n in OWN for t in (True, False) if (n, t) != ("BatchRenorm", True)],
)
def test_gradients(name, training):
    build, shape = BUILD[name]
    layer = scatter(build()).double().train(training)
    parameters = dict(layer.named_parameters())
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def call(x, *values):
        state = {n: b.clone() for n, b in layer.named_buffers()} | dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(layer, state, (x,))

    assert torch.autograd.gradcheck(call, (x, *parameters.values()), fast_mode=True)
    assert torch.autograd.gradgradcheck(call, (x, *parameters.values()), fast_mode=True)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("dtype", HALF)
def test_half_inputs_are_rounded_once(name, dtype):
    build, shape = BUILD[name]
    layer = scatter(build()).to(dtype)
    x = torch.randn(shape).to(dtype)
    right = copy.deepcopy(layer).double()(x.double())
    assert error(layer(x).detach(), right.detach()) < 1.01 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dim", [0, 1, -1, None])
@pytest.mark.parametrize(
    "build", [lambda: nn.Linear(5, 4), lambda: nn.Conv2d(3, 4, 2), lambda: nn.ConvTranspose1d(3, 4, 2)]
)
def test_weight_norm_equals_torchs(build, dim):
    own = build().double()
    theirs = copy.deepcopy(own)
    parametrizations.weight_norm(theirs, dim=dim if dim is not None else None)
    layers.weight_norm(own, dim=dim)
    assert list(own.state_dict()) == list(theirs.state_dict())
    if dim in (0, 1):  # torch takes -1 for None
        theirs.load_state_dict(scatter(own).state_dict())
        torch.testing.assert_close(own.weight, theirs.weight, rtol=1e-12, atol=1e-12)
        seed = torch.randn_like(own.weight)
        found = torch.autograd.grad(own.weight, list(own.parametrizations.parameters()), seed)
        right = torch.autograd.grad(theirs.weight, list(theirs.parametrizations.parameters()), seed)
        for one, other in zip(found, right, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    weight = own.weight.detach().clone()
    parametrize.remove_parametrizations(own, "weight")
    torch.testing.assert_close(own.weight.detach(), weight)


def test_weight_norm_keeps_the_weight_and_takes_old_keys():
    layer = nn.Linear(5, 4)
    kept = layer.weight.detach().clone()
    layers.weight_norm(layer)
    torch.testing.assert_close(layer.weight.detach(), kept)
    state = {"weight_g": torch.rand(4, 1) + 1, "weight_v": torch.randn(4, 5), "bias": torch.zeros(4)}
    layer.load_state_dict(state)
    torch.testing.assert_close(layer.weight.norm(dim=1, keepdim=True).detach(), state["weight_g"])
    assert "dim=0" in repr(layer.parametrizations)


@pytest.mark.parametrize(
    ("build", "dim"),
    [(lambda: nn.Linear(5, 4), 0), (lambda: nn.Conv2d(3, 4, 2), 0), (lambda: nn.ConvTranspose1d(3, 4, 2), 1)],
)
def test_weight_standardization(build, dim):
    layer = layers.weight_standardization(build().double(), dim=dim)
    original = layer.parametrizations.weight.original.detach()
    axes = tuple(d for d in range(original.dim()) if d != dim)
    right = original - original.mean(axes, keepdim=True)
    right = right / (original.var(axes, keepdim=True, correction=0) + 1e-6).sqrt()
    torch.testing.assert_close(layer.weight.detach(), right, rtol=1e-12, atol=1e-12)
    assert list(layer.state_dict()) == ["bias", "parametrizations.weight.original"]
    with torch.no_grad():
        layer.weight = original * 3 + 1
    torch.testing.assert_close(layer.weight.detach(), right, rtol=1e-3, atol=1e-4)
    assert "dim" in repr(layer.parametrizations)
    with pytest.raises(ValueError, match="two dimensions"):
        layers.weight_standardization(layer, "bias")


@pytest.mark.parametrize(
    "make", [lambda: WeightNorm(0), lambda: WeightNorm(None), lambda: WeightStandardization()]
)
def test_gradients_of_parametrizations(make):
    one = make()
    weight = torch.randn(4, 3, 2, dtype=torch.float64)
    inputs = one.right_inverse(weight)
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    inputs = tuple(v.clone().requires_grad_() for v in inputs)
    assert torch.autograd.gradcheck(one, inputs)
    assert torch.autograd.gradgradcheck(one, inputs)


def test_importing_the_package_does_not_import_torch():
    import subprocess
    import sys

    code = (
        "import sys, normdoctor; assert 'torch' not in sys.modules and 'normdoctor.layers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
