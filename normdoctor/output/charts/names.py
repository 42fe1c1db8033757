"""What places of a model are called in charts."""

from __future__ import annotations


def called(module: str, call: int = 0) -> str:
    """A module by its path, with the call where it is not the first of its kind there."""
    name = module or "the model"
    return f"{name} (call {call + 1})" if call else name
