"""What layers with weights, norms, pooling and attention say of the axes of their inputs."""

from __future__ import annotations

from normdoctor.facts import Node
from normdoctor.tracing.axes.atoms import USUAL, Axis
from normdoctor.tracing.axes.flow import Axes, Flow, Step

_POSITIONS = ({"space"}, {"time"}, {"space", "time"})


def _mixes_positions(flow: Flow, axis: Axis, others: Axes) -> bool:
    """Is a weight applied along positions (MLP-Mixer) while another axis holds the features?"""
    words = set(flow.text(axis).split("*"))
    return words in _POSITIONS and any("channel" in flow.text(other) for other in others)


def linear(flow: Flow, node: Node) -> list[Axes]:
    """A linear layer: features last. Where it reads positions, what it writes is unknown."""
    axes, _ = flow.operand(node)
    *before, last = axes
    size = node.shape[-1]
    text = flow.text(last)
    if text:
        features = "batch" not in text and not _mixes_positions(flow, last, tuple(before))
    else:
        features = flow.atoms.may_be_features(last)
    if not features:
        return [(*before, flow.atoms.unlike_features(size))]
    if not text:
        flow.atoms.mark(last, "channel")
    return [(*before, flow.atoms.new(size, "channel"))]


def convolution(dims: int) -> Step:
    """A convolution: (N, C, *space) or (C, *space)."""
    word = "time" if dims == 1 else "space"

    def step(flow: Flow, node: Node) -> list[Axes] | None:
        axes, shape = flow.operand(node)
        if len(shape) not in (dims + 1, dims + 2):
            return None
        place = len(shape) - dims - 1
        if place == 1:
            flow.atoms.mark(axes[0], "batch")
        channels, around = axes[place], axes[place + 1 :]
        mixes = _mixes_positions(flow, channels, around)
        if not flow.text(channels):
            flow.atoms.mark(channels, "channel")
        for axis in around:
            flow.atoms.mark(axis, word)
        out = node.shape
        size = out[place]
        written = flow.atoms.unlike_features(size) if mixes else flow.atoms.new(size, "channel")
        moved = [
            flow.resized(axis, before, after)
            for axis, before, after in zip(around, shape[place + 1 :], out[place + 1 :], strict=True)
        ]
        return [(*axes[:place], written, *moved)]

    return step


def resampled(flow: Flow, node: Node) -> list[Axes]:
    """Pooling and interpolation: each axis stays what it is, at another length."""
    axes, shape = flow.operand(node)
    found = tuple(map(flow.resized, axes, shape, node.shape))
    return [found] * len(node.outputs)


def embedding(flow: Flow, node: Node) -> list[Axes]:
    """Indices to features, which come last."""
    axes, _ = flow.operand(node)
    flow.embedded.update(flow.atoms.find(atom) for axis in axes for atom in axis)
    return [(*axes, flow.atoms.new(node.shape[-1], "channel"))]


def embedding_bag(flow: Flow, node: Node) -> list[Axes]:
    """Bags of indices to features: (N, C)."""
    axes, shape = flow.operand(node)
    first = axes[0] if len(shape) == 2 else flow.atoms.new(node.shape[0])
    return [(first, flow.atoms.new(node.shape[-1], "channel"))]


def norm(flow: Flow, node: Node) -> list[Axes]:
    """A norm keeps all axes. Which one it takes for the features is likely to be that, no more."""
    axes, shape = flow.operand(node)
    if node.kind == "layer_norm" and len(shape) > 1 and _length(node.config.get("normalized_shape")) == 1:
        flow.late.append((axes[-1], "channel"))
    elif node.kind in ("batch_norm", "instance_norm", "group_norm") and len(shape) in (2, 4, 5):
        flow.late += [(axes[1], "channel"), (axes[0], "batch")]
        flow.late += [(axis, "space") for axis in axes[2:]]
    return [axes]


def _length(value: object) -> int:
    return len(value) if isinstance(value, list | tuple) else 1


def _sequence(flow: Flow, node: Node, axes: Axes) -> None:
    """A layer for sequences: (N, T, C) with batch_first, (T, N, C) without, (T, C) for one alone."""
    first = bool(node.config.get("batch_first"))
    words = ("batch", "time") if first else ("time", "batch")
    for axis, word in zip(axes, words if len(axes) == 3 else ("time",), strict=False):
        if not flow.text(axis):
            flow.atoms.mark(axis, word)
    if not flow.text(axes[-1]):
        flow.atoms.mark(axes[-1], "channel")


