"""The signal by depth: mean and variance of activations, and the size of gradients, layer by layer."""

from __future__ import annotations

from typing import Any

import msgspec

from normdoctor.facts import Facts
from normdoctor.views.gradients import mean_rms

#: Roles of the sites of a profile, as in `normdoctor.facts.Node`.
ROLES = frozenset({"linear", "norm", "activation"})


class ProfilePoint(msgspec.Struct, frozen=True, kw_only=True):
    """One place of a model and its signal.

    Args:
        site: Its name among the measurements: `layer1.0.conv1:conv2d`.
        module: The path of the module in whose forward it stands.
        kind: What is computed, in torch.nn.functional's words.
        role: linear, norm or activation.
        depth: Its position among the places, in the order of execution, from 0.
        mean: The mean of all values.
        variance: The variance of all values.
        between: The variance of each unit over samples and positions, averaged over units.
        gradient_rms: The root mean square of the gradient of the module's weight, over the steps in which
            it was seen; None where no training was watched or the module has no weight.
    """

    site: str
    module: str
    kind: str
    role: str
    depth: int
    mean: float
    variance: float
    between: float
    gradient_rms: float | None = None


def profile_of(facts: Facts) -> tuple[ProfilePoint, ...]:
    """The profile of a model, from what was measured; empty where nothing was."""
    measured = facts.measurements or {}
    gradients = _gradients(measured.get("gradients", {}))
    chosen = [(name, one) for name, one in measured.get("units", {}).items() if one["role"] in ROLES]
    return tuple(
        ProfilePoint(
            site=name,
            module=one["module"],
            kind=one["kind"],
            role=one["role"],
            depth=depth,
            mean=one["mean"],
            variance=one["std"] * one["std"],
            between=_average([std * std for std in one["unit_std"]]),
            gradient_rms=gradients.get(one["module"]) if one["role"] != "activation" else None,
        )
        for depth, (name, one) in enumerate(chosen)
    )


def _gradients(figures: dict[str, Any]) -> dict[str, float]:
    """Module to the root mean square of its weight's gradient."""
    found = {one["module"]: mean_rms(one) for one in figures.values() if one["kind"] == "weight"}
    return {module: rms for module, rms in found.items() if rms is not None}


def _average(values: list[float]) -> float:
    return sum(values) / max(len(values), 1)
