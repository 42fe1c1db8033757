"""Mean and mean square of an activation of normal input: the exact gains, by quadrature.

With z normal of mean m and variance v, `moments` gives E f(z), E f(z)^2 and E f(z) f(z') for two
places whose inputs have correlation r. For a standard normal and ReLU these are 0.3989 and 0.5; see
He et al., 2015, and Poole et al., 2016, for the recursion over layers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

#: Nodes of the trapezoidal rule over +- 8 standard deviations: exact to 1e-6 for smooth functions.
_POINTS = 161
_REACH = 8.0


class Moments(NamedTuple):
    """E f(z), E f(z)^2, and E f(z) f(z') at two places."""

    mean: float
    square: float
    cross: float


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def _softplus(x: float) -> float:
    return x if x > 30 else math.log1p(math.exp(x))


def _elu(x: float, alpha: float) -> float:
    return x if x > 0 else alpha * math.expm1(x)


_PLAIN: dict[str, Callable[[float], float]] = {
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "selu": lambda x: 1.0507009873554805 * _elu(x, 1.6732632423543772),
    "silu": lambda x: x * _sigmoid(x),
    "mish": lambda x: x * math.tanh(_softplus(x)),
    "gelu": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
    "quick_gelu": lambda x: x * _sigmoid(1.702 * x),
    "hardswish": lambda x: x * min(max(x / 6 + 0.5, 0.0), 1.0),
    "hardsigmoid": lambda x: min(max(x / 6 + 0.5, 0.0), 1.0),
    "sigmoid": _sigmoid,
    "logsigmoid": lambda x: -_softplus(-x),
    "tanh": math.tanh,
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + abs(x)),
    "tanhshrink": lambda x: x - math.tanh(x),
    "sin": math.sin,
    "cos": math.cos,
    "square": lambda x: x * x,
}


def function(kind: str, config: Mapping[str, object]) -> Callable[[float], float] | None:
    """The activation as a function of one number, None where it is not known."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind in ("leaky_relu", "prelu", "rrelu"):
        slope = config.get("negative_slope", 0.25 if kind == "prelu" else 0.01)
        if kind == "rrelu":
            slope = 0.229  # the mean of its bounds, 1/8 and 1/3
        return _leaky(float(slope)) if isinstance(slope, int | float) else None
    if kind in ("elu", "celu"):
        alpha = config.get("alpha", 1.0)
        if not isinstance(alpha, int | float) or alpha <= 0:
            return None
        scale = float(alpha)
        return lambda x: _elu(x, scale) if kind == "elu" else scale * _elu(x / scale, 1.0)
    if kind == "hardtanh":
        low, high = config.get("min_val", -1.0), config.get("max_val", 1.0)
        if isinstance(low, int | float) and isinstance(high, int | float):
            return lambda x: min(max(x, float(low)), float(high))
    return None


def _leaky(slope: float) -> Callable[[float], float]:
    return lambda x: x if x > 0 else slope * x


def moments(
    kind: str, config: Mapping[str, object], mean: float, variance: float, correlation: float
) -> Moments | None:
    """The moments of an activation of a normal with this mean and variance, None where unknown."""
    if function(kind, config) is None or not math.isfinite(mean) or not 0 <= variance < 1e30:
        return None
    settings = tuple(sorted((k, v) for k, v in config.items() if isinstance(v, int | float)))
    first, square, slope = _integrals(kind, settings, _rounded(mean), _rounded(variance))
    # E f f' grows from (E f)^2 at correlation 0, with slope (E f')^2 v there, to E f^2 at 1; in between
    # it is convex: its first and its last terms (Daniely et al., 2016, dual activations).
    linear = slope * slope * variance
    rest = max(square - first * first - linear, 0.0)
    cross = first * first + linear * correlation + rest * correlation**2
    return Moments(first, square, min(cross, square))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


@functools.lru_cache(maxsize=4096)
def _integrals(
    kind: str, settings: tuple[tuple[str, float], ...], mean: float, variance: float
) -> tuple[float, float, float]:
    """E f, E f^2 and E f' (by Stein's lemma: E[f z] / std)."""
    made = function(kind, dict(settings))
    assert made is not None, f"{kind} is known, or it would not be integrated"
    spread = math.sqrt(variance)
    if spread == 0:
        value = made(mean)
        return value, value * value, 0.0
    total = first = square = slope = 0.0
    step = 2 * _REACH / (_POINTS - 1)
    for number in range(_POINTS):
        z = -_REACH + number * step
        weight = math.exp(-z * z / 2)
        value = made(mean + spread * z)
        total += weight
        first += weight * value
        square += weight * value * value
        slope += weight * value * z
    return first / total, square / total, slope / total / spread
