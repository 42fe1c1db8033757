"""What docs/generate.py writes is what stands in docs/."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_generated_pages_are_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    from generator import RULES, pages

    made = pages(DOCS)
    again = "run `python docs/generate.py`"
    gone = sorted(path.name for path in (DOCS / RULES).glob("*.md") if path not in made)
    assert gone == [], again
    differing = [
        str(path.relative_to(DOCS))
        for path, text in made.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    assert differing == [], again
