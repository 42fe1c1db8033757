"""What a conversion says: which layers it is about, what takes their place, and where it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

if TYPE_CHECKING:
    from normdoctor.rewriting.families import Kind
    from normdoctor.rewriting.scene import Scene


@dataclass(frozen=True)
class Place:
    """A layer to be converted: where it stands, what it is, the shapes of the inputs it was seen to take.

    `kind.tail` names the children that its forward runs behind the norm: a subclass such as a BatchNorm
    with an activation.
    """

    path: str
    module: nn.Module
    kind: Kind
    shapes: tuple[tuple[int, ...], ...] = ()


class Refused(Exception):  # noqa: N818  (an answer, caught by `convert`)
    """Says why one layer cannot be converted; the others are."""


class Conversion:
    """One conversion of layers; an object serves one call of `convert`.

    Attributes:
        spec: What the user calls it.
        aliases: Other names of it.
        families: The families of layers that it is about (see `normdoctor.rewriting.families`).
        calls: The functions of torch that compute the same; a model that calls them is told so.
        exact: The modes in which outputs stay the same. `convert` proves it, and takes back what fails.
        own_state: Names of parameters, buffers and settings of the old layer that do not outlive it.
        leads_back: The new layer remembers what it was, for the conversion in the other direction.
        traced: It looks at the recorded forward of the model, and needs inputs with which that runs.
    """

    spec: ClassVar[str] = ""
    aliases: ClassVar[tuple[str, ...]] = ()
    families: ClassVar[frozenset[str]] = frozenset()
    calls: ClassVar[frozenset[str]] = frozenset()
    exact: ClassVar[frozenset[str]] = frozenset()
    own_state: ClassVar[frozenset[str]] = frozenset()
    leads_back: ClassVar[bool] = False
    traced: ClassVar[bool] = False

    def __init__(self, num_groups: int | None = None) -> None:
        self.num_groups = num_groups

    def concerns(self, module: nn.Module) -> bool:
        """Is a layer of one of the families meant at all?"""
        return True

    def begin(self, scene: Scene) -> None:
        """Look at the whole model before the first layer is converted."""

    def replacement(self, place: Place, scene: Scene) -> nn.Module:
        """Build the layer that takes the place of another, or raise `Refused`.

        Changes beside the layer itself go through `scene.journal`, and only after the last `Refused`.
        """
        raise NotImplementedError

    def finish(self, places: list[Place], scene: Scene) -> None:
        """Do what needs all layers in place."""

    def notes(self, places: list[Place]) -> list[str]:
        """What the user should know about the layers that were replaced."""
        return []
