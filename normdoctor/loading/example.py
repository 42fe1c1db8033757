"""The inputs that one forward is recorded with, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

InputSource = Literal["given", "data", "declared", "captured", "inferred"]


@dataclass(frozen=True)
class ExampleInputs:
    """Arguments for one call of a model.

    `source` says who chose them: the user (`given`, or `data` for the first of the batches that were given),
    the file or the model (`declared`), the file's own first call (`captured`) or normdoctor (`inferred`).
    `note` says more, for the report; `names` holds the names of the positional ones where they are known.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    source: InputSource = "given"
    note: str = ""
    names: tuple[str, ...] = ()

    def name(self, index: int) -> str:
        """The name of a positional argument, as far as it is known."""
        return self.names[index] if index < len(self.names) else ("input" if index == 0 else f"input_{index}")
