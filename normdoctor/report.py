"""The report: what was examined, what was found, and what could not be examined and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from normdoctor.errors import UsageError, near
from normdoctor.facts import InputFact
from normdoctor.findings import Finding, Severity, node_id
from normdoctor.suppression import Suppressed
from normdoctor.views.activity import Activity
from normdoctor.views.batchsizes import SIZES, BatchSizes
from normdoctor.views.gradients import GradientPoint
from normdoctor.views.neighbourhood import Neighbourhood
from normdoctor.views.norms import NormRow
from normdoctor.views.profile import ProfilePoint
from normdoctor.views.runningstats import RunningStats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The version of `Report.to_dict`. Within one version, keys are only added.
SCHEMA_VERSION = 1
#: How the reason of a rule begins that was skipped for want of data.
NO_DATA = "it needs measurements on data"


class NormDoctorFailure(AssertionError):  # noqa: N818
    """A report holds findings that must not be there."""


class RuleResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one rule on one target.

    `outcome` is `failed` (a finding that fails the run), `noted` (findings below `fail_on`),
    `passed`, `skipped` (with the reason) or `error` (the rule raised; `detail` is the traceback).
    """

    target: str
    code: str
    name: str
    outcome: str
    reason: str = ""
    detail: str = ""

    @property
    def node_id(self) -> str:
        """The pytest-like address `model.py::Net::ND101`."""
        return node_id(self.target, self.code)


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A target, or a part of its examination, that failed; `detail` is the traceback."""

    target: str
    message: str
    hint: str = ""
    detail: str = ""


class TargetSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What was examined: one model, how it was recorded, with which inputs, and its inventory.

    `recorded` is `"meta"`, `"fake"`, `"real"`, or `""` where the forward could not be recorded;
    `norms` counts the norm layers by type, `inventory` has a row for each; `neighbourhoods` show the recorded
    graph around findings. Measured, and empty where nothing was: `profile` is the signal by depth,
    `gradients` that of the weights, `activity` the dead and saturated units, `batch_sizes` says how sure the
    statistics of each BatchNorm are, and `running_stats` how far its running ones are from the data.
    """

    name: str
    recorded: str = ""
    inputs: tuple[InputFact, ...] = ()
    notes: tuple[str, ...] = ()
    norms: dict[str, int] = {}
    modules: int = 0
    parameters: int = 0
    profile: tuple[ProfilePoint, ...] = ()
    batch_sizes: tuple[BatchSizes, ...] = ()
    inventory: tuple[NormRow, ...] = ()
    gradients: tuple[GradientPoint, ...] = ()
    activity: tuple[Activity, ...] = ()
    running_stats: tuple[RunningStats, ...] = ()
    neighbourhoods: tuple[Neighbourhood, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a check. `findings` are sorted by file, line, column, code and module.

    `suppressed` findings were silenced by the user, `known` are those in the baseline, `hidden` counts
    those below the confidence that was asked for; none of them fails. `problems` are targets that could
    not be examined; `remarks` say what was written beside the report.
    """

    findings: tuple[Finding, ...] = ()
    results: tuple[RuleResult, ...] = ()
    targets: tuple[TargetSummary, ...] = ()
    suppressed: tuple[Suppressed, ...] = ()
    known: tuple[Finding, ...] = ()
    problems: tuple[Problem, ...] = ()
    hidden: int = 0
    fail_on: str = "warning"
    environment: dict[str, str] = {}
    remarks: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings at or above `fail_on`."""
        return at_least(self.findings, self.fail_on)

    @property
    def ok(self) -> bool:
        """Nothing fails, no rule raised, and every target was examined."""
        return not (self.failures or self.problems or any(r.outcome == "error" for r in self.results))

    @property
    def skipped(self) -> tuple[RuleResult, ...]:
        """The rules that could not run, each with its reason."""
        return tuple(result for result in self.results if result.outcome == "skipped")

    @property
    def unmeasured(self) -> tuple[RuleResult, ...]:
        """Those of the skipped rules that want data."""
        return tuple(result for result in self.skipped if result.reason.startswith(NO_DATA))

    @property
    def exit_code(self) -> int:
        """0 clean, 1 findings at or above `fail_on`, 2 something could not be examined."""
        if self.problems or any(result.outcome == "error" for result in self.results):
            return 2
        return 1 if self.failures else 0

    @property
    def coverage(self) -> str:
        """How much was examined: `53 norm layers, 14 rules`."""
        layers = sum(sum(target.norms.values()) for target in self.targets)
        rules = len({result.code for result in self.results if result.outcome != "skipped"})
        return f"{plural(layers, 'norm layer')}, {plural(rules, 'rule')}"

    def by_module(self) -> dict[str, tuple[Finding, ...]]:
        """Module path to the findings that hold for it."""
        found: dict[str, list[Finding]] = {}
        for finding in self.findings:
            for path in finding.modules:
                found.setdefault(path, []).append(finding)
        return {path: tuple(found[path]) for path in sorted(found)}

    def by_rule(self) -> dict[str, tuple[Finding, ...]]:
        """Code to the findings of that rule."""
        codes = sorted({finding.code for finding in self.findings})
        return {code: tuple(f for f in self.findings if f.code == code) for code in codes}

    def counts(self) -> dict[str, int]:
        """Outcome to the number of rules (on each target) that had it; only what occurred."""
        counted = Counter(result.outcome for result in self.results)
        counted["error"] += len(self.problems)
        return {
            key: counted[key] for key in ("failed", "noted", "passed", "skipped", "error") if counted[key]
        }

    def profile(self) -> list[dict[str, Any]]:
        """Mean, variance and gradient RMS by depth, as plain data; empty where nothing was measured.

        One entry for each layer, norm and activation of each target, in the order of execution; its keys
        are `target` and the fields of `normdoctor.views.profile.ProfilePoint`.
        """
        return [
            {"target": target.name, **msgspec.structs.asdict(point)}
            for target in self.targets
            for point in target.profile
        ]

    def batch_sizes(self) -> list[dict[str, Any]]:
        """The small-batch advisor as plain data: a row for each BatchNorm that was measured.

        Its keys are `target`, the fields of `normdoctor.views.batchsizes.BatchSizes`, and `n_eff` and
        `error_of_mean` by batch size from 1 to 256.
        """
        return [
            {
                "target": target.name,
                **msgspec.structs.asdict(row),
                "n_eff": {size: row.n_eff(size) for size in SIZES},
                "error_of_mean": {size: row.error_of_mean(size) for size in SIZES},
            }
            for target in self.targets
            for row in target.batch_sizes
        ]

    def plot(
        self,
        kind: str = "signal",
        ax: Axes | None = None,
        *,
        target: str | None = None,
        about: str | None = None,
    ) -> Axes:
        """Draw a chart with matplotlib (the extra `plot`); nothing is shown, and no setting is changed.

        Args:
            kind: `signal`, `gradients`, `activity`, `running-mean`, `running-var`, `batch-noise` or
                `neighbourhood`.
            ax: The axes to draw into; without them those of a new figure.
            target: The name of a target, where the report has several; else the first that has the chart.
            about: For a neighbourhood the code or fingerprint of a finding; otherwise the first.

        Returns:
            The axes.

        Raises:
            UsageError: There is no such chart, the report holds no figures for it, or matplotlib is missing.
        """
        from normdoctor.output.charts.plot import plot

        return plot(self, kind, ax, target=target, about=about)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, in the layout of `SCHEMA_VERSION`."""
        from normdoctor.output.schema import to_dict

        return to_dict(self)

    def raise_for_findings(self, fail_on: str = "warning") -> None:
        """Raise `NormDoctorFailure` when a finding is at or above `fail_on`, or a rule raised."""
        judged = msgspec.structs.replace(self, fail_on=fail_on)
        if not judged.ok:
            from normdoctor.output.formats.concise import line
            from normdoctor.output.style import Style

            head = f"{plural(len(judged.failures), 'finding')} ({self.coverage})"
            lines = [line(finding, Style()) for finding in judged.failures]
            lines += [f"{problem.target}: {problem.message}" for problem in self.problems]
            raise NormDoctorFailure("\n".join([head, *lines]))

    def __str__(self) -> str:
        from normdoctor.output import render
        from normdoctor.output.style import Style

        return render(self, "full", Style(library=True)).rstrip("\n")

    def to_html(self) -> str:
        """The report as a web page: one text that needs no other file and loads nothing from elsewhere.

        It is what `--output-format html` writes; save it with `encoding="utf-8"`.
        """
        from normdoctor.output.page.report import report_page

        return report_page(self)

    def _repr_html_(self) -> str:
        from normdoctor.output.notebook import to_html

        return to_html(self)


def at_least(findings: Iterable[Finding], fail_on: str) -> tuple[Finding, ...]:
    """The findings whose severity is `fail_on` or worse; none for `never`."""
    if fail_on == "never":
        return ()
    if fail_on not in list(Severity):
        raise UsageError(
            f"fail_on is {fail_on!r}: expected error, warning, info or never",
            hint=near(str(fail_on), [*Severity, "never"]),
        )
    floor = Severity(fail_on).rank
    return tuple(finding for finding in findings if finding.severity.rank >= floor)


def plural(count: int, noun: str) -> str:
    """`1 rule`, `2 rules`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
