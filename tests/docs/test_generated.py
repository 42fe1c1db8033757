"""What docs/generate.py writes is what stands in docs/."""

from __future__ import annotations

import difflib

from normdoctor.rules import all_rules

from .pages import DOCS
from .terminal import near


def test_generated_pages_are_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    from generator import RULES, pages

    made = pages(DOCS)
    again = "run `python docs/generate.py`"
    gone = sorted(path.name for path in (DOCS / RULES).glob("*.md") if path not in made)
    assert gone == [], again
    # What is measured may differ in the last digits on another processor.
    measured = {f"{rule.name}.md" for rule in all_rules() if rule.needs}
    for path, text in made.items():
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        lines = difflib.unified_diff(old.splitlines(), text.splitlines(), path.name, "generated", lineterm="")
        same = old == text or (path.name in measured and near(old, text))
        assert same, f"{again}\n" + "\n".join(lines)
