"""Write the pages and tables of this folder that follow from the code: `python docs/generate.py`.

`tests/docs/test_generated.py` builds the same texts and fails where a file differs. `--check` writes nothing,
names what differs, and exits with 1 if there is anything.
"""

from __future__ import annotations

import sys
from pathlib import Path

from generator import RULES, pages

DOCS = Path(__file__).parent


def main(arguments: list[str]) -> int:
    """Write what differs, remove pages of rules that are gone."""
    made = pages(DOCS)
    gone = [path for path in (DOCS / RULES).glob("*.md") if path not in made]
    changed = [path for path, text in made.items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in sorted([*changed, *gone]):
        print(path.relative_to(DOCS.parent))
    if "--check" in arguments:
        return int(bool(changed or gone))
    (DOCS / RULES).mkdir(exist_ok=True)
    for path in changed:
        path.write_text(made[path], encoding="utf-8")
    for path in gone:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
