"""Statistics of every unit (channel or feature) behind every layer, norm and activation."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from normdoctor.probing.calls import Call, SiteKey, observable, site_name, version_of
from normdoctor.probing.ledger import Ledger, Packed
from normdoctor.probing.statistics import BOUNDS, EXACT, RANGES, observations, rows_of, thinned_copy
from normdoctor.tracing.roles import ARGUMENTS

#: Kinds of roles that are wanted which hold no units: recurrent layers return several tensors.
_LEFT_OUT = frozenset({"embedding_bag"})

#: How many values of samples wait for each other before they are reduced together.
_WAITING = 2**20

_INPUT_KINDS = "batch_norm instance_norm group_norm layer_norm rms_norm".split()


class Sampled(NamedTuple):
    """A sample of one output, with the units along its last axis, that is to be reduced along with others."""

    key: SiteKey
    values: Tensor
    bounds: tuple[float, float] | None
    span: tuple[float, float] | None

    @property
    def kind(self) -> tuple[Any, ...]:
        """Samples of one kind can stand side by side in one matrix."""
        values = self.values
        return (values.device, values.dtype, values.numel() // values.shape[-1], self.bounds, self.span)


class Mark(NamedTuple):
    """How far counts had come: of shape (5, units) on each device, and batches of each site."""

    counts: dict[torch.device, Tensor]
    batches: dict[Hashable, int]


class Share(NamedTuple):
    """What one rank has collected, on the host: its sites, and by device totals and counts at the mark."""

    sites: dict[SiteKey, dict[str, Any]]
    ledgers: list[Packed]
    marks: list[Tensor | None]
    batches: dict[Hashable, int]


class UnitCollector:
    """Mean, variance, extremes and activity of the units of each site, over all observed forwards.

    A unit is a channel of a convolution or a feature of a linear layer; each position of each sample is
    one observation of it. `budget` bounds how many values a site contributes to one forward, None reads all.
    Samples are copied and reduced together when the forward is over: so many small reductions would cost far
    more than the values that they read.
    After marks, the activity of activations is that since the last mark but one where units came to rest, or
    to life, meanwhile: what dies in a training was alive at its start. Elsewhere it is that of all looks:
    there is more evidence in them.
    The model's own floating point inputs are the sites `:input`, `:input#1`; what a norm takes is the site
    of what computed it, or one of the kind `norm_input` where that was not observed.
    """

    need = "units"
    roles = frozenset({"activation", "linear", "norm", "softmax"})

    def __init__(self, budget: int | None = None) -> None:
        self.budget = budget
        self._ledgers: dict[torch.device, Ledger] = {}
        self._sites: dict[SiteKey, dict[str, Any]] = {}
        self._made: dict[int, tuple[weakref.ref[Tensor], SiteKey, int]] = {}
        self._waiting: list[Sampled] = []
        self._held = 0
        self._marks = [Mark({}, {}), Mark({}, {})]
        self._phase = 0

    @property
    def ledgers(self) -> list[Ledger]:
        """The totals of each device."""
        return list(self._ledgers.values())

    def start(self, model: nn.Module, inputs: Sequence[Any]) -> None:
        """Note the model's inputs; channels lie behind the batch in images, last in sequences."""
        self._made.clear()
        for place, value in enumerate(one for one in inputs if isinstance(one, Tensor)):
            if observable(value):
                axis = 1 if value.dim() > 3 else value.dim() - 1
                self._add(("", "input", place), "input", value, axis)

    def before(
        self, key: SiteKey, role: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> SiteKey | None:
        """Where does the input of a norm come from?"""
        kind = key[1]
        if role != "norm" or kind not in _INPUT_KINDS or not args or not observable(args[0]):
            return None
        value = args[0]
        if known := self._made.get(id(value)):
            reference, made, version = known
            if (held := reference()) is not None and held is value and version == version_of(held):
                return made
        axis = 1 if kind.startswith(("batch", "instance", "group")) and value.dim() > 1 else value.dim() - 1
        source = (key[0], f"{kind}_input", key[2])
        self._add(source, "norm_input", value, axis)
        return source

    def after(self, call: Call, before: SiteKey | None) -> None:
        """Add one output."""
        if call.kind in _LEFT_OUT:
            return
        bounds, span = BOUNDS.get(call.kind), RANGES.get(call.kind)
        if call.kind == "hardtanh":
            bounds = (float(call.argument(1, "min_val", -1.0)), float(call.argument(2, "max_val", 1.0)))
            span = bounds if bounds[0] < bounds[1] else None
        self._add(call.key, call.role, call.output, call.axis, bounds, span)
        if before is not None:
            self._sites[call.key]["norm_input"] = before
            place = ARGUMENTS[call.kind].index("eps")
            eps = call.argument(place, "eps", 1e-5)
            self._sites[call.key]["eps"] = float(eps) if isinstance(eps, float | int) else None

    def end(self, output: Any) -> None:
        """Merge what this forward added."""
        self._reduce()
        for ledger in self._ledgers.values():
            ledger.flush()
        self._phase += 1
        self._made.clear()

    def abort(self) -> None:
        """Merge what was seen before the forward raised: it was computed."""
        self.end(None)

    def mark(self) -> None:
        """Divide what was seen so far from what follows."""
        totals = {device: one.total for device, one in self._ledgers.items() if one.total is not None}
        # Half of the memory, where float32 holds the counts.
        exact = self.budget is not None and self.budget * self._phase < EXACT
        counts = {
            device: _counts(total).to(torch.float32 if exact else total.dtype)
            for device, total in totals.items()
        }
        batches = {key: count for one in self._ledgers.values() for key, count in one.batches.items()}
        self._marks = [self._marks[1], Mark(counts, batches)]

    def tensors(self) -> list[Tensor]:
        """The totals of each device, and the counts at the mark."""
        totals = [ledger.total for ledger in self._ledgers.values() if ledger.total is not None]
        return [*totals, *self._marks[0].counts.values()]

    def read(self, values: Sequence[Tensor]) -> dict[str, Any]:
        """The figures of each site, in the order in which they first ran."""
        left = iter(values)
        of_device = {device: next(left) for device, one in self._ledgers.items() if one.total is not None}
        earlier = {device: next(left) for device in self._marks[0].counts}
        found = {}
        for key, site in self._sites.items():
            device = site["device"]
            ledger = self._ledgers.get(device)
            if ledger is not None and key not in ledger.uneven and (batches := ledger.batches.get(key)):
                start, units = ledger.slots[key]
                rows = of_device[device][:, start : start + units]
                before = self._marks[0].batches.get(key, 0)
                lately = _counts(rows)
                if site["role"] == "activation" and 0 < before < batches:
                    late = lately - earlier[device][:, start : start + units]
                    if not torch.equal(_at_rest(late), _at_rest(lately)):
                        lately, batches = late, batches - before
                found[site_name(key)] = {
                    **_described(key, site),
                    "batches": batches,
                    **figures(rows, site["role"], lately),
                }
        return found

    def packed(self) -> Share:
        """What it has collected, for another rank."""
        marks = [self._marks[0].counts.get(device) for device in self._ledgers]
        return Share(
            self._sites,
            [ledger.packed() for ledger in self._ledgers.values()],
            [None if counts is None else counts.cpu().double() for counts in marks],
            self._marks[0].batches,
        )

    def joined(self, parts: Sequence[Share]) -> UnitCollector:
        """A collector that has seen what each of the parts has."""
        made, host = UnitCollector(self.budget), torch.device("cpu")
        ledger = made._ledgers[host] = Ledger()
        before: Counter[Hashable] = Counter()
        for part in parts:
            for key, site in part.sites.items():
                made._sites.setdefault(key, {**site, "device": host, "order": len(made._sites)})
            for one in part.ledgers:
                ledger.join(one)
            before.update(part.batches)
        if ledger.total is not None and before:
            marked = torch.zeros_like(_counts(ledger.total))
            pairs = [pair for part in parts for pair in zip(part.ledgers, part.marks, strict=True)]
            for one, counts in pairs:
                for place, (start, units) in one.slots.items() if counts is not None else ():
                    slot = ledger.slots[place]
                    if counts is not None and start < counts.shape[1] and slot.units == units:
                        marked[:, slot.start : slot.start + units] += counts[:, start : start + units]
            made._marks[0] = Mark({host: marked}, dict(before))
        return made

    def _add(
        self,
        key: SiteKey,
        role: str,
        output: Tensor,
        axis: int,
        bounds: tuple[float, float] | None = None,
        span: tuple[float, float] | None = None,
    ) -> None:
        if key not in self._sites:
            self._sites[key] = {
                "role": role,
                "device": output.device,
                "dtype": str(output.dtype).removeprefix("torch."),
                "order": len(self._sites),
            }
        device = self._sites[key]["device"]
        if output.device != device or output.shape[axis] == 0 or output.numel() == 0:
            return
        if self.budget is None:
            self._ledger(device).add(key, rows_of(output, axis, bounds, span))
        else:
            # A copy: what comes next may write to the output.
            values = thinned_copy(output, axis, self.budget, self._phase)
            self._waiting.append(Sampled(key, values, bounds, span))
            self._held += values.numel()
            if self._held > _WAITING:
                self._reduce()
        self._made[id(output)] = (weakref.ref(output), key, version_of(output))

    def _ledger(self, device: torch.device) -> Ledger:
        return self._ledgers.setdefault(device, Ledger())

    def _reduce(self) -> None:
        """Reduce the samples that wait, those of one kind side by side."""
        groups: dict[tuple[Any, ...], list[Sampled]] = {}
        for one in self._waiting:
            groups.setdefault(one.kind, []).append(one)
        self._waiting, self._held = [], 0
        for (device, *_), group in groups.items():
            units = [one.values.shape[-1] for one in group]
            parts = [one.values.view(-1, count) for one, count in zip(group, units, strict=True)]
            values = observations(torch.cat(parts, dim=1), 1)
            # Few enough are added up for float32 to hold the counts.
            rows = rows_of(values, 1, group[0].bounds, group[0].span).float()
            for one, part in zip(group, torch.split(rows, units, dim=1), strict=True):
                self._ledger(device).add(one.key, part)


def _described(key: SiteKey, site: dict[str, Any]) -> dict[str, Any]:
    path, kind, index = key
    said = {"module": path, "kind": kind, "call": index}
    said |= {name: site[name] for name in ("role", "order", "dtype")}
    if (before := site.get("norm_input")) is not None:
        said |= {"norm_input": site_name(before), "eps": site["eps"]}
    return said


def _counts(rows: Tensor) -> Tensor:
    """Of totals, the rows that count: of shape (5, units), `n`, `active`, `low`, `high` and `level`."""
    return torch.cat((rows[:1], rows[5:9]))


def _at_rest(counts: Tensor) -> Tensor:
    """Of counts of shape (5, units): which units are never on, always on, or nearly always at the bounds."""
    n, active, low, high, _ = counts
    return torch.stack([active == 0, active == n, low + high > 0.9 * n, high > 0.5 * n])


def figures(rows: Tensor, role: str, lately: Tensor) -> dict[str, Any]:
    """Plain data of one site, from its rows of shape (10, units) on the host and the counts to tell.

    `mean` and `std` are those of all values, `unit_mean` and `unit_std` those of each unit. `constant` holds
    the places of units whose value never changed. Activations have more lists of one value a unit: `active`
    (share above zero), `low` and `high` (share at the bounds of the activation, see `BOUNDS`); `level` is
    their mean distance from the middle of the range, 1 at its ends, and 0 where the range has no ends.
    """
    n, mean, m2, least, most, *_, bad = rows
    of_late, active, low, high, level = lately
    count = float(n.sum())
    pooled = float((n * mean).sum()) / max(count, 1.0)
    square = float((m2 + n * (mean - pooled) ** 2).sum()) / max(count, 1.0)
    per = n.clamp(min=1)
    seen = n > 0
    found = {
        "units": rows.shape[1],
        "observations": int(of_late.max()),
        "bad_batches": int(bad.max()),
        "mean": float(f"{pooled:.8g}"),
        "std": float(f"{square**0.5:.8g}"),
        "maximum": float(most[seen].max()) if count else 0.0,
        "minimum": float(least[seen].min()) if count else 0.0,
        "constant": ((most == least) & (n > 1)).nonzero().flatten().tolist(),
        "unit_mean": _significant(mean),
        "unit_std": _significant((m2 / per).sqrt()),
    }
    if role == "activation":
        parts = of_late.clamp(min=1)
        shares = {"active": active / parts, "low": low / parts, "high": high / parts}
        found |= {name: _rounded(share) for name, share in shares.items()}
        found["level"] = round(float(level.sum()) / max(float(of_late.sum()), 1.0), 6)
    return found


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 6) for value in values.tolist()]


def _significant(values: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]
