"""Counting what a model holds: its norm layers, hand-written and functional ones included."""

from __future__ import annotations

from collections import Counter

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
    found: list[ModuleFact] = []
    for module in facts.modules:
        if module.role == "norm" and not any(within(module.path, outer.path) for outer in found):
            found.append(module)
    return found


def functional_norms(facts: Facts) -> list[Node]:
    """One node for each functional norm outside the modules that are norms themselves."""
    inside = [module.path for module in facts.modules if module.role == "norm"]
    found: dict[tuple[object, ...], Node] = {}
    for node in facts.nodes:
        covered = any(within(node.scope, path) or node.scope == path for path in inside)
        if node.role == "norm" and node.module is None and not covered:
            found.setdefault((node.scope, node.kind, node.location), node)
    return list(found.values())


#: A hand-written norm reduces its input, takes a root or divides by it, and is not longer than this.
_REDUCES = frozenset(("mean", "var", "std", "var_mean", "std_mean", "norm", "sum"))
_DIVIDES = frozenset(("rsqrt", "sqrt", "div", "reciprocal"))
_MOST_CALLS = 30


def handwritten_norms(facts: Facts) -> dict[str, int]:
    """Type to the number of modules whose own calls look like those of a norm: a guess, no more.

    Only such a guess, since the same calls also make other things; rules do not rely on it.
    """
    norms = {module.path for module in facts.modules if module.role == "norm"}
    calls: dict[str, list[str]] = {}
    for node in facts.nodes:
        if node.call == 0 and node.scope not in norms:
            calls.setdefault(node.scope, []).append("leaf" if node.module is not None else node.kind)
    types = {module.path: module.type for module in facts.modules if not module.leaf}
    counted = Counter(
        types[path]
        for path, kinds in calls.items()
        if path and path in types and len(kinds) <= _MOST_CALLS and "leaf" not in kinds
        if _REDUCES & set(kinds) and _DIVIDES & set(kinds)
    )
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def count_norms(facts: Facts) -> dict[str, int]:
    """Type of norm to how many there are, the most frequent first."""
    counted = Counter(module.type for module in norm_modules(facts))
    counted.update(FUNCTIONAL.get(node.kind, node.kind) for node in functional_norms(facts))
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
