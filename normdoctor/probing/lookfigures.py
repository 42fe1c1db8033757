"""Scalars of one look, from totals that have arrived on the host."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import isnan
from typing import Any

import torch
from torch import Tensor, nn

from normdoctor.probing.gradientbank import NORM, UPDATE, WEIGHT, Bank
from normdoctor.probing.ledger import Ledger, Slot
from normdoctor.probing.normrows import ROWS
from normdoctor.probing.normstats import NormCollector
from normdoctor.probing.statistics import BOUNDS
from normdoctor.probing.units import UnitCollector
from normdoctor.rules.sites import RELUS
from normdoctor.tracing.roles import kind_of_module

PREFIX = "normdoctor"
#: Stands for the path of the whole model, which is empty.
MODEL = f"{PREFIX}/model"

_GAP, _VARIANCE = ROWS.index("gap_square"), ROWS.index("last_variance")


class Tags:
    """The names of scalars: `normdoctor/<module>/<metric>`.

    Of a layer the metric stands alone: `normdoctor/body.0/mean`. That of a function that a forward calls is
    named after the function: `normdoctor/body/relu_mean`, `normdoctor/body/relu2_mean` for the second call.
    """

    def __init__(self, model: nn.Module) -> None:
        roles = {path: kind_of_module(type(one))[1] for path, one in model.named_modules()}
        self._layers = {path for path, role in roles.items() if role in UnitCollector.roles}

    def of(self, path: str, metric: str) -> str:
        """The name of a metric of a module."""
        return f"{PREFIX}/{path}/{metric}" if path else f"{MODEL}/{metric}"

    def site(self, key: Any) -> str:
        """What the names of a site's metrics begin with."""
        path, kind, index = key
        number = "" if index == 0 else str(index + 1)
        if kind.endswith("_norm_input"):
            return self.of(path, f"input{number}_")
        alone = path in self._layers and not index
        return self.of(path, "" if alone else f"{kind}{number}_")


def site_figures(tags: Tags, ledger: Ledger, rows: Tensor, before: Sequence[Tensor]) -> dict[str, float]:
    """Figures of the sites of a ledger.

    `rows` of shape (6, units) are totals since the watch, or its window, began: n, mean, m2, active, low and
    high; `before` are those of earlier looks. Mean and variance are of this look: what is new since the last.
    """
    sites = _sites(ledger, rows.shape[1])
    columns = torch.cat([torch.arange(slot.start, slot.start + slot.units) for slot in sites.values()])
    owner = torch.repeat_interleave(torch.tensor([slot.units for slot in sites.values()]))
    now = rows[:, columns]
    last = _padded(before[-1], rows)[:, columns] if before else torch.zeros_like(now)
    oldest = _padded(before[0], rows)[:, columns] if before else last

    def total(values: Tensor) -> Tensor:
        return torch.zeros(len(sites), dtype=values.dtype).index_add_(0, owner, values)

    n, mean, m2 = _apart(now[:3], last[:3])
    count = total(n)
    pooled = total(n * mean) / count.clamp(min=1)
    variance = total(m2 + n * (mean - pooled[owner]).square()) / count.clamp(min=1)
    lately = now - oldest
    dead = total(((lately[0] > 0) & (lately[3] == 0)).to(n.dtype)) / total(torch.ones_like(n))
    bounded = total((now - last)[4:].sum(0)) / count.clamp(min=1)
    found: dict[str, float] = {}
    for place, key in enumerate(sites):
        if not count[place]:
            continue
        tag, kind = tags.site(key), key[1]
        found[f"{tag}mean"], found[f"{tag}variance"] = float(pooled[place]), float(variance[place])
        if kind in RELUS:
            found[f"{tag}dead_units"] = float(dead[place])
        elif kind in BOUNDS:
            found[f"{tag}saturated"] = float(bounded[place])
    return found


def gap_figures(tags: Tags, norms: NormCollector, ledger: Ledger, rows: Tensor) -> dict[str, float]:
    """How far running means are from those of the last batches, in running standard deviations."""
    found: dict[str, float] = {}
    for key, slot in _sites(ledger, rows.shape[1]).items():
        here = rows[:, slot.start : slot.start + slot.units]
        if norms.tracks(key):
            square = here[_GAP] / here[_VARIANCE].clamp(min=1e-12)
            found[f"{tags.site(key)}running_mean_gap"] = float(square.mean().sqrt())
    return found


def parameter_figures(tags: Tags, bank: Bank, table: Tensor) -> dict[str, float]:
    """Gradients and updates of parameters, from a table of shape (rows of the bank, parameters)."""
    found: dict[str, float] = {}
    for member, norm, weight, update in zip(
        bank.members, table[NORM].tolist(), table[WEIGHT].tolist(), table[UPDATE].tolist(), strict=True
    ):
        one = bank.parameters[member]
        tag = tags.of(one.module, one.name.rpartition(".")[2])
        if norm != -1:
            found[f"{tag}_gradient_rms"] = norm / max(one.elements, 1) ** 0.5
        if weight > 0 and not isnan(update):  # NaN: no step was seen
            found[f"{tag}_update_ratio"] = update / weight
    return found


def _apart(now: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and squared deviations of what came after `last`; the inverse of `ledger.merge`."""
    n = now[0] - last[0]
    mean = (now[0] * now[1] - last[0] * last[1]) / n.clamp(min=1)
    shift = (mean - last[1]).square() * last[0] * n / now[0].clamp(min=1)
    return n, mean, (now[2] - last[2] - shift).clamp(min=0)


def _padded(rows: Tensor, like: Tensor) -> Tensor:
    return nn.functional.pad(rows, (0, like.shape[1] - rows.shape[1]))


def _sites(ledger: Ledger, width: int) -> Mapping[Any, Slot]:
    """The sites whose units had come by then."""
    slots: Mapping[Hashable, Slot] = ledger.slots
    return {
        key: slot
        for key, slot in slots.items()
        if key not in ledger.uneven and slot.start + slot.units <= width
    }
