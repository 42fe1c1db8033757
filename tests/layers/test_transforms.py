"""What people do with layers: compile, export, torch.func, autocast, checkpoint, record."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from normdoctor import layers

from .norms import BACKENDS, BUILD, CHOOSING, TOLERANCE, TWINS, error, scatter


def states(name, training, **options):
    build, shape = BUILD[name]
    torch.manual_seed(0)
    layer = scatter(build(**options)).train(training)
    return layer, copy.deepcopy(layer), torch.randn(shape)


def gradients(call, layer, x):
    x = x.clone().requires_grad_()
    y = call(x)
    leaves = [x, *layer.parameters()]
    return [y.detach(), *torch.autograd.grad(y.square().sum(), leaves)]


@pytest.fixture
def dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


#: Without buffers both modes are the same.
MODES = [(name, mode) for mode in (True, False) for name in BUILD if mode or list(BUILD[name][0]().buffers())]


@pytest.mark.parametrize(("name", "training"), MODES)
def test_compile(name, training, dynamo):
    """One graph, forward and backward, and the running statistics move."""
    options = {"activation": "silu"} if name in CHOOSING and name != "LocalResponseNorm" else {}
    layer, other, x = states(name, training, **options)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for found, right in zip(gradients(compiled, layer, x), gradients(other, other, x), strict=True):
        assert error(found, right) < 1e-5
    for found, right in zip(layer.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize("name", ["BatchNorm2d", "LayerNorm", "RMSNorm"])
def test_compile_of_the_reference(name, dynamo):
    layer, other, x = states(name, True, backend="reference")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for found, right in zip(gradients(compiled, layer, x), gradients(other, other, x), strict=True):
        assert error(found, right) < 1e-5
    assert layer.statistics.mean_square is None


def test_compile_of_an_average_over_all_batches(dynamo):
    """torch's layer asks for a number here, and breaks the graph."""
    own, theirs = layers.BatchNorm2d(4, momentum=None), nn.BatchNorm2d(4, momentum=None)
    compiled = torch.compile(own, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        x = torch.randn(5, 4, 3, 3)
        torch.testing.assert_close(compiled(x), theirs(x))
    torch.testing.assert_close(own.running_var, theirs.running_var)
    assert own.num_batches_tracked == 3


@pytest.mark.parametrize("name", list(BUILD))
def test_export(name):
    layer, other, x = states(name, False)
    program = torch.export.export(layer, (x,))
    torch.testing.assert_close(program.module()(x), other(x))
    assert "normdoctor" not in "".join(
        str(node.target) for node in program.graph.nodes if node.op == "call_function"
    )


@pytest.mark.parametrize("name", [n for n in BUILD if n != "MaskedBatchNorm"])
def test_vmap(name):
    """Over samples of a layer that has no statistics to move."""
    layer, other, _ = states(name, False)
    _, shape = BUILD[name]
    xs = torch.randn(3, *shape)
    found = torch.func.vmap(layer)(xs)
    torch.testing.assert_close(found, torch.stack([other(x) for x in xs]))
    assert layer.statistics.mean_square is None


@pytest.mark.parametrize("name", ["BatchNorm2d", "InstanceNorm2d", "GroupNorm", "LayerNorm", "RMSNorm"])
def test_per_sample_gradients_and_jacobians(name):
    options = {"track_running_stats": False} if "Batch" in name else {}
    layer, other, _ = states(name, True, **options)
    _, shape = BUILD[name]
    xs = torch.randn(3, *shape)
    parameters = dict(layer.named_parameters())

    def loss(values, x):
        return torch.func.functional_call(layer, values, (x,)).square().sum()

    if parameters:
        found = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, xs)
        for index, x in enumerate(xs):
            right = torch.autograd.grad(other(x).square().sum(), list(other.parameters()))
            for one, two in zip(found.values(), right, strict=True):
                torch.testing.assert_close(one[index], two, rtol=1e-4, atol=1e-4)
    flat = xs[0].double()
    layer.double()
    forward = torch.func.jacfwd(layer)(flat)
    backward = torch.func.jacrev(layer)(flat)
    torch.testing.assert_close(forward, backward)
    tangent = torch.randn_like(flat)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(flat, tangent)
        pushed = torch.autograd.forward_ad.unpack_dual(layer(dual)).tangent
    dims = flat.dim()
    torch.testing.assert_close(pushed, torch.tensordot(forward, tangent, dims))


@pytest.mark.parametrize("name", [n for n in BUILD if n != "BatchRenorm"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint(name, reentrant):
    layer, other, x = states(name, True)
    found = (
        gradients(lambda v: checkpoint(layer, v * 2, use_reentrant=reentrant), layer, x)
        if not reentrant
        else None
    )
    right = gradients(lambda v: other(v * 2), other, x)
    if reentrant:
        leaf = x.clone().requires_grad_()
        checkpoint(layer, leaf * 2, use_reentrant=True).square().sum().backward()
        found = [right[0], leaf.grad, *(p.grad for p in layer.parameters())]
    for one, two in zip(found, right, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("name", list(TWINS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast(name, dtype):
    """The types that come out are torch's."""
    build, shape = BUILD[name]
    own = build()
    theirs = TWINS[name][1]
    arguments = {"GroupNorm": (3, 6), "LayerNorm": ((4, 3),), "RMSNorm": (8,), "LocalResponseNorm": (3,)}
    x = torch.randn(shape).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        right = theirs(*arguments.get(name, (6,)))(x)
        found = own(x)
    assert found.dtype == right.dtype
    assert error(found, right) <= 2 * TOLERANCE[dtype]


@pytest.mark.parametrize("name", list(BUILD))
def test_inference_mode_and_frozen_parameters(name):
    layer, other, x = states(name, False)
    with torch.inference_mode():
        found = layer(x)
    torch.testing.assert_close(found, other(x).detach())
    layer.requires_grad_(False)
    leaf = x.clone().requires_grad_()
    layer(leaf).sum().backward()
    assert leaf.grad is not None


@pytest.mark.parametrize("name", [n for n in CHOOSING if n not in ("LocalResponseNorm", "SyncBatchNorm")])
@pytest.mark.parametrize("backend", BACKENDS)
def test_input_is_not_changed(name, backend):
    layer, _, x = states(name, True, backend=backend)
    kept = x.clone()
    layer(x)
    assert torch.equal(x, kept)


def test_recorded_forward_shows_a_norm():
    """A tool that looks at torch's functions, as normdoctor does, sees torch's norm."""
    import normdoctor

    net = nn.Sequential(nn.Conv2d(3, 8, 3), layers.BatchNorm2d(8), nn.ReLU())
    report = normdoctor.check(net, torch.randn(2, 3, 8, 8))
    assert [finding.code for finding in report.findings] == ["ND101"]
    assert net[1].statistics.mean is None


def test_weight_averaging_finds_the_layers():
    """`update_bn` looks for torch's class."""
    net = nn.Sequential(layers.BatchNorm1d(3))
    torch.optim.swa_utils.update_bn([torch.randn(50, 3) + 2], net)
    assert (net[0].running_mean - 2).abs().max() < 1
