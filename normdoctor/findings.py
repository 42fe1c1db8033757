"""What a rule says: findings, their levels, and the fixes that they offer. Plain data, no torch."""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from typing import Any

import msgspec

from normdoctor.facts import Location


class Severity(StrEnum):
    """How wrong it is: `error` always, `warning` usually, `info` redundant or harmless."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """0 for info, 1 for warning, 2 for error."""
        return list(Severity).index(self)


class Confidence(StrEnum):
    """How sure the rule is that what it says holds."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """0 for low, 1 for medium, 2 for high."""
        return list(Confidence).index(self)


class Applicability(StrEnum):
    """What a fix may change.

    `safe`: the function of the model stays the same. `unsafe`: numbers, parameter names or shapes
    change. `display`: shown to the reader, never applied.
    """

    SAFE = "safe"
    UNSAFE = "unsafe"
    DISPLAY = "display"


class Edit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change of the source, as data; `normdoctor.fixing` finds the code and carries it out.

    Made by the functions below. It acts at `at`, or at the finding's own place where that is None.
    """

    action: str
    name: str = ""
    value: str = ""
    arguments: tuple[str, ...] = ()
    at: Location | None = None
    carries: tuple[tuple[str, str], ...] = ()

    @classmethod
    def argument(cls, name: str, value: str, at: Location | None = None) -> Edit:
        """Set an argument of the call to this source text (`{}` in it is the old one); "" drops it."""
        return cls(action="argument", name=name, value=value, at=at)

    @classmethod
    def drop(cls) -> Edit:
        """Take the operation out: what it was called on goes on unchanged."""
        return cls(action="drop")

    @classmethod
    def swap(cls, new: str, *, old: str = "", at: Location | None = None) -> Edit:
        """Call something else with the same arguments: `torch.nn.LogSoftmax`.

        With `old`, the call of that function around the place, or the only one in the file.
        """
        return cls(action="swap", name=old, value=new, at=at)

    @classmethod
    def contain(cls, path: str) -> Edit:
        """Put the plain container at this path of the model into nn.ModuleList and the like."""
        return cls(action="contain", name=path)

    @classmethod
    def register(cls, name: str) -> Edit:
        """Make a buffer of the tensor that the modules of the finding hold in a plain attribute."""
        return cls(action="register", name=name)

    @classmethod
    def functional(cls) -> Edit:
        """Call the function of a dropout that forward builds anew each time, with the model's mode."""
        return cls(action="functional")

    @classmethod
    def constant(cls, old: float, new: str) -> Edit:
        """Write another number for a literal in the expression."""
        return cls(action="constant", name=repr(old), value=new)

    @classmethod
    def build(
        cls,
        new: str,
        arguments: tuple[str, ...],
        *,
        at: Location | None = None,
        carries: tuple[tuple[str, str], ...] = (),
    ) -> Edit:
        """Build another layer at `at`, which takes over the old tensors under new names (`carries`).

        An argument `12?` is kept as the old call's first argument, where that may be the same number.
        """
        return cls(action="build", value=new, arguments=arguments, at=at, carries=carries)

    @classmethod
    def comment(cls, kept: str) -> Edit:
        """Leave only these codes in a suppression comment; "" removes it."""
        return cls(action="comment", value=kept)


