"""Inputs for a model that came without: guessed from its first layers, proven by a run on meta.

A trial costs milliseconds there, and a wrong guess fails (a Linear after a flatten accepts one image
size only). What was found is always said, never used in silence.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from normdoctor.errors import TraceError
from normdoctor.loading.example import ExampleInputs
from normdoctor.loading.misspelt import misspelt
from normdoctor.loading.state import inventory
from normdoctor.tracing.inputs import random_tensor
from normdoctor.tracing.recording import ForwardError, LossCall, Recording, record
from normdoctor.tracing.tape import META_KEY

MAX_TRIALS = 96
MAX_REAL_TRIALS = 6  # with values, for forwards that ask for them
BATCH = 2  # the smallest batch with which BatchNorm trains
TOKENS = 16

_IMAGES = {1: (28, 32, 224, 64, 256, 105), 3: (224, 32, 64, 256, 28, 96, 128, 299, 384, 512)}
_LENGTHS = (128, 16, 1000, 16000, 512, 1024)

Shape = tuple[tuple[int, ...], torch.dtype, int]


def infer(model: nn.Module, *, training: bool | None = None, loss: LossCall | None = None) -> Recording:
    """Find inputs with which the model runs; returns the recording made with them.

    Raises `TraceError` with the first error and what was tried.
    """
    names = required_arguments(model)
    tried: list[str] = []
    first: TraceError | None = None
    undecided: list[ExampleInputs] = []
    folded: Recording | None = None
    parts = inventory(model)
    for example in itertools.islice(candidates(model, names), MAX_TRIALS):
        if folded is not None and not _is_image(example):
            break
        try:
            found = record(model, example, parts=parts, carriers=("meta",), loss=loss, training=training)
            if not _folds(found):
                return found
            folded = folded or found
        except ForwardError as error:
            first = first or error
            tried.append(example.note)
            if error.wanted:
                undecided.append(example)
    if folded is not None:
        return folded
    for example in undecided[:MAX_REAL_TRIALS]:
        try:
            return record(model, example, parts=parts, loss=loss, training=training)
        except ForwardError as error:
            first = error
    wanted = ", ".join(names) or "nothing"
    raise TraceError(
        f"no inputs were given, and none of {len(tried)} guesses runs (forward takes: {wanted}; "
        f"tried {'; '.join(tried[:3]) or 'nothing'}); {first.message if first else ''}",
        hint=misspelt(type(module) for module in model.modules())
        or "Give them: --input 8,3,224,224 or check(model, inputs=...), or define `example_inputs` "
        "beside the model.",
    )


def _is_image(example: ExampleInputs) -> bool:
    return len(example.args) == 1 and isinstance(example.args[0], torch.Tensor) and example.args[0].dim() == 4


def _folds(recording: Recording) -> bool:
    """Did an image of the wrong size pass for several samples, as `x.view(-1, 2048)` lets it?

    Every output has more rows then than there are images.
    """
    if not _is_image(recording.example):
        return False
    results = (node.meta[META_KEY].result for node in recording.graph.output_node().all_input_nodes)
    rows = [result.shape[0] if result.dim() else 0 for result in results if isinstance(result, torch.Tensor)]
    return bool(rows) and all(count > BATCH for count in rows)


def required_arguments(model: nn.Module) -> list[str]:
    """The names of forward's arguments that have no default; one stands for `*args`."""
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return ["input"]
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p.name for p in parameters if p.default is p.empty and p.kind in plain]
    if not required:
        optional = [p.name for p in parameters if p.kind in plain]
        variable = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        required = optional[:1] or (["input"] if variable else [])
    return required


def candidates(model: nn.Module, names: list[str]) -> Iterator[ExampleInputs]:
    """Guesses, the likeliest first."""
    yield from _from_config(model)
    if not names:
        yield ExampleInputs((), {}, "inferred", "no arguments")
        return
    options = [list(_options(model, name, index)) for index, name in enumerate(names)]
    for combination in dict.fromkeys(_combinations(options)):
        yield _example(names, combination)


