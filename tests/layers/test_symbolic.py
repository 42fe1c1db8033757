"""Own layers in traces by torch.fx and torch.jit: one node each, as torch's."""

import operator

import pytest
import torch
from torch import fx, nn

from normdoctor import layers

from .norms import BUILD, FUSED, scatter


class Holds(nn.Module):
    def __init__(self, layer, *, fused=False):
        super().__init__()
        self.inner = nn.Sequential(layer)
        self.fused = fused

    def forward(self, x):
        y = self.inner[0](x + 1, residual=x) if self.fused else self.inner(x + 1)
        return y * 2


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", list(BUILD))
def test_symbolic_trace(name, training):
    build, shape = BUILD[name]
    model = Holds(scatter(build())).train(training)
    traced = fx.symbolic_trace(model)
    called = [(node.op, node.target) for node in traced.graph.nodes]
    assert called == [
        ("placeholder", "x"),
        ("call_function", operator.add),
        ("call_module", "inner.0"),
        ("call_function", operator.mul),
        ("output", "output"),
    ]
    x = torch.randn(shape)
    assert torch.equal(traced.eval()(x), model.eval()(x))
    traced.graph.lint()
    assert type(traced.get_submodule("inner.0")) is type(model.inner[0])


@pytest.mark.parametrize("name", FUSED)
def test_symbolic_trace_of_a_residual(name):
    build, shape = BUILD[name]
    model = Holds(scatter(build(activation="relu")), fused=True).eval()
    traced = fx.symbolic_trace(model)
    (node,) = [node for node in traced.graph.nodes if node.op == "call_module"]
    assert len(node.all_input_nodes) == 2
    x = torch.randn(shape)
    assert torch.equal(traced(x), model(x))


def test_symbolic_trace_of_a_mask():
    class Masks(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = layers.MaskedBatchNorm(6)

        def forward(self, x, mask):
            return self.norm(x, mask)

    model = Masks().eval()
    x, mask = torch.randn(4, 6, 3), torch.rand(4, 3) > 0.5
    assert torch.equal(fx.symbolic_trace(model)(x, mask), model(x, mask))


def test_a_bare_layer_is_no_graph():
    with pytest.raises(fx.proxy.TraceError, match="a module that holds it"):
        fx.symbolic_trace(layers.BatchNorm2d(6))


def test_fx_tools_go_on():
    """Shapes are propagated through the layer, and a transformed graph calls it."""
    from torch.fx.passes.shape_prop import ShapeProp

    traced = fx.symbolic_trace(Holds(layers.GroupNorm(3, 6)))
    ShapeProp(traced).propagate(torch.randn(2, 6, 4))
    (node,) = [node for node in traced.graph.nodes if node.op == "call_module"]
    assert node.meta["tensor_meta"].shape == (2, 6, 4)
    again = fx.Transformer(traced).transform()
    assert [one.op for one in again.graph.nodes] == [one.op for one in traced.graph.nodes]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", list(BUILD))
def test_jit_trace(name):
    build, shape = BUILD[name]
    model = Holds(scatter(build())).eval()
    x = torch.randn(shape)
    traced = torch.jit.trace(model, x)
    other = torch.randn(shape[0] + 2, *shape[1:])
    torch.testing.assert_close(traced(other), model(other))
