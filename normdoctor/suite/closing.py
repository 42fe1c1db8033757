"""The end of a run: reports of all workers become one, files are written, a line is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from normdoctor.baseline import apply
from normdoctor.environment import environment
from normdoctor.errors import NormDoctorError
from normdoctor.grouping import order
from normdoctor.output import get_format
from normdoctor.output.style import Style
from normdoctor.report import Report
from normdoctor.suite.setup import format_of
from normdoctor.suite.state import Record, State
from normdoctor.suite.text import clean, overview, total

if TYPE_CHECKING:
    from collections.abc import Sequence


def pack(records: Sequence[Record]) -> bytes:
    """Reports as bytes that `unpack` makes equal reports of; MessagePack, as it keeps NaN and infinity.

    Lone surrogates, which names of files may hold and no encoding takes, are written out.
    """
    plain = msgspec.to_builtins(records, str_keys=True, enc_hook=repr)
    try:
        return msgspec.msgpack.encode(plain)
    except UnicodeEncodeError:
        return msgspec.msgpack.encode(_spoken(plain))


def unpack(sent: bytes) -> list[Record]:
    """What `pack` has packed."""
    return msgspec.msgpack.decode(sent, type=list[Record])


def _spoken(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_spoken(key): _spoken(item) for key, item in value.items()}
    return [_spoken(item) for item in value] if isinstance(value, list | tuple) else value


def receive(state: State, sent: bytes | None) -> None:
    """Take in what a worker of xdist sent; what two of them examined counts once."""
    if sent is None:
        state.faults.append("a worker was lost, and what it found with it")
        return
    for record in unpack(sent):
        state.records.setdefault(record.key, record)


def merged(state: State) -> Report:
    """One report of all that was checked; what a test checked goes by the name of the test."""
    reports = [_named(state.records[key]) for key in sorted(state.records)]
    return Report(
        findings=tuple(sorted((one for report in reports for one in report.findings), key=order)),
        results=tuple(one for report in reports for one in report.results),
        targets=tuple(one for report in reports for one in report.targets),
        suppressed=tuple(one for report in reports for one in report.suppressed),
        known=tuple(sorted((one for report in reports for one in report.known), key=order)),
        problems=tuple(one for report in reports for one in report.problems),
        hidden=sum(report.hidden for report in reports),
        fail_on=state.settings.fail_on,
        environment=environment(),
        remarks=tuple(one for report in reports for one in report.remarks),
    )


def _named(record: Record) -> Report:
    """A report whose targets are called `test_net.py:test_it`, so that their node ids are those of tests."""
    if not record.test:
        return record.report
    file, _, test = record.test.partition("::")
    number = int(record.key.rpartition("\n")[2])
    name = f"{file}:{test}" + (f"#{number + 1}" if number else "")
    report, replace = record.report, msgspec.structs.replace
    return replace(
        report,
        findings=tuple(replace(one, target=name) for one in report.findings),
        results=tuple(replace(one, target=name) for one in report.results),
        targets=tuple(replace(one, name=name) for one in report.targets),
        suppressed=tuple(
            replace(one, finding=replace(one.finding, target=name)) for one in report.suppressed
        ),
        problems=tuple(replace(one, target=name) for one in report.problems),
    )


def finish(state: State, session: pytest.Session, exitstatus: int) -> None:
    """Send the reports to the controller, or write what was asked for."""
    if state.on_worker:
        session.config.workeroutput["normdoctor"] = pack(list(state.records.values()))  # type: ignore[attr-defined]
        return
    if exitstatus in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERNAL_ERROR):
        return
    option = state.config.option
    for name in option.normdoctor_report:
        file = state.config.invocation_params.dir / name
        try:
            text = get_format(format_of(file)).render(merged(state), Style())
            file.write_text(text, encoding="utf-8")
            state.remarks.append(f"report written to {name}")
        except (OSError, NormDoctorError) as error:
            state.faults.append(f"cannot write the report to {name}: {error}")
    if option.normdoctor_update_baseline:
        _update(state, exitstatus)
    if state.faults and exitstatus == pytest.ExitCode.OK:
        # What was asked for is not there: a green run would hide it.
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR


def _update(state: State, exitstatus: int) -> None:
    """Write the baseline, unless the run was cut short."""
    settings = state.settings
    if exitstatus == pytest.ExitCode.INTERRUPTED or settings.baseline is None:
        state.remarks.append("the run was interrupted: the baseline stays as it was")
        return
    made = [record.changes for record in state.records.values() if record.changes is not None]
    try:
        state.remarks.append(apply(settings.baseline, settings.root, made))
    except NormDoctorError as error:
        state.faults.append(str(error))


def summarize(state: State, terminal: Any) -> None:
    """Print one line about all that was checked, after a table where that was asked for."""
    for fault in state.faults:
        terminal.write_line(f"normdoctor: {clean(fault)}", red=True)
    if state.show == "none" or not (state.records or state.remarks):
        return
    report = merged(state)
    if state.show == "full" and report.targets:
        terminal.section("normdoctor")
        terminal.write_line(overview(report, terminal._tw.fullwidth))
    bad = any(not record.report.ok for record in state.records.values())
    look = {"red": True} if bad else {"yellow": True} if report.findings else {"green": True}
    if state.records and (terminal.verbosity >= 0 or report.findings or report.problems):
        terminal.write_line(clean(total(report)), **look)
    for remark in dict.fromkeys(state.remarks):
        terminal.write_line(f"normdoctor: {clean(remark)}")
