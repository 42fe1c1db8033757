"""Changes of text: spans that are replaced, put together so that none overlaps another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class Refused(Exception):  # noqa: N818
    """A fix that cannot be carried out here; the text says why."""


@dataclass(frozen=True, slots=True, order=True)
class Splice:
    """The characters from `start` to `end` (exclusive) of a file become `text`."""

    file: str
    start: int
    end: int
    text: str

    def clashes(self, other: Splice) -> bool:
        """Do the two change the same characters, in different ways?"""
        if self.file != other.file or self == other:
            return False
        if self.start == self.end == other.start == other.end:
            return False  # two insertions at one place follow each other
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True, slots=True)
class Change:
    """One way to carry out a fix: its splices, over all files, and what there is to say about it."""

    splices: tuple[Splice, ...]
    note: str = ""

    def clashes(self, others: Iterable[Change]) -> bool:
        """Does it touch what one of the others touches?"""
        return any(a.clashes(b) for other in others for a in self.splices for b in other.splices)


def spliced(text: str, splices: Iterable[Splice]) -> str:
    """The text after all changes; equal ones count once."""
    for one in sorted(set(splices), key=lambda each: (each.start, each.end, each.text), reverse=True):
        text = text[: one.start] + one.text + text[one.end :]
    return text
