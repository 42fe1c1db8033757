"""What becomes of a norm's arguments when it is converted: from one layer's words to another's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from normdoctor.fixing.sites import OURS, Site
from normdoctor.fixing.splices import Refused
from normdoctor.rewriting.conversions.batch_group import choose_groups

#: What `--to` takes.
TARGETS = ("ours", "torch", "group", "layer", "instance", "batch", "sync", "rms")
#: Conversions after which the outputs are the same.
EXACT = frozenset({"ours", "torch", "sync"})
#: Layers that torch and normdoctor.layers both have, under the same name and with the same arguments.
SHARED = frozenset(
    "BatchNorm1d BatchNorm2d BatchNorm3d InstanceNorm1d InstanceNorm2d InstanceNorm3d LayerNorm GroupNorm "
    "RMSNorm LocalResponseNorm SyncBatchNorm".split()
)


@dataclass(frozen=True, slots=True)
class New:
    """The layer to build, its positional arguments and keyword ones; None keeps the arguments as they are.

    `bound` are the leading arguments that a factory fixes beforehand (`partial(nn.GroupNorm, 8)`).
    """

    full: str
    args: tuple[str, ...] | None = None
    kwargs: tuple[tuple[str, str], ...] = ()
    bound: tuple[str, ...] = ()


def recipe(to: str, site: Site, given: Mapping[str, str], groups: int | None) -> New:
    """What to build in the place of a layer whose arguments are `given` as source text.

    Raises:
        Refused: There is no such layer for this one.
    """
    name = site.modules[0].type
    if to in ("ours", "torch"):
        return _renamed(to, site, given)
    made = _RECIPES[to].get(_family(name))
    if _family(name) == _FAMILIES[to]:
        raise Refused(f"it is a {name} already")
    if made is None:
        raise Refused(f"{name} has no counterpart: {_WHY.get(to, 'it normalizes over other axes')}")
    return made(site, given, groups)


def _renamed(to: str, site: Site, given: Mapping[str, str]) -> New:
    name, own = site.modules[0].type, site.modules[0].qualname.startswith(OURS)
    if own == (to == "ours"):
        raise Refused(f"it is one of {'ours' if own else 'torch'}'s already")
    if name not in SHARED:
        raise Refused(f"torch has no {name}" if own else f"normdoctor.layers has no {name}")
    extra = sorted({"activation", "backend"} & set(given))
    if own and extra:
        raise Refused(f"torch's {name} has no `{extra[0]}`")
    return New(f"{'normdoctor.layers' if to == 'ours' else 'torch.nn'}.{name}")


def _family(name: str) -> str:
    plain = name.removeprefix("Lazy")
    return plain[:-2] if plain[-2:] in ("1d", "2d", "3d") else plain


def _size(given: Mapping[str, str], name: str = "num_features") -> str:
    if name not in given:
        raise Refused(f"the call does not say `{name}`")
    return given[name]


def _channels(site: Site, name: str = "num_features") -> set[int]:
    values = {module.config.get(name) for module in site.modules}
    return {value for value in values if isinstance(value, int)}


def _kept(given: Mapping[str, str], *names: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, given[name]) for name in names if name in given)


def _group(site: Site, given: Mapping[str, str], groups: int | None) -> New:
    size = _size(given)
    channels = _channels(site)
    chosen = groups or min((choose_groups(count, False) for count in channels), default=1)
    if wrong := sorted(count for count in channels if count % chosen):
        raise Refused(f"{chosen} groups do not divide {wrong[0]} channels")
    if site.rank == 2 and any(count == chosen for count in channels):
        raise Refused("a group would hold a single value")
    return New("torch.nn.GroupNorm", (str(chosen), size), _kept(given, "eps", "affine"), (str(chosen),))


def _instance_to_group(site: Site, given: Mapping[str, str], groups: int | None) -> New:
    size = _size(given)
    if given.get("track_running_stats", "False") != "False":
        raise Refused("it uses running statistics")
    affine = (("affine", given.get("affine", "False")),) if given.get("affine") != "True" else ()
    return New("torch.nn.GroupNorm", (size, size), (*_kept(given, "eps"), *affine))


def _one_group(site: Site, given: Mapping[str, str], groups: int | None) -> New:
    if site.rank == 2:
        affine = tuple(("elementwise_affine", value) for _, value in _kept(given, "affine"))
        return New("torch.nn.LayerNorm", (_size(given),), (*_kept(given, "eps"), *affine))
    return New("torch.nn.GroupNorm", ("1", _size(given)), _kept(given, "eps", "affine"), ("1",))


def _instance(site: Site, given: Mapping[str, str], groups: int | None) -> New:
    if site.rank == 2:
        raise Refused("its input has one value a channel, which instance normalization turns into zero")
    name = f"InstanceNorm{site.modules[0].type[-2:]}"
    return New(
        f"torch.nn.{name}", (_size(given),), (*_kept(given, "eps"), ("affine", given.get("affine", "True")))
    )


def _batch(site: Site, given: Mapping[str, str], groups: int | None) -> New:
    if not site.rank:
        raise Refused("the shape of its input is not known")
    affine = "False" if site.modules[0].type.startswith("Instance") else "True"
    stated = given.get("affine", affine)
    extra = (("affine", stated),) if stated != "True" else ()
    size = _size(given, "num_channels" if site.modules[0].type == "GroupNorm" else "num_features")
    return New(f"torch.nn.BatchNorm{max(site.rank - 2, 1)}d", (size,), (*_kept(given, "eps"), *extra))


def _sync(site: Site, given: Mapping[str, str], groups: int | None) -> New:
    return New("torch.nn.SyncBatchNorm")


def _rms(site: Site, given: Mapping[str, str], groups: int | None) -> New:
    size = _size(given, "normalized_shape")
    kept = _kept(given, "elementwise_affine")
    return New("torch.nn.RMSNorm", (size,), (("eps", given.get("eps", "1e-05")), *kept))


_Recipe = Callable[[Site, Mapping[str, str], int | None], New]
_RECIPES: dict[str, dict[str, _Recipe]] = {
    "group": {"BatchNorm": _group, "SyncBatchNorm": _group, "InstanceNorm": _instance_to_group},
    "layer": {"BatchNorm": _one_group, "SyncBatchNorm": _one_group},
    "instance": {"BatchNorm": _instance},
    "batch": {"InstanceNorm": _batch, "GroupNorm": _batch},
    "sync": {"BatchNorm": _sync},
    "rms": {"LayerNorm": _rms},
}
#: The family of what `--to` builds.
_FAMILIES = {
    "group": "GroupNorm",
    "layer": "LayerNorm",
    "instance": "InstanceNorm",
    "batch": "BatchNorm",
    "sync": "SyncBatchNorm",
    "rms": "RMSNorm",
}
_WHY = {
    "sync": "only BatchNorm can be synchronized",
    "rms": "only LayerNorm normalizes over the same axes as RMSNorm",
    "batch": "it does not normalize channels over positions",
}
