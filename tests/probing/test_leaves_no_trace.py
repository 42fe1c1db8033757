"""A check with data leaves a model and the process bit for bit as they were, however it ends."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

import normdoctor
from normdoctor.errors import NormDoctorError


class Inplace(nn.Module):
    """In-place activations and views of its input."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=None)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = F.relu_(self.norm(self.conv(x))) * 2
        x[:, :2].mul_(0.5)
        return self.head(x.mean((2, 3)))


class Counting(nn.Module):
    """Keeps state in attributes, lists and buffers."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("average", torch.zeros(8), persistent=False)
        self.cache: list[torch.Tensor] = []
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        self.seen += len(x)
        self.cache.append(x)
        self.average.lerp_(x.mean(0).detach(), 0.1)
        self.last = x
        random.random(), np.random.rand()
        return torch.tanh(self.fc(x - self.average)) + torch.rand(8)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embedding.weight
        self.drop = nn.Dropout(0.3)

    def forward(self, ids):
        return {"logits": self.head(self.drop(self.norm(self.embedding(ids))))}


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True))

    def forward(self, x):
        return checkpoint(self.body, x, use_reentrant=False)


class Mixed(nn.Module):
    """Some norms frozen, some not; switches its own modes and gradients."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.BatchNorm1d(8), nn.BatchNorm1d(8)
        self.fc = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))

    def forward(self, x):
        self.a.eval()
        with torch.enable_grad():
            x = self.fc(self.b(self.a(x)))
        self.b.weight.requires_grad_(False)
        return x


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)

    def forward(self, x):
        x, _ = self.lstm(x)
        return self.attention(x, x, x)[0].log_softmax(-1)


def shared():
    norm = nn.BatchNorm1d(8)
    return nn.Sequential(nn.Linear(8, 8), norm, nn.Sigmoid(), nn.Linear(8, 8), norm)


def hooked():
    model = nn.Sequential(nn.Linear(8, 8), nn.InstanceNorm1d(8, track_running_stats=True), nn.Softmax(-1))
    model[0].register_forward_hook(lambda module, args, out: out * 2)
    model[1].register_forward_pre_hook(lambda module, args: None)
    return model


def rows(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


MODELS = {
    "inplace": (Inplace, rows(4, 3, 8, 8)),
    "counting": (Counting, rows(6, 8)),
    "tied": (Tied, torch.arange(24).view(4, 6) % 20),
    "checkpointed": (Checkpointed, rows(6, 8)),
    "mixed": (Mixed, rows(6, 8)),
    "recurrent": (Recurrent, rows(3, 5, 8)),
    "shared": (shared, rows(6, 8)),
    "hooked": (hooked, rows(4, 8, 8)),
    "half": (lambda: nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)).bfloat16(), rows(6, 8).bfloat16()),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), rows(3, 5, 8)),
}  # fmt: skip


def bits(tensor):
    held = tensor.detach().contiguous().flatten().view(torch.uint8).tolist() if tensor.numel() else []
    grad = None if tensor.grad is None else (id(tensor.grad), tensor.grad.flatten().tolist())
    return (
        id(tensor), tensor.data_ptr(), tuple(tensor.shape), tensor.dtype, tensor.requires_grad, held, grad,
        tensor._version,
    )  # fmt: skip


def plain(value):
    if isinstance(value, torch.Tensor):
        return bits(value) if value.is_leaf else id(value)
    if isinstance(value, dict):
        return [(key, plain(one)) for key, one in value.items()]
    if isinstance(value, list):
        return [plain(one) for one in value]
    return id(value) if isinstance(value, nn.Module) else repr(value)


def picture(model, x):
    parts = [(path, id(module), type(module), plain(vars(module))) for path, module in model.named_modules()]
    numpy_state = np.random.get_state()
    process = (
        torch.get_rng_state().tolist(), random.getstate(), numpy_state[1].tolist(), numpy_state[2],
        torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"), torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark, len(_get_current_function_mode_stack()),
        plain(dict(nn.modules.module._global_forward_hooks)), bits(x),
    )  # fmt: skip
    return parts, process


def built(name, training):
    torch.manual_seed(0)
    make, x = MODELS[name]
    model = make().train(training)
    out = model(x)
    total = out["logits"] if isinstance(out, dict) else out
    total.float().square().mean().backward()
    if isinstance(model, Counting):
        model.cache.clear()
        model.last = None
    return model, x


