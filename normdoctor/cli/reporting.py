"""Writing a report to where the user asked for it: findings to stdout, errors to stderr."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from normdoctor.cli.group import fail
from normdoctor.errors import UsageError
from normdoctor.output import Format, get_format
from normdoctor.output.fixes import offer
from normdoctor.output.style import Style

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from normdoctor.cli.fixes import FixOptions
    from normdoctor.cli.outputs import Output
    from normdoctor.fixing.fixer import Outcome
    from normdoctor.report import Report, RuleResult


@dataclass(frozen=True, slots=True)
class Reporter:
    """The destinations and the look. Machine formats have stdout for themselves.

    `statistics` puts a table of the rules in the place of the findings, in formats for people.
    """

    outputs: tuple[Output, ...]
    style: Style
    statistics: bool = False
    unsafe: bool = False
    """Unsafe fixes are offered like safe ones."""

    @property
    def on_result(self) -> Callable[[RuleResult], None] | None:
        """Prints pytest's line for each result, where -v asks for it."""
        if not self._live:
            return None
        from normdoctor.output.summary import result_line

        return lambda result: self._print(result_line(result, self.style))

    @property
    def _live(self) -> bool:
        return self.style.verbosity > 0 and any(
            output.file is None and not get_format(output.format).machine for output in self.outputs
        )

    @property
    def _spoken(self) -> bool:
        """May anything besides a report stand on stdout?"""
        on_stdout = [output for output in self.outputs if output.file is None] or self.outputs
        return not any(get_format(output.format).machine for output in on_stdout)

    def write(self, report: Report, seconds: float, said: Sequence[str] | None = None) -> None:
        """Write the reports, the errors and the last line; `said`, or the offer to fix, comes before."""
        from normdoctor.output.summary import last_line

        for output in self.outputs:
            self._write_one(get_format(output.format), output.file, report)
        self._write_errors(report)
        if self.style.verbosity >= 0:
            for remark in report.remarks:
                click.echo(self.style.clean(remark), err=True)
            examined = bool(report.results or report.targets)
            if self._spoken and (examined or not report.problems):
                offered = (
                    [offer(report.findings, unsafe=self.unsafe)]
                    if any(one.file is None for one in self.outputs)
                    else []
                )
                for line in said if said is not None else filter(None, offered):
                    self._print(line)
                self._print(last_line(report, seconds, self.style))

    def write_fixes(self, outcome: Outcome, options: FixOptions, seconds: float) -> None:
        """Write what was fixed and what is left; with --diff, the diff alone."""
        from normdoctor.output.fixes import diff, listed, refused, result

        loud = self.style.verbosity >= 0
        for left in outcome.unfixed if loud else ():
            click.echo(refused(left.finding, left.reason, self.style), err=True)
        pairs = [(str(file), one.finding) for one in outcome.fixed for file in one.files[:1]]
        if options.diff:
            self._print(diff(outcome.changes, self.style), end="")
            self._write_errors(outcome.report)
            if loud:
                count = len(outcome.fixed)
                would = f"Would fix {count} {'finding' if count == 1 else 'findings'}." if count else ""
                click.echo(would or "No findings would be fixed.", err=True)
            return
        summary = result(len(outcome.fixed), outcome.report.findings, unsafe=options.unsafe_fixes)
        shown = listed(pairs, self.style) if options.show_fixes else []
        if options.fix_only:
            self._write_errors(outcome.report)
            count = len(outcome.fixed)
            done = (
                [f"Fixed {count} {'finding' if count == 1 else 'findings'}."] if count and not shown else []
            )
            for line in [*shown, *(done if loud else [])]:
                self._print(line)
            return
        rest = offer(outcome.report.findings, unsafe=options.unsafe_fixes) if not outcome.fixed else ""
        self.write(outcome.report, seconds, [*(shown if loud else []), *summary, *filter(None, [rest])])
        for line in shown if not loud and self._spoken else ():
            self._print(line)

    def _write_one(self, form: Format, file: Path | None, report: Report) -> None:
        if file is not None:
            plain = Style(verbosity=self.style.verbosity, show_skipped=self.style.show_skipped)
            _save(file, self._render(form, report, plain))
        else:
            text = self._render(form, report, replace(self.style, show_problems=False))
            if text and self._live and report.results:
                self._print("")
            self._print(text, end="")
        if form.aside is not None:
            form.aside(report)

    def _render(self, form: Format, report: Report, style: Style) -> str:
        if self.statistics and not form.machine:
            from normdoctor.output.statistics import render_statistics

            return render_statistics(report, style)
        return form.render(report, style)

    def _write_errors(self, report: Report) -> None:
        details = [(f"{result.node_id}\n", result.detail) for result in report.results]
        details += [("", problem.detail) for problem in report.problems]
        if self.style.verbosity > 0:
            for head, detail in details:
                if detail:
                    click.echo(f"{head}{detail}", err=True, nl=False)
        for problem in report.problems:
            fail(problem.message, problem.hint)

    def _print(self, text: str, end: str = "\n") -> None:
        click.echo(f"{text}{end}", nl=False, color=self.style.color)


def _save(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write the report to {file}: {error.strerror}") from error
