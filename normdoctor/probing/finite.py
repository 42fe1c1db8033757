"""Where NaN and infinity come from: the extremes of every tensor of a forward, and who read what."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from normdoctor.probing.calls import Call, SiteKey, distributed, observable, site_name, version_of
from normdoctor.probing.origins import Op, Trace, judged
from normdoctor.tracing.roles import KINDS

#: Every role that a call can have.
_ALL = frozenset({*KINDS.values(), "gate", "other"})
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
#: How deep arguments and outputs are searched for tensors.
_DEPTH = 4


class FiniteCollector:
    """The first operations that make NaN or infinity out of finite values, by site.

    Every floating point tensor of a forward is read once, whole; which call read which tensor is noted
    beside it, and judged when the figures are asked for. `budget` bounds what a site may cost: where there
    is one, in a watch, nothing is read here, and the batches with bad values that the need "units" counts
    have to do.
    """

    need = "finite"

    def __init__(self, budget: int | None = None) -> None:
        self.roles = _ALL if budget is None else frozenset[str]()
        self._traces: list[tuple[Trace, list[tuple[list[int], Tensor]]]] = []
        self._constants: dict[int, tuple[weakref.ref[Tensor], int, Tensor]] = {}
        self._known: dict[int, tuple[weakref.ref[Tensor], int, int]] = {}
        self._extremes: list[Tensor] = []
        self._ops: list[Op] = []
        self._inputs: frozenset[int] = frozenset()

    def start(self, model: nn.Module, inputs: Sequence[Any]) -> None:
        """Forget the tensors of the last forward, and look at what this one is given."""
        self._known.clear()
        self._extremes, self._ops = [], []
        given = (self._place(value) for value in leaves(inputs) if isinstance(value, Tensor) and self.roles)
        self._inputs = frozenset(index for index in given if index is not None)

    def before(
        self, key: SiteKey, role: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[int, ...], bool]:
        """What a call is about to read, and whether it is handed an infinity as a plain number."""
        read = tuple(
            index
            for value in leaves((args, kwargs))
            if isinstance(value, Tensor) and (index := self._place(value)) is not None
        )
        plain = [value for value in leaves((args, kwargs)) if isinstance(value, float)]
        return read, any(not math.isfinite(value) for value in plain)

    def after(self, call: Call, before: tuple[tuple[int, ...], bool]) -> None:
        """Note what it returned."""
        read, given = before
        scalar = any(type(value) in (int, float) for value in (*call.args, *call.kwargs.values()))
        written = self._place(call.output)
        if written is not None and written not in read:  # a getter that returns the tensor itself makes none
            dtype = str(call.output.dtype).removeprefix("torch.")
            self._ops.append(Op(call.key, call.role, dtype, read, written, given, scalar))

    def end(self, output: Any) -> None:
        """Keep the extremes of this forward."""
        outputs = frozenset(
            index
            for value in leaves(output)
            if isinstance(value, Tensor) and (index := self._found(value)) is not None
        )
        if self._extremes:
            trace = Trace(tuple(self._ops), outputs, self._inputs)
            if self._traces and self._traces[-1][0] == trace:
                trace = self._traces[-1][0]
            places: dict[torch.device, list[int]] = {}
            for index, one in enumerate(self._extremes):
                places.setdefault(one.device, []).append(index)
            groups = [(here, torch.stack([self._extremes[i] for i in here])) for here in places.values()]
            self._traces.append((trace, groups))
        self._known.clear()
        self._extremes, self._ops = [], []

    def abort(self) -> None:
        """What was seen before a forward raised is judged as well."""
        self.end(None)

    def tensors(self) -> list[Tensor]:
        """The extremes of every tensor of every forward, of shape (tensors, 2), by device."""
        return [extremes for _, groups in self._traces for _, extremes in groups]

    def read(self, values: Sequence[Tensor]) -> dict[str, Any]:
        """The sites that made something that is not finite; none of a healthy model."""
        found: dict[SiteKey, dict[str, Any]] = {}
        rest = iter(values)
        for trace, groups in self._traces:
            known = [(places, next(rest)) for places, _ in groups]
            if all(bool(torch.isfinite(extremes).all()) for _, extremes in known):
                continue
            ordered: dict[int, list[float]] = {}
            for places, extremes in known:
                ordered |= dict(zip(places, extremes.tolist(), strict=True))
            if not all(math.isfinite(bound) for place in trace.inputs for bound in ordered[place]):
                continue  # the batch itself held them
            for key, figures in judged(trace, [ordered[i] for i in range(len(ordered))]).items():
                site = found.setdefault(key, figures | {"bad_batches": 0, "order": len(found)})
                site["bad_batches"] += 1
                site["largest"] = max(site["largest"], figures["largest"])
        return {site_name(key): {**one, "batches": len(self._traces)} for key, one in found.items()}

    def packed(self) -> list[tuple[Trace, list[tuple[list[int], Tensor]]]]:
        """What it has collected, for another rank."""
        return [
            (trace, [(places, extremes.cpu()) for places, extremes in groups])
            for trace, groups in self._traces
        ]

    def joined(self, parts: Sequence[list[tuple[Trace, list[tuple[list[int], Tensor]]]]]) -> FiniteCollector:
        """A collector that has seen what each of the parts has."""
        made = FiniteCollector()
        made._traces = [trace for part in parts for trace in part]
        return made

    def _place(self, value: Tensor) -> int | None:
        """The index of a tensor's extremes, which are read when it is met for the first time."""
        if value.dtype not in _DTYPES or value.numel() == 0 or not (value.dim() == 0 or observable(value)):
            return None
        if value.is_meta or distributed(value) or not value.untyped_storage().nbytes():
            return None  # the last: memory that a sharded model allocates only for a while
        index = self._found(value)
        if index is None:
            index = len(self._extremes)
            self._extremes.append(self._constant(value) if isinstance(value, nn.Parameter) else both(value))
            self._known[id(value)] = (weakref.ref(value), version_of(value), index)
        return index

    def _found(self, value: Tensor) -> int | None:
        reference, version, index = self._known.get(id(value), (None, 0, None))
        return (
            index if reference is not None and reference() is value and version == version_of(value) else None
        )

    def _constant(self, value: Tensor) -> Tensor:
        """The extremes of a parameter: read again only where it was written to."""
        reference, version, extremes = self._constants.get(id(value), (None, 0, None))
        if extremes is None or reference is None or reference() is not value or version != version_of(value):
            extremes = both(value)
            self._constants[id(value)] = (weakref.ref(value), version_of(value), extremes)
        return extremes


def both(value: Tensor) -> Tensor:
    """Minimum and maximum, both NaN where a value is; of shape (2,)."""
    wide = torch.float32 if value.dtype != torch.float64 or value.device.type == "mps" else torch.float64
    least, most = torch.aminmax(value.detach())
    return torch.stack((least, most)).to(wide)


def leaves(value: Any, depth: int = _DEPTH) -> Iterator[Any]:
    """What lies in nested lists, tuples, dicts and data classes."""
    if isinstance(value, Mapping):
        parts: Any = value.values()
    elif isinstance(value, list | tuple):
        parts = value
    elif is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, field.name, None) for field in fields(value)]
    else:
        yield value
        return
    if depth:
        for part in parts:
            yield from leaves(part, depth - 1)
