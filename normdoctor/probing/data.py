"""Batches of data: where they come from, and the arguments of a call that each of them gives."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from normdoctor.errors import NormDoctorError, UsageError, brief, kind_of
from normdoctor.loading.example import ExampleInputs

#: Positional and keyword arguments of one call of a model.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

HINT = "Pass a list of tensors, of (inputs, labels) tuples or of dicts, or a DataLoader."
BATCH_HINT = (
    "A batch is what the model takes: a tensor, (inputs, labels), or a dict of keyword arguments; "
    "batch_to_inputs= makes it of other ones."
)


@dataclass(frozen=True)
class Feed:
    """Batches for a model.

    Args:
        data: An iterable of batches, a DataLoader, or a function without arguments that returns one;
            a lone tensor or dict is one batch.
        name: What messages call it.
        limit: How many batches are read; all when None.
        batch_size: The batch size of the training, where the user states one.
        to_inputs: Makes of a batch what the model takes: a tensor, a tuple of positional arguments or a
            dict of keyword arguments.
        source: `"data"` for the user's own, `"synthetic"` for made-up batches.
    """

    data: Any
    name: str = "the data"
    limit: int | None = None
    batch_size: int | None = None
    to_inputs: Callable[[Any], Any] | None = None
    source: str = "data"

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", batches(self.data, self.name))

    @property
    def total(self) -> int | None:
        """How many batches there are to read, as far as that is known."""
        known = self._known()
        if known is None or self.limit is None:
            return self.limit if known is None else known
        return min(known, self.limit)

    def calls(self, model: nn.Module, device: torch.device | None = None) -> Iterator[Arguments]:
        """The arguments of one call of `model` for each batch, on the device of its parameters."""
        if device is None:
            device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
        takes = Signature.of(model)
        for index, batch in enumerate(self._batches()):
            place = f"batch {index} of {self.name}"
            args, kwargs = self._arguments(batch, takes, place)
            try:
                there = moved(args, device), moved(kwargs, device)
            except Exception as error:  # tensors on meta, memory, a `to` of the user's own
                raise UsageError(f"{place} cannot be put on {device}: {brief(error)}") from error
            yield there

    def told(self, count: int) -> str:
        """Which batches were read, when `count` of them were: `the first 32 batches of the data`."""
        noun = "synthetic batch" if self.source == "synthetic" else "batch"
        words = f"{count} {noun}{'' if count == 1 else 'es'}"
        if self.source == "synthetic":
            return f"{words} ({self.name}): what rests on them is a warning at most"
        if self.limit == count and self._known() != count:
            return f"the first {words} of {self.name} (--batches or batches= takes more)"
        return f"{words} of {self.name}"

    def _known(self) -> int | None:
        try:
            return len(self.data)
        except (TypeError, NotImplementedError):
            return None

    def _batches(self) -> Iterator[Any]:
        count = 0
        try:
            for batch in islice(iter(self.data), self.limit):
                yield batch
                count += 1
        except (NormDoctorError, GeneratorExit):
            raise
        except (Exception, SystemExit) as error:  # the user's code: any error of its own
            raise UsageError(
                f"{self.name} could not be read after {count} batches: {brief(error)}"
            ) from error

    def _arguments(self, batch: Any, takes: Signature, place: str) -> Arguments:
        if self.to_inputs is None:
            return arguments(batch, takes, place)
        try:
            made = self.to_inputs(batch)
        except (Exception, SystemExit) as error:  # the user's code
            raise UsageError(f"batch_to_inputs raised {brief(error)} on {place}") from error
        if isinstance(made, Mapping):
            if odd := [key for key in made if not isinstance(key, str)]:
                raise UsageError(f"batch_to_inputs returned a dict with the key {odd[0]!r}: expected names")
            return (), dict(made)
        if isinstance(made, list | tuple):
            return tuple(made), {}
        if isinstance(made, Tensor):
            return (made,), {}
        if isinstance(made, ExampleInputs):
            return made.args, made.kwargs
        raise UsageError(
            f"batch_to_inputs returned {kind_of(made)}: expected a tensor, a tuple of positional arguments "
            "or a dict of keyword arguments"
        )


@dataclass(frozen=True)
class Signature:
    """What a forward takes: the names of its arguments, and those without which it cannot be called."""

    names: frozenset[str] = frozenset()
    required: tuple[str, ...] = ()
    any_name: bool = True

    @classmethod
    def of(cls, model: nn.Module) -> Signature:
        """Read off the forward of a model; everything is allowed where it cannot be read."""
        try:
            parameters = list(inspect.signature(model.forward).parameters.values())
        except (TypeError, ValueError):
            return cls()
        stars = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        plain = [one for one in parameters if one.kind not in stars]
        return cls(
            names=frozenset(one.name for one in plain if one.kind is not inspect.Parameter.POSITIONAL_ONLY),
            required=tuple(one.name for one in plain if one.default is inspect.Parameter.empty),
            any_name=any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters),
        )

    @property
    def told(self) -> str:
        """The arguments that must be given, for messages."""
        return ", ".join(f"`{name}`" for name in self.required)


def batches(data: Any, name: str = "the data") -> Iterable[Any]:
    """The batches in `data`; a lone tensor or dict is one batch, a function is called."""
    if isinstance(data, Tensor | Mapping):
        return [data]
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        raise UsageError(
            f"expected batches, found {name} to be a {type(data).__name__} of single samples",
            hint="Wrap it: torch.utils.data.DataLoader(dataset, batch_size=32).",
        )
    if not isinstance(data, str | bytes | nn.Module) and isinstance(data, Iterable):
        return data
    if callable(data) and not isinstance(data, nn.Module):
        made, told = _made(data, name), f"what {name} returned"
        if not callable(made) or isinstance(made, Iterable | nn.Module):
            return batches(made, told)
        data, name = made, told
    raise UsageError(f"expected batches of data, found {name} to be {kind_of(data)}", hint=HINT)


def arguments(batch: Any, takes: Signature, place: str) -> Arguments:
    """The arguments that a batch gives: of `(x, y)` the first ones, as many as the forward needs."""
    if isinstance(batch, Mapping):
        return _by_name(batch, takes, place)
    if isinstance(batch, list | tuple):
        if not batch:
            raise UsageError(f"{place} is empty", hint=BATCH_HINT)
        return _by_place(batch, takes, place)
    if batch is None or isinstance(batch, str | bytes | bool | int | float) or _foreign_array(batch):
        raise UsageError(f"{place} is {kind_of(batch)}: expected tensors", hint=BATCH_HINT)
    if len(takes.required) > 1:
        raise UsageError(f"{place} is {kind_of(batch)}, but forward takes {takes.told}", hint=BATCH_HINT)
    return (batch,), {}


def moved(value: Any, device: torch.device) -> Any:
    """The same structure with its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list | tuple):
        items = [moved(item, device) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, Mapping):
        found = {key: moved(item, device) for key, item in value.items()}
        return found if type(value) is dict else _like(value, found)
    if hasattr(value, "to") and not isinstance(value, type):
        return value.to(device)  # batches of graphs, packed sequences
    return value


