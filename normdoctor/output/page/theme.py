"""The colours of a page, each on light and on dark paper, as custom properties of CSS."""

from __future__ import annotations

from normdoctor.output.charts.pen import properties

#: Name of a property to its value on light and on dark paper.
TOKENS = {
    "back": ("#f6f7f9", "#10141a"),
    "paper": ("#ffffff", "#181e26"),
    "sunk": ("#f1f3f6", "#11161d"),
    "ink": ("#1b222c", "#e5e9ef"),
    "muted": ("#55606f", "#a5afbd"),
    "rule": ("#dde2e8", "#2c3541"),
    "edge": ("#7f8a99", "#6f7c8d"),
    "link": ("#1b5aa6", "#85bcff"),
    "focus": ("#1b5aa6", "#85bcff"),
    "error": ("#a3221a", "#ff9f96"),
    "error-back": ("#fcecea", "#38201f"),
    "error-mark": ("#c93a30", "#e8655c"),
    "warning": ("#7d4b00", "#f2ba6b"),
    "warning-back": ("#fbf0dd", "#322613"),
    "warning-mark": ("#d18b1f", "#d9993f"),
    "info": ("#1b5796", "#93c4ff"),
    "info-back": ("#e7f0fa", "#182a3f"),
    "info-mark": ("#4784c6", "#5b99dd"),
    "fine": ("#17654a", "#74d3ab"),
    "fine-back": ("#e5f3ed", "#142d26"),
    "fine-mark": ("#3a9a77", "#47a884"),
}
#: Text and what it stands on: what has to have a contrast of 4.5 to 1.
PAIRS = (
    *((text, paper) for text in ("ink", "muted", "link") for paper in ("back", "paper", "sunk")),
    *(
        (level, paper)
        for level in ("error", "warning", "info", "fine")
        for paper in (f"{level}-back", "paper")
    ),
    *(("ink", f"{level}-back") for level in ("error", "warning", "info", "fine")),
)


def declarations(*, dark: bool) -> str:
    """All properties for a rule of a style sheet, those of the charts among them."""
    return "".join(f"--{name}:{pair[dark]};" for name, pair in TOKENS.items()) + properties(dark=dark)


def style_sheet(rules: str) -> str:
    """The rules with the colours before them: as the reader's system wants, or as the toggle says."""
    light, dark = declarations(dark=False), declarations(dark=True)
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark)"
        f"{{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f"@media screen{{:root[data-theme=dark]{{color-scheme:dark;{dark}}}}}\n"
        f"{rules}"
    )
