"""The inputs that a model is run with, and where they came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Source = Literal["given", "declared", "captured", "inferred"]


@dataclass(frozen=True)
class ExampleInputs:
    """Arguments of one call of the model.

    `names` holds the names of the positional ones where they are known; `note` says how they were
    found, in words for the report.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    source: Source = "given"
    note: str = ""
    names: tuple[str, ...] = ()

    def name(self, index: int) -> str:
        """The name of a positional argument."""
        return self.names[index] if index < len(self.names) else ("input" if index == 0 else f"input_{index}")
