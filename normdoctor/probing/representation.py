"""The last hidden representation: how different the samples of a batch still are in front of the head."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from normdoctor.probing.calls import Call, SiteKey, observable, site_name
from normdoctor.probing.statistics import sample

#: The most rows of a forward, forwards that are kept, and features of a row.
ROWS = 64
FORWARDS = 8
FEATURES = 2048

_HEADS = frozenset("linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d".split())


class RepresentationCollector:
    """Likeness and rank of what the last layer of a forward reads, beside those of the model's inputs.

    A row is one position of one sample. Rows of the last forwards are kept: at most `ROWS` of each, evenly
    spaced, with at most `FEATURES` features.
    """

    need = "representation"
    roles = frozenset({"linear"})

    def __init__(self, budget: int | None = None) -> None:
        self._kept: deque[tuple[SiteKey, int, Tensor, Tensor]] = deque(maxlen=FORWARDS)
        self._last: tuple[SiteKey, Tensor, int] | None = None
        self._inputs: Tensor | None = None
        self._batches = 0

    def start(self, model: nn.Module, inputs: Sequence[Any]) -> None:
        """Note the model's inputs, one row a sample."""
        self._last = None
        given = [one for one in inputs if isinstance(one, Tensor) and one.dim() and one.numel()]
        given = [one for one in given if not one.is_complex() and not one.is_meta]
        self._inputs = None
        if given and observable(given[0].float()):
            parts = [_rows(one.flatten(1) if one.dim() > 1 else one.unsqueeze(-1), -1) for one in given]
            self._inputs = torch.cat([part for part in parts if len(part) == len(parts[0])], 1)

    def before(self, key: SiteKey, role: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Nothing is needed before a layer runs."""

    def after(self, call: Call, before: None) -> None:
        """Remember the layer that ran last, and what it read."""
        value = call.argument(0, "input")
        if call.kind in _HEADS and observable(value) and value.dim() > 1:
            self._last = (call.key, value, call.output.shape[call.axis])

    def end(self, output: Any) -> None:
        """Keep a sample of what the last layer of this forward read."""
        if self._last is not None and self._inputs is not None:
            key, value, outputs = self._last
            axis = value.dim() - 1 if key[1] == "linear" else 1
            self._kept.append((key, outputs, _rows(value.detach(), axis), self._inputs))
            self._batches += 1
        self._last = self._inputs = None

    def abort(self) -> None:
        """A forward that raised has no last layer."""
        self._last = self._inputs = None

    def tensors(self) -> list[Tensor]:
        """Samples of the representation and of the inputs, in pairs."""
        return [one for _, _, rows, inputs in self._kept for one in (rows, inputs)]

    def read(self, values: Sequence[Tensor]) -> dict[str, Any]:
        """The figures of the layer that ran last."""
        if not self._kept:
            return {}
        key, outputs, rows, _ = self._kept[-1]
        of_key = [
            place
            for place, (one, _, other, _) in enumerate(self._kept)
            if one == key and other.shape[1:] == rows.shape[1:]
        ]
        inside = torch.cat([values[2 * place] for place in of_key])
        width = values[2 * of_key[-1] + 1].shape[1]
        given = [values[2 * place + 1] for place in of_key]
        outside = torch.cat([one for one in given if one.shape[1] == width])
        path, kind, index = key
        return {
            site_name(key): {
                "module": path,
                "kind": kind,
                "call": index,
                "role": "linear",
                "order": 0,
                "batches": self._batches,
                "outputs": outputs,
                "rows": len(inside),
                "features": inside.shape[1],
                **likeness(inside),
                **{f"input_{name}": value for name, value in likeness(outside).items()},
            }
        }

    def packed(self) -> tuple[int, list[tuple[SiteKey, int, Tensor, Tensor]]]:
        """What it has collected, for another rank."""
        kept = [(key, outputs, rows.cpu(), inputs.cpu()) for key, outputs, rows, inputs in self._kept]
        return self._batches, kept

    def joined(
        self, parts: Sequence[tuple[int, list[tuple[SiteKey, int, Tensor, Tensor]]]]
    ) -> RepresentationCollector:
        """A collector that has seen what each of the parts has."""
        made = RepresentationCollector()
        made._kept = deque(one for _, kept in parts for one in kept)
        made._batches = sum(count for count, _ in parts)
        return made


def likeness(rows: Tensor) -> dict[str, float]:
    """How alike rows are: their mean pairwise cosine, their spread and their effective rank.

    `spread` is the norm of the rows without their mean over the norm of the rows: 0 where all are equal.
    `rank` is the effective rank of the rows without their mean: the exponential of the entropy of their
    singular values (Roy and Vetterli, The effective rank, EUSIPCO 2007).
    """
    if len(rows) < 2 or not bool(torch.isfinite(rows).all()):
        return {"cosine": 0.0, "spread": 1.0, "rank": float(len(rows))}
    unit = torch.nn.functional.normalize(rows, dim=1)
    cosines = unit @ unit.T
    count = len(rows)
    cosine = (cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1))
    centred = rows - rows.mean(0)
    size = rows.norm()
    spread = float(centred.norm() / size) if size > 0 else 0.0
    values = torch.linalg.svdvals(centred)
    share = values / values.sum().clamp(min=1e-300)
    rank = float(torch.special.entr(share).sum().exp()) if spread > 0 else 0.0
    return {"cosine": round(float(cosine), 6), "spread": float(f"{spread:.4g}"), "rank": round(rank, 3)}


def _rows(value: Tensor, axis: int) -> Tensor:
    """At most `ROWS` rows of at most `FEATURES` features, evenly spaced; features lie along `axis`."""
    axis %= value.dim()
    rows = sample(value, axis, ROWS * value.shape[axis]).movedim(axis, -1).flatten(0, -2)
    rows = rows[:: max(1, -(-rows.shape[0] // ROWS)), :: max(1, -(-rows.shape[1] // FEATURES))]
    return rows.float() if not rows.dtype.is_floating_point or rows.dtype.itemsize < 4 else rows.clone()
