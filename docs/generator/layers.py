"""The pages of the layers, from their docstrings."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator
from typing import Any

from learn.pictures import NORMS

from generator.markdown import NOTICE, fence, table
from normdoctor import layers

INTRO = """\
Formulas, shapes, state and papers of the layers in `normdoctor.layers`, as their docstrings say it.
[Layers](layers.md) says which to take. `N` is the batch, `C` the channels, `*` stands for any number of
further dimensions.
"""
#: The headings of a docstring in Google's style, in the order in which they are shown.
HEADING = re.compile(r"^(Args|Shape|State|Returns|Raises|Example|References|Attributes):$", re.MULTILINE)
WIDTH = 80
#: The picture of what a layer averages over, by the name of the layer.
PICTURES = {
    "BatchNorm1d": "batch",
    "GroupNorm": "group",
    "InstanceNorm1d": "instance",
    "LayerNorm": "layer",
    "LayerNorm2d": "layer-2d",
    "LocalResponseNorm": "local-response",
    "RMSNorm": "rms",
    "weight_norm": "weight",
    "weight_standardization": "weight-standardization",
}
ENTRY = re.compile(r"^(\w+): ", re.MULTILINE)


def page() -> str:
    """The page of all layers, by name."""
    parts = [NOTICE, "# Layers in detail", INTRO.strip()]
    seen: dict[str, str] = {}
    for name in sorted(layers.__all__, key=str.lower):
        thing = getattr(layers, name)
        text = _docstring(thing)
        parts += [f"## {name}", fence("python signature", _signature(name, thing))]
        if text in seen:
            first = seen[text]
            own = (inspect.getdoc(thing) or "").split(";")[0]
            parts.append(f"{own}. All else is as for [{first}](#{first.lower()}).")
            continue
        seen[text] = name
        parts += [*_picture(name), *_sections(text)]
    return "\n\n".join(parts) + "\n"


def _picture(name: str) -> Iterator[str]:
    """What the layer averages over, where there is a picture of it."""
    for norm in NORMS:
        if norm.name == PICTURES.get(name):
            yield f"![{norm.alt()}](../_static/axes-{norm.name}.svg)"


def _docstring(thing: Any) -> str:
    """Its docstring; that of its base, where it refers to that."""
    text = inspect.getdoc(thing) or ""
    if found := re.search(r"its page is that of `(\w+)`", text):
        base = next(one for one in thing.__mro__ if one.__name__ == found[1])
        return inspect.getdoc(base) or ""
    return text


def _signature(name: str, thing: Any) -> str:
    parameters = list(inspect.signature(thing).parameters.values())
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in parameters]
    text = str(inspect.Signature(plain)).replace("'", '"')
    line = f"def {name}{text}: ..."
    if len(line) <= WIDTH:
        return line
    inside = text[1:-1].replace(", ", ",\n    ")
    return f"def {name}(\n    {inside},\n): ..."


def _sections(text: str) -> Iterator[str]:
    pieces = HEADING.split(text)
    yield from _prose(pieces[0])
    for heading, body in zip(pieces[1::2], pieces[2::2], strict=True):
        content = inspect.cleandoc(f"\n{body.strip(chr(10))}").strip()
        if heading in ("Args", "Attributes", "Raises"):
            yield _entries(heading, content)
        elif heading == "Example":
            yield fence("pycon", content)
        else:
            linked = re.sub(r"https?://[^\s,;)]+(?<![.])", r"<\g<0>>", content)
            yield f"**{heading}.** {' '.join(linked.split())}"


def _prose(text: str) -> Iterator[str]:
    """Paragraphs, and fences of the formulas, which are indented."""
    for indented, lines in itertools.groupby(_lines(text), key=lambda line: line.startswith("    ")):
        block = "\n".join(lines).strip("\n")
        if block:
            yield fence("text", inspect.cleandoc(f"\n{block}")) if indented else block


def _lines(text: str) -> Iterator[str]:
    """The lines of a text; an empty one between two that are indented is indented too."""
    lines = text.strip().splitlines()
    for number, line in enumerate(lines):
        inside = 0 < number < len(lines) - 1 and all(
            lines[near].startswith("    ") for near in (number - 1, number + 1)
        )
        yield "    " if not line and inside else line


def _entries(heading: str, content: str) -> str:
    pieces = ENTRY.split(content)
    pairs = zip(pieces[1::2], pieces[2::2], strict=True)
    label = {"Args": "argument", "Attributes": "attribute", "Raises": "raises"}[heading]
    return table((label, ""), [(f"`{name}`", " ".join(said.split())) for name, said in pairs])