class Fix(msgspec.Struct, frozen=True, kw_only=True):
    """A remedy: `title` says it in a few words, `edits` and `steps` are what to do with the source.

    `edits` maps the name of an argument of the call at the finding's location to its new source text
    (`{"bias": "False"}`), where "" drops the argument; `steps` are other changes. Both are empty where the
    remedy cannot be written down so.

    Args:
        title: The remedy in a few words.
        applicability: Whether it may be applied unasked.
        edits: Arguments of the call at the finding's location.
        steps: Further changes of the source.
        keeps: Whether the outputs stay the same, where that does not follow from the applicability.
        everywhere: Modules that are built at the same place and are not at fault may be changed along.
        alters: The outputs change, since the fault lies in them: the proof of a safe fix compares with the
            old model in which this one call was made right.
        absorbed: Names of tensors: one that goes, and those of which one takes its value in (a bias, and the
            running mean that is smaller by it afterwards).
    """

    title: str
    applicability: Applicability = Applicability.DISPLAY
    edits: dict[str, str] = {}
    steps: tuple[Edit, ...] = ()
    keeps: bool | None = None
    everywhere: bool = False
    alters: bool = False
    absorbed: tuple[tuple[str, ...], ...] = ()

    @property
    def preserving(self) -> bool:
        """Do the outputs have to be the same afterwards (or those of the old model made right)?"""
        if self.keeps is not None:
            return self.keeps
        return self.applicability is Applicability.SAFE or any(step.action == "build" for step in self.steps)

    @property
    def applicable(self) -> bool:
        """Can it be applied by a machine?"""
        return self.applicability is not Applicability.DISPLAY and bool(self.edits or self.steps)


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """One place of a finding that holds at many: the module, the figures measured there, the call."""

    module: str
    evidence: dict[str, Any] = {}
    call: Location | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One diagnosis at one source span, with all the modules that it holds for.

    `message` may hold `{modules}`, which stands for the masked module paths (`layer*.conv1`) and is
    filled in when findings are grouped. `location` is the span to point at (where the module was
    built, or the call in `forward`); None where no source is known.
    """

    code: str
    name: str
    severity: Severity
    confidence: Confidence
    message: str
    modules: tuple[str, ...] = ()
    location: Location | None = None
    related: tuple[tuple[str, Location], ...] = ()
    evidence: dict[str, Any] = {}
    sites: tuple[Site, ...] = ()
    fix: Fix | None = None
    target: str = ""
    help: str | None = None

    @property
    def fingerprint(self) -> str:
        """A key that survives edits of the source: rule, masked module paths and target; no line."""
        return fingerprint(self.code, self.modules, self.target)

    @property
    def node_id(self) -> str:
        """The pytest-like address `model.py::Net::ND101`."""
        return node_id(self.target, self.code)


def node_id(target: str, code: str = "") -> str:
    """The pytest-like address of a target, or of a rule on it: `model.py::Net::ND101`."""
    drive, rest = (target[:2], target[2:]) if re.match(r"[A-Za-z]:[\\/]", target) else ("", target)
    file, _, name = rest.partition(":")
    return "::".join(part for part in (drive + file, name, code) if part)


def mask(path: str) -> str:
    """Replace the indices in a module path: `layer1.0.conv` becomes `layer*.*.conv`."""
    return re.sub(r"\d+", "*", path)


def masked(paths: tuple[str, ...]) -> str:
    """Name many modules in few words: a lone path as it is, several by what they share.

    Where more than one name is left the others stand in brackets, so that the first stays the subject
    of a sentence in the singular: "`a.fc` (likewise `b.proj`) is called twice".
    """
    if len(paths) == 1:
        return _quoted(paths[0])
    alike: dict[str, list[str]] = {}
    for path in paths:
        alike.setdefault(mask(path), []).append(path)
    masks = sorted(_shared(members) for members in alike.values())
    names = [_quoted(item) for item in masks[:3]]
    more = f" and {len(masks) - 3} more" if len(masks) > 3 else ""
    return f"{names[0]} (likewise {', '.join(names[1:])}{more})" if len(names) > 1 else "".join(names)


def _quoted(path: str) -> str:
    return f"`{path}`" if path else "the model"


def _shared(paths: list[str]) -> str:
    """Paths that differ in their indices, as one with `*` for those that differ."""
    columns = zip(*(re.split(r"(\d+)", path) for path in paths), strict=True)
    return "".join(parts[0] if len(set(parts)) == 1 else "*" for parts in columns)


def fingerprint(code: str, modules: tuple[str, ...], target: str) -> str:
    """Hash what identifies a finding over time, as 16 hexadecimal digits."""
    text = "\n".join((code, target, *sorted({mask(path) for path in modules})))
    # Names of files may hold bytes that are no text: Python keeps those as lone surrogates.
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]
