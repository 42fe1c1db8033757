"""Setting and dropping one argument of a call, in the way that the call is written."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from normdoctor.fixing.document import Document
from normdoctor.fixing.signatures import Parameters
from normdoctor.fixing.splices import Refused, Splice


def argument_of(call: cst.Call, name: str, known: Parameters | None) -> tuple[int, cst.Arg] | None:
    """The argument of this name and its position; None where the call does not give it."""
    for position, arg in enumerate(call.args):
        if arg.keyword is not None and arg.keyword.value == name:
            return position, arg
    if known is None or name not in known.names:
        return None
    wanted = known.names.index(name)
    if any(arg.star == "*" for arg in call.args[: wanted + 1]):
        raise Refused(f"`{name}` may be hidden in a starred argument")
    if wanted < len(call.args) and call.args[wanted].keyword is None:
        return wanted, call.args[wanted]
    return None


def set_argument(
    doc: Document, call: cst.Call, name: str, value: str, known: Parameters | None
) -> tuple[Splice, ...]:
    """Give an argument another value (`{}` in it is the old one), by keyword where nothing forbids it."""
    present = argument_of(call, name, known)
    if present is None:
        if known is not None and not known.takes(name):
            raise Refused(f"what is called there takes no `{name}`")
        if "{}" in value:
            raise Refused(f"the call gives no `{name}`")
        return added(doc, call, f"{name}={value}")
    position, arg = present
    start, end = doc.whole(arg.value)
    text = value.replace("{}", doc.text[start:end])
    later = [other for other in call.args[position + 1 :] if other.keyword is None]
    by_name = arg.keyword is None and not later and (known is None or known.takes(name))
    return (Splice(doc.file, start, end, f"{name}={text}" if by_name else text),)


def drop_argument(doc: Document, call: cst.Call, name: str, known: Parameters | None) -> tuple[Splice, ...]:
    """Leave an argument to its default; positional ones behind it are then given by name."""
    present = argument_of(call, name, known)
    if present is None:
        if any(arg.star for arg in call.args):
            raise Refused(f"`{name}` may be hidden in a starred argument")
        raise Refused(f"the call does not give `{name}` itself")
    position, arg = present
    splices = [removed(doc, call.args, position)]
    if arg.keyword is None:
        for index, other in enumerate(call.args[position + 1 :], start=position + 1):
            if other.keyword is not None:
                continue
            if other.star or known is None or index >= len(known.names):
                raise Refused("the arguments behind it have no known names")
            place = doc.whole(other.value)[0]
            splices.append(Splice(doc.file, place, place, f"{known.names[index]}="))
    return tuple(splices)


def added(doc: Document, call: cst.Call, text: str) -> tuple[Splice, ...]:
    """One more argument at the end of a call, on a line of its own where each of the others has one."""
    close = doc.span(call)[1] - 1
    if not call.args:
        return (Splice(doc.file, close, close, text),)
    last = call.args[-1]
    if last.star == "**" or (len(call.args) == 1 and isinstance(last.value, cst.GeneratorExp)):
        if last.star != "**":
            raise Refused("the call has a generator as its only argument")
        place = doc.span(last)[0]
        return (Splice(doc.file, place, place, f"{text}, "),)
    end = _end(doc, last)
    begin = doc.span(last)[0]
    line = doc.start_of_line(begin)
    indent = doc.text[line:begin]
    own_line = indent.strip() == "" and doc.start_of_line(close) > begin
    comma = isinstance(last.comma, cst.Comma)
    if not own_line:
        place = doc.comma_after(end) if comma else end
        glue = " " if comma else ", "
        tail = "," if comma and doc.start_of_line(close) > begin else ""
        return (Splice(doc.file, place, place, f"{glue}{text}{tail}"),)
    after = doc.comma_after(end) if comma else end
    stop = _before_newline(doc, after)
    new = Splice(doc.file, stop, stop, f"{doc.newline}{indent}{text}{',' if comma else ''}")
    if comma:
        return (new,)
    if stop == end:
        return (Splice(doc.file, end, end, f",{doc.newline}{indent}{text}"),)
    return (Splice(doc.file, end, end, ","), new)


def _end(doc: Document, arg: cst.Arg) -> int:
    return doc.whole(arg.value)[1]


def _before_newline(doc: Document, offset: int) -> int:
    """The end of the line's text, comments included, without its line end."""
    stop = doc.end_of_line(offset)
    return offset + len(doc.text[offset:stop].rstrip("\r\n"))


def removed(doc: Document, items: Sequence[cst.Arg] | Sequence[cst.Element], position: int) -> Splice:
    """An argument or element taken out with its comma, and with its line where it has one for itself.

    A comment behind it on that line goes too: it is about what was removed.
    """
    item = items[position]
    start, end = doc.span(item)
    if isinstance(item, cst.Element) or (item.keyword is None and not item.star):
        start, end = doc.whole(item.value)
    else:
        end = doc.whole(item.value)[1]
    if isinstance(item.comma, cst.Comma):
        end = doc.comma_after(end)
    line, stop = doc.start_of_line(start), doc.end_of_line(end)
    rest = doc.text[end:stop].strip()
    if not doc.text[line:start].strip() and (not rest or rest.startswith("#")) and line > 0:
        return Splice(doc.file, line, stop, "")
    if not isinstance(item.comma, cst.Comma) and position:
        before = items[position - 1]
        start = doc.whole(before.value)[1]
    elif isinstance(item.comma, cst.Comma):
        end += len(doc.text[end:]) - len(doc.text[end:].lstrip(" \t"))
    return Splice(doc.file, start, end, "")
