"""What stands beside the outcome of a test: sections of text, and the reasons of skips."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from normdoctor.output.formats.concise import line
from normdoctor.output.style import Style
from normdoctor.suite.items import RuleItem
from normdoctor.suite.text import failure_text, problem_text

if TYPE_CHECKING:
    from normdoctor.suite.state import State


def complete(state: State, item: pytest.Item, report: pytest.TestReport) -> None:
    """Add a section with the findings that the text of a failure does not hold."""
    if isinstance(item, RuleItem):
        text = item.note if report.when == "call" else ""
    elif report.failed or (report.when == "call" and item.config.get_verbosity() > 0):
        text = _untold(state, item, report.longreprtext)
    else:
        return
    if text and state.show != "none":
        report.sections.append(("normdoctor", text))


def _untold(state: State, item: pytest.Item, said: str) -> str:
    texts = []
    for record in state.of(item.nodeid):
        if not record.told:
            record.told = True
            # What stands in the failure itself, of an `assert report.findings == ()`, is not said twice.
            new = [one for one in record.report.findings if line(one, Style()) not in said]
            if new:
                texts.append(failure_text(new, full=state.show == "full"))
            texts += [problem_text(problem) for problem in record.report.problems]
    return "\n".join(texts)
