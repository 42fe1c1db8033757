"""The items of `--normdoctor`: one for each rule and target, grouped by target, examined once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from normdoctor.errors import NormDoctorError
from normdoctor.findings import Finding
from normdoctor.output.style import Style
from normdoctor.report import NormDoctorFailure, Report, RuleResult, at_least
from normdoctor.running import NO_GRAPH
from normdoctor.suite.examination import Examination
from normdoctor.suite.marks import skipped
from normdoctor.suite.plan import Place
from normdoctor.suite.state import count
from normdoctor.suite.text import clean, failure_text, finding_text, problem_text

if TYPE_CHECKING:
    from _pytest._code.code import TerminalRepr

    from normdoctor.suite.state import State

#: The item that says whether a target could be examined at all.
EXAMINATION = "examination"


def collect(state: State, session: pytest.Session) -> list[pytest.Item]:
    """The items of all targets, or of those that were asked for."""
    plan = state.plan
    assert plan is not None
    try:
        examinations = {spec: Examination(state, plan.settings, spec) for spec in plan.specs}
        with _captured(session.config):
            places = list(plan.places())
        nodes = [
            TargetNode.from_parent(
                session, name=place.node, nodeid=place.node, place=place, examination=examinations[place.spec]
            )
            for place in places
        ]
    except NormDoctorError as error:
        raise pytest.UsageError(str(error)) from error
    plan.demand([f"{node.nodeid}::{code}" for node in nodes for code in node.rules()])
    return [item for node in nodes for item in session.genitems(node)]


@contextmanager
def _captured(config: pytest.Config) -> Iterator[None]:
    """Keep what files print when they are imported from the output, as where pytest imports tests."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        yield
        return
    capture.resume_global_capture()
    try:
        yield
    finally:
        capture.suspend_global_capture()
        capture.read_global_capture()


class TargetNode(pytest.Collector):
    """One model; its children are the rules."""

    def __init__(self, *, place: Place, examination: Examination, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.place = place
        self.examination = examination

    def rules(self) -> dict[str, str]:
        """The rules that are selected for the model, by their codes, and the examination itself."""
        place, settings = self.place, self.examination.settings
        whole = place.spec not in settings.only
        # Those about the run judge all of its targets together: they are for `normdoctor check`.
        rules = settings.selection(place.target or place.spec, place.spec).rules
        found = {rule.code: rule.name for rule in rules if not rule.about_run}
        return {EXAMINATION: EXAMINATION, **found} if whole else found

    def collect(self) -> Iterator[RuleItem]:
        """Make the items that were asked for, all of them where none was."""
        plan = self.examination.state.plan
        for code, title in self.rules().items():
            if plan is not None and not plan.wanted(f"{self.nodeid}::{code}"):
                continue
            item: RuleItem = RuleItem.from_parent(self, name=code)
            item.extra_keyword_matches.add(title)
            if self.config.pluginmanager.hasplugin("xdist"):
                item.add_marker(pytest.mark.xdist_group(Style().clean(self.place.spec)))
            yield item

    def __repr__(self) -> str:
        return f"<NormdoctorTarget {self.name}>"


class RuleItem(pytest.Item):
    """One rule on one model; `notes` are findings that fail nothing."""

    notes: tuple[Finding, ...] = ()

    @property
    def place(self) -> Place:
        """The model."""
        return self._node.place

    @property
    def examination(self) -> Examination:
        """What is examined."""
        return self._node.examination

    @property
    def _node(self) -> TargetNode:
        assert isinstance(self.parent, TargetNode)
        return self.parent

    def setup(self) -> None:
        """Examine the target, unless that was done; what cannot be examined is an error, no failure."""
        report = self.examination.report(self.session.items)
        problem = self.examination.problem(self.place)
        lost = [result for result in self._results(report) if result.outcome == "error"]
        if lost:
            raise self._error(f"{self.name} raised {lost[0].reason}", lost[0].detail)
        if problem is None or not (self.name == EXAMINATION or self._untried(report)):
            return
        if self.name != EXAMINATION and self._said_elsewhere():
            raise skipped(f"not examined, see {self._node.name}::{EXAMINATION}")
        raise self._error(problem_text(replace(problem, target="")), problem.detail)

    def _error(self, text: str, detail: str) -> BaseException:
        """An error without pytest's own traceback; -v adds the one of what went wrong."""
        more = f"\n{clean(detail)}" if detail and self.config.get_verbosity() > 0 else ""
        return pytest.fail.Exception(f"error: {clean(text)}{more}", pytrace=False)

    def _results(self, report: Report) -> list[RuleResult]:
        return [
            result
            for result in report.results
            if result.code == self.name and self.place.target in (None, result.target)
        ]

    def _untried(self, report: Report) -> bool:
        return all(result.reason.startswith(NO_GRAPH) for result in self._results(report))

    def _said_elsewhere(self) -> bool:
        return any(
            isinstance(item, RuleItem) and item.parent is self.parent and item.name == EXAMINATION
            for item in self.session.items
        )

    def runtest(self) -> None:
        """Fail where a finding of the rule is at or above `fail-on`."""
        report = self.examination.report(self.session.items)
        results = self._results(report)
        if self.name == EXAMINATION:
            return
        if reasons := [result.reason for result in results if result.outcome == "skipped"]:
            if len(reasons) == len(results):
                raise skipped(clean(reasons[0]))
        elif not results:
            raise skipped("not selected for this target")
        findings = [
            finding
            for finding in report.findings
            if finding.code == self.name and self.place.target in (None, finding.target)
        ]
        self._count(findings)
        failing = at_least(findings, report.fail_on)
        if failing:
            raise NormDoctorFailure(failure_text(failing, full=self.examination.state.show == "full"))
        self.notes = tuple(findings)

    def _count(self, findings: list[Finding]) -> None:
        count(self, [Report(findings=tuple(findings))])

    @property
    def note(self) -> str:
        """The findings below `fail-on`, for the section beside the outcome."""
        return "\n".join(finding_text(finding) for finding in self.notes)

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], *args: Any, **kwargs: Any
    ) -> str | TerminalRepr:
        """The words of the report; a traceback is for what is no finding."""
        if isinstance(excinfo.value, NormDoctorFailure):
            return str(excinfo.value)
        return super().repr_failure(excinfo, *args, **kwargs)

    def reportinfo(self) -> tuple[Path, int, str]:
        """The place that pytest prints: the file of the target, and what follows it in the node id."""
        head, _, model = self._node.name.partition("::")
        return self.config.rootpath / head, 0, f"{model}::{self.name}".removeprefix("::")
