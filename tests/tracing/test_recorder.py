"""What runs can be recorded, and what was recorded gives the same numbers again."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from normdoctor.errors import TraceError
from normdoctor.graph import Graph
from normdoctor.loading.example import ExampleInputs
from normdoctor.tracing.extract import extract
from normdoctor.tracing.recording import Recording, input_tensors, output_tensors, record


def recorded(model: nn.Module, *args: Any, **kwargs: Any) -> Recording:
    return record(model, ExampleInputs(args, kwargs))


def graph_of(recording: Recording) -> Graph:
    return Graph(extract("model", recording, {}))


def kinds(recording: Recording) -> list[str]:
    return [node.kind for node in graph_of(recording).nodes]


def assert_replays(model: nn.Module, *args: Any, **kwargs: Any) -> Recording:
    model.eval()
    recording = recorded(model, *args, **kwargs)
    module = recording.graph_module()
    assert isinstance(module, fx.GraphModule)
    with torch.no_grad():
        torch.manual_seed(0)
        wanted = [tensor for _, tensor in output_tensors(model(*args, **kwargs))]
        torch.manual_seed(0)
        got = module(*input_tensors(recording.example))
    assert len(wanted) == len(got) > 0
    assert all(torch.equal(one, other) for one, other in zip(wanted, got, strict=True))
    return recording


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    cache: list[torch.Tensor]


class Cache:
    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []


class Returns(nn.Module):
    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.wrap = wrap

    def forward(self, x: torch.Tensor) -> Any:
        return self.wrap(self.layer(x), x * 2)


def cached(one: torch.Tensor, other: torch.Tensor) -> Any:
    cache = Cache()
    cache.keys = [one, other]
    return {"past": cache}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda a, b: a + b,
        lambda a, b: (a, b),
        lambda a, b: [a, {"deep": (b,)}],
        lambda a, b: {"logits": a, "hidden": [b]},
        Pair,
        lambda a, b: Output(a, [b]),
        cached,
        lambda a, b: (a, None, 3, "text", b),
    ],
)
def test_outputs_of_every_form(wrap: Any) -> None:
    assert_replays(Returns(wrap), torch.randn(2, 4))


class Methods(nn.Module):
    """Calls of torch in all their spellings."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.register_buffer("scale", torch.rand(4))

    def forward(
        self, x: torch.Tensor, *, flip: bool = False, extra: torch.Tensor | None = None
    ) -> torch.Tensor:
        batch, width = x.shape
        y = x @ self.weight.t() + self.scale
        y = F.relu(y, inplace=True)
        y[:, 0] = 1.0
        y += x
        left, right = y.chunk(2, dim=-1)
        y = torch.cat([right, left], dim=-1).view(batch, -1, 2).transpose(1, 2).reshape(batch, width)
        y = torch.einsum("bi,ij->bj", y, self.weight)
        values, _ = y.max(dim=1, keepdim=True)
        position = torch.arange(width, device=x.device)
        y = (y - values) * position[None].to(y.dtype)
        y = y.masked_fill(position > 2, 0.0)
        if extra is not None:
            y = y + extra
        for row in y.unbind(0):
            y = y + row.T if row.dim() > 1 else y + row
        return y.flip(0) if flip else y


def test_calls_in_every_spelling() -> None:
    recording = assert_replays(Methods(), torch.randn(3, 4), flip=True, extra=torch.ones(4))
    assert recording.carrier == "meta"
    assert {"relu", "setitem", "chunk", "cat", "einsum", "masked_fill", "flip"} <= set(kinds(recording))


class Branching(nn.Module):
    """Asks a tensor without data for its values."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        if x.sum() > 1e9:
            return x
        return x[x > x.mean()].sum() + x.abs().max().item()


def test_values_are_asked_for() -> None:
    recording = assert_replays(Branching(), torch.randn(2, 4))
    assert recording.carrier == "real"
    assert "needs values" in recording.notes[0]


class Masked(nn.Module):
    """Decides by a mask that it builds itself: known without running the model."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        mask = torch.ones(ids.shape, device=x.device, dtype=torch.bool)
        if mask.all() and int((ids > 3).sum()) >= 0:
            x = x * mask.to(x.device)[..., None]
        return x


def test_constants_keep_their_values() -> None:
    assert assert_replays(Masked(), torch.tensor([[1, 2, 3]])).carrier == "meta"


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2)])
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=self.reentrant)
        return x


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_checkpointing_is_looked_into(reentrant: bool) -> None:
    model = Checkpointed(reentrant)
    recording = recorded(model, torch.randn(2, 4))
    assert kinds(recording).count("relu") == 2 or reentrant
    assert_replays(model, torch.randn(2, 4))