def data_of(x):
    return [x, (x.clone(), 1), [x.clone()]]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_a_check_with_data(name, training):
    model, x = built(name, training)
    before = picture(model, x)
    report = normdoctor.check(model, x, data=data_of(x))
    assert any("measured over 3 batches" in note for note in report.targets[0].notes), report.targets[0].notes
    assert all(result.outcome != "error" for result in report.results), [
        (result.code, result.reason) for result in report.results if result.outcome == "error"
    ]
    assert picture(model, x) == before


@pytest.mark.parametrize("name", MODELS)
def test_synthetic_data(name):
    model, x = built(name, True)
    before = picture(model, x)
    normdoctor.check(model, x, data="synthetic", batches=2)
    assert picture(model, x) == before


class Refuses(nn.Module):
    """Raises in the middle of its n-th forward, after norms have run."""

    def __init__(self, inner, error):
        super().__init__()
        self.inner, self.error, self.armed = inner, error, False

    def forward(self, x):
        out = self.inner(x)
        if self.armed and len(x) == 2:
            raise self.error
        return out


ERRORS = (
    RuntimeError("broken"),
    KeyboardInterrupt(),
    SystemExit(3),
    ValueError("Expected more than 1 value"),
)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["inplace", "counting", "mixed", "shared", "recurrent"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_forward_that_raises(name, training, error):
    inner, x = built(name, training)
    model = Refuses(inner, error).train(training)
    model.armed = True
    before = picture(model, x)
    with pytest.raises((NormDoctorError, KeyboardInterrupt)):
        normdoctor.check(model, x, data=[x, x[:2], x])
    assert picture(model, x) == before


@pytest.mark.parametrize("error", ERRORS[:2], ids=lambda error: type(error).__name__)
def test_data_that_raise(error):
    model, x = built("inplace", True)
    before = picture(model, x)

    def batches():
        yield x
        raise error

    with pytest.raises((NormDoctorError, KeyboardInterrupt)):
        normdoctor.check(model, x, data=batches)
    with pytest.raises((NormDoctorError, KeyboardInterrupt)):
        normdoctor.check(model, x, data=[x], batch_to_inputs=lambda batch: next(iter(batches())) / [])
    assert picture(model, x) == before


def test_batch_statistics_never_move_the_running_ones():
    torch.manual_seed(0)
    norms = [nn.BatchNorm1d(8), nn.BatchNorm1d(8, momentum=None), nn.BatchNorm1d(8, momentum=1.0)]
    model = nn.Sequential(*[part for norm in norms for part in (nn.Linear(8, 8), norm)])
    held = [
        (tensor, tensor.data_ptr(), tensor.clone())
        for norm in norms
        for tensor in (norm.running_mean, norm.running_var, norm.num_batches_tracked)
    ]
    for training in (True, False):
        model.train(training)
        normdoctor.check(model, rows(6, 8), data=[rows(6, 8) + 100] * 4)
        for tensor, place, values in held:
            assert torch.equal(tensor, values)
            assert tensor.data_ptr() == place
    assert [norm.running_mean is held[3 * i][0] for i, norm in enumerate(norms)] == [True] * 3


def test_a_training_goes_on_as_if_nothing_had_been():
    def trained(check):
        model, x = built("inplace", True)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for step in range(4):
            if check and step in (1, 2):
                normdoctor.check(model, x, data=data_of(x))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        return model.state_dict()

    for one, other in zip(trained(False).values(), trained(True).values(), strict=True):
        assert torch.equal(one, other)


def test_between_forward_and_backward():
    model, x = built("checkpointed", True)
    loss = model(x.clone().requires_grad_()).square().mean()
    before = picture(model, x)
    normdoctor.check(model, x, data=data_of(x))
    assert picture(model, x) == before
    loss.backward()


def test_a_graph_that_holds_a_buffer():
    """A buffer that the user's graph has saved is written to and restored: its backward still runs."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.ones(8))
            self.fc = nn.Linear(8, 8)

        def forward(self, x):
            if self.training:
                self.scale.mul_(0.5)
            return self.fc(x) * self.scale

    model, x = Scaled().eval(), rows(6, 8)
    loss = model(x).square().mean()
    model.train()
    normdoctor.check(model, x, data=[x, x])
    loss.backward()
    assert torch.equal(model.scale, torch.ones(8))
    assert float(model.fc.weight.grad.norm()) > 0
