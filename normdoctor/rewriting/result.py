"""What `convert` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from normdoctor.rewriting.verify import Difference

Verdict = Literal["exact", "approximate", "refused"]


@dataclass(frozen=True, slots=True)
class Replacement:
    """One layer that was replaced: all its paths, and both layers as they print."""

    path: str
    old: str
    new: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """One layer (or call of a function) that was left as it is, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class ConvertResult:
    """What `convert` did.

    Attributes:
        model: The converted model.
        spec: The conversion.
        verdict: `"exact"`: outputs are the same in the modes of `exact_in`; `"approximate"`: they are not;
            `"refused"`: no layer was replaced.
        verified: The verdict was measured on inputs, and not only said by the conversion.
        exact_in: The modes in which outputs stay the same.
        replaced: The layers that were replaced.
        refused: Those that were not, with the reason.
        key_map: For each key of the old state dict the new one, or None where it is gone.
        parameter_map: For each old parameter the name of that object now, or None where it is gone.
        changed: Names of the tensors that hold other values than before.
        differences: The change of the outputs in `"eval"` and `"train"` mode; empty where the model could
            not be run.
        layers: The change of the output of each replaced layer, in eval mode.
        notes: What else there is to know.
    """

    model: nn.Module
    spec: str
    verdict: Verdict
    verified: bool = False
    exact_in: tuple[str, ...] = ()
    replaced: tuple[Replacement, ...] = ()
    refused: tuple[Refusal, ...] = ()
    key_map: dict[str, str | None] = field(default_factory=dict)
    parameter_map: dict[str, str | None] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    differences: dict[str, Difference] = field(default_factory=dict)
    layers: dict[str, Difference] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def modified(self) -> bool:
        """Was any layer replaced?"""
        return bool(self.replaced)

    def __str__(self) -> str:
        lines = [
            f"{self.spec}: {len(self.replaced)} replaced, {len(self.refused)} refused; {self._verdict()}"
        ]
        for new in self.replaced:
            also = f" (also {', '.join(new.aliases)})" if new.aliases else ""
            lines.append(f"  {new.path or 'the model'}{also}: {new.old} -> {new.new}")
        lines += [f"  {left.path or 'the model'} refused: {left.reason}" for left in self.refused]
        lines += [f"  {mode} outputs differ: {value}" for mode, value in self.differences.items()]
        if self.layers:
            path, worst = max(self.layers.items(), key=lambda item: item[1].relative)
            lines.append(f"  the output of {path or 'the model'} differs most: {worst}")
        dropped = sum(new is None for new in self.key_map.values())
        lines += [f"  {dropped} keys of the state dict are gone"] if dropped else []
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def _verdict(self) -> str:
        if self.verdict != "exact" or not self.replaced:
            return self.verdict
        words = f"exact in {' and '.join(self.exact_in)} mode"
        return words if self.verified else f"{words}, not verified"
