"""Measured sites on the recorded graph: where a signal comes from, where it first fails, what is a gate."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.facts import Node
from normdoctor.graph import PRESERVING, Graph
from normdoctor.rules.sites import RELUS, Site, sites
from normdoctor.rules.young import behind_young

#: Rectifiers that are zero, or as good as zero, for whatever is far enough below zero.
RECTIFIERS = RELUS | frozenset({"gelu", "silu", "mish", "hardswish", "threshold"})
#: Activations that can be a gate: their output lies between two bounds.
GATES = frozenset({"sigmoid", "hardsigmoid", "tanh", "hardtanh", "softmax"})
#: What multiplies a tensor by another of its own size.
_MULTIPLIES = frozenset({"mul", "lerp", "addcmul"})
#: What hands on a gate, apart from what preserves values: scalar arithmetic, copies and parts.
_CARRIES = PRESERVING | frozenset(
    "expand expand_as broadcast_to repeat repeat_interleave tile interpolate chunk split getitem unbind "
    "narrow select index_select gather dropout add sub mul div neg pow clamp stack cat sum mean where".split()
)
#: What can set every value to the same constant: an expert that gets nothing, padding.
_MASKS = frozenset(
    "mul masked_fill masked_scatter where setitem scatter index_put index_add index_copy index_fill".split()
)
#: Roles behind which something is learned: an activation in front of one is hidden.
_LEARNS = frozenset({"linear", "attention", "norm"})
#: Spread of a unit relative to its mean below which float32 cannot tell it from a constant.
STILL = 1e-6


class Signals:
    """The sites of a model and the steps between them.

    Where the forward was not recorded, a site is taken to read what the site before it computed.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.sites = list(sites(graph))
        self._behind = behind_young(graph)
        self._node: dict[str, Node] = {}
        self._at: dict[int, Site] = {}
        self._sources: dict[str, list[Site]] = {}
        self._stirred: dict[str, bool] | None = None
        places = [node for node in graph.nodes if node.op == "placeholder"]
        for site in self.sites:
            if (node := self._find(site, places)) is not None:
                self._node[site.name] = node
                held = graph.nodes[node.inputs[0]] if site.role == "norm_input" and node.inputs else node
                self._at[held.index] = site

    def of_role(self, *roles: str) -> Iterator[Site]:
        """The sites of these roles that are judged, in the order in which they first ran."""
        return (site for site in self.sites if site.role in roles and self.judged(site))

    def judged(self, site: Site) -> bool:
        """Does its signal say something? It does not behind a norm that runs on its initial statistics."""
        return not self._behind(site)

    def node(self, site: Site) -> Node | None:
        """The recorded call of a site; of the input of a norm, the norm."""
        return self._node.get(site.name)

    def at(self, node: Node) -> Site | None:
        """What was measured of the output of a node."""
        return self._at.get(node.index)

    def layer(self, site: Site) -> str:
        """The path of the layer that a function acts on, or whose weights it reads; empty for a module."""
        node = self.node(site)
        if node is None or node.module is not None:
            return ""
        queue = [node]
        for one in queue:  # it grows meanwhile, by what stands before it
            if one.module is not None:
                return one.module
            if names := [name for name in one.parameters if name in self.graph.parameters]:
                held = self.graph.parameters[names[0]]
                return held.name if held.attribute.isdigit() else held.module
            queue += [before for before in self.graph.inputs(one) if before not in queue]
        return ""

    def named(self, site: Site) -> str:
        """A site in the words of a message: ``relu in {modules} (behind `conv1`)`` for a function."""
        layer, text = self.layer(site), site.named(self.graph)
        node = self.node(site)
        if not layer or node is None or layer == self.graph.label(node):
            return text
        return f"{text} ({'with the weights of' if node.parameters else 'behind'} `{layer}`)"

    def sources(self, site: Site) -> list[Site]:
        """The nearest sites upstream, whose values `site` is computed from."""
        if site.name not in self._sources:
            self._sources[site.name] = self._found_upstream(site)
        return self._sources[site.name]

    def _found_upstream(self, site: Site) -> list[Site]:
        node = self.node(site)
        if node is None:
            before = [one for one in self.sites if one.order < site.order] if not self.graph.nodes else []
            return before[-1:]
        found: dict[str, Site] = {}
        for one in self._between(node):
            known = self._at.get(one.index)
            if known is not None and known.name != site.name:
                found[known.name] = known
        return sorted(found.values(), key=lambda one: one.order)

    def _between(self, node: Node) -> Iterator[Node]:
        """What stands before a node, back to the nearest sites and with them."""
        own = self._at.get(node.index)
        stack, seen = list(node.inputs), {node.index}
        while stack:
            index = stack.pop()
            if index in seen:
                continue
            seen.add(index)
            yield self.graph.nodes[index]
            known = self._at.get(index)
            if known is None or known is own or self._node.get(known.name) == node:
                stack += self.graph.nodes[index].inputs

    def masked(self, site: Site) -> bool:
        """Can something between it and its sources set their values to a constant: a mask, a product?"""
        node = self.node(site)
        return node is not None and any(one.kind in _MASKS for one in self._between(node))

    def stirred(self, site: Site) -> bool:
        """Does something that varies with the input of the model reach the layer of `site`?

        It does not where all that leads there is constant, or varies by the padding of a convolution only.
        A layer or norm that is constant itself is looked through. True where nothing is known upstream.
        """
        if self._stirred is None:
            self._stirred = {}
            for one in self.sites:
                before = self.sources(one)
                self._stirred[one.name] = not before or any(map(self._hands_on, before))
        return self._stirred[site.name]

    def _hands_on(self, site: Site) -> bool:
        assert self._stirred is not None
        if not self._stirred.get(site.name, True):
            return False
        return not still(site) or (site.role in ("linear", "norm", "norm_input") and not self.masked(site))

    def zero(self, site: Site) -> bool:
        """Is everything that comes in exactly zero? So it is behind a layer that starts at zero."""
        before = self.sources(site)
        return bool(before) and all(one.figures["minimum"] == one.figures["maximum"] == 0 for one in before)

    def gate(self, site: Site) -> bool:
        """Is its output, after scalar arithmetic or not, a factor of another activation?

        A rectifier counts only between steps of scalar arithmetic: `relu6(x + 3) / 6`.
        """
        node = self.node(site)
        if node is None or not (site.kind in GATES or self._hard_gate(node)):
            return False
        return next(self.factors(node), None) is not None

    def steers(self, site: Site) -> bool:
        """Do gates alone read it, through layers: is it the squeeze of a squeeze-and-excitation?"""
        node, found = self.node(site), False
        stack = [node] if node is not None else []
        for one in stack:  # it grows meanwhile
            for user in self.graph.users(one):
                at = self.at(user)
                if at is not None and self.gate(at):
                    found = True
                elif user.role in ("linear", "norm", "dropout") or user.kind in PRESERVING:
                    stack += [user] if user not in stack else []
                else:
                    return False
        return found

    def _hard_gate(self, node: Node) -> bool:
        arithmetic = ("add", "sub", "mul", "div")
        around = [*self.graph.inputs(node)[:1], *self.graph.users(node)]
        return any(one.kind in arithmetic and len(one.inputs) == 1 and not one.parameters for one in around)

    def factors(self, node: Node) -> Iterator[Node]:
        """The multiplications in which `node` is a factor and another activation is, too."""
        stack, seen = [node], {node.index}
        while stack:
            here = stack.pop()
            for user in self.graph.users(here):
                if user.index in seen:
                    continue
                seen.add(user.index)
                several = len({one for one in user.inputs if self._moves(one)}) > 1
                if user.kind in _MULTIPLIES and several:
                    yield user
                elif user.kind in _CARRIES and (not several or user.role in ("concat", "reshape")):
                    stack.append(user)

    def _moves(self, index: int) -> bool:
        return self.graph.nodes[index].role != "parameter"

    def hidden(self, site: Site) -> bool:
        """Does a layer, a norm or attention read it further on? True where that is not known."""
        node = self.node(site)
        if node is None:
            return bool(self.graph.nodes) or any(
                one.order > site.order and one.role in _LEARNS for one in self.sites
            )
        stack, seen = [node], {node.index}
        while stack:
            for user in self.graph.users(stack.pop()):
                if user.role in _LEARNS or user.kind in ("matmul", "einsum"):
                    return True
                if user.index not in seen:
                    seen.add(user.index)
                    stack.append(user)
        return False

    def first(self, failing: list[Site]) -> list[Site]:
        """Those of `failing` into which no other of them feeds: the rest are consequences."""
        names = {site.name for site in failing}
        return [site for site in failing if not any(one.name in names for one in self.sources(site))]

    def _find(self, site: Site, places: list[Node]) -> Node | None:
        if site.role == "input":
            index = int(site.figures["call"])
            return places[index] if index < len(places) else None
        return site.node(self.graph)


