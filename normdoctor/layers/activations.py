"""The activations that a norm can take over: a closed list, since kernels exist for each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from normdoctor.errors import UsageError, near

#: "leaky_relu" has torch's slope of 0.01; "gelu" is the exact one, "gelu_tanh" its approximation.
Activation = Literal["relu", "leaky_relu", "silu", "gelu", "gelu_tanh"]
LEAKY_SLOPE = 0.01

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
}


def activate(y: Tensor, activation: Activation | None) -> Tensor:
    """`activation(y)`; `y` itself for None."""
    return y if activation is None else _FUNCTIONS[activation](y)


def known(activation: str | None) -> Activation | None:
    """Return the name if there is such an activation.

    Raises:
        UsageError: If there is none of that name.
    """
    names = list(get_args(Activation))
    if activation is not None and activation not in names:
        hint = near(activation, names) if isinstance(activation, str) else None
        raise UsageError(f"activation is one of {', '.join(names)} or None; got {activation!r}", hint=hint)
    return activation  # type: ignore[return-value]
