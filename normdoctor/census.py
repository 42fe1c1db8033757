"""Counting what a model holds: its norm layers, hand-written and functional ones included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from normdoctor.facts import Facts, ModuleFact, Node

#: The usual names of functional norms.
FUNCTIONAL = {
    "batch_norm": "F.batch_norm",
    "layer_norm": "F.layer_norm",
    "group_norm": "F.group_norm",
    "instance_norm": "F.instance_norm",
    "rms_norm": "F.rms_norm",
}


def norm_modules(facts: Facts) -> list[ModuleFact]:
    """The modules that are norms, in the order of the model; not the norms within such a module."""
    found: dict[str, ModuleFact] = {}
    for module in facts.modules:
        if module.role == "norm" and found.keys().isdisjoint(_around(module.path)):
            found[module.path] = module
    return list(found.values())


def functional_norms(facts: Facts) -> list[Node]:
    """One node for each functional norm outside the modules that are norms themselves."""
    inside = {module.path for module in facts.modules if module.role == "norm"}
    by_hand = {index for norm in facts.handwritten if norm.confirmed for index in norm.nodes}
    found: dict[tuple[object, ...], Node] = {}
    for node in facts.nodes:
        if node.role != "norm" or node.module is not None or node.index in by_hand:
            continue
        if inside.isdisjoint((node.scope, *_around(node.scope))):
            found.setdefault((node.scope, node.kind, node.location), node)
    return list(found.values())


#: What a module that is nothing but a norm does not call.
_LAYERS = frozenset("linear activation softmax attention dropout concat pool loss".split())


def norm_owners(facts: Facts) -> dict[int, ModuleFact]:
    """Place in `facts.handwritten` to the module that is nothing but this norm, where there is one."""
    busy: set[str] = set()
    for node in facts.nodes:
        if node.role in _LAYERS or node.module is not None:
            path = node.scope
            while path and path not in busy:
                busy.add(path)
                path = path.rpartition(".")[0]
    modules = {module.path: module for module in facts.modules if not module.leaf}
    return {
        place: modules[norm.module]
        for place, norm in enumerate(facts.handwritten)
        if norm.module and norm.module in modules and norm.module not in busy
    }


def handwritten_norms(facts: Facts, *, confirmed: bool) -> dict[str, int]:
    """Name to the number of hand-written norms, of those that numbers confirmed or of the others.

    The name is the class of the module that is nothing but the norm, otherwise the norm's.
    """
    norms = {module.path for module in facts.modules if module.role == "norm"}
    owners = norm_owners(facts)
    found: dict[tuple[object, ...], str] = {}
    for place, norm in enumerate(facts.handwritten):
        if norm.confirmed == confirmed and norm.module not in norms:
            owner = owners.get(place)
            of = facts.nodes[norm.output].scope
            holder = next((module.type for module in facts.modules if module.path == of), "")
            by_hand = (
                f"hand-written {norm.kind or 'norm'}" if confirmed else f"a part of {holder or 'the model'}"
            )
            key = (norm.module,) if owner else (norm.module, norm.location)
            found.setdefault(key, owner.type if owner else by_hand)
    counted = Counter(found.values())
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def count_norms(facts: Facts) -> dict[str, int]:
    """Type of norm to how many there are, the most frequent first."""
    counted = Counter(module.type for module in norm_modules(facts))
    counted.update(FUNCTIONAL.get(node.kind, node.kind) for node in functional_norms(facts))
    counted.update(handwritten_norms(facts, confirmed=True))
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def count_parameters(facts: Facts, *, trainable: bool | None = None) -> int:
    """The number of elements of all parameters, or of the trainable or frozen ones."""
    return sum(
        parameter.tensor.size
        for parameter in facts.parameters
        if parameter.kind == "parameter" and trainable in (None, parameter.trainable)
    )


def within(path: str, outer: str) -> bool:
    """Does a module path lie below another?"""
    return outer != path and (outer == "" or path.startswith(f"{outer}."))


def _around(path: str) -> Iterator[str]:
    """The paths of the modules around one, innermost first, the model's own last."""
    while path:
        path = path.rpartition(".")[0]
        yield path