def recurrent(flow: Flow, node: Node) -> list[Axes] | None:
    """LSTM, GRU and RNN: the output, and the state of each layer."""
    axes, shape = flow.operand(node)
    if len(shape) not in (2, 3) or len(node.outputs[0].shape) != len(shape):
        return None
    _sequence(flow, node, axes)
    found: list[Axes] = [(*axes[:-1], flow.atoms.new(node.shape[-1], "channel"))]
    batch = axes[:-1][0 if node.config.get("batch_first") else 1] if len(shape) == 3 else None
    for fact in node.outputs[1:]:
        inside = () if batch is None else (batch,)
        found.append((flow.atoms.new(fact.shape[0]), *inside, flow.atoms.new(fact.shape[-1], "channel")))
    return found


def cell(flow: Flow, node: Node) -> list[Axes]:
    """One step of a recurrent layer: (N, C)."""
    axes, shape = flow.operand(node)
    if len(shape) == 2:
        flow.atoms.mark(axes[0], "batch")
    flow.atoms.mark(axes[-1], "channel")
    return [(*axes[:-1], flow.atoms.new(fact.shape[-1], "channel")) for fact in node.outputs]


def multi_head(flow: Flow, node: Node) -> list[Axes] | None:
    """nn.MultiheadAttention: the result follows the queries; then the weights, if asked for."""
    given = [one for one in flow.operands(node) if one is not None]
    (query, shape), (key, key_shape) = given[0], given[1] if len(given) > 1 else given[0]
    if len(shape) not in (2, 3) or len(key_shape) != len(shape):
        return None
    _sequence(flow, node, query)
    _sequence(flow, node, key)
    batch, time = (0, 1) if node.config.get("batch_first") and len(shape) == 3 else (1, 0)
    found: list[Axes] = [(*query[:-1], flow.atoms.new(node.shape[-1], "channel"))]
    if len(shape) == 3:
        flow.atoms.unify(query[batch], key[batch])
        heads = [flow.atoms.new(fact.shape[1], "heads") for fact in node.outputs[1:] if len(fact.shape) == 4]
        found += [(query[batch], *heads, query[time], key[time]) for _ in node.outputs[1:]]
    elif len(node.outputs) > 1:
        found.append((query[0], key[0]))
    return found


def attention(flow: Flow, node: Node) -> list[Axes]:
    """F.scaled_dot_product_attention: (..., T, E) and twice (..., S, E)."""
    (query, shape), (key, _), (value, _) = (one for one in flow.operands(node)[:3] if one is not None)
    flow.atoms.unify(query[-1], key[-1])
    flow.atoms.unify(key[-2], value[-2])
    around = list(query[:-2])
    for place, other in enumerate(value[: len(around)]):
        if flow.atoms.size(around[place]) == flow.atoms.size(other):
            around[place] = flow.atoms.unify(around[place], other)
    if len(shape) == 4:
        heads(flow, around[1])
        flow.late += [(query[-2], "time"), (key[-2], "time")]
    return [(*around, query[-2], value[-1])]


def heads(flow: Flow, axis: Axis) -> None:
    """A part of the channels along which two activations are multiplied is heads."""
    if flow.text(axis) == "channel":
        for atom in axis:
            if flow.atoms.strength((atom,)) < USUAL:
                flow.atoms.mark((atom,), "heads")


STEPS: dict[str, Step] = {
    "linear": linear, "addmm": linear, "bilinear": linear, "embedding": embedding,
    "embedding_bag": embedding_bag, "lstm": recurrent, "gru": recurrent, "rnn": recurrent,
    "lstm_cell": cell, "gru_cell": cell, "rnn_cell": cell, "multi_head_attention": multi_head,
    "multi_head_attention_forward": multi_head, "scaled_dot_product_attention": attention,
    **{f"conv{n}d": convolution(n) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": convolution(n) for n in (1, 2, 3)},
    **{f"{how}pool{n}d": resampled for n in (1, 2, 3) for how in (
        "max_", "avg_", "adaptive_avg_", "adaptive_max_", "lp_", "fractional_max_", "max_un")},
    **dict.fromkeys(("interpolate", "pad", "upsample_nearest", "upsample_bilinear"), resampled),
    **dict.fromkeys((
        "batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm", "local_response_norm"), norm),
}  # fmt: skip
