"""What the fixture `normdoctor` hands to a test."""

from __future__ import annotations

import inspect
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec

from normdoctor.arguments import selectors
from normdoctor.config import FAIL_ON
from normdoctor.errors import UsageError, kind_of, near
from normdoctor.findings import Finding
from normdoctor.report import NormDoctorFailure, Report, plural
from normdoctor.selection import parse_selector
from normdoctor.suite.limits import Limits
from normdoctor.suite.marks import defaults, known_options
from normdoctor.suite.models import target_of
from normdoctor.suite.text import failure_text, verdict
from normdoctor.suppression import Suppressed

if TYPE_CHECKING:
    from normdoctor.probing.monitor import Watch
    from normdoctor.suite.state import Record, State


class Doctor:
    """Checks models inside a test; the reports are kept for the end of the run.

    Options are those of `normdoctor.check`, and `fail_on`, `max_dead` and `min_batch`. What is not given is
    taken from the marker `normdoctor` of the test, then from pytest's options, then from `[tool.normdoctor]`.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def __repr__(self) -> str:
        return "<normdoctor>"

    def check(self, model: Any, inputs: Any = None, **options: Any) -> Report:
        """Check a model as `normdoctor.check` does, whatever it finds; it is left as it was.

        Raises:
            NormDoctorError: An argument is wrong, or the model cannot be loaded.
        """
        __tracebackhide__ = True
        return self._checked(model, inputs, options)[0].report

    def assert_healthy(
        self,
        model: Any,
        inputs: Any = None,
        *,
        data: Any = None,
        select: Any = None,
        ignore: Any = None,
        fail_on: str | None = None,
        max_dead: float | None = None,
        min_batch: int | None = None,
        **options: Any,
    ) -> Report:
        """Fail the test if there is a finding of level `fail_on` or above; return the report.

        A model whose forward could not be examined fails too: that nothing was found is then no sign of
        health. The failure is a `normdoctor.report.NormDoctorFailure`, an AssertionError.

        Args:
            model: A model, factory or target string as for `normdoctor.check`, or a report or a watch.
            inputs: What to call it with.
            data: Batches, for the rules that measure.
            select: Rules to run, by code, prefix or name.
            ignore: Rules not to run.
            fail_on: `"error"`, `"warning"` (the default), `"info"` or `"never"`.
            max_dead: The largest share of units of a ReLU, from 0 to 1, that may never be active on the data.
            min_batch: The smallest batch of the training: its statistics have to be sure enough for every
                BatchNorm, as measured on the data.
            options: The other options of `normdoctor.check`.

        Raises:
            NormDoctorFailure: The model is not healthy.
            NormDoctorError: An argument is wrong, or the model cannot be loaded.
        """
        __tracebackhide__ = True
        named = {"data": data, "select": select, "ignore": ignore, "fail_on": fail_on}
        named |= {"max_dead": max_dead, "min_batch": min_batch}
        options |= {key: value for key, value in named.items() if value is not None}
        record, limits = self._checked(model, inputs, options)
        besides = limits.unmet(record.report) if limits else []
        text = verdict(record.report, besides, full=self._state.show == "full")
        if text:
            record.told = True
            raise NormDoctorFailure(text)
        return record.report

    def watch(self, model: Any, *arguments: Any, **options: Any) -> Watch:
        """Return `normdoctor.watch(model, ...)`, to be used with `with`; `assert_healthy` takes it."""
        import normdoctor

        return normdoctor.watch(model, *arguments, **options)

    def expect(
        self,
        code: str,
        *,
        module: str = "*",
        report: Report | None = None,
        model: Any = None,
        inputs: Any = None,
        **options: Any,
    ) -> tuple[Finding, ...]:
        """Fail unless a rule found something; return what it found.

        For faults that are known and wanted, or not mended yet. At the end of the run they count as
        suppressed.

        Args:
            code: The rule, by code, name or prefix.
            module: A pattern (`stem.*`) that one of the modules of the finding has to fit.
            report: The report to look into; the last one of this test when None.
            model: A model to check first, in place of that.
            inputs: What to call that model with.
            options: Further options of that check.

        Raises:
            NormDoctorFailure: There is no such finding.
            NormDoctorError: There is no such rule, or nothing was checked yet.
        """
        __tracebackhide__ = True
        for name, value in (("code", code), ("module", module)):
            if not isinstance(value, str):
                raise UsageError(
                    f"expect(): {name} is {kind_of(value)}: expected a text",
                    hint='For example normdoctor.expect("ND202", module="stem.*").',
                )
        if report is not None and not isinstance(report, Report):
            raise UsageError(f"expect(): report is {kind_of(report)}: expected a report, as check() gives it")
        codes = parse_selector(code).codes
        if model is not None:
            report = self._checked(model, inputs, options)[0].report
        elif options or inputs is not None:
            raise UsageError("expect() takes inputs and options with model= only")
        found = report if report is not None else self._last()
        hits = [
            finding
            for finding in found.findings
            if finding.code in codes and any(fnmatchcase(path, module) for path in finding.modules)
        ]
        if not hits:
            raise NormDoctorFailure(_missing(code, codes, module, found))
        for record in self._state.records.values():
            if record.report is found:
                record.report = _set_aside(found, hits, record.test)
                break
        return tuple(hits)

    def _last(self) -> Report:
        item = self._state.current()
        records = self._state.of(item.nodeid) if item is not None else []
        if not records:
            hint = 'For example report = normdoctor.check(model, inputs=x), then normdoctor.expect("ND101").'
            raise UsageError("expect(): nothing was checked yet in this test", hint=hint)
        return records[-1].report

    def _checked(self, model: Any, inputs: Any, given: dict[str, Any]) -> tuple[Record, Limits | None]:
        __tracebackhide__ = True
        try:
            return self._check(model, inputs, given)
        except UsageError as error:
            raise error.with_traceback(None) from None

    def _check(self, model: Any, inputs: Any, given: dict[str, Any]) -> tuple[Record, Limits | None]:
        from normdoctor.doctor import check

        known_options(given)
        ready = _ready(model, inputs, given)
        options = defaults(self._state.current()) | given
        settings = replace(self._state.settings, baseline=None)
        if inputs is None:
            inputs = options.pop("inputs", None)
            inputs = inputs() if inspect.isfunction(inputs) else inputs
        options.pop("inputs", None)
        fail_on = options.pop("fail_on", settings.fail_on)
        if fail_on not in FAIL_ON:
            expected = ", ".join(FAIL_ON)
            hint = near(str(fail_on), list(FAIL_ON))
            raise UsageError(f"fail_on is one of {expected}; got {fail_on!r}", hint=hint)
        if ready is not None:
            return self._state.add(msgspec.structs.replace(ready, fail_on=fail_on)), None
        limits = Limits.taken(options)
        settings = limits.applied(replace(settings, fail_on=fail_on))
        selectors("select", options.get("select"))
        options.setdefault("min_confidence", settings.min_confidence.value)
        report = check(target_of(self._state, model), inputs, settings=settings, **options)
        return self._state.add(report), limits


def _ready(model: Any, inputs: Any, given: dict[str, Any]) -> Report | None:
    """The report, where a report or a watch takes the place of a model."""
    report = model if isinstance(model, Report) else None
    if type(model).__name__ == "Watch" and type(model).__module__.startswith("normdoctor."):
        report = model.report()
    if report is None:
        return None
    if more := sorted(
        {key for key in given if key != "fail_on"} | ({"inputs"} if inputs is not None else set())
    ):
        raise UsageError(f"{', '.join(more)}: {kind_of(model)} was made already, and takes fail_on only")
    return report


def _missing(code: str, codes: frozenset[str], module: str, report: Report) -> str:
    """Why a finding that was expected is not there, as far as the report knows."""
    where = f" at a module like `{module}`" if module != "*" else ""
    lines = [f"expected {code}{where}: there is no such finding ({report.coverage})"]
    elsewhere = [finding for finding in report.findings if finding.code in codes]
    if elsewhere:
        lines.append(failure_text(elsewhere, "found elsewhere:"))
    lines += [
        f"{item.finding.code} was suppressed by {item.by}"
        for item in report.suppressed
        if item.finding.code in codes
    ]
    outcomes = {result.code for result in report.results}
    lines += [
        f"{result.code} was skipped: {result.reason}" for result in report.skipped if result.code in codes
    ]
    lines += [
        f"{one} did not run: it was not selected" for one in sorted(codes - outcomes) if len(codes) == 1
    ]
    lines += [f"{problem.target}: {problem.message}" for problem in report.problems]
    if report.hidden:
        lines.append(f"{plural(report.hidden, 'finding')} of lower confidence not shown (min_confidence=)")
    return "\n".join(lines)


def _set_aside(report: Report, hits: list[Finding], test: str) -> Report:
    """The report for the end of the run: what was expected stands among what is suppressed."""
    by = f"expect() in {test}" if test else "expect()"
    aside = tuple(Suppressed(finding=finding, by=by) for finding in hits)
    left = tuple(finding for finding in report.findings if finding not in hits)
    return msgspec.structs.replace(report, findings=left, suppressed=(*report.suppressed, *aside))
