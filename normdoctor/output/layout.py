"""What `Report.to_dict` and the format `json` hold, key by key: the source of the published schema.

A test lays real reports over it and fails for a key that is not named here. Within a version, keys are only
added; readers must accept keys that they do not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import fields as fields_of

from normdoctor.views.activity import Activity
from normdoctor.views.batchsizes import BatchSizes
from normdoctor.views.gradients import GradientPoint
from normdoctor.views.norms import NormRow
from normdoctor.views.profile import ProfilePoint
from normdoctor.views.runningstats import RunningStats

Severity = Literal["error", "warning", "info"]
Outcome = Literal["failed", "noted", "passed", "skipped", "error"]


def _about(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class Tool(msgspec.Struct, frozen=True):
    """What wrote the report."""

    name: Literal["normdoctor"]
    version: str


class Place(msgspec.Struct, frozen=True):
    """A span of source."""

    file: Annotated[str, _about("Relative to the current folder where it lies below, with /.")]
    line: Annotated[int, _about("From 1.")]
    column: Annotated[int, _about("From 1, in characters; 0 where it is not known.")]
    end_line: Annotated[int, _about("0 where it is not known.")]
    end_column: Annotated[int, _about("The one behind the last character.")]


class Input(msgspec.Struct, frozen=True):
    """An input that the forward was recorded with."""

    name: str
    shape: list[int]
    dtype: str
    source: Annotated[str, _about("Who says so: declared, given, guessed, ...")]


def _row(view: type[msgspec.Struct]) -> Any:
    """A row of a view as JSON has it: NaN and infinity are null."""
    fields = [(one.name, one.type | None if one.type is float else one.type) for one in fields_of(view)]
    head = (view.__doc__ or "").partition("\n")[0]
    return msgspec.defstruct(view.__name__, fields, frozen=True, namespace={"__doc__": head})


if TYPE_CHECKING:
    SignalRow: TypeAlias = ProfilePoint
    GradientRow: TypeAlias = GradientPoint
    ActivityRow: TypeAlias = Activity
    StatisticsRow: TypeAlias = RunningStats
    BatchRow: TypeAlias = BatchSizes
    InventoryRow: TypeAlias = NormRow
else:
    SignalRow, GradientRow, ActivityRow = map(_row, (ProfilePoint, GradientPoint, Activity))
    StatisticsRow, BatchRow, InventoryRow = map(_row, (RunningStats, BatchSizes, NormRow))


class Measured(msgspec.Struct, frozen=True):
    """What was measured of a model, a row a place; empty lists where it was not."""

    signal: Annotated[list[SignalRow], _about("Mean and variance by depth.")]
    gradients: Annotated[list[GradientRow], _about("Of the weights of a watched model, by depth.")]
    activity: Annotated[list[ActivityRow], _about("How often units are active: dead and saturated ones.")]
    running_stats: Annotated[list[StatisticsRow], _about("Running statistics against batches.")]
    batch_sizes: Annotated[list[BatchRow], _about("How sure batch statistics are.")]


class Target(msgspec.Struct, frozen=True):
    """A model that was examined."""

    name: str
    recorded: Annotated[
        Literal["meta", "fake", "real", ""],
        _about("How the forward was recorded; empty where it could not be."),
    ]
    inputs: list[Input]
    notes: list[str]
    norms: Annotated[dict[str, int], _about("Type of norm to the number of its layers.")]
    modules: int
    parameters: int
    rules: Annotated[dict[Outcome, list[str]], _about("Outcome to the codes of the rules that had it.")]
    inventory: Annotated[list[InventoryRow], _about("The norms, in the order of execution.")]
    measured: Annotated[Measured | UnsetType, _about("Absent where nothing was measured.")] = UNSET


class Related(msgspec.Struct, frozen=True):
    """Another place that has to do with a finding."""

    label: str
    location: Place | None


class Site(msgspec.Struct, frozen=True):
    """One of the modules that a finding holds for."""

    module: str
    evidence: dict[str, Any]
    call: Annotated[Place | None, _about("Where a forward calls it.")]


class Step(msgspec.Struct, frozen=True):
    """A change of the source."""

    action: str
    name: str | UnsetType = UNSET
    value: str | UnsetType = UNSET
    arguments: list[str] | UnsetType = UNSET
    at: Place | UnsetType | None = UNSET
    carries: Annotated[
        list[list[str]] | UnsetType, _about("Old and new names of tensors that are taken over.")
    ] = UNSET


class Fix(msgspec.Struct, frozen=True):
    """A remedy."""

    title: str
    applicability: Annotated[
        Literal["safe", "unsafe", "display"],
        _about("safe: the outputs stay. unsafe: numbers, names or shapes change. display: by hand."),
    ]
    edits: Annotated[
        dict[str, str], _about("Argument of the call at the place of the finding to its new source text.")
    ]
    steps: list[Step] | UnsetType = UNSET


class Suppression(msgspec.Struct, frozen=True):
    """What silences a finding."""

    by: Annotated[str, _about("The place of the comment, or the glob of the configuration file.")]
    reason: str


class Finding(msgspec.Struct, frozen=True):
    """A diagnosis at one place, with all the modules that it holds for."""

    code: Annotated[str, _about("The rule's code, such as ND101.")]
    name: Annotated[str, _about("The rule's name, such as bias-before-norm.")]
    severity: Severity
    confidence: Literal["high", "medium", "low"]
    message: str
    target: str
    node_id: Annotated[str, _about("Rule and target: model.py::Net::ND101.")]
    modules: Annotated[list[str], _about('Paths of modules; "" is the model itself.')]
    location: Place | None
    related: list[Related]
    evidence: Annotated[dict[str, Any], _about("The figures of the rule.")]
    sites: list[Site]
    fix: Fix | None
    help: str | None
    fingerprint: Annotated[str, _about("The same after edits that move lines; 16 hexadecimal digits.")]
    baseline: Annotated[bool, _about("It is known from the baseline, and fails nothing.")]
    suppressed: Annotated[bool, _about("It is silenced, and fails nothing.")]
    suppression: Suppression | None


class Skipped(msgspec.Struct, frozen=True):
    """A rule that could not run."""

    rule: str
    name: str
    target: str
    reason: str


class Problem(msgspec.Struct, frozen=True):
    """A target that could not be examined."""

    target: str
    message: str
    hint: str


class Counts(msgspec.Struct, frozen=True):
    """How many findings there are of each severity."""

    error: int
    warning: int
    info: int


class Row(msgspec.Struct, frozen=True):
    """How often one rule found something."""

    code: str
    name: str
    severity: Severity
    count: int
    modules: int
    fixable: int


class Summary(msgspec.Struct, frozen=True):
    """The report in figures."""

    ok: Annotated[bool, _about("Nothing fails, and everything could be examined.")]
    fail_on: Literal["error", "warning", "info", "never"]
    findings: Counts
    known: int
    suppressed: int
    hidden: Annotated[int, _about("Findings below the confidence that was asked for.")]
    rules: Annotated[dict[Outcome, int], _about("Outcome to how many rules had it.")]
    coverage: str
    statistics: list[Row]


class Layout(msgspec.Struct, frozen=True):
    """The report of a check."""

    schema_version: Literal[1]
    tool: Tool
    environment: Annotated[dict[str, str], _about("Versions of normdoctor, torch and Python; the platform.")]
    targets: list[Target]
    findings: Annotated[list[Finding], _about("Findings, then known ones, then suppressed ones.")]
    skipped: list[Skipped]
    problems: list[Problem]
    summary: Summary
