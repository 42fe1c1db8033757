"""How spread out attention is: the entropy of its weights, however they are computed."""

from __future__ import annotations

import inspect
import math
import weakref
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normdoctor.probing.calls import Call, SiteKey, observable, site_name
from normdoctor.probing.statistics import sample

#: How many weights of a site are looked at in one forward, where nobody bounds it otherwise.
BUDGET = 2**16
#: A score at or below this stands for a masked position: -inf, -1e9 and -1e4 are what people write.
MASKED = -5e3
#: With fewer keys there is no attention to speak of.
FEWEST_KEYS = 4

_WITH_VALUES = frozenset({"matmul", "einsum"})
_MULTI_HEAD = "multi_head_attention_forward"
_SIGNATURE = inspect.signature(F.multi_head_attention_forward)


class AttentionCollector:
    """Mean entropy of the attention weights of each site, and the most that it could be.

    A site is `scaled_dot_product_attention`, `nn.MultiheadAttention`, or a softmax whose result is multiplied
    with values. The entropy of a row (one query of one head) is in nats; the most is ln of the number of keys
    that its mask leaves. Rows with a single key left are not counted.
    """

    need = "attention"
    roles = frozenset({"softmax", "attention", "dropout", "reshape"})
    kinds = _WITH_VALUES | {_MULTI_HEAD}

    def __init__(self, budget: int | None = None) -> None:
        self.budget = min(budget or BUDGET, BUDGET)
        self._totals: dict[SiteKey, Tensor] = {}
        self._sites: dict[SiteKey, dict[str, Any]] = {}
        self._batches: dict[SiteKey, int] = {}
        self._weights: dict[int, tuple[weakref.ref[Tensor], SiteKey]] = {}
        self._pending: dict[SiteKey, Tensor] = {}
        self._confirmed: set[SiteKey] = set()
        self._phase = 0

    def start(self, model: nn.Module, inputs: Sequence[Any]) -> None:
        """A forward begins: nothing is attention yet."""
        self._clear()

    def before(
        self, key: SiteKey, role: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> SiteKey | None:
        """Which softmax made what is read here? Multiplied with values, it is attention."""
        first, *rest = (*args, *kwargs.values()) or (None,)
        found = self._origin(first)
        if key[1] in _WITH_VALUES:
            others = [item for one in rest for item in (one if isinstance(one, list | tuple) else (one,))]
            origins = [found, *map(self._origin, others)]
            self._confirmed |= {one for one in origins if one is not None}
            return None
        return found

    def after(self, call: Call, before: SiteKey | None) -> None:
        """Measure a softmax or an attention; follow the weights through dropout and views."""
        if before is not None and call.role in ("dropout", "reshape"):
            self._weights[id(call.output)] = (weakref.ref(call.output), before)
        elif call.kind == "softmax":
            self._softmax(call)
        elif call.kind == "scaled_dot_product_attention":
            self._note(call, _of_queries(call, self.budget))
        elif call.kind == _MULTI_HEAD:
            self._note(call, _of_heads(call, self.budget))

    def end(self, output: Any) -> None:
        """Add what was attention."""
        for key, sums in self._pending.items():
            if key in self._confirmed:
                known = self._totals.get(key)
                self._totals[key] = sums if known is None else known + sums
                self._batches[key] = self._batches.get(key, 0) + 1
        self._phase += 1
        self._clear()

    def abort(self) -> None:
        """Add what was seen before the forward raised."""
        self.end(None)

    def tensors(self) -> list[Tensor]:
        """Of each site the sum of entropies, the sum of the most they could be, and the number of rows."""
        return list(self._totals.values())

    def read(self, values: Sequence[Tensor]) -> dict[str, Any]:
        """The figures of each site, in the order in which they first ran."""
        found = dict(zip(self._totals, values, strict=True))
        return {
            site_name(key): {**self._sites[key], "batches": self._batches[key], **_figures(found[key])}
            for key in self._sites
            if key in found and float(found[key][2]) > 0
        }

    def packed(self) -> tuple[dict[SiteKey, dict[str, Any]], dict[SiteKey, int], dict[SiteKey, Tensor]]:
        """What it has collected, for another rank."""
        return self._sites, self._batches, {key: total.cpu() for key, total in self._totals.items()}

    def joined(self, parts: Sequence[tuple[Any, Any, Any]]) -> AttentionCollector:
        """A collector that has seen what each of the parts has."""
        made = AttentionCollector(self.budget)
        for sites, counts, totals in parts:
            for key, total in totals.items():
                made._sites.setdefault(key, {**sites[key], "order": len(made._sites)})
                made._batches[key] = made._batches.get(key, 0) + counts[key]
                made._totals[key] = made._totals[key] + total if key in made._totals else total
        return made

    def _clear(self) -> None:
        self._weights.clear()
        self._pending.clear()
        self._confirmed.clear()

    def _origin(self, value: Any) -> SiteKey | None:
        reference, key = self._weights.get(id(value), (None, None))
        return key if reference is not None and reference() is value else None

    def _softmax(self, call: Call) -> None:
        scores, dim = call.argument(0, "input"), call.argument(1, "dim")
        if type(dim) is not int or call.output.dim() < 2 or call.output.shape[dim] < FEWEST_KEYS:
            return
        if not isinstance(scores, Tensor) or scores.shape != call.output.shape:
            return
        axis = dim % call.output.dim()
        weights = sample(call.output, axis, self.budget, self._phase)
        left = sample(scores, axis, self.budget, self._phase) > MASKED
        self._weights[id(call.output)] = (weakref.ref(call.output), call.key)
        sums = _sums(weights.float().movedim(axis, -1), left.movedim(axis, -1))
        self._keep(call, sums, weights.shape[axis])

    def _note(self, call: Call, measured: tuple[Tensor, Tensor] | None) -> None:
        if measured is not None and measured[0].shape[-1] >= FEWEST_KEYS:
            self._confirmed.add(call.key)
            self._keep(call, _sums(*measured), measured[0].shape[-1])

    def _keep(self, call: Call, sums: Tensor, keys: int) -> None:
        path, kind, index = call.key
        self._pending[call.key] = sums
        self._sites.setdefault(
            call.key,
            {"module": path, "kind": kind, "call": index, "role": call.role, "order": len(self._sites)},
        )["keys"] = keys


def _sums(weights: Tensor, left: Tensor) -> Tensor:
    """Sums over rows of the entropy and of its bound, and their number; weights of shape (..., keys)."""
    entropy = torch.special.entr(weights).sum(-1)
    keys = left.expand_as(weights).sum(-1)
    counted = (keys > 1) & torch.isfinite(entropy)
    most = torch.log(keys.clamp(min=1).float())
    zero = torch.zeros_like(entropy)
    parts = (torch.where(counted, entropy, zero), torch.where(counted, most, zero), counted.to(entropy.dtype))
    return torch.stack([part.sum() for part in parts])


def _figures(sums: Tensor) -> dict[str, Any]:
    entropy, most, rows = sums.tolist()
    return {
        "rows": int(rows),
        "entropy": float(f"{entropy / rows:.6g}"),
        "most": float(f"{most / rows:.6g}"),
        "ratio": float(f"{entropy / max(most, 1e-12):.6g}"),
    }


def _of_queries(call: Call, budget: int) -> tuple[Tensor, Tensor] | None:
    """Weights, and which keys are not masked, of a sample of the queries of a fused attention."""
    query, key = call.argument(0, "query"), call.argument(1, "key")
    mask, causal = call.argument(3, "attn_mask"), bool(call.argument(5, "is_causal", False))
    scale = call.argument(6, "scale")
    if not observable(query) or not observable(key) or query.dim() < 2:
        return None
    length, keys = query.shape[-2], key.shape[-2]
    heads = math.prod(query.shape[:-2])
    if query.dim() > 2:
        count = max(1, min(len(query), budget * len(query) // max(heads * length * keys, 1)))
        if isinstance(mask, Tensor) and mask.dim() == query.dim() and len(mask) == len(query):
            mask = mask[:count]
        heads = heads // len(query) * count
        query, key = query[:count], key[:count] if len(key) > 1 else key
    step = max(1, heads * length * keys // budget)
    query = query[..., ::step, :]
    if query.dim() > 2 and key.shape[-3] not in (1, query.shape[-3]):
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = query.float() @ key.float().transpose(-2, -1)
    scores = scores * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if isinstance(mask, Tensor):
        mask = mask[..., ::step, :] if mask.dim() > 1 and mask.shape[-2] == length else mask
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype is torch.bool else scores + mask.float()
    if causal:
        place = torch.arange(0, length, step, device=scores.device).unsqueeze(-1)
        scores = scores.masked_fill(torch.arange(keys, device=scores.device) > place, -math.inf)
    return scores.softmax(-1), scores > MASKED


def _of_heads(call: Call, budget: int) -> tuple[Tensor, Tensor] | None:
    """Weights, and which keys are not masked, of a sample of what nn.MultiheadAttention computes."""
    given = dict(_SIGNATURE.bind(*call.args, **call.kwargs).arguments)
    query, key, heads = given["query"], given["key"], given["num_heads"]
    padding, mask = given.get("key_padding_mask"), given.get("attn_mask")
    if not observable(query) or query.dim() not in (2, 3):
        return None
    length, keys = len(query), len(key)
    if query.dim() == 3:
        count = max(1, min(query.shape[1], budget // max(heads * length * keys, 1)))
        given |= {name: given[name][:, :count] for name in ("query", "key", "value")}
        padding = padding[:count] if padding is not None else None
        mask = mask[: count * heads] if mask is not None and mask.dim() == 3 else mask
    step = max(1, heads * length * keys // budget)
    given["query"] = given["query"][::step]
    mask = mask[..., ::step, :] if mask is not None else None
    given |= {
        "key_padding_mask": padding,
        "attn_mask": mask,
        "is_causal": False,
        "training": False,
        "need_weights": True,
        "average_attn_weights": False,
    }
    weights = F.multi_head_attention_forward(**given)[1]
    if weights is None:
        return None
    left = torch.ones_like(weights, dtype=torch.bool)
    if weights.shape[-1] != keys:  # keys were added: bias_k, add_zero_attn
        return weights.float(), left
    if mask is not None:
        open_ = ~mask if mask.dtype is torch.bool else mask > MASKED
        left &= open_ if open_.dim() == 2 else open_.reshape(weights.shape)
    if padding is not None:
        open_ = ~padding if padding.dtype is torch.bool else padding > MASKED
        left &= open_[:, None, None, :] if open_.dim() == 2 else open_
    return weights.float(), left