def _combinations(options: list[list[Shape]]) -> Iterator[tuple[Shape, ...]]:
    """The likeliest shapes of all arguments; then one for all, as siamese networks take; then more."""
    if len(options) > 1:
        yield from itertools.product(*(choices[:3] for choices in options))
        common = [shape for shape in options[0] if all(shape in choices for choices in options)]
        yield from ((shape,) * len(options) for shape in common)
    yield from itertools.product(*(choices[: 8 if len(options) > 1 else None] for choices in options))


def _example(names: list[str], shapes: tuple[Shape, ...]) -> ExampleInputs:
    tensors = tuple(random_tensor(*shape) for shape in shapes)
    note = ", ".join(
        f"{name}: {str(dtype).removeprefix('torch.')} {shape}"
        for name, (shape, dtype, _) in zip(names, shapes, strict=True)
    )
    return ExampleInputs(tensors, {}, "inferred", note, tuple(names))


def _options(model: nn.Module, name: str, index: int) -> Iterator[Shape]:
    """Shapes for one argument, from its name and from the model's first layers."""
    lowered = name.lower()
    vocabulary = _vocabulary(model)
    if re.search(r"(^|_)(ids?|tokens?|idx|seq|src|tgt|text|words?|captions?)($|_)", lowered) and vocabulary:
        yield (BATCH, TOKENS), torch.int64, vocabulary
    if re.search(r"mask", lowered):
        yield (BATCH, TOKENS), torch.bool, 2
        yield (TOKENS, TOKENS), torch.bool, 2
    if re.search(r"^(t|time|times|timesteps?|sigma|noise_level)$", lowered):
        yield (BATCH,), torch.int64, 100
        yield (BATCH,), torch.float32, 1
        yield (BATCH, 1), torch.float32, 1
    if re.search(r"lengths?$|lens?$", lowered):
        yield (BATCH,), torch.int64, TOKENS
    if re.search(r"^(y|labels?|targets?|classes|cond.*)$", lowered) and index > 0:
        yield (BATCH,), torch.int64, 2
    yield from _from_layers(model)
    yield (BATCH, TOKENS), torch.int64, vocabulary or 2
    yield (BATCH, 3, 224, 224), torch.float32, 1
    yield (BATCH, 1, 28, 28), torch.float32, 1
    yield (BATCH, 16), torch.float32, 1


def _vocabulary(model: nn.Module) -> int:
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            return int(module.num_embeddings)
    return 0


def _from_layers(model: nn.Module) -> Iterator[Shape]:
    """Shapes that the first layer of each kind accepts, in the order in which they were built.

    Then those of layers in plain lists and dicts, which torch does not know and which run all the same.
    """
    yield from _first_of_each_kind(list(model.modules()))
    parts = inventory(model).modules.values()
    yield from _first_of_each_kind([entry.module for entry in parts if entry.container])


def _first_of_each_kind(modules: list[nn.Module]) -> Iterator[Shape]:
    seen: set[str] = set()
    for module in modules:
        for kind, shapes in _layer_shapes(module):
            if kind not in seen:
                seen.add(kind)
                yield from shapes
        if len(seen) >= 4:
            return


def _layer_shapes(module: nn.Module) -> Iterator[tuple[str, list[Shape]]]:
    real = _dtype_of(module)
    sides: tuple[int, ...]
    if isinstance(module, nn.ConvTranspose2d):
        sides = (1, 4, 7, 8, 16, 32)
        yield "up2", [((BATCH, module.in_channels, s, s), real, 1) for s in sides]
    elif isinstance(module, nn.Conv2d):
        sides = _IMAGES.get(module.in_channels, (32, 64, 56, 28, 14, 224, 16, 8))
        yield "conv2", [((BATCH, module.in_channels, s, s), real, 1) for s in sides]
    elif isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
        series = [(BATCH, module.in_channels, length) for length in _LENGTHS]
        series.append((BATCH, _LENGTHS[0], module.in_channels))  # for a forward that transposes
        yield "conv1", [(shape, real, 1) for shape in series]
    elif isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        volumes = ((16, 112, 112), (32, 32, 32), (64, 64, 64), (8, 32, 32), (16, 16, 16))
        yield "conv3", [((BATCH, module.in_channels, *volume), real, 1) for volume in volumes]
    elif isinstance(module, nn.Linear):
        yield "linear", _linear_shapes(module.in_features, real)
    elif isinstance(module, nn.Embedding):
        high = module.num_embeddings
        yield "embedding", [((BATCH, TOKENS), torch.int64, high), ((BATCH,), torch.int64, high)]
    elif isinstance(module, nn.RNNBase):
        shape = (BATCH, TOKENS) if module.batch_first else (TOKENS, BATCH)
        yield "recurrent", [((*shape, module.input_size), real, 1)]
    elif isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        width = module.self_attn.embed_dim
        yield "transformer", [((BATCH, TOKENS, width), real, 1)]
    elif isinstance(module, nn.LayerNorm | nn.BatchNorm1d | nn.BatchNorm2d):
        yield "norm", _norm_shapes(module, real)


