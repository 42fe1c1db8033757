"""A journal of every change that is made to a model and its optimizers, so that all can be taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from normdoctor.errors import brief
from normdoctor.rewriting.conversions.base import Refused


class Journal:
    """Makes changes and knows how to undo them. What was undone is as it was, down to the objects."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self.written: list[Tensor] = []
        """Tensors that hold other values now."""

    def become(self, old: nn.Module, new: nn.Module) -> None:
        """Turn `old` into what `new` is: whoever holds the old object holds the new layer.

        So every alias follows, in whatever container it stands, and so do hooks that know their module.
        """
        kind, attributes = type(old), dict(vars(old))
        try:
            old.__class__ = type(new)
        except TypeError as error:  # slots, classes of a C extension
            raise Refused(f"a {kind.__name__} cannot change its class: {brief(error)}") from error

        def restore() -> None:
            old.__class__ = kind
            vars(old).clear()
            vars(old).update(attributes)

        self._undo.append(restore)
        vars(old).clear()
        vars(old).update(vars(new))

    def put(self, container: dict[str, Any], key: str, value: Any) -> None:
        """Set an entry of a dict, such as `module._parameters`."""
        before = dict(container)

        def restore() -> None:
            container.clear()
            container.update(before)

        self._undo.append(restore)
        container[key] = value

    def write(self, tensor: Tensor, values: Tensor) -> None:
        """Give a tensor other values; the object and its memory stay."""
        kept = tensor.detach().clone()

        def restore() -> None:
            with torch.no_grad():
                tensor.copy_(kept)

        self._undo.append(restore)
        self.written.append(tensor)
        with torch.no_grad():
            tensor.copy_(values)

    def call(self, undo: Callable[[], None]) -> None:
        """Note how to undo a change that somebody else makes."""
        self._undo.append(undo)

    def restore(self) -> None:
        """Undo everything, the last change first."""
        while self._undo:
            self._undo.pop()()
        self.written.clear()
