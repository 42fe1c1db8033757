"""The arguments of what a call calls: names in order, with the defaults."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from typing import Any

#: What Python cannot tell of functions and methods that are written in C.
_BUILTINS = {
    "torch.softmax": "input dim dtype",
    "torch.log_softmax": "input dim dtype",
    "torch.dropout": "input p train",
    "torch.dropout_": "input p train",
    "torch.alpha_dropout": "input p train",
    "torch.feature_dropout": "input p train",
    "torch.relu": "input",
    "torch.relu_": "input",
    "torch.sigmoid": "input",
    "torch.sigmoid_": "input",
    "torch.tanh": "input",
    "torch.clamp": "input min max",
    "torch.nn.functional.logsigmoid": "input",
    "torch.nn.functional.scaled_dot_product_attention": "query key value attn_mask dropout_p is_causal",
    ".softmax": "dim dtype",
    ".log_softmax": "dim dtype",
    ".sigmoid": "",
    ".relu": "",
    ".clamp": "min max",
}
_PLAIN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Parameters:
    """`names` are those that can be given by position, in order; `others` by keyword only.

    `open` says that any keyword is taken.
    """

    names: tuple[str, ...]
    others: frozenset[str] = frozenset()
    open: bool = False

    def takes(self, name: str) -> bool:
        """Can the argument be given by keyword?"""
        return name in self.names or name in self.others or self.open


def found(full: str) -> Any:
    """The object of torch's of this full name; None where there is none."""
    parts = full.split(".")
    if parts[0] not in ("torch", "normdoctor"):
        return None
    value: Any = importlib.import_module(parts[0])
    for part in parts[1:]:
        value = getattr(value, part, None)
        if value is None:
            return None
    return value


def of_function(full: str) -> Parameters | None:
    """The parameters of a function of torch's (`torch.softmax`), or of a method of tensors (`.softmax`)."""
    if full in _BUILTINS:
        return Parameters(tuple(_BUILTINS[full].split()))
    function = found(full)
    return of_callable(function) if function is not None else None


def of_callable(function: Any) -> Parameters | None:
    """The parameters of a function, or of the constructor of a class; None where they cannot be told."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    parameters = signature.parameters.values()
    return Parameters(
        tuple(one.name for one in parameters if one.kind in _PLAIN),
        frozenset(one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY),
        any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters),
    )
