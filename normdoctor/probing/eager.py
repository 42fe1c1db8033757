"""Running eagerly while somebody looks: code that was compiled before runs no new hooks."""

from __future__ import annotations

import sys
from typing import Any

import torch


class Eager:
    """Turns `torch.compile` off while at least one watch is looking; several may look at once."""

    def __init__(self) -> None:
        self._inside: set[int] = set()
        self._stance: Any = None

    def enter(self, who: object) -> None:
        """`who` begins to look."""
        self._inside.add(id(who))
        # torch.compile imports torch._dynamo: where that is missing nothing is compiled.
        if self._stance is None and "torch._dynamo" in sys.modules:
            self._stance = torch.compiler.set_stance("force_eager")

    def leave(self, who: object) -> None:
        """`who` no longer looks. May be called more than once."""
        self._inside.discard(id(who))
        if not self._inside and self._stance is not None:
            stance, self._stance = self._stance, None
            stance.__exit__(None, None, None)


#: One for the process: the stance is the process's.
eager = Eager()
