"""The inputs to record with: given on the command line or in Python, and brought into one form."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from normdoctor.errors import UsageError, near
from normdoctor.loading.example import ExampleInputs, InputSource

_SPEC = re.compile(
    r"^(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>[0-9]+(?:[,x][0-9]+)*|scalar)"
    r"(?::(?P<dtype>\w+))?(?:<(?P<high>[0-9]+))?$"
)

DTYPES = {
    name: getattr(torch, name)
    for name in ("float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64").split()
}
#: Made-up inputs have at most this many elements.
MAX_ELEMENTS = 2**31
_SHORT = {"float": "float32", "half": "float16", "double": "float64", "long": "int64", "int": "int32"}


def parse_inputs(specs: Sequence[str]) -> ExampleInputs:
    """Make inputs from specs such as `8,3,224,224` or `ids=2,128:int64<50257`.

    Unnamed specs are positional, named ones keyword arguments. Values are seeded: normal for floats,
    uniform below the bound (default 2) for integers.
    """
    generator = torch.Generator().manual_seed(0)
    args: list[torch.Tensor] = []
    kwargs: dict[str, torch.Tensor] = {}
    for spec in specs:
        match = _SPEC.match(spec.replace(" ", ""))
        if match is None:
            raise UsageError(
                f"`--input {spec}` is not an input: expected [NAME=]SHAPE[:DTYPE][<BOUND]",
                hint="For example `--input 8,3,224,224` or `--input 'ids=2,128:int64<50257'`.",
            )
        if match["name"] in kwargs:
            raise UsageError(f"`--input {spec}`: `{match['name']}` is given twice", hint="Give it once.")
        tensor = _make(match, spec, generator)
        if match["name"]:
            kwargs[match["name"]] = tensor
        else:
            args.append(tensor)
    return ExampleInputs(tuple(args), kwargs, "given", "given with --input")


def _make(match: re.Match[str], spec: str, generator: torch.Generator) -> torch.Tensor:
    text = match["shape"]
    shape = [] if text == "scalar" else [int(part) for part in re.split("[,x]", text)]
    name = _SHORT.get(match["dtype"] or "", match["dtype"] or ("int64" if match["high"] else "float32"))
    if name not in DTYPES:
        raise UsageError(
            f"`--input {spec}`: unknown dtype `{name}`", hint=near(name, list(DTYPES)) or ", ".join(DTYPES)
        )
    if problem := _unfit(shape, DTYPES[name], match["high"]):
        raise UsageError(f"`--input {spec}`: {problem}")
    return random_tensor(shape, DTYPES[name], int(match["high"] or 2), generator)


def _unfit(shape: Sequence[int], dtype: torch.dtype, high: str | None = None) -> str:
    """What is wrong with this shape, dtype and bound; empty when nothing is."""
    if shape[:1] == [0] or min(shape, default=1) < 0:
        return f"expected a batch with something in it, found the shape {tuple(shape)}"
    if math.prod(shape) > MAX_ELEMENTS:
        return f"expected at most {MAX_ELEMENTS} elements, found the shape {tuple(shape)}"
    if high is None:
        return ""
    if dtype.is_floating_point or dtype.is_complex:
        return f"a bound (`<{high}`) is for integers, not for {str(dtype).removeprefix('torch.')}"
    largest = 2 if dtype is torch.bool else torch.iinfo(dtype).max
    if not 1 <= int(high) <= largest:
        return f"expected a bound from 1 to {largest}, found {high}"
    return ""


def random_tensor(
    shape: Sequence[int], dtype: torch.dtype, high: int = 2, generator: torch.Generator | None = None
) -> torch.Tensor:
    """A seeded tensor: standard normal for floats, uniform in [0, high) for integers."""
    generator = generator or torch.Generator().manual_seed(0)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, dtype=torch.float32, generator=generator).to(dtype)
    return torch.randint(0, max(high, 1), tuple(shape), generator=generator).to(dtype)


def as_example(inputs: Any, source: InputSource = "given", note: str = "") -> ExampleInputs:
    """Bring what a user passes as `inputs=` into one form.

    A tensor is the only argument; a tuple or list holds the positional ones; a dict the keyword ones;
    a sequence of strings, specs as on the command line; `ExampleInputs` stay as they are.
    """
    if isinstance(inputs, ExampleInputs):
        return inputs
    if isinstance(inputs, str):
        return parse_inputs([inputs])
    if isinstance(inputs, torch.Tensor):
        return ExampleInputs((inputs,), {}, source, note)
    if isinstance(inputs, Mapping):
        if not all(isinstance(key, str) for key in inputs):
            raise UsageError("`inputs` is a dict whose keys are no strings: expected keyword arguments")
        return ExampleInputs((), dict(inputs), source, note)
    if isinstance(inputs, list | tuple):
        if inputs and all(isinstance(item, str) for item in inputs):
            return parse_inputs(inputs)
        if inputs and all(type(item) is int for item in inputs):
            if problem := _unfit(list(inputs), torch.float32):
                raise UsageError(f"`inputs` is a shape: {problem}")
            return ExampleInputs((random_tensor(inputs, torch.float32),), {}, source, note)
        return ExampleInputs(tuple(inputs), {}, source, note)
    raise UsageError(
        f"`inputs` is a {type(inputs).__name__}: expected a tensor, a tuple of positional arguments or a "
        "dict of keyword arguments",
        hint="For example check(model, inputs=torch.randn(8, 3, 32, 32)).",
    )


def to_device(example: ExampleInputs, device: torch.device) -> ExampleInputs:
    """The same inputs on a device (not for `meta`: the recorder has stand-ins of its own)."""

    def move(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(device)
        if isinstance(value, list | tuple):
            items = [move(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if type(value) is dict:
            return {key: move(item) for key, item in value.items()}
        return value

    if device.type == "meta":
        return example
    return ExampleInputs(
        move(example.args), move(example.kwargs), example.source, example.note, example.names
    )


def describe_inputs(example: ExampleInputs) -> str:
    """Say what the inputs are in few words: `input: float32 (2, 3, 224, 224)`."""
    from normdoctor.tracing.recording import input_tensors

    named = [
        *((example.name(index), value) for index, value in enumerate(example.args)),
        *example.kwargs.items(),
    ]
    parts = []
    for name, value in named:
        if isinstance(value, torch.Tensor):
            parts.append(f"{name}: {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}")
        else:
            count = len(input_tensors(ExampleInputs((value,))))
            parts.append(f"{name}: {type(value).__name__}" + (f" with {count} tensors" if count else ""))
    return ", ".join(parts)
