"""Writes the schemas into their files."""

from __future__ import annotations

from normdoctor.schemas import FOLDER, names, text

for name in names():
    (FOLDER / f"{name}.json").write_text(text(name), encoding="utf-8")
