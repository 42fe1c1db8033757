"""Short names of norms, as people write them, for "did you mean ...?"."""

from __future__ import annotations

import re

from normdoctor.errors import near

SHORT = {
    "bn": "batch",
    "gn": "group",
    "in": "instance",
    "ln": "layer",
    "rn": "rms",
    "sbn": "sync",
    "syncbn": "sync",
    "fbn": "frozen",
}


def near_norms(text: str, candidates: list[str]) -> str | None:
    """As `normdoctor.errors.near`, also for `bn->gn`, `BatchNorm2d->GroupNorm` and `batch2group`."""
    words = re.split(r"\s*(?:->|-|_to_|\bto\b|2(?=[a-z])|,)\s*", text.lower())
    words = [re.sub(r"_?norm(?:alization)?(?:\dd)?$", "", word.strip()) for word in words]
    spelled = "->".join(SHORT.get(word, word) for word in words)
    if spelled in candidates:
        return f"Did you mean `{spelled}`?"
    return near(spelled, candidates) or near(text, candidates)
