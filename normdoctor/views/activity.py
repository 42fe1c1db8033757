"""How often the units of each activation are active: dead, saturated and clipped ones."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import msgspec

from normdoctor.graph import Graph
from normdoctor.rules.signals import clipped_units, saturated_units
from normdoctor.rules.sites import RELUS, Site, sites

#: Kinds whose output is above zero whatever comes in: how often it is says nothing.
POSITIVE = frozenset(
    {"sigmoid", "softmax", "softplus", "logsigmoid", "log_softmax", "softmin", "gumbel_softmax"}
)
#: Kinds that have bounds at which a unit can rest.
BOUNDED = frozenset({"sigmoid", "tanh", "hardsigmoid", "hardtanh"})
CLIPPED = frozenset({"relu6", "hardtanh"})
#: The names of the classes of `Activity.shares`, by how often the output of a unit is above zero.
CLASSES = ("never", "below 1 %", "1 to 10 %", "10 to 50 %", "50 to 90 %", "above 90 %", "always")
_BOUNDS = (0.01, 0.1, 0.5, 0.9)


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """The units of one activation.

    Args:
        site: Its name among the measurements: `layer1.0.relu:relu`.
        module: The path of the module in whose forward it stands.
        kind: Which function, in torch.nn.functional's words.
        depth: Its position among the activations, in the order of execution, from 0.
        units: How many channels or features it has.
        observations: How many values of each unit were seen.
        batches: From how many batches they are.
        shares: The share of units in each of `CLASSES`; empty for functions that are always above zero.
        dead: The share of units that were never active, of a ReLU; None for other functions.
        saturated: The share of units that are at the bounds of a sigmoid or tanh in more than 90 % of all
            observations; None for functions without such bounds.
        clipped: The share of units of a ReLU6 or hardtanh of whose values above zero more than half are at
            the upper bound; None for other functions.
    """

    site: str
    module: str
    kind: str
    depth: int
    units: int
    observations: int
    batches: int
    shares: tuple[float, ...] = ()
    dead: float | None = None
    saturated: float | None = None
    clipped: float | None = None


def activity_of(graph: Graph) -> tuple[Activity, ...]:
    """Every activation that was observed, in the order of execution; empty where nothing was."""
    found = (site for site in sites(graph, "activation") if site.units and site.observations)
    return tuple(_activity(site, depth) for depth, site in enumerate(found))


def _activity(site: Site, depth: int) -> Activity:
    active: list[float] = site.figures["active"]
    count = site.units
    return Activity(
        site=site.name,
        module=site.module,
        kind=site.kind,
        depth=depth,
        units=count,
        observations=site.observations,
        batches=site.batches,
        shares=() if site.kind in POSITIVE else classes(active),
        dead=sum(share == 0 for share in active) / count if site.kind in RELUS else None,
        saturated=len(saturated_units(site)) / count if site.kind in BOUNDED else None,
        clipped=len(clipped_units(site)) / count if site.kind in CLIPPED else None,
    )


def classes(active: Sequence[float]) -> tuple[float, ...]:
    """The share of units in each of `CLASSES`, from how often each of them is active."""
    ordered = sorted(active)
    edges = [
        bisect_right(ordered, 0.0),
        *(bisect_left(ordered, bound) for bound in _BOUNDS),
        bisect_left(ordered, 1.0),
        len(ordered),
    ]
    return tuple(
        round((end - start) / max(len(ordered), 1), 6) for start, end in zip([0, *edges], edges, strict=False)
    )
