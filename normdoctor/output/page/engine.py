"""Filling templates: every value is made harmless, and a name that is not there is an error."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from normdoctor.output.page.theme import style_sheet
from normdoctor.output.prose import blocks, spans
from normdoctor.output.style import Style

_STYLE = Style()
#: Nothing may be fetched, sent or framed; the one style sheet and the one script are known by their hash.
#: Drawings carry their colours in style attributes.
POLICY = (
    "default-src 'none'; style-src-elem '{style}'; style-src-attr 'unsafe-inline'; script-src '{script}'; "
    "img-src data:; base-uri 'none'; form-action 'none'"
)


def shown(value: object) -> str:
    """A value as a page shows it: controls and marks of direction are written out; then it is escaped.

    Raises:
        TypeError: It is neither text nor a whole number; how others look is not for a template to decide.
    """
    if isinstance(value, Markup):
        return value
    if isinstance(value, str) or type(value) is int:
        return _STYLE.clean(str(value))
    raise TypeError(f"a page shows text, not {value!r}")


def prose(text: str) -> Markup:
    """A message as HTML: what stands between backticks is code."""
    parts = (
        Markup("<code>{}</code>").format(shown(part)) if code else escape(shown(part))
        for code, part in spans(text)
    )
    return Markup("").join(parts)


def breakable(text: str) -> Markup:
    """A name that may go on in the next line behind its dots and slashes."""
    parts = re.findall(r"[^./:]*[./:]+|[^./:]+$", text)
    return Markup("<wbr>").join(shown(part) for part in parts)


def paragraphs(text: str) -> Markup:
    """A section of a rule's page as HTML: paragraphs, lists and code."""
    parts = []
    for is_list, items in blocks(text):
        lines = [Markup("<li>{}</li>").format(prose(item)) for item in items]
        parts.append(
            Markup("<ul>{}</ul>").format(Markup("").join(lines))
            if is_list
            else Markup("<p>{}</p>").format(prose(items[0]))
        )
    return Markup("").join(parts)


@cache
def environment() -> Environment:
    """The templates of this folder."""
    made = Environment(
        loader=PackageLoader("normdoctor.output.page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {"prose": prose, "breakable": breakable, "paragraphs": paragraphs}
    return made


@cache
def asset(name: str) -> str:
    """A style sheet or script of this folder."""
    found = resources.files("normdoctor.output.page") / "templates" / name
    return tidy(found.read_text(encoding="utf-8"))


def page(template: str, **content: Any) -> str:
    """A whole page, with its style sheet, its script and a policy that lets in nothing else."""
    style, script = style_sheet(asset("parts.css") + asset("page.css")), asset("page.js")
    policy = POLICY.format(style=digest(style), script=digest(script))
    return fragment(template, style=Markup(style), script=Markup(script), policy=policy, **content)


@cache
def notebook_style() -> Markup:
    """The style sheet of a fragment: all rules are about classes of ours; colours are the host's."""
    return Markup(tidy(asset("parts.css") + asset("notebook.css")))


def fragment(template: str, **content: Any) -> str:
    """A filled template; ends with a newline."""
    return tidy(environment().get_template(template).render(**content))


def tidy(text: str) -> str:
    """Drop empty lines and blanks at the ends of lines."""
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n"


def digest(text: str) -> str:
    """The hash by which a policy knows an inline style sheet or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
