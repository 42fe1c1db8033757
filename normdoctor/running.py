"""Running rules over facts, one target after another: the half of a check that needs no torch."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from normdoctor.baseline import Baseline
from normdoctor.census import count_norms, count_parameters, handwritten_norms
from normdoctor.config import Settings
from normdoctor.environment import environment
from normdoctor.errors import NormDoctorError, UsageError
from normdoctor.facts import Facts
from normdoctor.findings import Finding, Severity
from normdoctor.graph import Graph
from normdoctor.grouping import group, order
from normdoctor.idle import idle_comments
from normdoctor.report import NO_DATA, Problem, Report, RuleResult, TargetSummary, at_least
from normdoctor.rules.base import Rule
from normdoctor.rules.runs import Crash, Run, RunRule, Unrecorded
from normdoctor.rules.smallbatch import batch_sizes
from normdoctor.rules.tool.rule_crashed import RuleCrashed
from normdoctor.suppression import Suppressed, Suppressions
from normdoctor.views.activity import activity_of
from normdoctor.views.gradients import gradients_of
from normdoctor.views.neighbourhood import neighbourhoods
from normdoctor.views.norms import norm_rows
from normdoctor.views.profile import profile_of
from normdoctor.views.runningstats import running_stats

LOG = logging.getLogger(__name__)

#: Called with each result as soon as it is known.
OnResult = Callable[[RuleResult], None]

NO_GRAPH = "the forward could not be recorded"


class Session:
    """One check: feed it the facts of each target, then ask for the report.

    `stopped` is true once `settings.exitfirst` asks for no more. Without `views` the report has findings and
    results only, for who looks at nothing else.
    """

    def __init__(self, settings: Settings, on_result: OnResult | None = None, *, views: bool = True) -> None:
        self.settings = settings
        self.views = views
        self.stopped = False
        self._on_result = on_result
        self._silencer = Suppressions(
            settings.per_file_ignores,
            settings.per_module_ignores,
            settings.root,
            heed_comments=not settings.ignore_suppressions,
        )
        self._baseline = (
            Baseline(settings.baseline, settings.root, settings.baseline_mode) if settings.baseline else None
        )
        self._run_rules: dict[str, type[RunRule]] = {}
        self._crashes: list[Crash] = []
        self._known: list[Finding] = []
        self._facts: list[Facts] = []
        self._raw: list[Finding] = []
        self._suppressed: list[Suppressed] = []
        self._results: list[RuleResult] = []
        self._problems: list[Problem] = []
        self._hidden = 0

    def requirements(self, target: str | None = None, spec: str | None = None) -> frozenset[str]:
        """What the selected rules require of the facts, so that the rest need not be computed."""
        rules = self.settings.selection(target, spec).rules
        return frozenset().union(*(rule.requires for rule in rules))

    def needs(self, target: str | None = None, spec: str | None = None) -> frozenset[str]:
        """What the selected rules need to be measured."""
        rules = self.settings.selection(target, spec).rules
        return frozenset().union(*(rule.needs for rule in rules))

    def check(self, facts: Facts, spec: str | None = None) -> None:
        """Run the selected rules on one target; `spec` is what the user asked for it with."""
        self._facts.append(facts)
        graph = Graph(facts)
        for rule in self._rules(facts.target, spec):
            if self.stopped:
                break
            result = self._run(rule, graph)
            self._results.append(result)
            if self._on_result is not None:
                self._on_result(result)
            self.stopped = self.settings.exitfirst and result.outcome in ("failed", "error")

    def problem(self, target: str, error: NormDoctorError) -> None:
        """Record that a target could not be examined; the others still are."""
        detail = "".join(traceback.format_exception(error))
        self._problems.append(
            Problem(target=target, message=error.message, hint=error.hint or "", detail=detail)
        )
        self.stopped = self.stopped or self.settings.exitfirst

    def report(self) -> Report:
        """Everything so far; writes the facts and the baseline where the settings ask for it."""
        if self.settings.save_facts is not None:
            save_facts(self.settings.save_facts, self._facts)
        self._judge_run()
        remark = self._baseline.save(self._results) if self._baseline else ""
        findings = group(self._raw)
        return Report(
            findings=findings,
            results=tuple(self._results),
            targets=tuple(_summary(facts, findings, views=self.views) for facts in self._facts),
            suppressed=tuple(sorted(self._suppressed, key=lambda item: order(item.finding))),
            known=tuple(sorted(self._known, key=order)),
            problems=tuple(self._problems),
            hidden=self._hidden,
            fail_on=self.settings.fail_on,
            environment=environment(),
            remarks=(remark,) if remark else (),
        )

    def _rules(self, target: str, spec: str | None) -> list[type[Rule]]:
        """The rules that are selected for a target; those about the run wait for its end."""
        selection = self.settings.selection(target, spec)
        if RuleCrashed.code not in selection.off:
            self._run_rules[RuleCrashed.code] = RuleCrashed
        self._run_rules |= {rule.code: rule for rule in selection.rules if issubclass(rule, RunRule)}
        return [rule for rule in selection.rules if not rule.about_run]

    def _judge_run(self) -> None:
        run = Run(
            unrecorded=tuple(self._unrecorded()),
            crashes=tuple(self._crashes),
            idle_comments=lambda: idle_comments(self._silencer, self._facts, self._results),
            stale_entries=lambda: self._baseline.stale(self._results) if self._baseline else (),
        )
        results = []
        for code in sorted(self._run_rules):
            rule = self._run_rules[code]
            standing = self._sieve(rule, list(rule(self.settings.options.get(code)).check_run(run)))
            for target in sorted({finding.target for finding in standing}):
                failed = at_least([f for f in standing if f.target == target], self.settings.fail_on)
                outcome = "failed" if failed else "noted"
                # A crash is already the outcome of the rule that raised.
                if not rule.always:
                    results.append(RuleResult(target=target, code=code, name=rule.name, outcome=outcome))
        self._results += results

    def _unrecorded(self) -> Iterator[Unrecorded]:
        problems = {problem.target: problem for problem in self._problems}
        for facts in self._facts:
            if not facts.nodes:
                problem = problems.get(facts.target)
                of_target = [result for result in self._results if result.target == facts.target]
                yield Unrecorded(
                    facts=facts,
                    reason=problem.message if problem else "; ".join(facts.notes) or "no reason is known",
                    hint=problem.hint if problem else "",
                    skipped=tuple(r.code for r in of_target if r.reason.startswith(NO_GRAPH)),
                )

    def _run(self, rule: type[Rule], graph: Graph) -> RuleResult:
        reason = why_skipped(rule, graph.facts)
        if reason:
            return self._result(rule, graph, "skipped", reason)
        started = time.perf_counter()
        try:
            findings = list(rule(self.settings.options.get(rule.code)).check(graph))
        except Exception as error:
            summary = f"{type(error).__name__}: {error}"
            crash = Crash(target=graph.facts.target, code=rule.code, name=rule.name, summary=summary)
            self._crashes.append(crash)
            detail = "".join(traceback.format_exception(error))
            return self._result(rule, graph, "error", summary, detail)
        seconds = time.perf_counter() - started
        standing = self._sieve(rule, findings, made_up=made_up(rule, graph.facts))
        LOG.debug(
            "%s on %s: %d found, %d shown, in %.1f ms",
            *(rule.code, graph.facts.target, len(findings), len(standing), 1e3 * seconds),
        )
        if at_least(standing, self.settings.fail_on):
            return self._result(rule, graph, "failed")
        return self._result(rule, graph, "noted" if standing else "passed")

    def _sieve(
        self, rule: type[Rule], findings: Sequence[Finding], *, made_up: bool = False
    ) -> list[Finding]:
        """Apply level, confidence, suppressions and baseline; what stands is kept for the report.

        What was measured on made-up data is a warning at most, and says so.
        """
        level = self.settings.levels.get(rule.code)
        floor = self.settings.min_confidence.rank
        shown = [finding for finding in findings if finding.confidence.rank >= floor]
        hidden = [finding for finding in findings if finding.confidence.rank < floor]
        # A comment on what is hidden anyway is in use: it takes effect when the rest is shown.
        hidden = [finding for finding in hidden if self._silencer.match(finding) is None]
        self._hidden += len(findings) - len(shown)
        standing: list[Finding] = []
        silenced: dict[tuple[str, str], list[Finding]] = {}
        for finding in shown:
            if level is not None:
                finding = msgspec.structs.replace(finding, severity=Severity(level))  # noqa: PLW2901
            if made_up:
                finding = on_synthetic(finding)  # noqa: PLW2901
            finding = self._weighed(finding)  # noqa: PLW2901
            match = self._silencer.match(finding)
            if match is None:
                standing.append(finding)
            else:
                silenced.setdefault((match.by, match.reason), []).append(finding)
        for (by, reason), members in silenced.items():
            self._suppressed += [Suppressed(finding=f, by=by, reason=reason) for f in group(members)]
        if self._baseline is not None and not rule.about_run:
            self._baseline.hidden(group(hidden))
            known = [finding for finding in group(standing) if self._baseline.knows(finding)]
            standing = [finding for finding in group(standing) if finding not in known]
            self._known += known
        self._raw += standing
        return standing

    def _weighed(self, finding: Finding) -> Finding:
        """The finding with its fix as safe as the settings say that fixes of its rule are."""
        fix = finding.fix
        if fix is None:
            return finding
        level = self.settings.level_of_fix(finding.code, fix.applicability)
        if level is fix.applicability:
            return finding
        fix = msgspec.structs.replace(fix, applicability=level, keeps=fix.preserving)
        return msgspec.structs.replace(finding, fix=fix)

    @staticmethod
    def _result(
        rule: type[Rule], graph: Graph, outcome: str, reason: str = "", detail: str = ""
    ) -> RuleResult:
        target = graph.facts.target
        return RuleResult(
            target=target, code=rule.code, name=rule.name, outcome=outcome, reason=reason, detail=detail
        )


def made_up(rule: type[Rule], facts: Facts) -> bool:
    """Does a rule judge what was measured on synthetic data?"""
    run = (facts.measurements or {}).get("run", {})
    return bool(rule.needs) and run.get("source") == "synthetic"


def on_synthetic(finding: Finding) -> Finding:
    """A finding that rests on synthetic data: a warning at most, and labelled."""
    severity = Severity.WARNING if finding.severity is Severity.ERROR else finding.severity
    message = finding.message
    if "synthetic" not in message:
        message += " (measured on synthetic data)"
    evidence = {**finding.evidence, "source": "synthetic"}
    return msgspec.structs.replace(finding, severity=severity, message=message, evidence=evidence)


def why_skipped(rule: type[Rule], facts: Facts) -> str:
    """The reason why a rule cannot run on these facts; empty when it can."""
    missing: dict[str, tuple[bool, str]] = {
        "graph": (not facts.nodes, NO_GRAPH),
        "weights": (facts.weights is None, "the values of the weights are not known"),
        "loss": (not facts.losses, "no loss was given or found in the source"),
        "optimizer": (not facts.optimizers, "no optimizer was given or found"),
        "reference": (facts.reference is None, "no reference was given"),
    }
    reasons = [reason for need, (lacks, reason) in missing.items() if need in rule.requires and lacks]
    unmeasured = sorted(rule.needs - set(facts.measurements or {}))
    run = (facts.measurements or {}).get("run", {})
    if unmeasured and run.get("batches"):
        what = "a watched training" if run.get("source") == "watch" else "a run over this data"
        reasons.append(f"{what} does not measure " + ", ".join(unmeasured))
    elif unmeasured:
        reasons.append(f"{NO_DATA}: " + ", ".join(unmeasured))
    return "; ".join(reasons)


def check_facts(
    all_facts: Sequence[Facts],
    settings: Settings,
    on_result: OnResult | None = None,
    *,
    views: bool = True,
) -> Report:
    """Check facts that were made or read before; for `views` see `Session`."""
    session = Session(settings, on_result, views=views)
    for facts in all_facts:
        if not session.stopped:
            session.check(facts)
    return session.report()


def save_facts(path: Path, all_facts: Sequence[Facts]) -> None:
    """Write the facts of one target, or a list of them, as JSON."""
    payload: Any = all_facts[0] if len(all_facts) == 1 else list(all_facts)
    encoded = msgspec.json.format(msgspec.json.encode(payload, order="sorted"), indent=1)
    try:
        path.write_bytes(encoded + b"\n")
    except OSError as error:
        raise UsageError(f"cannot write the facts to {path}: {error.strerror}") from error


def load_facts(path: Path) -> tuple[Facts, ...]:
    """Read what `save_facts` wrote."""
    hint = "Write such a file with `normdoctor check TARGET --save-facts FILE`."
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read facts from {path}: {error.strerror}", hint=hint) from error
    try:
        decoded = msgspec.json.decode(data, type=Facts | list[Facts])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} does not hold facts: {error}", hint=hint) from error
    every = tuple(decoded) if isinstance(decoded, list) else (decoded,)
    problem = next(filter(None, map(_loose_end, every)), "" if every else "the list is empty")
    if problem:
        raise UsageError(f"{path} does not hold facts: {problem}", hint=hint)
    return every


def _loose_end(facts: Facts) -> str:
    """What the facts refer to and do not hold; empty when they are whole."""
    modules, count = {module.path for module in facts.modules}, len(facts.nodes)
    for place, node in enumerate(facts.nodes):
        if node.index != place:
            return f"node {place} says that it is node {node.index}"
        if node.module is not None and node.module not in modules:
            return f"node {place} is of the module `{node.module}`, which is missing"
        others = (*node.inputs, *(one for one in (node.mutates, node.view_of) if one is not None))
        if missing := [one for one in others if not 0 <= one < count]:
            return f"node {place} refers to node {missing[0]} of {count}"
    for norm in facts.handwritten:
        if missing := [one for one in (norm.input, norm.output, *norm.nodes) if not 0 <= one < count]:
            return f"a hand-written norm refers to node {missing[0]} of {count}"
    if missing := [loss.node for loss in facts.losses if not 0 <= loss.node < count]:
        return f"a loss refers to node {missing[0]} of {count}"
    return ""


def _summary(facts: Facts, findings: Sequence[Finding], *, views: bool) -> TargetSummary:
    summary = TargetSummary(
        name=facts.target,
        recorded=facts.recorded,
        inputs=facts.inputs,
        notes=(*facts.notes, *_unjudged(facts)),
        norms=count_norms(facts),
        modules=len(facts.modules),
        parameters=count_parameters(facts),
    )
    if not views:
        return summary
    graph = Graph(facts)
    return msgspec.structs.replace(
        summary,
        profile=profile_of(facts),
        gradients=gradients_of(facts),
        activity=activity_of(graph),
        batch_sizes=batch_sizes(facts),
        running_stats=running_stats(graph),
        inventory=norm_rows(graph),
        neighbourhoods=neighbourhoods(graph, [one for one in findings if one.target == facts.target]),
    )


def _unjudged(facts: Facts) -> list[str]:
    """Say what looks like a hand-written norm and fits none that is known, so that no rule judges it."""
    found = handwritten_norms(facts, confirmed=False)
    if not found:
        return []
    types = ", ".join(f"{count} {kind}" for kind, count in found.items())
    return [f"what looks like hand-written norms is not judged: {types}"]