def still(site: Site) -> bool:
    """Is every unit of it constant?"""
    return len(constant_units(site)) == site.units


def magnitude(site: Site) -> float:
    """The largest absolute value that was seen."""
    return float(max(abs(site.figures["minimum"]), abs(site.figures["maximum"])))


def lively(site: Site) -> bool:
    """Do its units vary, by more than a thousandth of their size?"""
    means, spreads = site.figures["unit_mean"], site.figures["unit_std"]
    size = sum(mean * mean for mean in means)
    return not still(site) and sum(std * std for std in spreads) > 1e-6 * size


def constant_units(site: Site) -> set[int]:
    """The units whose values never changed by more than float32 can resolve."""
    means, spreads = site.figures["unit_mean"], site.figures["unit_std"]
    close = {unit for unit, std in enumerate(spreads) if std <= STILL * abs(means[unit])}
    return (close | set(site.figures["constant"])) if site.observations > 1 else set()


def spoilt(site: Site) -> bool:
    """Were there bad values in every batch that it is judged by? Those are not counted: nothing is known."""
    return int(site.figures.get("bad_batches", 0)) >= site.batches


def dead(site: Site) -> bool:
    """Is no unit of a rectifier ever active? Of a smooth one, is everything next to zero?"""
    if site.kind not in RECTIFIERS or spoilt(site):
        return False
    if site.kind in RELUS or site.kind == "threshold":
        return not any(site.figures["active"])
    return magnitude(site) < STILL


def saturated_units(site: Site, share: float = 0.9) -> list[int]:
    """The units of a bounded activation that are at its bounds in more than `share` of all observations."""
    if site.kind not in ("sigmoid", "tanh", "hardsigmoid", "hardtanh"):
        return []
    ends = zip(site.figures["low"], site.figures["high"], strict=True)
    return [unit for unit, (low, high) in enumerate(ends) if low + high > share]


def clipped_units(site: Site, share: float = 0.5) -> list[int]:
    """Units of a ReLU6 or hardtanh with more than `share` of their values above zero at the bound."""
    if site.kind not in ("relu6", "hardtanh"):
        return []
    shares = zip(site.figures["high"], site.figures["active"], strict=True)
    return [unit for unit, (high, active) in enumerate(shares) if high > share * active]


def passes_dead(signals: Signals, site: Site) -> bool:
    """Is a rectifier judged by the rule of dead layers, rather than that of dead units?"""
    return dead(site) and signals.stirred(site) and not signals.zero(site) and not signals.gate(site)
