"""Findings of a training that still runs: judged aside, raised once, confirmed, and cleared."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from normdoctor.errors import NormDoctorError
from normdoctor.findings import Finding, Severity
from normdoctor.probing.transfer import Transfer

#: Findings that follow from another one: code to the codes of what it brings about.
CONSEQUENCES: Mapping[str, frozenset[str]] = {
    "ND608": frozenset("ND601 ND602 ND605 ND606 ND607 ND609 ND614 ND802 ND803 ND804 ND805 ND807".split()),
    "ND807": frozenset("ND601 ND602 ND605 ND606 ND607 ND802 ND803 ND804 ND805".split()),
    "ND602": frozenset("ND601 ND603 ND605 ND606 ND607 ND801 ND803 ND805".split()),
    "ND603": frozenset({"ND801"}),
    "ND802": frozenset({"ND804", "ND609", "ND610"}),
    "ND801": frozenset({"ND804", "ND805"}),
    "ND806": frozenset({"ND803", "ND801"}),
    "ND710": frozenset({"ND703"}),
    "ND706": frozenset({"ND703"}),
}

#: What a finding brings about only later: bad weights make bad values in the next forward.
LATER: Mapping[str, frozenset[str]] = {"ND807": frozenset({"ND608"})}

#: Findings of these rules are raised at the first judgement that has them.
AT_ONCE = frozenset({"ND608", "ND807"})


class NormDoctorWarning(UserWarning):
    """A finding of a watched training."""


class StoppedError(NormDoctorError):
    """A watched training was stopped by a finding: `on_finding="stop"`."""

    exit_code = 1

    def __init__(self, finding: Finding, step: int) -> None:
        hint = "Use on_finding='warn' to go on, or ignore the rule where this is meant."
        super().__init__(f"step {step}: {told(finding)}", hint=hint)
        self.finding = finding


@dataclass
class Alert:
    """A finding of a running training.

    `step` is the first step at which it was seen, `cleared` the one at which it was gone again, None while
    it stands; `consequences` are findings that follow from it and are not raised by themselves.
    """

    finding: Finding
    step: int
    raised: int | None = None
    cleared: int | None = None
    consequences: list[Finding] = field(default_factory=list)
    seen: int = 1
    missed: int = 0


class Alerts:
    """What stands, what is on trial and what is over."""

    def __init__(self, confirmations: int = 2, kept: int = 64) -> None:
        self.confirmations = confirmations
        self.kept = kept
        self.alerts: list[Alert] = []

    def consider(self, findings: Sequence[Finding], step: int) -> list[Alert]:
        """Take in the findings of one judgement; return the alerts that are to be raised now."""
        serious = [one for one in findings if one.severity is not Severity.INFO]
        present = {one.code for one in serious}
        causes = {code for code in present if not any(code in CONSEQUENCES.get(c, ()) for c in present)}
        standing = {alert.finding.code: alert for alert in self.alerts if alert.cleared is None}
        found: dict[str, list[Finding]] = {}
        for one in serious:
            found.setdefault(one.code, []).append(one)
        due = []
        for code, group in found.items():
            parent = self._explained_by(code, standing)
            if code not in standing and (code not in causes or parent is not None):
                if parent is not None:
                    parent.consequences = _merged(parent.consequences, group)
                continue
            alert = standing.get(code)
            if alert is None:
                alert = Alert(group[0], step)
                self._append(alert)
            else:
                alert.seen, alert.missed = alert.seen + 1, 0
                alert.finding = group[0] if alert.raised is None else alert.finding
            alert.consequences = _merged(alert.consequences, group[1:])
            explained = CONSEQUENCES.get(code, frozenset())
            extra = [one for other in explained for one in found.get(other, ()) if other not in standing]
            alert.consequences = _merged(alert.consequences, extra)
            if alert.raised is None and (code in AT_ONCE or alert.seen >= self.confirmations):
                alert.raised = step
                due.append(alert)
        self._clear(standing, present, step)
        return due

    def _explained_by(self, code: str, standing: Mapping[str, Alert]) -> Alert | None:
        for cause, alert in standing.items():
            if code in CONSEQUENCES.get(cause, frozenset()) | LATER.get(cause, frozenset()):
                return alert
        return None

    def _clear(self, standing: Mapping[str, Alert], present: set[str], step: int) -> None:
        for code, alert in standing.items():
            if code in present:
                continue
            alert.missed += 1
            if alert.raised is None:
                self.alerts.remove(alert)
            elif alert.missed >= self.confirmations:
                alert.cleared = step

    def _append(self, alert: Alert) -> None:
        self.alerts.append(alert)
        over = [one for one in self.alerts if one.cleared is not None]
        if len(self.alerts) > self.kept and over:
            self.alerts.remove(over[0])


def told(finding: Finding, consequences: Sequence[Finding] = ()) -> str:
    """A finding in a line, with what follows from it."""
    text = f"{finding.code} {finding.name}: {finding.message}"
    if consequences:
        names = list(
            dict.fromkeys(
                f"{one.code} at {', '.join(one.modules[:3]) or 'the model'}" for one in consequences
            )
        )
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        text += f" (with it: {'; '.join(names[:4])}{more})"
    return text


class Judgement:
    """Findings that a thread works out while the training goes on.

    The thread only reads copies on the host, so nothing waits for the device but the thread itself.
    """

    def __init__(self, transfer: Transfer, judge: Callable[[Transfer], Sequence[Finding]], step: int) -> None:
        self.step = step
        self._transfer = transfer
        self._judge = judge
        self._findings: Sequence[Finding] = ()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="normdoctor-watch", daemon=True)
        self._thread.start()

    @property
    def due(self) -> bool:
        """Can it be collected without waiting for a device?"""
        return self._transfer.immediate or not self._thread.is_alive()

    def collect(self) -> Sequence[Finding]:
        """The findings; waits for the thread."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._findings

    def _run(self) -> None:
        try:
            self._findings = self._judge(self._transfer)
        except Exception as error:
            self._error = error


def _merged(known: list[Finding], more: Sequence[Finding]) -> list[Finding]:
    """Findings without repetition; the newest figures of each."""
    return list({(one.code, one.modules): one for one in (*known, *more)}.values())
