"""The sandbox: a model that misbehaves in every way is bit-identical afterwards."""

import random
from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from normdoctor.errors import TraceError
from normdoctor.probing.sandbox import sandbox


class Cache:
    def __init__(self):
        self.steps = [torch.zeros(2)]


class Messy(nn.Module):
    """Changes, in its forward, all that a forward can change."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.moving_mean = torch.zeros(4)
        self.history: list = []
        self.recent = deque([1, 2])
        self.seen = {1}
        self.cache = {"a": torch.ones(2)}
        self.object = Cache()
        self.hidden = [nn.Linear(2, 2)]
        self.count = 0
        self.nan = torch.tensor([float("nan"), -0.0])
        self.register_buffer("missing", None)

    def forward(self, x):
        self.count += 1
        self.history.append(x)
        self.recent.append(3)
        self.seen.add(2)
        self.cache["a"].add_(1)
        self.cache["b"] = x
        self.object.steps[0].add_(1)
        self.object.other = 1
        self.moving_mean = self.moving_mean + 1
        self.nan.zero_()
        self.new = torch.ones(1)
        with torch.no_grad():
            self.linear.weight.data.clamp_(0, 0.1)
            self.hidden[0].weight.zero_()
        self.linear.bias.data = torch.ones(7)
        self.norm.weight.requires_grad_(False)
        self.missing = torch.ones(1)
        self.extra = nn.Linear(1, 1)
        self.register_parameter("late", nn.Parameter(torch.ones(1)))
        self.drop.eval()
        self.drop.__class__ = nn.Identity
        self.norm.register_forward_hook(lambda *_: None)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.backends.cudnn.benchmark = True
        random.random(), np.random.rand(), torch.rand(1)
        return self.norm(x)


def walk(value, seen):
    """All state below a value, as comparable data: identities of objects, bytes of tensors."""
    if id(value) in seen:
        return id(value)
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        grad = walk(value.grad, seen) if value.grad is not None else None
        data = value.detach().contiguous().flatten().view(torch.uint8).tolist() if value.numel() else []
        return (id(value), data, tuple(value.shape), value.dtype, value.requires_grad, value.data_ptr(), grad)
    if isinstance(value, dict):
        return [(key, walk(item, seen)) for key, item in value.items()]
    if isinstance(value, list | tuple | deque):
        return [walk(item, seen) for item in value]
    if isinstance(value, nn.Module | Cache):
        return (id(value), type(value), walk(vars(value), seen))
    return repr(value)


def picture(model):
    process = (
        torch.get_rng_state().tolist(),
        random.getstate(),
        repr(np.random.get_state()),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.backends.cudnn.benchmark,
    )
    return walk(model, set()), process


@pytest.fixture
def model():
    model = Messy()
    model.linear(torch.randn(3, 4)).sum().backward()
    return model


def test_the_picture_sees_the_mess(model):
    before = picture(model)
    with sandbox(Messy()):  # another model: this one is not protected
        model(torch.randn(3, 4))
        assert picture(model) != before


def test_everything_is_put_back(model):
    before, x = picture(model), torch.randn(3, 4)
    before = picture(model)
    with sandbox(model):
        model(x)
    assert picture(model) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_also_after_an_exception(model, error):
    x = torch.randn(3, 4)
    before = picture(model)

    def interrupted():
        model(x)
        raise error

    with pytest.raises(error), sandbox(model):
        interrupted()
    assert picture(model) == before


def test_gradients_are_put_back(model):
    before = picture(model)
    with sandbox(model):
        model.linear(torch.ones(3, 4)).sum().backward()
        model.norm(torch.ones(3, 4)).sum().backward()
        assert model.norm.weight.grad is not None
        model.linear.weight.grad.zero_()
    assert picture(model) == before


def test_a_pending_backward_still_works(model):
    loss = model.linear(torch.ones(3, 4, requires_grad=True)).pow(2).sum()
    with sandbox(model), torch.no_grad():
        model.linear.weight.data.zero_()
    loss.backward()


def test_tied_weights_and_views_stay_tied():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model.part = model[0].weight.data[:1]
    with sandbox(model):
        model[0].weight.data.zero_()
    assert model[1].weight is model[0].weight
    assert model.part.data_ptr() == model[0].weight.data_ptr()
    assert model[0].weight.abs().sum() > 0


def test_meta_models_cost_nothing():
    model = nn.Linear(10**5, 10**5, device="meta")
    with sandbox(model):
        model.train(False)
    assert model.training


def test_lazy_modules_are_refused_with_a_hint():
    with pytest.raises(TraceError, match="Run the model once"), sandbox(nn.LazyLinear(3)):
        pass


LAYERS = [
    lambda: nn.Linear(4, 4),
    lambda: nn.BatchNorm1d(4),
    lambda: nn.LayerNorm(4),
    lambda: nn.Dropout(0.3),
    lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)),
    lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    lambda: nn.ReLU(),
    lambda: nn.GroupNorm(2, 4),
]


@settings(max_examples=40, deadline=None)
@given(indices=st.lists(st.integers(0, len(LAYERS) - 1), min_size=1, max_size=6), train=st.booleans())
def test_made_up_models(indices, train):
    model = nn.Sequential(*(LAYERS[i]() for i in indices)).train(train)
    x = torch.randn(3, 4, requires_grad=True)
    before = picture(model)
    with sandbox(model):
        model(x * 1.0).sum().backward()
    assert picture(model) == before