def _like(value: Any, found: dict[Any, Any]) -> Any:
    """The items in a mapping of the same class, where one can be made so."""
    try:
        return type(value)(found)
    except Exception:  # the user's class
        return found


def _by_name(batch: Mapping[Any, Any], takes: Signature, place: str) -> Arguments:
    named = {name: value for name, value in batch.items() if isinstance(name, str)}
    chosen = {name: value for name, value in named.items() if takes.any_name or name in takes.names}
    if all(name in batch for name in takes.required) and chosen:
        return (), chosen
    if len(takes.required) <= 1 and not any(name in takes.names for name in batch):
        return (batch,), {}  # forward(batch) takes the dict apart itself
    held = ", ".join(f"`{name}`" for name in batch)
    raise UsageError(f"forward takes {takes.told}, but {place} holds {held}", hint=BATCH_HINT)


def _by_place(batch: list[Any] | tuple[Any, ...], takes: Signature, place: str) -> Arguments:
    first, need = batch[0], max(len(takes.required), 1)
    if isinstance(first, Mapping):
        return _by_name(first, takes, place)
    if need == 1:
        return ((first,), {}) if isinstance(first, list | tuple) else arguments(first, takes, place)
    if isinstance(first, list | tuple) and len(first) == need:
        return tuple(first), {}
    if len(batch) < need:
        raise UsageError(
            f"forward takes {takes.told}, but {place} holds {len(batch)} value{'s' * (len(batch) > 1)}",
            hint=BATCH_HINT,
        )
    return tuple(batch[:need]), {}


def _foreign_array(value: Any) -> bool:
    """Is it an array of another library, numpy's for example?"""
    return hasattr(value, "__array__") and not isinstance(value, Tensor)


def _made(factory: Callable[[], Any], name: str) -> Any:
    try:
        return factory()
    except (Exception, SystemExit) as error:  # the user's code: any error of its own
        raise UsageError(
            f"{name} could not be made: {brief(error)}",
            hint="A factory is called without arguments and returns batches.",
        ) from error
