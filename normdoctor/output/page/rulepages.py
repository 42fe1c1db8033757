"""What the rules of a report are about, from their own pages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from normdoctor.output.prose import section
from normdoctor.rules import find_rule
from normdoctor.rules.base import page_of, summary_of

#: Headings of a rule's page that a reader of a finding wants.
HEADINGS = ("What it does", "Why is this bad?", "When to ignore")


@dataclass(frozen=True, slots=True)
class RulePage:
    """A rule: its summary, and sections as pairs of a heading and its text."""

    code: str
    name: str
    summary: str
    sections: tuple[tuple[str, str], ...]


def rule_pages(codes: Iterable[str]) -> tuple[RulePage, ...]:
    """The pages of the rules with these codes, in the order of the codes; rules without one are left out."""
    found = ((code, find_rule(code)) for code in sorted(set(codes)))
    return tuple(
        RulePage(
            code,
            rule.name,
            summary_of(rule),
            tuple((heading, text) for heading in HEADINGS if (text := section(page_of(rule), heading))),
        )
        for code, rule in found
        if rule is not None
    )
