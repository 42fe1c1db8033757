"""Arguments and numbers."""

from __future__ import annotations

import libcst as cst

from normdoctor.findings import Edit
from normdoctor.fixing.arguments import added, argument_of, drop_argument, set_argument
from normdoctor.fixing.case import Case
from normdoctor.fixing.document import Document
from normdoctor.fixing.signatures import Parameters, of_callable
from normdoctor.fixing.splices import Change, Refused, Splice

_FUNCTIONS = {
    **{f"torch.nn.Dropout{n}": f"torch.nn.functional.dropout{n}" for n in ("", "1d", "2d", "3d")},
    "torch.nn.AlphaDropout": "torch.nn.functional.alpha_dropout",
    "torch.nn.FeatureAlphaDropout": "torch.nn.functional.feature_alpha_dropout",
}


def argument(case: Case, edit: Edit) -> list[Change]:
    """Set or drop an argument, where it is given: at the call, or where a factory was made."""
    doc, call = case.call(edit)
    known = case.parameters(doc, call)
    value = edit.value
    if "self." in value:
        value = value.replace("self.", f"{case.receiver(doc, call)}.")
    name = _renamed(doc, call, edit.name)
    if name == "inplace" and value == "False" and (change := _no_underscore(doc, call)) is not None:
        return [change]
    if argument_of(call, name, known) is None and (made := _partial(case, doc, call, name)) is not None:
        return [Change(_written(doc, made, name, value, None), "changed where the factory was made")]
    ways = [Change(_written(doc, call, name, value, known))]
    if value and any(arg.star == "**" for arg in call.args) and (held := _in_dict(doc, name)) is not None:
        ways.insert(
            0, Change((Splice(doc.file, *doc.whole(held), value),), "changed in the dict that gives it")
        )
    return ways


def _written(
    doc: Document, call: cst.Call, name: str, value: str, known: Parameters | None
) -> tuple[Splice, ...]:
    if value == "":
        return drop_argument(doc, call, name, known)
    return set_argument(doc, call, name, value, known)


def _renamed(doc: Document, call: cst.Call, name: str) -> str:
    """torch.dropout and its like say `train` where F.dropout says `training`."""
    full = doc.imported(call.func)
    if name == "training" and full.startswith("torch.") and full.endswith("dropout") and full.count(".") == 1:
        return "train"
    return name


def _no_underscore(doc: Document, call: cst.Call) -> Change | None:
    """`F.relu_(x)` and `x.relu_()` without their underscore; None for other calls."""
    name = call.func.attr if isinstance(call.func, cst.Attribute) else call.func
    if not isinstance(name, cst.Name) or not name.value.endswith("_") or name.value.endswith("__"):
        return None
    if isinstance(call.func, cst.Name):
        raise Refused(f"`{name.value}` was imported by its name")
    end = doc.span(name)[1]
    return Change((Splice(doc.file, end - 1, end, ""),))


def _in_dict(doc: Document, name: str) -> cst.BaseExpression | None:
    """The value of this key in the only dict of the file that has it."""
    found = [
        node.value
        for node in doc.all(cst.DictElement)
        if isinstance(node.key, cst.SimpleString) and node.key.evaluated_value == name
    ]
    for call in doc.all(cst.Call):
        if isinstance(call.func, cst.Name) and call.func.value == "dict":
            found += [arg.value for arg in call.args if arg.keyword is not None and arg.keyword.value == name]
    return found[0] if len(found) == 1 else None


def _partial(case: Case, doc: Document, call: cst.Call, name: str) -> cst.Call | None:
    """The functools.partial that gives this argument to the factory that is called."""
    if not case.built or doc.imported(call.func):
        return None
    wanted = case.built[0].type
    found = [
        made
        for made in doc.all(cst.Call)
        if doc.imported(made.func) == "functools.partial"
        and made.args
        and doc.source(made.args[0].value).rpartition(".")[2] == wanted
        and argument_of(made, name, None) is not None
    ]
    if len(found) > 1:
        raise Refused(f"`{name}` is given to `{wanted}` by {len(found)} calls of functools.partial")
    return found[0] if found else None


def constant(case: Case, edit: Edit) -> list[Change]:
    """Write another number for the only literal of this value in an expression."""
    place = edit.at or case.finding.location
    doc = case.document(place)
    old = float(edit.name)
    literals = [
        node
        for node in doc.all(cst.Float, cst.Integer, inside=doc.expression_at(place))
        if float(node.evaluated_value) == old
    ]
    if len(literals) != 1:
        raise Refused(f"the number {old:g} is not written as such in this expression")
    return [Change((Splice(doc.file, *doc.span(literals[0]), edit.value),))]


def functional(case: Case, edit: Edit) -> list[Change]:
    """`nn.Dropout(0.2)(x)` becomes `F.dropout(x, p=0.2, training=self.training)`."""
    doc, call = case.call(edit)
    made = call.func
    full = doc.imported(made.func) if isinstance(made, cst.Call) else ""
    if not isinstance(made, cst.Call) or full not in _FUNCTIONS:
        raise Refused("the dropout is not built where it is called")
    known = of_callable(_class(full))
    text, imports = doc.name_for(_FUNCTIONS[full])
    given = [
        f"{name}={doc.source(found[1].value)}"
        for name in ("p", "inplace")
        if (found := argument_of(made, name, known)) is not None
    ]
    given.append(f"training={case.receiver(doc, call)}.training")
    return [
        Change(
            (Splice(doc.file, *doc.span(made), text), *added(doc, call, ", ".join(given)), *imports),
        )
    ]


def _class(full: str) -> type:
    from torch import nn

    found: type = getattr(nn, full.rpartition(".")[2])
    return found
