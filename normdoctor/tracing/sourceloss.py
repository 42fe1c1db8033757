"""Losses, read off the source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from normdoctor.facts import Location


@dataclass(frozen=True)
class SourceLoss:
    """A loss that the source applies to a model's output."""

    kind: str
    location: Location
    model: str | None = None
    argument: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    through: tuple[str, ...] = ()


def losses_in(source: str, file: str) -> tuple[SourceLoss, ...]:
    """The losses of one file."""
    return ()
