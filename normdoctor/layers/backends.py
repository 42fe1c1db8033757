"""Which implementation runs: the layer's own choice, or the one that was set for the whole process."""

from __future__ import annotations

from types import TracebackType
from typing import Literal, get_args

import torch
from torch import Tensor

from normdoctor.errors import UsageError, near

#: "reference" is the written-out formula, "torch" are torch's kernels, "triton" the own kernels on a card;
#: "auto" takes what was measured to be the fastest for the shape, layout, type and device.
Backend = Literal["auto", "reference", "torch", "triton"]

_default: Backend = "auto"


class use_backend:  # noqa: N801  (read as a verb, like torch.no_grad)
    """Sets the backend of all layers that were built with `backend="auto"`, for the whole process.

    A plain call holds until the next one; as a context manager, the former choice comes back.

    Example:
        >>> layer = LayerNorm(8)
        >>> with use_backend("reference"):
        ...     y = layer(torch.randn(2, 8))

    Raises:
        UsageError: If there is no such backend.
    """

    def __init__(self, backend: Backend) -> None:
        global _default  # noqa: PLW0603  (one setting for the process is what it is for)
        self._former = _default
        _default = known(backend)

    def __enter__(self) -> None:
        """Leave it as the constructor set it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Bring the former choice back."""
        global _default  # noqa: PLW0603
        _default = self._former


def known(backend: str) -> Backend:
    """Return the name if there is such a backend.

    Raises:
        UsageError: If there is none of that name.
    """
    names = list(get_args(Backend))
    if backend not in names:
        hint = near(backend, names) if isinstance(backend, str) else None
        raise UsageError(f"backend is one of {', '.join(names)}; got {backend!r}", hint=hint)
    return backend  # type: ignore[return-value]


def chosen(backend: Backend) -> Backend:
    """The choice of a layer, or the process's where it has none."""
    return _default if backend == "auto" else backend


def transformed(x: Tensor) -> bool:
    """Is something else at work than eager torch on plain tensors?

    Compilers, exporters, recorders, `torch.func` and forward-mode differentiation understand torch's own
    functions best. Tensors of other classes (fake ones, DTensor) and those without data have no kernels of
    ours.
    """
    return torch._C._is_torch_function_mode_enabled() or special(x)


def special(x: Tensor) -> bool:
    """The same, but for recorders of calls, under which a layer may compute as ever."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
        or type(x) not in (Tensor, torch.nn.Parameter)
        or x.is_meta
    )
