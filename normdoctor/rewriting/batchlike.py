"""What conversions from BatchNorm share: its settings, its statistics, and how a trained one is preserved."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from normdoctor.rewriting.built import with_tail
from normdoctor.rewriting.calibrate import Calibration
from normdoctor.rewriting.conversions.base import Conversion, Place, Refused
from normdoctor.rewriting.families import BATCH_LIKE
from normdoctor.rewriting.fold import Map, fold_in_front, maps_in_front
from normdoctor.rewriting.ledger import Heir
from normdoctor.rewriting.scene import Scene
from normdoctor.rewriting.surgery import origin_of, wide

#: What a BatchNorm has that a norm of single samples has no use for.
RUNNING = frozenset(
    "running_mean running_var num_batches_tracked num_features momentum track_running_stats process_group "
    "rmax dmax ghost_size".split()
)


def settings(old: Any) -> dict[str, Any]:
    """What the constructors of own layers take: eps, affine, bias, activation, backend; no memory."""
    return {
        "eps": old.eps,
        "affine": old.weight is not None,
        "bias": old.bias is not None,
        "device": "meta",  # the old layer's tensors take the place of these
        "activation": getattr(old, "activation", None),
        "backend": getattr(old, "backend", "auto"),
    }


def channels_of(old: Any) -> int:
    """The number of channels of a BatchNorm, frozen or not."""
    if old._buffers.get("running_mean") is not None:
        return int(old.running_mean.numel())
    return int(old.num_features)


def demand_statistics(old: Any) -> tuple[Tensor, Tensor]:
    """The running statistics; raises `Refused` where there are none."""
    mean, variance = old._buffers.get("running_mean"), old._buffers.get("running_var")
    if mean is None or variance is None:
        raise Refused("it keeps no running statistics: in eval mode it takes the batch's")
    return mean, variance


def trained(module: nn.Module) -> bool:
    """Have its running statistics left their initial values?"""
    mean, var = getattr(module, "running_mean", None), getattr(module, "running_var", None)
    if mean is None or var is None or mean.is_meta:
        return False
    return bool(torch.any(mean != 0)) or bool(torch.any(var != 1))


def scale_and_shift(old: Any, *, affine: bool) -> tuple[Tensor, Tensor]:
    """The map `x * scale + shift` of each channel that a BatchNorm is in eval mode, in float64.

    Without `affine`, the standardization alone.
    """
    mean, variance = demand_statistics(old)
    if mean.is_meta:
        raise Refused("it is on the meta device: its statistics have no values")
    scale = (wide(variance, 1.0, variance) + old.eps).rsqrt()
    if not affine:
        return scale, -wide(mean, 0.0, mean) * scale
    scale = scale * wide(old.weight, 1.0, mean)
    return scale, wide(old.bias, 0.0, mean) - wide(mean, 0.0, mean) * scale


def dimensions(place: Place) -> int:
    """Number of dimensions of the inputs of a layer; raises `Refused` where it is not known."""
    old = place.module
    for number, kind in ((2, nn.BatchNorm2d), (3, nn.BatchNorm3d)):
        if isinstance(old, kind):
            return number + 2
    known = {len(shape) for shape in place.shapes}
    if len(known) != 1:
        raise Refused("the number of dimensions of its input is not known: pass inputs=")
    return known.pop()


def positions(place: Place) -> int:
    """The smallest number of positions a channel has in a sample; where nothing is known, by the class."""
    if place.shapes:
        return min(prod(shape[2:]) for shape in place.shapes)
    return 1 if isinstance(place.module, nn.BatchNorm1d) else 2


class FromBatch(Conversion):
    """BatchNorm to a norm of single samples: scale and shift stay, running statistics are folded.

    A trained BatchNorm standardizes each channel by its running statistics. Those go into the layer in front
    where that is a convolution or linear layer of its own, otherwise the new layer takes them off its input
    first. What then reaches the new norm has mean 0 and variance 1 in each channel over the data, and the
    statistics of a sample are near that, the more values they are taken over, the nearer.
    """

    families = BATCH_LIKE
    calls = frozenset({"batch_norm"})
    own_state = RUNNING
    traced = True
    preserving: ClassVar[bool] = True

    def __init__(self, num_groups: int | None = None) -> None:
        super().__init__(num_groups)
        self.folded, self.standardized, self.trained = 0, 0, 0

    def begin(self, scene: Scene) -> None:
        """Measure what the layers return, where there are data."""
        self.calibration = Calibration(scene, scene.candidates) if scene.data is not None else None

    def finish(self, places: list[Place], scene: Scene) -> None:
        """Calibrate."""
        if self.calibration is not None and places:
            scene.notes.append(self.calibration.apply({place.path: place.module for place in places}))

    def build(self, place: Place, standardized: bool) -> nn.Module:
        """The new layer; `standardized` one that takes running statistics."""
        raise NotImplementedError

    def replacement(self, place: Place, scene: Scene) -> nn.Module:
        """Build the layer, and fold the running statistics into the one in front."""
        old = place.module
        self.build(place, False)  # refuses what cannot be
        if not trained(old) or not self.preserving:
            self.trained += trained(old)
            return with_tail(self.build(place, False), place.kind.tail)
        self.trained += 1
        try:
            maps = _maps(old, scene)
        except Refused:
            new = self.build(place, True)
            mean, variance = demand_statistics(old)
            new.standardize(mean, variance)  # type: ignore[operator]
            self.standardized += 1
        else:
            new = self.build(place, False)
            fold(maps, *scale_and_shift(old, affine=False), scene, old._parameters.get("bias"))
            self.folded += 1
        return with_tail(new, place.kind.tail)

    def notes(self, places: list[Place]) -> list[str]:
        """Say where running statistics went."""
        if not self.trained:
            return []
        if not self.preserving:
            return [
                f"{self.trained} of the BatchNorms had trained running statistics, which the new layers do "
                "not use: fine-tune the model before it is used"
            ]
        return [
            f"running statistics of {self.trained} trained BatchNorms: {self.folded} folded into the layer "
            f"in front, {self.standardized} kept by the new layer, which takes them off its input"
        ]


def _maps(old: nn.Module, scene: Scene) -> list[Map]:
    flow = scene.demand_flow()
    return maps_in_front(flow, flow.calls(old))


def fold(maps: list[Map], scale: Tensor, shift: Tensor, scene: Scene, beside: nn.Parameter | None) -> None:
    """Fold into each map; a bias that this makes is trained like the parameter `beside`."""
    for one in maps:
        made = fold_in_front(one, scale, shift, scene.journal, None)
        heir = beside if beside is not None else one.weight
        if made is not None and isinstance(heir, nn.Parameter):
            made.requires_grad_(one.weight.requires_grad)
            scene.heirs[id(made)] = Heir(heir)


def led_back(place: Place, families: frozenset[str]) -> nn.Module | None:
    """The layer that this one was made of, where that was one of these families."""
    from normdoctor.rewriting.families import family_of
    from normdoctor.rewriting.surgery import returned

    origin = origin_of(place.module)
    if origin is None:
        return None
    found = returned(place.module, origin)
    return found if family_of(found) in families else None


def plain_batch_norm(place: Place) -> nn.Module:
    """A BatchNorm of torch's for the dimensions of the layer's input, without memory."""
    old: Any = place.module
    kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    number = dimensions(place)
    if number not in kinds:
        raise Refused(f"torch has no BatchNorm for inputs of {number} dimensions")
    if getattr(old, "activation", None) is not None:
        raise Refused(f"it ends with {old.activation}, which a BatchNorm of torch's does not")
    if place.kind.tail:
        raise Refused("what runs behind the norm has no place in a BatchNorm of torch's")
    new = kinds[number](
        channels_of(old),
        old.eps,
        getattr(old, "momentum", 0.1),
        old.weight is not None,
        getattr(old, "track_running_stats", True),
        device="meta",
    )
    if old.bias is None:
        new.register_parameter("bias", None)
    return new
