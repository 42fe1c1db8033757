"""State dicts, copies, casts, devices, texts and signatures: a layer can stand wherever torch's stood."""

import copy
import inspect
import io
import pickle

import pytest
import torch
from torch import nn

from normdoctor import layers
from normdoctor.errors import UsageError

from .norms import BACKENDS, BUILD, CHOOSING, FUSED, TWINS, scatter


@pytest.mark.parametrize("name", [*TWINS, "SyncBatchNorm"])
def test_signature_begins_as_torchs(name):
    """Same arguments, order and defaults; our own are keywords behind them."""
    own = list(inspect.signature(getattr(layers, name)).parameters.values())
    theirs = list(inspect.signature(getattr(nn, name)).parameters.values())
    known = {p.name: p for p in own}
    for position, parameter in enumerate(theirs):
        assert known[parameter.name].default == parameter.default
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            assert own[position].name == parameter.name
    added = [p for p in own if p.name not in {q.name for q in theirs}]
    assert {p.name for p in added} <= {"activation", "backend", "bias"}
    assert all(p.kind is p.KEYWORD_ONLY for p in added)


@pytest.mark.parametrize("name", list(BUILD))
def test_copies_and_pickles(name):
    build, shape = BUILD[name]
    layer, x = scatter(build()).eval(), torch.randn(shape)
    right = layer(x)
    stream = io.BytesIO()
    torch.save(layer, stream)
    stream.seek(0)
    others = [copy.deepcopy(layer), copy.copy(layer), pickle.loads(pickle.dumps(layer))]
    others.append(torch.load(stream, weights_only=False))
    for other in others:
        assert torch.equal(other(x), right)
        assert repr(other) == repr(layer)


@pytest.mark.parametrize("name", list(BUILD))
def test_meta_then_empty_then_loaded(name):
    build, shape = BUILD[name]
    whole, x = scatter(build()).eval(), torch.randn(shape)
    with torch.device("meta"):
        hollow = build().eval()
    assert all(value.is_meta for value in hollow.state_dict().values())
    if list(hollow.parameters()) or list(hollow.buffers()):
        assert hollow(x.to("meta")).shape == shape
    hollow.to_empty(device="cpu")
    hollow.load_state_dict(whole.state_dict())
    assert torch.equal(hollow(x), whole(x))


@pytest.mark.parametrize("name", list(BUILD))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_casts(name, dtype):
    build, shape = BUILD[name]
    layer = scatter(build())
    cast = copy.deepcopy(layer).to(dtype)
    assert all(v.dtype == dtype for v in cast.state_dict().values() if v.is_floating_point())
    x = torch.randn(shape).to(dtype)
    for training in (True, False):
        y = cast.train(training)(x)
        assert y.dtype == dtype
        right = copy.deepcopy(cast).double()(x.double())
        bound = 2 * torch.finfo(dtype).eps if dtype != torch.float64 else 1e-12
        if training is False:  # the running statistics have moved, and were rounded
            torch.testing.assert_close(y.double(), right, rtol=8 * bound, atol=8 * bound)


@pytest.mark.parametrize("name", list(BUILD))
def test_load_through_assign_and_strictly(name):
    build, shape = BUILD[name]
    one, other, x = scatter(build(), 1).eval(), scatter(build(), 2).eval(), torch.randn(shape)
    other.load_state_dict(one.state_dict(), assign=True)
    assert torch.equal(one(x), other(x))
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict(one.state_dict() | {"more": torch.ones(1)})


BATCH_NORMS = [nn.BatchNorm2d, layers.BatchNorm2d, layers.SyncBatchNorm, layers.BatchRenorm]
BATCH_NORMS += [layers.GhostBatchNorm, layers.MaskedBatchNorm, nn.SyncBatchNorm]


@pytest.mark.parametrize("source", BATCH_NORMS, ids=lambda c: f"{c.__module__[:5]}-{c.__name__}")
@pytest.mark.parametrize("target", BATCH_NORMS, ids=lambda c: f"{c.__module__[:5]}-{c.__name__}")
def test_batch_norms_share_their_state(source, target):
    one, other = scatter(source(6)), target(6)
    assert list(one.state_dict()) == list(other.state_dict())
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, 6, 3, 3)
    torch.testing.assert_close(other.eval()(x), one.eval()(x))


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"bias": False}])
def test_frozen_batch_norm_shares_state_with_batch_norm(options):
    theirs = scatter(nn.BatchNorm2d(6, **options)).eval()
    own, x = layers.FrozenBatchNorm(6, **options), torch.randn(2, 6, 3, 3)
    own.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(own(x), theirs(x))
    back = nn.BatchNorm2d(6, **options).eval()
    back.load_state_dict(own.state_dict())
    torch.testing.assert_close(back(x), theirs(x))
    assert not list(own.parameters())


def test_batch_norm_of_before_batches_were_counted():
    """A state dict without version and num_batches_tracked, as torch 0.3 wrote it."""
    state = dict(scatter(nn.BatchNorm2d(6)).state_dict())
    del state["num_batches_tracked"]
    layers.BatchNorm2d(6).load_state_dict(state)