def _linear_shapes(width: int, real: torch.dtype) -> list[Shape]:
    shapes: list[tuple[int, ...]] = [(BATCH, width), (BATCH, TOKENS, width)]
    for channels in (1, 3):
        side = round((width / channels) ** 0.5)
        if side * side * channels == width and side >= 8:
            shapes.insert(1, (BATCH, channels, side, side))
    return [(shape, real, 1) for shape in shapes]


def _norm_shapes(module: nn.Module, real: torch.dtype) -> list[Shape]:
    if isinstance(module, nn.LayerNorm):
        tail = tuple(module.normalized_shape)
        return [((BATCH, TOKENS, *tail), real, 1), ((BATCH, *tail), real, 1)]
    if isinstance(module, nn.BatchNorm2d):
        return [((BATCH, module.num_features, side, side), real, 1) for side in (32, 224)]
    assert isinstance(module, nn.BatchNorm1d)
    return [((BATCH, module.num_features), real, 1), ((BATCH, module.num_features, 128), real, 1)]


def _dtype_of(module: nn.Module) -> torch.dtype:
    for parameter in module.parameters(recurse=False):
        if parameter.is_floating_point():
            return parameter.dtype
    return torch.float32


def _from_config(model: nn.Module) -> Iterator[ExampleInputs]:
    """Inputs of models that carry a config and name their main input, as transformers' do."""
    config: Any = getattr(model, "config", None)
    name = getattr(model, "main_input_name", None)
    if config is None or not isinstance(name, str):
        return
    for shape in _main_input(name, config):
        kwargs: dict[str, Any] = {name: random_tensor(*shape)}
        note = f"{name}: {str(shape[1]).removeprefix('torch.')} {shape[0]}"
        if getattr(config, "is_encoder_decoder", False):
            ids = random_tensor((BATCH, TOKENS), torch.int64, _config_value(config, "vocab_size", 100))
            yield ExampleInputs((), {**kwargs, "decoder_input_ids": ids}, "inferred", note)
        yield ExampleInputs((), kwargs, "inferred", note)
        others = [one for one in ("pixel_values", "input_ids", "input_features") if one != name]
        for other in others:  # models of two modalities want both
            for second in _main_input(other, config)[:1]:
                both = {**kwargs, other: random_tensor(*second)}
                yield ExampleInputs((), both, "inferred", f"{note}, {other}: {second[0]}")


def _main_input(name: str, config: Any) -> list[Shape]:
    if name == "input_ids":
        return [((BATCH, TOKENS), torch.int64, _config_value(config, "vocab_size", 100))]
    if name == "pixel_values":
        channels = _config_value(config, "num_channels", 3)
        side = _config_value(config, "image_size", 224)
        return [((BATCH, channels, s, s), torch.float32, 1) for s in dict.fromkeys((side, 224, 384, 512))]
    if name == "input_values":
        return [((BATCH, 16000), torch.float32, 1)]
    if name == "input_features":
        bins = _config_value(config, "num_mel_bins", 80)
        return [((BATCH, bins, 3000), torch.float32, 1), ((BATCH, 100, bins), torch.float32, 1)]
    return []


def _config_value(config: Any, key: str, default: int) -> int:
    for holder in (config, getattr(config, "vision_config", None), getattr(config, "text_config", None)):
        value = getattr(holder, key, None)
        if isinstance(value, list | tuple) and value:
            value = value[0]
        if isinstance(value, int) and value > 0:
            return value
    return default
