"""The settings of a run: what a configuration file says, with what the command line says over it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from normdoctor.errors import UsageError, near
from normdoctor.findings import Applicability, Confidence
from normdoctor.selection import Selection, select_rules, weight_of

#: The values of `fail-on`.
FAIL_ON = ("error", "warning", "info", "never")
#: The longest import that is waited for: a day.
MAX_SECONDS = 86_400
#: How many batches of data are read where nobody says otherwise.
BATCHES = 32
#: The largest number of batches or samples that Python can count.
_MOST = sys.maxsize
#: The values of a rule's level.
LEVELS = ("error", "warning", "warn", "info", "ignore")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that steers a check, for the command line, pytest and the library alike.

    Args:
        targets: What to check where nothing else is named.
        aliases: Names that stand for a target (`[tool.normdoctor.targets]`).
        select: The selectors of `normdoctor.selection`; likewise `ignore` and `extend_select`.
        only: Target to the selectors that node ids such as `model.py::Net::ND101` leave of it.
        levels: Rule code to error, warning, info or ignore.
        options: Rule code to that rule's options.
        fixable: The selectors of rules whose findings may be fixed; `unfixable`: may not be.
        extend_safe_fixes: Rules whose unsafe fixes count as safe; `extend_unsafe_fixes`: the reverse.
        fail_on: The severity from which on a finding fails the run.
        min_confidence: Findings below are counted, not shown.
        inputs: Input specs for every target; `target_inputs` are for one target each.
        loss: The name of a loss of torch's, a target string of one (`train.py:loss_fn`), or a callable.
        optimizer: A target string of a function that makes an optimizer of the model or its parameters.
        reference: A target string of the model that the targets are copies of.
        weights: A checkpoint whose weights stand in for the targets' own.
        data: A target string of an iterable of batches, of a DataLoader or of a function that returns one,
            or `synthetic`; `batches` of it are read.
        batch_size: The batch size of the training, where it is stated; synthetic batches have it.
        roles: Name of a function or class to the role that it has.
        import_timeout: Seconds after which an import is stopped; None for the loader's own limit.
        progress: Show on a terminal how far a measurement is.
        exitfirst: Stop at the first rule that fails.
        ignore_suppressions: Comments silence nothing; globs of the file still do.
        baseline: The file of known findings; `baseline_mode` is read, write or prune.
        save_facts: File to write the facts to; `from_facts`: file to read them from.
        root: The folder that globs are relative to: where the configuration file lies.
    """

    targets: tuple[str, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    extend_select: tuple[str, ...] = ()
    preview: bool = False
    only: dict[str, tuple[str, ...]] = field(default_factory=dict)
    levels: dict[str, str] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    fixable: tuple[str, ...] = ()
    unfixable: tuple[str, ...] = ()
    extend_safe_fixes: tuple[str, ...] = ()
    extend_unsafe_fixes: tuple[str, ...] = ()
    fail_on: str = "warning"
    min_confidence: Confidence = Confidence.MEDIUM
    output_format: str = "full"
    per_file_ignores: dict[str, tuple[str, ...]] = field(default_factory=dict)
    per_module_ignores: dict[str, tuple[str, ...]] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    target_inputs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    loss: object | None = None
    optimizer: object | None = None
    reference: str | None = None
    weights: Path | None = None
    data: str | None = None
    batches: int = BATCHES
    batch_size: int | None = None
    progress: bool = False
    device: str | None = None
    import_timeout: float | None = None
    exitfirst: bool = False
    ignore_suppressions: bool = False
    baseline: Path | None = None
    baseline_mode: str = "read"
    save_facts: Path | None = None
    from_facts: Path | None = None
    root: Path = field(default_factory=Path)

    def selection(self, target: str | None = None, spec: str | None = None) -> Selection:
        """The rules that run on a target; `spec` is the string that it was asked for with."""
        only = self.only.get(spec if spec is not None else target or "")
        return select_rules(
            select=only or self.select,
            ignore=() if only else self.ignore,
            extend_select=() if only else self.extend_select,
            levels={} if only else self.levels,
            preview=self.preview,
            target=target,
        )

    def may_fix(self, code: str) -> bool:
        """Whether findings of this rule may be fixed; the narrower selector wins, `unfixable` at a tie."""
        wanted, unwanted = weight_of(code, self.fixable or ("ALL",)), weight_of(code, self.unfixable)
        return wanted is not None and (unwanted is None or wanted > unwanted)

    def level_of_fix(self, code: str, level: Applicability) -> Applicability:
        """How safe a fix of this rule counts as; what is only displayed stays so."""
        safe, unsafe = weight_of(code, self.extend_safe_fixes), weight_of(code, self.extend_unsafe_fixes)
        if level is Applicability.UNSAFE and safe is not None and (unsafe is None or safe > unsafe):
            return Applicability.SAFE
        if level is Applicability.SAFE and unsafe is not None and (safe is None or unsafe >= safe):
            return Applicability.UNSAFE
        return level

    def inputs_for(self, spec: str) -> tuple[str, ...]:
        """The input specs that were given for a target."""
        return self.target_inputs.get(spec) or self.inputs


def check_timeout(seconds: float | None) -> None:
    """Raise UsageError for a time limit that no timer can be set to."""
    if seconds is not None and not 0 < seconds <= MAX_SECONDS:
        raise UsageError(f"expected more than 0 and at most {MAX_SECONDS} seconds, found {seconds:g}")


def check_count(count: object, what: str) -> None:
    """Raise UsageError for a number of batches or samples that is none."""
    if type(count) is not int or count < 1:
        raise UsageError(f"expected {what} of at least 1, found {count!r}")
    if count > _MOST:
        raise UsageError(f"expected {what} of at most {_MOST}, found {count}")


def check_confidence(text: object) -> None:
    """Raise UsageError for a confidence that is none."""
    if text not in list(Confidence):
        raise UsageError(
            f"min_confidence is {text!r}: expected low, medium or high",
            hint=near(str(text), list(Confidence)),
        )


def override(settings: Settings, **given: Any) -> Settings:
    """Lay the values that were given on the command line (those not None or empty) over a file's.

    A `select` sets aside what the file selects and ignores; an `ignore` adds to the file's. So do `fixable`
    and `unfixable`.
    """
    changes = {key: value for key, value in given.items() if value not in (None, ())}
    if "select" in changes:
        settings = replace(
            settings,
            ignore=(),
            extend_select=(),
            levels={code: level for code, level in settings.levels.items() if level != "ignore"},
        )
    if "fixable" in changes:
        settings = replace(settings, unfixable=())
    for key in ("ignore", "extend_select", "unfixable"):
        if key in changes:
            changes[key] = (*getattr(settings, key), *changes[key])
    if "inputs" in changes:
        changes["target_inputs"] = {}
    return replace(settings, **changes)


def anchor(spec: str, root: Path) -> str:
    """Write a target of a configuration file in `root` as seen from the current folder."""
    file, separator, rest = spec.partition(":")
    if file.endswith(".py") or "/" in file:
        found = root / file
        if found.exists():
            return os.path.relpath(found) + separator + rest
    return spec
