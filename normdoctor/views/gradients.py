"""The gradients of the weights by depth, over the steps of a watched training."""

from __future__ import annotations

from typing import Any

import msgspec

from normdoctor.facts import Facts


class GradientPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The gradient of one weight.

    Args:
        parameter: Its name: `layer1.0.conv1.weight`.
        module: The module that holds it.
        depth: Its position among the weights from the input on, from 0; as the backward reached them where
            it told, otherwise as they were registered.
        elements: How many numbers it holds.
        rms: The root mean square of its elements' gradients over the looks in which there was one; None where
            there never was.
        low: The smallest root mean square of one look.
        high: The largest.
        seen: The looks in which it had a gradient, out of `looks`.
        zero: Those in which all of it was zero.
        bad: Those in which it held NaN or infinity.
        looks: How often was looked.
    """

    parameter: str
    module: str
    depth: int
    elements: int
    rms: float | None = None
    low: float | None = None
    high: float | None = None
    seen: int = 0
    zero: int = 0
    bad: int = 0
    looks: int = 0


def gradients_of(facts: Facts) -> tuple[GradientPoint, ...]:
    """The weights of a watched model, biases and norms' shifts left out; empty where none were watched."""
    figures = (facts.measurements or {}).get("gradients", {})
    weights = [
        (name, one) for name, one in figures.items() if one["kind"] == "weight" or len(one["shape"]) > 1
    ]
    last = len(weights)
    order = sorted(
        range(last), key=lambda i: (last if weights[i][1]["place"] is None else weights[i][1]["place"], i)
    )
    return tuple(_point(*weights[index], depth) for depth, index in enumerate(order))


def _point(name: str, one: dict[str, Any], depth: int) -> GradientPoint:
    looks = [_rms(norm, one["elements"]) for norm in one["norms"] if norm is not None]
    return GradientPoint(
        parameter=name,
        module=one["module"],
        depth=depth,
        elements=one["elements"],
        rms=mean_rms(one),
        low=min(looks, default=None),
        high=max(looks, default=None),
        seen=one["seen"],
        zero=one["zero"],
        bad=one["bad"],
        looks=one["looks"],
    )


def mean_rms(one: dict[str, Any]) -> float | None:
    """The root mean square of a gradient's elements over the last looks, from its norms."""
    squares = [norm * norm for norm in one["norms"] if norm is not None]
    if not squares or not one["elements"]:
        return None
    return float((sum(squares) / len(squares) / one["elements"]) ** 0.5)


def _rms(norm: float, elements: int) -> float:
    return float(norm / max(elements, 1) ** 0.5)
