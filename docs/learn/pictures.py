"""Draws the pictures of this documentation: what each norm averages over, and how normdoctor works.

    python docs/learn/pictures.py

writes `docs/_static/axes-*.svg` and `docs/_static/how-it-works.svg`. Nothing but the standard library is
needed, and the same call gives the same bytes. Each picture of a norm is computed from its axes: the cells
that are filled are those that `Norm.averaged` names, and a test holds them against torch's layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

STATIC = Path(__file__).resolve().parent.parent / "_static"

#: Samples, channels and positions of the tensor that is drawn, and the value that is looked at.
SHAPE = (3, 6, 4)
MARKED = (1, 2, 1)
Cell = tuple[int, int, int]

# Light and dark by the reader's setting; each picture brings its own ground, so that it can be read in a
# page of either kind. Blue and orange differ for every kind of colour vision.
STYLE = """
.ground{fill:#ffffff}.text{fill:#1f2328}.quiet{fill:#57606a}.cell{fill:#eaeef2;stroke:#c3cad2}
.averaged{fill:#2f7fd6;stroke:#1b5ea8}.share{fill:#e8710a;stroke:#ffffff}.own{fill:none;stroke:#1f2328}
.box{fill:#f6f8fa;stroke:#8c959f}.main{fill:#ddebfb;stroke:#2f7fd6}.arrow{stroke:#57606a;fill:none}
.tip{fill:#57606a}
@media (prefers-color-scheme:dark){
.ground{fill:#15181d}.text{fill:#e6edf3}.quiet{fill:#9ea7b3}.cell{fill:#2a3038;stroke:#454d58}
.averaged{fill:#3f8ae0;stroke:#8abdf5}.share{fill:#ff9a3c;stroke:#15181d}.own{fill:none;stroke:#ffffff}
.box{fill:#20252c;stroke:#6e7681}.main{fill:#17324f;stroke:#3f8ae0}.arrow{stroke:#9ea7b3;fill:none}
.tip{fill:#9ea7b3}}
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
""".replace("\n", "")


@dataclass(frozen=True)
class Norm:
    """What a norm averages over, by the axes of a tensor (samples, channels, positions).

    Attributes:
        name: Part of the file's name, and key of the test.
        title: What the picture is called.
        over: The axes over which one mean or mean square is taken: 0, 1, 2.
        groups: How many groups the channels fall into (with 1 among the axes).
        window: The channels around each one, if only these count (with 1 among the axes).
        parameters: The axis along which the parameters lie; None where there are none.
        statistics: What is computed of the filled cells.
        axes: What the three axes are called.
    """

    name: str
    title: str
    over: tuple[int, ...]
    groups: int = 1
    window: int = 0
    parameters: int | None = 1
    statistics: str = "mean and variance"
    axes: tuple[str, str, str] = ("sample", "channel", "position")

    def averaged(self, marked: Cell = MARKED) -> frozenset[Cell]:
        """The cells whose values make the statistics by which the marked one is normalized."""
        return frozenset(
            cell for cell in cells() if all(self._joins(axis, cell[axis], marked[axis]) for axis in range(3))
        )

    def sharing(self, marked: Cell = MARKED) -> frozenset[Cell]:
        """The cells that have scale and shift in common with the marked one."""
        axis = self.parameters
        return frozenset(cell for cell in cells() if axis is not None and cell[axis] == marked[axis])

    def _joins(self, axis: int, index: int, marked: int) -> bool:
        if axis not in self.over:
            return index == marked
        if axis != 1:
            return True
        if self.window:
            return -(self.window // 2) <= index - marked <= (self.window - 1) // 2
        size = SHAPE[1] // self.groups
        return index // size == marked // size

    def alt(self) -> str:
        """The picture in words."""
        count = len(self.averaged())
        text = f"{self.title}: {self.statistics} over {count} cells, {self._which()}"
        if self.parameters is None:
            return f"{text}; no parameters."
        return f"{text}; one scale a {self.axes[self.parameters]}."

    def _which(self) -> str:
        taken = {cell_axis: {cell[cell_axis] for cell in self.averaged()} for cell_axis in range(3)}
        words = []
        for axis, name in enumerate(self.axes):
            if len(taken[axis]) == SHAPE[axis]:
                words.append(f"all {name}s")
            elif len(taken[axis]) == 1:
                words.append(f"one {name}")
            else:
                words.append(f"{len(taken[axis])} of {SHAPE[axis]} {name}s")
        return ", ".join(words)


WEIGHT = ("filter", "input", "tap")
NORMS = (
    Norm("batch", "BatchNorm", over=(0, 2)),
    Norm("layer", "LayerNorm", over=(1,), axes=("sample", "feature", "token")),
    Norm("layer-2d", "LayerNorm2d", over=(1,)),
    Norm("instance", "InstanceNorm", over=(2,)),
    Norm("group", "GroupNorm, 2 groups", over=(1, 2), groups=2),
    Norm("group-one", "GroupNorm, 1 group", over=(1, 2)),
    Norm(
        "rms",
        "RMSNorm",
        over=(1,),
        statistics="mean square",
        axes=("sample", "feature", "token"),
    ),
    Norm(
        "local-response",
        "LocalResponseNorm, size 3",
        over=(1,),
        window=3,
        parameters=None,
        statistics="mean square",
    ),
    Norm("weight", "weight_norm", over=(1, 2), parameters=0, statistics="length", axes=WEIGHT),
    Norm("weight-standardization", "Weight standardization", over=(1, 2), parameters=None, axes=WEIGHT),
)


def cells() -> Iterator[Cell]:
    """All cells of the tensor."""
    samples, channels, positions = map(range, SHAPE)
    return itertools.product(samples, channels, positions)


# Sizes in pixels.
SIDE, GAP, LEFT, TOP = 26, 34, 92, 78


def draw(norm: Norm) -> str:
    """The picture of a norm: one block a sample, a row a channel, a column a position."""
    samples, channels, positions = SHAPE
    block = positions * SIDE
    width = LEFT + samples * block + (samples - 1) * GAP + 40
    bottom = TOP + channels * SIDE
    verb = "normalize" if " and " in norm.statistics else "normalizes"
    height = bottom + 112
    parts = [
        text(20, 30, norm.title, "text", 17, bold=True),
        text(20, 50, f"{norm.statistics} of the blue cells {verb} the framed one", "quiet", 13),
        text(LEFT - 10, bottom + 17, f"{norm.axes[2]}s", "quiet", 12, anchor="end"),
    ]
    parts += [
        text(LEFT - 10, TOP + (c + 0.5) * SIDE + 4, f"{norm.axes[1]} {c}", "quiet", 12, anchor="end")
        for c in range(channels)
    ]
    averaged, sharing = norm.averaged(), norm.sharing()
    for n, c, position in cells():
        x, y = LEFT + n * (block + GAP) + position * SIDE, TOP + c * SIDE
        parts += cell_at(x, y, (n, c, position) in averaged, (n, c, position) in sharing)
    for n in range(samples):
        middle = LEFT + n * (block + GAP) + block / 2
        parts.append(text(middle, bottom + 17, f"{norm.axes[0]} {n}", "text", 13, anchor="middle"))
    x, y = LEFT + MARKED[0] * (block + GAP) + MARKED[2] * SIDE, TOP + MARKED[1] * SIDE
    parts.append(
        f'<rect class="own" x="{x - 1}" y="{y - 1}" width="{SIDE}" height="{SIDE}" stroke-width="3"/>'
    )
    parts += legend(norm, bottom + 44)
    return svg(width, height, norm.title, norm.alt(), parts)


def cell_at(x: float, y: float, averaged: bool, sharing: bool) -> list[str]:
    """One cell; a dot says that it shares the parameters of the framed one."""
    kind = "averaged" if averaged else "cell"
    side = SIDE - 2
    parts = [f'<rect class="{kind}" x="{x}" y="{y}" width="{side}" height="{side}" rx="3"/>']
    if sharing:
        parts.append(f'<circle class="share" cx="{x + side / 2:g}" cy="{y + side / 2:g}" r="5"/>')
    return parts


def legend(norm: Norm, y: float) -> list[str]:
    """What the colours mean, below the blocks."""
    parts = cell_at(20, y, True, False)
    parts.append(text(52, y + 17, f"{norm.statistics} over: {norm._which()}", "text", 13))
    y += 30
    if norm.parameters is None:
        return [*parts, text(52, y + 17, "no parameters", "text", 13)]
    shared = "scale" if norm.name in ("rms", "weight") else "scale and shift"
    parts += cell_at(20, y, False, True)
    parts.append(text(52, y + 17, f"one {shared} for these: one a {norm.axes[norm.parameters]}", "text", 13))
    return parts


def text(
    x: float, y: float, words: str, kind: str, size: int, *, anchor: str = "start", bold: bool = False
) -> str:
    """A line of text."""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text class="{kind}" x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}"{weight}>'
        f"{escape(words)}</text>"
    )


def svg(width: float, height: float, title: str, description: str, parts: list[str]) -> str:
    """A file of its own: readable by a screen reader, with the ground that its colours need."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" role="img" aria-labelledby="title description">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="description">{escape(description)}</desc>',
            f"<style>{STYLE}</style>",
            f'<rect class="ground" width="{width:g}" height="{height:g}" rx="8"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


HOW_IT_WORKS = (
    "How normdoctor works: it runs the model once, without data, and records every layer and call; what it "
    "learnt are facts, plain data; rules judge the facts and give findings, fixes and a report. With data, "
    "or in a training loop, measurements join the facts. The model is left as it was."
)


def how_it_works() -> str:
    """The picture of the README: from the model to findings."""
    width, height = 860, 348
    row, tall = 70, 84
    parts: list[str] = []
    boxes = (
        (20, row, 150, "your model", ("any nn.Module", "whose forward runs"), "box"),
        (230, row, 170, "record", ("one forward, no data:", "layers, calls, axes, lines"), "main"),
        (460, row, 150, "facts", ("plain data,", "without torch"), "main"),
        (670, row, 170, "rules", ("pure functions with", "thresholds and sources"), "main"),
        (230, 216, 170, "measure", ("batches or a watched", "training loop"), "box"),
        (460, 216, 150, "report", ("terminal, HTML,", "JSON, SARIF, JUnit"), "box"),
        (670, 216, 170, "findings", ("line, figures, cure;", "fixes that are proved"), "main"),
    )
    for x, y, wide, name, lines, kind in boxes:
        parts.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{wide}" height="{tall}" rx="10" '
            'stroke-width="1.5"/>'
        )
        parts.append(text(x + wide / 2, y + 28, name, "text", 16, anchor="middle", bold=True))
        for number, line in enumerate(lines):
            parts.append(text(x + wide / 2, y + 50 + 18 * number, line, "quiet", 13, anchor="middle"))
    middle = row + tall / 2
    lower = 216 + tall / 2
    parts += arrow(172, middle, 226, middle)
    parts += arrow(402, middle, 456, middle)
    parts += arrow(612, middle, 666, middle)
    parts += arrow(755, row + tall + 2, 755, 212)
    parts += arrow(668, lower, 614, lower)
    parts += arrow(95, row + tall + 2, 226, lower, bent=True)
    parts += arrow(402, 228, 488, row + tall + 4)
    parts.append(text(20, 34, "How normdoctor works", "text", 17, bold=True))
    parts.append(text(20, 332, "Your model is left as it was, bit for bit.", "quiet", 13))
    return svg(width, height, "How normdoctor works", HOW_IT_WORKS, parts)


def arrow(x: float, y: float, to_x: float, to_y: float, *, bent: bool = False) -> list[str]:
    """A line with a tip; a bent one goes down first."""
    dx, dy = (to_x - x, 0.0) if bent else (to_x - x, to_y - y)
    length = (dx * dx + dy * dy) ** 0.5
    ux, uy = dx / length, dy / length
    way = f"M{x:g} {y:g}V{to_y:g}H{to_x:g}" if bent else f"M{x:g} {y:g}L{to_x:g} {to_y:g}"
    corners = [
        (to_x, to_y),
        (to_x - 9 * ux - 5 * uy, to_y - 9 * uy + 5 * ux),
        (to_x - 9 * ux + 5 * uy, to_y - 9 * uy - 5 * ux),
    ]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
    return [f'<path class="arrow" d="{way}" stroke-width="2"/>', f'<polygon class="tip" points="{points}"/>']


def pictures() -> dict[str, str]:
    """The name and text of every file."""
    found = {f"axes-{norm.name}.svg": draw(norm) for norm in NORMS}
    return found | {"how-it-works.svg": how_it_works()}


def main() -> None:
    """Write all files."""
    STATIC.mkdir(parents=True, exist_ok=True)
    for name, content in pictures().items():
        (STATIC / name).write_text(content, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