@pytest.mark.parametrize("name", CHOOSING)
def test_text_tells_what_is_not_the_default(name):
    build, _ = BUILD[name]
    assert "backend" not in repr(build())
    assert "activation" not in repr(build())
    assert "backend='reference'" in repr(build(backend="reference"))
    if name in FUSED:
        assert "activation='relu'" in repr(build(activation="relu"))


@pytest.mark.parametrize("name", CHOOSING)
def test_unknown_names_are_refused(name):
    build, _ = BUILD[name]
    with pytest.raises(UsageError, match="auto, reference, torch, triton") as caught:
        build(backend="refernce")
    assert "reference" in str(caught.value.hint)
    if name in FUSED:
        with pytest.raises(UsageError, match="relu, leaky_relu, silu, gelu, gelu_tanh or None") as caught:
            build(activation="geluu")
        assert "gelu" in str(caught.value.hint)


def test_use_backend():
    layer, x = layers.BatchNorm2d(4), torch.randn(2, 4, 3, 3)
    right = layers.BatchNorm2d(4, backend="reference")(x)
    with layers.use_backend("reference"):
        assert torch.equal(layer(x), right)
        with layers.use_backend("torch"):
            assert layers.backends.chosen("auto") == "torch"
        assert layers.backends.chosen("auto") == "reference"
        assert layers.backends.chosen("torch") == "torch"
    assert layers.backends.chosen("auto") == "auto"
    layers.use_backend("torch")
    try:
        assert layers.backends.chosen("auto") == "torch"
    finally:
        layers.use_backend("auto")
    with pytest.raises(UsageError):
        layers.use_backend("cuda")
    assert layers.backends.chosen("auto") == "auto"


ERRORS = [
    ("BatchNorm1d", (4,), (1, 4)),
    ("BatchNorm1d", (4,), (1, 4, 1)),
    ("BatchNorm1d", (4,), (4,)),
    ("BatchNorm1d", (4,), (2, 4, 3, 3)),
    ("BatchNorm1d", (4,), (3, 5)),
    ("BatchNorm2d", (4,), (4, 3, 3)),
    ("BatchNorm2d", (4,), (2, 5, 3, 3)),
    ("BatchNorm3d", (4,), (2, 4, 3, 3)),
    ("InstanceNorm1d", (4,), (2, 4, 1)),
    ("InstanceNorm1d", (4,), (2, 4, 3, 3)),
    ("InstanceNorm2d", (4, 1e-5, 0.1, True), (2, 5, 3, 3)),
    ("InstanceNorm2d", (4,), (3, 3)),
    ("InstanceNorm3d", (4,), (2, 4, 1, 1, 1)),
    ("GroupNorm", (2, 4), (4,)),
    ("GroupNorm", (2, 4), (2, 6, 3)),
    ("GroupNorm", (4, 4), (1, 4)),
    ("GroupNorm", (2, 4, 1e-5, False), (2, 5, 3)),
    ("LayerNorm", (4,), (3, 5)),
    ("LayerNorm", (4,), ()),
    ("LayerNorm", ((2, 4),), (4,)),
    ("LayerNorm", ([],), (2, 3)),
    ("RMSNorm", (4,), (3, 5)),
    ("RMSNorm", ([],), (2, 3)),
    ("LocalResponseNorm", (2,), (3, 4)),
]


def raised(call):
    with pytest.raises((ValueError, RuntimeError)) as caught:
        call()
    return caught.type


@pytest.mark.parametrize(("name", "arguments", "shape"), ERRORS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_errors_are_of_torchs_kind(name, arguments, shape, backend):
    own, theirs = TWINS[name]
    x = torch.randn(shape)
    assert raised(lambda: own(*arguments, backend=backend)(x)) is raised(lambda: theirs(*arguments)(x))


TYPES = [
    (torch.float64, torch.float32),
    (torch.float32, torch.float16),
    (torch.float32, torch.float64),
    (torch.bfloat16, torch.float16),
    (torch.int64, torch.float32),
]


@pytest.mark.parametrize(("dtype", "parameters"), TYPES)
@pytest.mark.parametrize("name", ["BatchNorm1d", "InstanceNorm1d", "GroupNorm", "LayerNorm"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_mixed_types_are_refused_as_in_torch(name, dtype, parameters, backend):
    arguments = {"InstanceNorm1d": (4, 1e-5, 0.1, True), "GroupNorm": (2, 4)}.get(name, (4,))
    own, theirs = TWINS[name]
    x = torch.ones(3, 4, 4, dtype=dtype)
    one, other = own(*arguments, backend=backend).to(parameters), theirs(*arguments).to(parameters)
    for mode in (True, False):
        one.train(mode)
        other.train(mode)
        found, right = raised(lambda: one(x)), raised(lambda: other(x))
        assert issubclass(found, right) or issubclass(right, found)


def test_instance_norm_warns_of_another_number_of_channels():
    for layer in (nn.InstanceNorm1d(3), layers.InstanceNorm1d(3)):
        with pytest.warns(UserWarning, match="not used because affine=False"):
            layer(torch.randn(2, 4, 5))


def test_residual_of_another_shape_is_refused():
    for name in FUSED:
        build, shape = BUILD[name]
        layer, x = build(), torch.randn(shape)
        with pytest.raises(ValueError, match="residual of the input's shape"):
            layer(x, residual=x[..., :1])
