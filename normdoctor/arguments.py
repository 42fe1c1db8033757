"""Arguments of `check` that are no model and no data: their types, and what is made of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from normdoctor.errors import UsageError, kind_of
from normdoctor.selection import split_selectors


def check_types(optimizer: object, reference: object) -> None:
    """Raise UsageError for an optimizer or a reference that is none."""
    import torch

    if not isinstance(optimizer, torch.optim.Optimizer | None):
        raise UsageError(f"optimizer is {kind_of(optimizer)}: expected a torch.optim.Optimizer")
    if not isinstance(reference, torch.nn.Module | None):
        raise UsageError(f"reference is {kind_of(reference)}: expected an nn.Module")


def path_of(argument: str, value: object) -> Path | None:
    """The path that was given, or None."""
    if value is None or isinstance(value, str | os.PathLike):
        return None if value is None else Path(value)
    raise UsageError(f"{argument} is {kind_of(value)}: expected the path of a checkpoint")


def selectors(argument: str, value: str | Sequence[str] | None) -> tuple[str, ...]:
    """The selectors of rules that were given as a text or a list of them."""
    if value is None:
        return ()
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise UsageError(
            f"{argument} is {kind_of(value)}: expected the codes or names of rules",
            hint=f'For example {argument}="ND1" or {argument}=["ND101", "bias-before-norm"].',
        )
    found = split_selectors(texts)
    if not found and argument == "select":
        raise UsageError("select names no rule", hint="Leave it out to run all rules.")
    return found
