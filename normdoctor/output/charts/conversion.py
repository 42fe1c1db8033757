"""Before and after of a conversion: how far the output of each replaced layer moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from normdoctor.output.charts.base import Axis, Chart, Lines, Series, fewer, figure, of_all
from normdoctor.output.charts.scales import drawable

CAPTION = (
    "The output of each replaced layer in eval mode, on the same inputs before and after: the norm of the "
    "difference over that of the output. Rounding in float32 is near 1e-7; below 1e-9 layers stand at the "
    "lower edge. Dashed: what comes out of the model."
)
#: Relative differences below this are as good as none.
CLOSE = 1e-9


class Moved(Protocol):
    """How far an output moved, as `normdoctor.rewriting.verify.Difference`."""

    @property
    def largest(self) -> float:
        """The greatest absolute difference."""

    @property
    def relative(self) -> float:
        """The norm of the difference over that of the output."""


class Replaced(Protocol):
    """A layer that was replaced, as `normdoctor.rewriting.result.Replacement`."""

    @property
    def path(self) -> str:
        """Its path in the model."""

    @property
    def old(self) -> str:
        """The old layer as it prints."""

    @property
    def new(self) -> str:
        """The new one."""


class Converted(Protocol):
    """What is read of a `normdoctor.ConvertResult`; this module does not import torch."""

    @property
    def spec(self) -> str:
        """The conversion."""

    @property
    def replaced(self) -> Sequence[Replaced]:
        """The layers that were replaced."""

    @property
    def layers(self) -> Mapping[str, Moved]:
        """The change of the output of each."""

    @property
    def differences(self) -> Mapping[str, Moved]:
        """The change of the outputs of the model in each mode."""


def conversion(result: Converted) -> Chart | None:
    """The chart of a conversion; None where no replaced layer could be run before and after."""
    measured = [one for one in result.replaced if one.path in result.layers]
    shown = fewer(measured, lambda one: result.layers[one.path].relative)
    if not shown:
        return None
    moved = [result.layers[one.path] for one in shown]
    names = tuple(one.path or "the model" for one in shown)
    axis = Axis(label="relative difference", scale="log", floor=CLOSE)
    levels = [
        (by.relative, f"outputs in {mode} mode: {figure(by.relative)}")
        for mode, by in result.differences.items()
        if drawable(by.relative, axis)
    ]
    rows = [
        (name, one.old, one.new, figure(by.largest), figure(by.relative))
        for name, one, by in zip(names, shown, moved, strict=True)
    ]
    rows += [
        (f"outputs in {mode} mode", "", "", figure(by.largest), figure(by.relative))
        for mode, by in result.differences.items()
    ]
    return Chart(
        kind="conversion",
        title=f"Outputs before and after {result.spec}",
        caption=CAPTION + of_all(len(shown), len(measured)),
        headers=("layer", "before", "after", "largest difference", "relative difference"),
        rows=tuple(rows),
        drawing=Lines(
            x=Axis(label="replaced layers", names=names),
            y=axis,
            series=(
                Series(
                    name="relative difference",
                    x=tuple(map(float, range(len(moved)))),
                    y=tuple(one.relative for one in moved),
                    line=False,
                ),
            ),
            levels=tuple(levels),
        ),
        about=result.spec,
    )
