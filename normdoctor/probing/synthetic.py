"""Made-up batches in the shapes and dtypes of the inputs that the model was recorded with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normdoctor.errors import UsageError, brief
from normdoctor.loading.example import ExampleInputs
from normdoctor.probing.data import Feed
from normdoctor.tracing.inputs import describe_inputs, random_tensor

#: What asks for them in the place of data.
SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class Synthetic:
    """As many batches like `example` as are asked for: the same ones, in the same order, each time.

    Floats are standard normal; integers are uniform in the range of the example's; masks stay as they are.
    """

    example: ExampleInputs
    count: int
    batch_size: int | None = None

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[ExampleInputs]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(self.count):
            yield self._one(generator)

    def _one(self, generator: torch.Generator) -> ExampleInputs:
        old = _first_size((self.example.args, self.example.kwargs))

        def made(value: Any) -> Any:
            if isinstance(value, Tensor):
                return _like(value, old, self.batch_size, generator)
            if isinstance(value, list | tuple):
                items = [made(item) for item in value]
                return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
            if isinstance(value, Mapping):
                return {key: made(item) for key, item in value.items()}
            return value

        example = self.example
        return ExampleInputs(made(example.args), made(example.kwargs), example.source, "", example.names)


def synthetic(example: ExampleInputs, count: int, batch_size: int | None = None) -> Feed:
    """Batches for a model, seeded."""
    made = Synthetic(example, count, batch_size)
    try:
        name = describe_inputs(next(iter(Synthetic(example, 1, batch_size))))
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        raise UsageError(
            f"a synthetic batch cannot be made: {brief(error)}",
            hint="Try a smaller batch size, or real data.",
        ) from error
    return Feed(made, name=name, batch_size=batch_size, to_inputs=_taken, source=SYNTHETIC)


def _taken(batch: ExampleInputs) -> ExampleInputs:
    return batch


def _first_size(values: Any) -> int | None:
    """The size of the first axis of the first tensor that has one: the batch."""
    if isinstance(values, Tensor):
        return values.shape[0] if values.dim() else None
    if isinstance(values, Mapping):
        values = list(values.values())
    if isinstance(values, list | tuple):
        return next((size for size in map(_first_size, values) if size is not None), None)
    return None


def _like(value: Tensor, old: int | None, new: int | None, generator: torch.Generator) -> Tensor:
    shape = list(value.shape)
    if new is not None and shape and shape[0] == old:
        shape[0] = new
    if value.dtype is torch.bool and not value.is_meta:
        whole = value[:1].expand(shape) if shape and shape[0] != value.shape[0] else value
        return whole.cpu().clone()
    if value.is_floating_point() or value.is_complex():
        return random_tensor(shape, value.dtype, generator=generator)
    high = 2 if value.is_meta or not value.numel() else int(value.max()) + 1
    return random_tensor(shape, value.dtype, high, generator)
