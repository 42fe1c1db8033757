"""Which parameters belong to norms: by the type of the module, whatever names they have."""

from __future__ import annotations

import re

from normdoctor.facts import ModuleFact
from normdoctor.graph import Graph
from normdoctor.rules.layers import NORMS

_NAMED = re.compile(
    r"(rms|layer|batch|group|instance|scale)_?norm|^norm$|norm$|frozenbatchnorm", re.IGNORECASE
)


def norm_modules(graph: Graph) -> dict[str, ModuleFact]:
    """The norms with parameters: torch's, those that were seen to normalize, and those called so.

    A class counts by its name only where all its parameters have one axis and it holds no modules.
    """
    by_hand = {norm.module for norm in graph.facts.handwritten if norm.confirmed and norm.kind}
    holders = {path.rpartition(".")[0] for path in graph.modules if path}
    found = {}
    for path, module in graph.modules.items():
        own = [graph.parameters[name] for name in module.parameters if name in graph.parameters]
        flat = [one for one in own if one.kind == "parameter"]
        matrices = any(len(one.tensor.shape) > 1 and min(one.tensor.shape) > 1 for one in flat)
        alone = bool(flat) and not matrices and path not in holders
        named = alone and not module.base and _NAMED.search(module.type) is not None
        if (flat and module.base in NORMS) or named or (alone and path in by_hand):
            found[path] = module
    return found


def norm_parameters(graph: Graph) -> dict[str, str]:
    """Name of each parameter of a norm to the path of the norm."""
    return {
        name: path
        for path, module in norm_modules(graph).items()
        for name in module.parameters
        if name in graph.parameters and graph.parameters[name].kind == "parameter"
    }
