"""The documentation that follows from the code: pages of rules, of commands and of layers, and tables."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from generator import commands, layers, rules, tables

RULES = "rules"
MARK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def pages(docs: Path) -> dict[Path, str]:
    """Every generated page, and every page with a generated part, as it should be."""
    made = {docs / RULES / name: text for name, text in rules.pages().items()}
    made[docs / "reference" / "cli.md"] = commands.page()
    made[docs / "reference" / "layers-in-detail.md"] = layers.page()
    for path in sorted(docs.rglob("*.md")):
        if path not in made and path.parent.name != RULES:
            text = path.read_text(encoding="utf-8")
            if MARK.search(text):
                made[path] = filled(text, tables.TABLES)
    return made


def filled(text: str, parts: dict[str, Callable[[], str]]) -> str:
    """Put what is generated between `<!-- generated: NAME -->` and `<!-- end -->`."""
    return MARK.sub(lambda found: f"{found[1]}\n{parts[found[2]]()}\n{found[3]}", text)
