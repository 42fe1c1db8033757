"""Writing a report to where the user asked for it: findings to stdout, errors to stderr."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from normdoctor.cli.group import fail
from normdoctor.errors import UsageError
from normdoctor.output import Format
from normdoctor.output.style import Style

if TYPE_CHECKING:
    from collections.abc import Callable

    from normdoctor.report import Report, RuleResult


@dataclass(frozen=True, slots=True)
class Reporter:
    """One destination and look. Machine formats have stdout for themselves."""

    format: Format
    style: Style
    file: Path | None = None

    @property
    def on_result(self) -> Callable[[RuleResult], None] | None:
        """Prints pytest's line for each result, where -v asks for it."""
        if not self._live:
            return None
        from normdoctor.output.summary import result_line

        return lambda result: self._print(result_line(result, self.style))

    @property
    def _live(self) -> bool:
        return self.style.verbosity > 0 and not self.format.machine and self.file is None

    def write(self, report: Report, seconds: float) -> None:
        """Write the report, the errors and the last line."""
        from normdoctor.output.summary import last_line

        examined = bool(report.results or report.targets)
        if self.file is not None:
            plain = Style(verbosity=self.style.verbosity, show_skipped=self.style.show_skipped)
            _save(self.file, self.format.render(report, plain))
        else:
            text = self.format.render(report, replace(self.style, show_problems=False))
            if text and self._live and report.results:
                self._print("")
            self._print(text, end="")
        self._write_errors(report)
        if not self.format.machine and self.style.verbosity >= 0 and (examined or not report.problems):
            self._print(last_line(report, seconds, self.style))

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
