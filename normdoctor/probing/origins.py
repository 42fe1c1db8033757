"""From the extremes of all tensors of a forward to the calls that made NaN or infinity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from normdoctor.probing.calls import SiteKey, site_name

#: Sums of products: an infinity of either sign is one that the format could not hold.
_SUMS_OF_PRODUCTS = frozenset(
    "linear bilinear addmm matmul einsum conv1d conv2d conv3d conv_transpose1d conv_transpose2d "
    "conv_transpose3d".split()
)
#: What grows with its input: plus infinity is a number that the format could not hold. An exponential is
#: left out, because 1 / (1 + exp(x)) is right at infinity, and so is minus infinity, which masks are made of.
_GROW = frozenset("pow mul sum mean var std var_mean std_mean norm prod cumsum".split())


@dataclass(frozen=True)
class Op:
    """One call: what it read and wrote, as indices of tensors.

    `given` says that it was handed an infinity as a plain number, `scalar` that it was handed any number.
    """

    key: SiteKey
    role: str
    dtype: str
    read: tuple[int, ...]
    written: int
    given: bool
    scalar: bool


@dataclass(frozen=True)
class Trace:
    """The calls of one forward in their order, and the tensors that it returned and was given."""

    ops: tuple[Op, ...]
    outputs: frozenset[int]
    inputs: frozenset[int] = frozenset()


def judged(trace: Trace, extremes: Sequence[Sequence[float]]) -> dict[SiteKey, dict[str, Any]]:
    """The calls that made NaN or infinity out of finite values, where it does harm.

    NaN counts where it reaches an output of the model. Infinity counts where it reaches one, where it becomes
    NaN, and where a sum or product was too large for its format. Infinities that were put in, as masks are,
    and those that end in a softmax count for nothing. A call that makes NaN of given infinities alone, such
    as the softmax of a row that is masked altogether, is a maker.
    """
    flow = _Flow(trace, extremes)
    found: dict[SiteKey, dict[str, Any]] = {}
    for place, op in enumerate(trace.ops):
        told = flow.told(place, op)
        if told is not None and op.key not in found:
            path, kind, index = op.key
            sizes = [abs(one) for each in op.read for one in extremes[each] if math.isfinite(one)]
            found[op.key] = {
                "module": path,
                "kind": kind,
                "call": index,
                "role": op.role,
                "dtype": op.dtype,
                "largest": max(sizes, default=0.0),
                **told,
            }
    return found


class _Flow:
    """How bad values spread through one forward."""

    def __init__(self, trace: Trace, extremes: Sequence[Sequence[float]]) -> None:
        self.nan = [math.isnan(low) or math.isnan(high) for low, high in extremes]
        self.plus = [high == math.inf for _, high in extremes]
        self.minus = [low == -math.inf for low, _ in extremes]
        self.bad = [any(kinds) for kinds in zip(self.nan, self.plus, self.minus, strict=True)]
        self.reaches = [False] * len(extremes)
        self.becomes: list[str | None] = [None] * len(extremes)
        self._spread(trace)
        self._trace(trace)

    def told(self, place: int, op: Op) -> dict[str, Any] | None:
        """What a call made and where that goes; None where it made nothing, or nothing that matters."""
        out = op.written
        if place not in self.makers:
            return None
        if self.nan[out]:
            return {"made": "NaN", "goes": "output"} if self.reaches[out] else None
        if self.becomes[out] is not None:
            return {"made": "infinity", "goes": "NaN", "becomes_nan_at": self.becomes[out]}
        if self.reaches[out]:
            return {"made": "infinity", "goes": "output"}
        grows = op.key[1] in _GROW and self.plus[out] and not (op.key[1] == "mul" and op.scalar)
        if grows or op.key[1] in _SUMS_OF_PRODUCTS:
            return {"made": "infinity", "goes": "lost"}
        return None

    def _spread(self, trace: Trace) -> None:
        """From the outputs back: what reaches them, and what turns into NaN that does."""
        consumed = {index for op in trace.ops for index in op.read}
        ends = trace.outputs or {op.written for op in trace.ops if op.written not in consumed}
        for index in ends:
            self.reaches[index] = self.bad[index]
        for op in reversed(trace.ops):
            if not self.bad[op.written]:
                continue
            turned = self.becomes[op.written]
            if turned is None and self.nan[op.written] and self.reaches[op.written]:
                turned = site_name(op.key)
            for index in op.read:
                if self.bad[index]:
                    self.reaches[index] |= self.reaches[op.written]
                    if turned is not None and not self.nan[index]:
                        self.becomes[index] = turned

    def _trace(self, trace: Trace) -> None:
        """From the inputs on: which calls are makers, and on which of them each bad tensor rests."""
        self.makers: set[int] = set()
        rests: dict[int, set[int]] = {}
        for place, op in enumerate(trace.ops):
            if not self.bad[op.written]:
                continue
            bad = [index for index in op.read if self.bad[index]]
            before = set().union(*(rests.get(index, set()) for index in bad))
            turns = self.nan[op.written] and not any(self.nan[index] for index in bad)
            if (not bad and not op.given) or (turns and not before):
                self.makers.add(place)
                before = {place}
            rests[op.written] = before
