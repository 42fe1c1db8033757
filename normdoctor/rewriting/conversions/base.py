"""What a conversion says: which layers it is about, what takes their place, and where it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn


@dataclass(frozen=True, slots=True)
class Place:
    """A layer to be converted: where it stands, and the shapes of the inputs that it was seen to take."""

    path: str
    module: nn.Module
    shapes: tuple[tuple[int, ...], ...] = ()


class Refused(Exception):  # noqa: N818  (an answer, caught by `convert`)
    """Says why one layer cannot be converted; the others are."""


class Conversion:
    """One conversion of layers. `num_groups` is what the user asked for, None to choose.

    Attributes:
        spec: What the user calls it.
        exact: Whether the outputs stay the same.
        own_state: Names of parameters, buffers and settings of the old layer that do not outlive it.
    """

    spec: ClassVar[str] = ""
    exact: ClassVar[bool] = False
    own_state: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, num_groups: int | None = None) -> None:
        self.num_groups = num_groups

    def concerns(self, module: nn.Module) -> bool:
        """Is it a layer that this conversion is about?"""
        raise NotImplementedError

    def replacement(self, place: Place) -> nn.Module:
        """Build the layer that takes the place of another, or raise `Refused`."""
        raise NotImplementedError

    def notes(self, places: list[Place]) -> list[str]:
        """What the user should know about the layers that were replaced."""
        return []
