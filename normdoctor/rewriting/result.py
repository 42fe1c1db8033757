"""What `convert` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from normdoctor.findings import masked
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
        if not self.replaced and not self.refused:
            return "\n".join([f"{self.spec}: no layer that it converts", *(f"  {n}" for n in self.notes)])
        lines = [
            f"{self.spec}: {len(self.replaced)} replaced, {len(self.refused)} refused; {self._verdict()}"
        ]
        lines += [*self._replacements(), *self._refusals()]
        if self.replaced:
            lines += [f"  {mode} {_told(value)}" for mode, value in self.differences.items()]
        if self.layers:
            path, worst = max(self.layers.items(), key=lambda item: item[1].relative)
            lines += [f"  the output of {path or 'the model'} differs most: {worst}"] if worst.largest else []
        dropped = sum(new is None for new in self.key_map.values())
        lines += [f"  {dropped} keys of the state dict are gone"] if dropped else []
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def to_html(self) -> str:
        """What was done as a web page: one text that needs no other file; save it with `encoding="utf-8"`."""
        from normdoctor.output.page.conversion import conversion_page

        return conversion_page(self)

    def _repr_html_(self) -> str:
        from normdoctor.output.page.conversion import conversion_fragment

        return conversion_fragment(self)

    def _verdict(self) -> str:
        if self.verdict != "exact" or not self.replaced:
            return self.verdict
        words = f"exact in {' and '.join(self.exact_in)} mode"
        return words if self.verified else f"{words}, not verified"

    def _replacements(self) -> list[str]:
        """A line for each pair of classes; `replaced` has the layers one by one."""
        pairs: dict[tuple[str, str], list[Replacement]] = {}
        for one in self.replaced:
            pairs.setdefault((_name(one.old), _name(one.new)), []).append(one)
        lines = []
        for (old, new), members in pairs.items():
            settings = ", ".join(_settings(members))
            home = {"torch->own": "normdoctor.layers.", "own->torch": "torch.nn."}.get(self.spec, "")
            paths = masked(tuple(one.path for one in members))
            aliases = [alias for one in members for alias in one.aliases]
            also = f", also {masked(tuple(aliases))}" if aliases else ""
            count = f"{len(members)} {old} -> " if len(members) > 1 else f"{old} -> "
            lines.append(f"  {count}{home}{new}{f'({settings})' if settings else ''}: {paths}{also}")
        return lines

    def _refusals(self) -> list[str]:
        reasons: dict[str, list[str]] = {}
        for left in self.refused:
            reasons.setdefault(left.reason, []).append(left.path)
        return [f"  {masked(tuple(paths))} refused: {reason}" for reason, paths in reasons.items()]


def _told(difference: Difference) -> str:
    return f"outputs differ: {difference}" if difference.largest else "outputs are equal"


def _name(printed: str) -> str:
    return printed.partition("(")[0]


def _arguments(printed: str) -> list[str]:
    """What a layer prints between the brackets; one with children has it on the line below, if at all."""
    inside = printed.partition("(")[2].strip()
    first, *children = inside.splitlines() or [""]
    if not children:
        return first.removesuffix(")").split(", ")
    return [] if "): " in first else first.split(", ")


def _settings(members: list[Replacement]) -> list[str]:
    """The arguments that all the new layers share and the old ones did not have."""
    shared = [
        one
        for one in _arguments(members[0].new)
        if one and all(one in _arguments(member.new) for member in members)
    ]
    return [one for one in shared if not any(one in _arguments(member.old) for member in members)]
