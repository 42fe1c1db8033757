"""The pages of docs/ and the README, and their blocks of code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"


@dataclass(frozen=True)
class Block:
    """A block of code: `kind` is what stands behind the fence; an indented block has none."""

    page: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line} ({self.kind or 'indented'})"


@cache
def pages() -> tuple[Path, ...]:
    """The README and every page of docs/, without those of rules, which are generated and tested there."""
    found = sorted(path for path in DOCS.rglob("*.md") if path.parent.name != "rules")
    return (ROOT / "README.md", *found)


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """The blocks of code of a page, in order."""
    tokens = MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8"))
    return tuple(
        Block(page, (token.map or [0])[0] + 1, token.info.strip(), token.content)
        for token in tokens
        if token.type in ("fence", "code_block")
    )
