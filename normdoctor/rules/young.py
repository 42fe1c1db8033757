"""Running statistics that are still their initial values in part, where a model runs on them.

A BatchNorm that was updated n times holds (1 - momentum)^n of mean 0 and variance 1. What it hands on in eval
mode is then the signal of no trained network. Where that is far from a normalized one, nothing behind it is
judged, and one finding says so (ND703).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median

from normdoctor.graph import Graph
from normdoctor.rules.batchstats import initial, live_channels, norm_sites, remainder, replaced
from normdoctor.rules.sites import Site, sites

#: Above this share of initial values a layer is young.
YOUTH = 0.1
#: A norm is off when it hands on less than a hundredth of the standard deviation 1, or a hundred times that.
#: Untrained networks of three norms lose a factor of ten, ResNet-18 one of ninety, and keep their signal.
OFF = 100.0


def youth(site: Site) -> float:
    """Which share of the running statistics that a BatchNorm runs on is still their initial value.

    Zero in train mode, where they are not used, and where the layer was updated while it was observed.
    """
    figures = site.figures
    if figures["training"] or not figures["tracked"]:
        return 0.0
    counted = figures.get("batches_tracked")
    if counted and counted[0] != counted[1]:
        return 0.0
    if initial(figures["running_mean"], figures["running_var"]):
        return 0.0 if replaced(site, 1.0) else 1.0
    momentum = figures["momentum"]
    if counted and counted[1] and 0 < momentum < 1:
        share = float((1 - momentum) ** counted[1])
        return share if share > YOUTH and not replaced(site, share) else 0.0
    return remainder(site)


def young_norms(graph: Graph) -> list[tuple[Site, float]]:
    """The BatchNorms that run on young statistics, with the share, in the order in which they first ran.

    None where they and the norms behind them hand on about what they should nevertheless, as in shallow
    networks.
    """
    running = [site for site in norm_sites(graph) if site.figures["tracked"] and not site.figures["training"]]
    found = [(site, share) for site in running if (share := youth(site)) > YOUTH]
    return found if found and any(map(_off, running)) else []


def behind_young(graph: Graph) -> Callable[[Site], bool]:
    """A test of sites: does what is measured there come out of a norm with young statistics?

    Where nothing was recorded of a site, the order of execution decides.
    """
    young = [site for site, _ in young_norms(graph)]
    if not young:
        return lambda site: False
    places = [site.node(graph) for site in young]
    reached = {node.index for node in places if node is not None}
    stack = [node for node in places if node is not None]
    while stack:
        for user in graph.users(stack.pop()):
            if user.index not in reached:
                reached.add(user.index)
                stack.append(user)
    names = {site.name for site in young}
    orders = {site.name: site.order for site in sites(graph)}
    first = min((order for name, order in orders.items() if name in names), default=-1)

    def behind(site: Site) -> bool:
        if site.role == "input":
            return False
        node = site.node(graph)
        if node is None or not reached:
            return orders.get(site.name, first) >= first
        indices = node.inputs[:1] if site.role == "norm_input" else (node.index,)
        return any(index in reached for index in indices)

    return behind


def _off(site: Site) -> bool:
    """Does it hand on values that are far smaller or larger than normalized ones, by the median channel?"""
    figures = site.figures
    scales, means = [], []
    for channel in live_channels(site):
        spread = math.sqrt(max(figures["running_var"][channel] + figures["eps"], 1e-30))
        scales.append(math.sqrt(figures["variance"][channel]) / spread)
        means.append(abs(figures["mean"][channel] - figures["running_mean"][channel]) / spread)
    return bool(scales) and (not 1 / OFF < median(scales) < OFF or median(means) > OFF)
