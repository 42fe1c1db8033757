"""Taking an operation out: a call, an element of a container, or a layer with its use."""

from __future__ import annotations

import libcst as cst

from normdoctor.facts import Location
from normdoctor.findings import Edit
from normdoctor.fixing.arguments import argument_of, removed
from normdoctor.fixing.case import Case
from normdoctor.fixing.document import Document, dotted
from normdoctor.fixing.splices import Change, Refused, Splice
from normdoctor.fixing.statements import alone, without

_ATOMS = (
    *(cst.Name, cst.Attribute, cst.Call, cst.Subscript, cst.BaseNumber, cst.BaseString),
    *(cst.List, cst.Dict, cst.Set, cst.ListComp),
)


def drop(case: Case, edit: Edit) -> list[Change]:
    """Let the input of the operation go on unchanged."""
    doc, call = case.call(edit)
    if not case.built:
        return [Change(unwrapped(doc, call, _input(case, doc, call)))]
    parent = doc.parent(call)
    ways: list[Change] = []
    if isinstance(parent, cst.Arg) and _is_sequential(doc, parent):
        ways += _out_of_sequential(case, doc, parent)
    elif isinstance(parent, cst.Assign | cst.AnnAssign):
        ways += _unused(case, doc, parent)
    return [*ways, Change(identity(doc, call), "nn.Identity in its place keeps the names in the state dict")]


def identity(doc: Document, call: cst.Call) -> tuple[Splice, ...]:
    """`nn.Identity()` in the place of a constructor."""
    full = doc.imported(call.func)
    if isinstance(call.func, cst.Attribute) and full.startswith("torch.nn.") and full.count(".") == 2:
        return (Splice(doc.file, *doc.span(call), f"{doc.source(call.func.value)}.Identity()"),)
    text, imports = doc.name_for("torch.nn.Identity")
    return (Splice(doc.file, *doc.span(call), f"{text}()"), *imports)


# -- calls -----------------------------------------------------------------------------------------


def _input(case: Case, doc: Document, call: cst.Call) -> cst.BaseExpression:
    """What a function or method of torch is called on."""
    full = doc.imported(call.func)
    if not full.startswith("torch.") and isinstance(call.func, cst.Attribute):
        if any(arg.keyword is None and not _is_literal(arg.value) for arg in call.args):
            raise Refused("it is not clear what it is called on")
        return call.func.value
    given = argument_of(call, "input", case.parameters(doc, call))
    if given is None and call.args and call.args[0].keyword is None and not call.args[0].star:
        return call.args[0].value
    if given is None:
        raise Refused("it is not clear what it is called on")
    return given[1].value


def _is_literal(node: cst.BaseExpression) -> bool:
    return isinstance(node, cst.BaseNumber | cst.UnaryOperation) or dotted(node) in ("True", "False", "None")


def unwrapped(doc: Document, call: cst.Call, inner: cst.BaseExpression) -> tuple[Splice, ...]:
    """`inner` in the place of a call; a statement that then says `x = x` goes with it."""
    statement = doc.around(call, cst.SimpleStatementLine)
    assign = doc.parent(call)
    if isinstance(assign, cst.Assign) and statement is not None and len(assign.targets) == 1:
        name = dotted(assign.targets[0].target)
        if name and name == dotted(inner) and alone(doc, statement):
            return (without(doc, statement),)
    start, end = doc.span(call)
    first, last = doc.whole(inner)
    bare = not inner.lpar and not isinstance(inner, _ATOMS)
    tight = not isinstance(assign, cst.Arg | cst.Return | cst.Assign | cst.AnnAssign | cst.Expr)
    around = bare and not call.lpar and (tight or "\n" in doc.text[first:last])
    left, right = ("(", ")") if around else ("", "")
    return Splice(doc.file, start, first, left), Splice(doc.file, last, end, right)


# -- layers ----------------------------------------------------------------------------------------


def _is_sequential(doc: Document, arg: cst.Arg) -> bool:
    call = doc.parent(arg)
    return isinstance(call, cst.Call) and doc.imported(call.func) == "torch.nn.Sequential" and not arg.keyword


def _out_of_sequential(case: Case, doc: Document, arg: cst.Arg) -> list[Change]:
    """Without the element, unless the names of parameters behind it would change."""
    call = doc.parent(arg)
    assert isinstance(call, cst.Call)
    position = call.args.index(arg)
    if len(call.args) < 2:
        return []
    for path in case.finding.modules:
        outer, _, index = path.rpartition(".")
        around = case.modules.get(outer)
        if around is None or not index.isdigit():
            return []
        behind = list(around.children())[int(index) + 1 :]
        if any(child.state_dict() for child in behind):
            return []
    return [Change((removed(doc, call.args, position),))]


def _unused(case: Case, doc: Document, assign: cst.Assign | cst.AnnAssign) -> list[Change]:
    """`self.softmax = nn.Softmax()` with its calls: the calls let their input through."""
    target = assign.target if isinstance(assign, cst.AnnAssign) else assign.targets[0].target
    if not isinstance(target, cst.Attribute) or (isinstance(assign, cst.Assign) and len(assign.targets) > 1):
        return []
    try:
        uses = [_use(case, doc, site.call, target.attr.value) for site in case.finding.sites]
    except Refused:
        return []
    splices = [s for use in dict.fromkeys(uses) for s in unwrapped(doc, use, use.args[0].value)]
    mentions = [
        node for node in doc.all(cst.Attribute) if node.attr.value == target.attr.value and node is not target
    ]
    statement = doc.around(assign, cst.SimpleStatementLine)
    if len(mentions) == len(set(uses)) and statement is not None and alone(doc, statement):
        splices.append(without(doc, statement))
    return [Change(tuple(splices))]


def _use(case: Case, doc: Document, place: Location | None, attribute: str) -> cst.Call:
    """The call `self.softmax(x)` at a place."""
    if place is None or place.file != doc.file:
        raise Refused("it is called in another file")
    call = doc.call_at(place)
    named = isinstance(call.func, cst.Attribute) and call.func.attr.value == attribute
    if not named or len(call.args) != 1 or call.args[0].keyword or call.args[0].star:
        raise Refused("it is not called by its name")
    others = {node.scope for node in case.facts.nodes if node.location == place and node.module is not None}
    wanted = {site.module.rpartition(".")[0] for site in case.finding.sites if site.call == place}
    if others - wanted:
        raise Refused("the call stands for other layers as well")
    return call
