"""Another function or layer with the same arguments."""

from __future__ import annotations

import libcst as cst

from normdoctor.findings import Edit
from normdoctor.fixing.case import Case
from normdoctor.fixing.document import Document
from normdoctor.fixing.signatures import found
from normdoctor.fixing.splices import Change, Refused, Splice

#: Layers and the functions that do the same.
_FUNCTIONS = {
    "torch.nn.NLLLoss": "torch.nn.functional.nll_loss",
    "torch.nn.CrossEntropyLoss": "torch.nn.functional.cross_entropy",
}


def swap(case: Case, edit: Edit) -> list[Change]:
    """Call `edit.value` where now something else is called."""
    if not edit.name:
        doc, call = case.call(edit)
        return [Change(renamed(doc, call, edit.value))]
    doc, call = _named(case, edit)
    new = edit.value if doc.imported(call.func) == edit.name else _FUNCTIONS.get(edit.value, edit.value)
    return [Change(renamed(doc, call, new))]


def _named(case: Case, edit: Edit) -> tuple[Document, cst.Call]:
    """The call of `edit.name`: at the place, around it, or the only one of the file."""
    wanted = {edit.name, _FUNCTIONS.get(edit.name, edit.name)}
    place = edit.at or case.finding.location
    files = [place.file] if place is not None else []
    if place is not None:
        doc = case.document(place)
        try:
            call: cst.Call | None = doc.call_at(place)
        except Refused:
            call = None
        while call is not None:
            if doc.imported(call.func) in wanted:
                return doc, call
            call = doc.around(doc.parent(call), cst.Call)
    for file in dict.fromkeys([*files, *case.files]):
        try:
            doc = case.open(file)
        except Refused:
            continue
        calls = [call for call in doc.all(cst.Call) if doc.imported(call.func) in wanted]
        if len(calls) == 1:
            return doc, calls[0]
        if calls:
            raise Refused(f"`{edit.name}` is called at {len(calls)} places of the file")
    raise Refused(f"no call of `{edit.name}` is in the file")


def renamed(doc: Document, call: cst.Call, new: str) -> tuple[Splice, ...]:
    """`new` in the place of what a call calls, written as the file writes such names."""
    func, full = call.func, doc.imported(call.func)
    last = new.rpartition(".")[2]
    if isinstance(func, cst.Attribute):
        base = full.rpartition(".")[0]
        if not full:
            return _method(doc, call, func, new)
        if found(f"{base}.{last}") is not None and base in ("torch", "torch.nn.functional"):
            return (Splice(doc.file, *doc.span(func.attr), last),)
        if new.startswith(f"{base}.") and base != "torch":
            rest = new[len(base) + 1 :]
            return (Splice(doc.file, *doc.span(func.attr), rest),)
    text, imports = doc.name_for(new)
    return (Splice(doc.file, *doc.span(func), text), *imports)


def _method(doc: Document, call: cst.Call, func: cst.Attribute, new: str) -> tuple[Splice, ...]:
    """`x.softmax(-1)` becomes `x.log_softmax(-1)`; where tensors have no such method, a function."""
    last = new.rpartition(".")[2]
    if found(f"torch.Tensor.{last}") is not None:
        return (Splice(doc.file, *doc.span(func.attr), last),)
    text, imports = doc.name_for(new)
    start, end = doc.whole(func.value)
    close = doc.span(call)[1] - 1
    glue = ", " if call.args else ""
    first = doc.span(call.args[0])[0] if call.args else close
    return (
        Splice(doc.file, start, start, f"{text}("),
        Splice(doc.file, end, first, glue),
        *imports,
    )
