"""The figures of gradients and updates as plain data, from what has arrived on the host."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class Parameter:
    """A parameter and what is known about it on the host.

    `place` counts layers from the input, as the backward told; `optimized` says that an optimizer stepped
    with it, `rate` with which learning rate; `looks` counts looks since the first.
    """

    name: str
    module: str
    tensor: nn.Parameter
    shape: tuple[int, ...]
    elements: int
    owner: str
    optimized: bool = False
    rate: float | None = None
    looks: int = 0
    place: int | None = None

    @staticmethod
    def of(model: nn.Module, name: str, tensor: nn.Parameter) -> Parameter:
        """A parameter by its name in the model."""
        module = name.rpartition(".")[0]
        owner = type(model.get_submodule(module)).__name__
        return Parameter(name, module, tensor, tuple(tensor.shape), tensor.numel(), owner)

    @property
    def described(self) -> dict[str, Any]:
        """What all figures of a parameter hold."""
        return {
            "module": self.module,
            "kind": self.name.rpartition(".")[2],
            "role": "parameter",
            "call": 0,
            "owner": self.owner,
            "shape": list(self.shape),
            "elements": self.elements,
            "place": self.place,
            "trainable": self.tensor.requires_grad,
            "looks": self.looks,
        }


def gradient_figures(
    one: Parameter, steps: list[int], tables: Tensor, counts: Tensor, *, stepped: bool
) -> dict[str, Any]:
    """Figures of the need "gradients" for one parameter.

    Args:
        one: The parameter.
        steps: The steps of the last looks.
        tables: What was noted at those looks, of shape (looks, rows of `gradientbank.ROWS`).
        counts: The counters of the bank.
        stepped: An optimizer was seen, so that `optimized` means something.

    Returns:
        `seen`, `zero` and `bad` count looks with a gradient, with one that is zero, with one that is not
        finite, out of `looks`; `norms` (None: no gradient) at `steps`, and with fp16 `zeros` and `grid`.
    """
    norms = [None if value == -1 else significant(value) for value in tables[:, 0].tolist()]
    found = {
        **one.described,
        "optimized": one.optimized if stepped else None,
        "seen": int(counts[0]),
        "zero": int(counts[1]),
        "bad": int(counts[2]),
        "steps": steps,
        "norms": norms,
    }
    zeros, grid = _known(tables[:, 5]), _known(tables[:, 6])
    if any(value is not None for value in zeros):
        found |= {"zeros": zeros, "grid": grid}
    return found


def update_figures(one: Parameter, tables: Tensor, counts: Tensor) -> dict[str, Any]:
    """Figures of the need "updates" for one parameter, from a sample of its entries.

    `ratios` are norm(update) / norm(weight) of the last looks (None where the weight is zero or no step was
    seen); `still` counts looks in which the sample had a gradient and did not change, of `moved`
    looks in which it had one; `spoilt` says that the weight itself was not finite before a step.
    """
    weights, updates = tables[:, 2].tolist(), tables[:, 3].tolist()
    ratios = [
        significant(update / weight) if weight > 0 and not math.isnan(update) else None
        for weight, update in zip(weights, updates, strict=True)
    ]
    return {
        **one.described,
        "rate": one.rate,
        "still": int(counts[3]),
        "moved": int(counts[4]),
        "ratios": ratios,
        "spoilt": any(
            not (math.isnan(changed) or math.isfinite(weight))
            for weight, changed in zip(weights, tables[:, 4].tolist(), strict=True)
        ),
    }


def _known(values: Tensor) -> list[float | None]:
    return [None if math.isnan(value) else round(value, 4) for value in values.tolist()]


def significant(value: float) -> float:
    """A number with the digits that a float32 holds."""
    return float(f"{value:.6g}")