class Doubling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * 2


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = parametrizations.weight_norm(nn.Linear(4, 4))
        self.old = nn.utils.spectral_norm(nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = Doubling.apply(self.layer(x))
        return nn.Dropout(0.5)(self.old(out)) if self.training else self.old(out)


def test_custom_functions_parametrizations_and_layers_built_in_forward() -> None:
    model = Custom()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recording = recorded(model, torch.randn(2, 4))
    assert list(recording.created) == ["<Dropout>"]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert_replays(model, torch.randn(2, 4))


def test_shared_and_repeated_modules() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.norm = nn.LayerNorm(4)
            self.alias = self.norm

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(3):
                x = self.alias(self.layer(x))
            return x

    graph = graph_of(assert_replays(Net(), torch.randn(2, 4)))
    assert graph.modules["layer"].calls == 3
    assert graph.modules["norm"].aliases == ("alias",)
    assert [node.index for node in graph.calls_of("norm")] == [2, 4, 6]


def test_modules_that_hide_in_lists() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = [nn.Linear(4, 4), {"deep": nn.Linear(4, 4)}]
            self.scales = [nn.Parameter(torch.ones(4))]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks[1]["deep"](self.blocks[0](x)) * self.scales[0]

    graph = graph_of(assert_replays(Net(), torch.randn(2, 4)))
    assert [path for path, module in graph.modules.items() if not module.registered] == [
        "blocks[0]",
        "blocks[1]['deep']",
    ]
    assert graph.parameters["scales[0]"].kind == "attribute"


def test_torch_encoder_layers_are_entered() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    recording = recorded(nn.TransformerEncoder(layer, 2).eval(), torch.randn(2, 3, 8))
    assert kinds(recording).count("layer_norm") == 4
    assert kinds(recording).count("multi_head_attention") == 2


def test_lazy_layers_are_materialized_in_a_copy() -> None:
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d())
    recording = recorded(model, torch.randn(2, 3, 8, 8))
    assert kinds(recording) == ["input", "conv2d", "batch_norm", "output"]
    assert nn.parameter.is_lazy(model[0].weight)


def test_in_place_calls_are_told_apart() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.act = nn.ReLU(inplace=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.layer(x)
            return self.act(y) + y

    graph = graph_of(assert_replays(Net(), torch.randn(2, 4)))
    layer, act, add = graph.nodes[1:4]
    assert act.mutates == layer.index
    assert add.inputs == (act.index, layer.index)


def test_an_in_place_call_as_a_statement_is_read_by_what_follows() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            F.relu_(y)
            return y.sigmoid()

    assert [node.inputs for node in graph_of(recorded(Net(), torch.randn(2, 4))).nodes] == [
        (),
        (0,),
        (1,),
        (2,),
        (3,),
    ]


def test_a_forward_that_raises_says_where() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("no such thing")

    with pytest.raises(TraceError, match=r"ValueError at .*test_recorder.py:\d+: no such thing"):
        recorded(Net(), torch.randn(1))


def test_a_wrong_shape_says_what_torch_said() -> None:
    with pytest.raises(TraceError, match=r"shape|dimension|size|mat"):
        recorded(nn.Linear(4, 4), torch.randn(2, 5))


def test_graph_modules_can_be_recorded() -> None:
    traced = fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    assert kinds(assert_replays(traced, torch.randn(2, 4))) == ["input", "linear", "relu", "output"]


def test_an_exported_program_can_be_recorded() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()).eval()
    x = torch.randn(2, 3, 8, 8)
    recording = recorded(torch.export.export(net, (x,)).module(), x)
    found = graph_of(recording)
    assert {"conv2d", "batch_norm", "relu"} <= {node.kind for node in found.nodes}


def test_node_meta_uses_the_keys_of_torch_fx() -> None:
    recording = recorded(nn.Sequential(nn.Linear(4, 2)), torch.randn(3, 4))
    linear = next(node for node in recording.graph.nodes if node.op == "call_module")
    assert tuple(linear.meta["val"].shape) == (3, 2)
    assert list(linear.meta["nn_module_stack"]) == [""]


def test_who_asked_for_the_recording_is_not_the_place_of_a_call() -> None:
    nodes = graph_of(recorded(nn.Sequential(nn.Linear(4, 2)), torch.randn(3, 4))).nodes
    assert nodes[1].location is None


class Odd(nn.Module):
    """Parts that Python cannot look into, or that compute something else than they seem to."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.jit.script(nn.Sequential(nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4)))
        self.rnn = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        x = self.inner(x.transpose(1, 2)).transpose(1, 2)
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = out @ out.transpose(1, 2)
        return out.float()


@pytest.mark.filterwarnings("ignore")
def test_scripted_parts_packed_sequences_and_autocast() -> None:
    model = Odd()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recorded(model, torch.randn(2, 3, 4), torch.tensor([2, 3]))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert assert_replays(model, torch.randn(2, 3, 4), torch.tensor([2, 3])).carrier == "meta"


def test_vmap_is_seen_but_cannot_be_run_again() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.vmap(lambda row: row.relu() * 2)(self.layer(x)).tanh()

    recording = recorded(Net(), torch.randn(3, 4))
    assert kinds(recording) == ["input", "linear", "relu", "mul", "tanh", "output"]
    assert [node.inputs for node in graph_of(recording).nodes] == [(), (0,), (1,), (2,), (3,), (4,)]
    with pytest.raises(TraceError, match="inside vmap"):
        recording.graph_module()


def test_batch_norm_on_meta_keeps_to_shapes_and_to_the_words_of_torch() -> None:
    original = torch.batch_norm
    with pytest.raises(TraceError, match="should contain 4 elements not 5"):
        recorded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(5)), torch.randn(2, 3, 8, 8))
    with pytest.raises(TraceError, match="more than 1 value per channel"):
        recorded(nn.BatchNorm1d(4), torch.randn(1, 4))
    recording = recorded(nn.BatchNorm2d(4, affine=False).half(), torch.randn(2, 4, 8, 8).half())
    assert graph_of(recording).nodes[1].outputs[0].dtype == "float16"
    assert recording.carrier == "meta"
    assert torch.batch_norm is original
