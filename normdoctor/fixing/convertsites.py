"""Deciding for each site what it becomes, and how its source changes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import libcst as cst

from normdoctor.findings import Confidence, Edit, Finding, Fix, Severity
from normdoctor.fixing.arguments import removed
from normdoctor.fixing.case import Case
from normdoctor.fixing.document import Document
from normdoctor.fixing.looking import Look
from normdoctor.fixing.operations.build import build
from normdoctor.fixing.recipes import New, recipe
from normdoctor.fixing.signatures import found as found_in_torch
from normdoctor.fixing.signatures import of_callable
from normdoctor.fixing.sites import Site, sites_of
from normdoctor.fixing.splices import Change, Refused, Splice
from normdoctor.rules.byhand import ByHand, by_hand
from normdoctor.rules.replacements import replacement


@dataclass(frozen=True)
class Decision:
    """What becomes of a site: the new expression, or the reason why it stays as it is."""

    site: Site
    text: str = ""
    kind: str = ""
    change: Change | None = None
    reason: str = ""
    carries: tuple[tuple[str, str], ...] = ()


def decide(base: Look, sites: list[Site], to: str, groups: int | None) -> list[Decision]:
    """A decision for each site; sites that share a factory are changed where it is named."""
    decisions: list[Decision] = []
    made: list[Change] = []
    for site in sites:
        try:
            decision = _decided(base, site, sites, to, groups)
            if decision.change is not None and decision.change.clashes(made):
                raise Refused("another site needs another change at the same place")
            made += [decision.change] if decision.change is not None else []
        except Refused as refusal:
            decision = Decision(site, reason=str(refusal))
        decisions.append(decision)
    return decisions


def _decided(base: Look, site: Site, sites: list[Site], to: str, groups: int | None) -> Decision:
    if site.kind == "function":
        raise Refused("a call in a forward: its parameters belong to the module around it")
    if site.place is None:
        raise Refused("no source line is known")
    if site.kind == "by hand":
        return _by_hand(base, site, to)
    if site.kind == "subclass":
        raise Refused("a subclass with a forward of its own, which would be lost")
    doc = base.document(site.place.file)
    call = doc.call_at(site.place)
    _check_whole(base, site)
    if not doc.imported(call.func):
        return _by_factory(base, site, sites, to, groups)
    given = _given(base, site, doc, call)
    new = recipe(to, site, given, groups)
    last = new.full.rpartition(".")[2]
    text, imports = doc.name_for(new.full)
    if new.args is None:
        change = Change((Splice(doc.file, *doc.span(call.func), text), *imports))
        return Decision(site, f"{text}(...)", last, change)
    doc.demand_no_comment(call)
    factory = [(name, given[name]) for name in ("device", "dtype") if name in given]
    listed = ", ".join([*new.args, *(f"{name}={value}" for name, value in (*new.kwargs, *factory))])
    change = Change((Splice(doc.file, *doc.span(call), f"{text}({listed})"), *imports))
    return Decision(site, f"{text}({listed})", last, change)


def _check_whole(base: Look, site: Site) -> None:
    """Refuse a site that builds other modules as well."""
    seen = base.seen[site.target]
    others = [m.path for m in seen.facts.modules if m.origin == site.place and m.path not in site.paths]
    if others:
        raise Refused(f"this line also builds `{others[0]}`")


def _given(base: Look, site: Site, doc: Document, call: cst.Call) -> dict[str, str]:
    """The arguments of a constructor as source text, by name."""
    known = of_callable(type(base.seen[site.target].modules[site.paths[0]]))
    given: dict[str, str] = {}
    for position, arg in enumerate(call.args):
        if arg.star:
            raise Refused("its arguments are starred")
        if arg.keyword is not None:
            given[arg.keyword.value] = doc.source(arg.value)
        elif known is not None and position < len(known.names):
            given[known.names[position]] = doc.source(arg.value)
    return given


# -- factories -------------------------------------------------------------------------------------

_SIZES = frozenset({"num_features", "num_channels", "normalized_shape"})
#: Arguments of running statistics, which mean nothing to a layer that keeps none.
_OF_STATISTICS = frozenset({"momentum", "track_running_stats"})


def _by_factory(base: Look, site: Site, sites: list[Site], to: str, groups: int | None) -> Decision:
    """A layer that `norm_layer(width)` builds: changed where `nn.BatchNorm2d` is named.

    That serves all sites of the same layer, so the number of groups has to suit all of them.
    """
    assert site.place is not None
    doc = base.document(site.place.file)
    call = doc.call_at(site.place)
    given = {name: text for name, text in _given(base, site, doc, call).items() if name in _SIZES}
    others = [one for one in sites if (one.what, one.target) == (site.what, site.target)]
    ranks = {one.rank for one in others}
    together = replace(
        site,
        modules=tuple(module for one in others for module in one.modules),
        rank=ranks.pop() if len(ranks) == 1 else 0,
    )
    chosen = {one.place for one in sites}
    for one in sites_of(base.seen[site.target]):
        if one.what == site.what and one.place not in chosen and _made_by_factory(base, one):
            raise Refused(f"the factory may build `{one.paths[0]}` too, which is not chosen")
    new = recipe(to, together, given, groups)
    if new.args is not None:
        if len(new.args) != len(new.bound) + 1:
            raise Refused("the other layer takes arguments that the factory does not get")
        # The class that is named serves every call of the factory: one that does not suit rules out all.
        calls = {one.place: _suited(base, one, new) for one in others if _made_by_factory(base, one)}
    named = _mentions(base, site)
    if not named:
        raise Refused(f"where `{doc.source(call.func)}` gets its class is not known")
    last = new.full.rpartition(".")[2]
    splices: list[Splice] = list(calls[site.place]) if new.args is not None else []
    built: list[str] = []
    for there, node in named:
        text, imports = there.name_for(new.full)
        made = _partial(there, node)
        if made is not None and new.args is not None:
            there.demand_no_comment(made)
            settings = _settings(there, made, to, together, groups, new)
            whole = f"{there.source(made.func)}({', '.join([text, *settings])})"
            splices += [Splice(there.file, *there.span(made), whole), *imports]
            built.append(whole)
            continue
        if new.args is not None and (new.bound or new.kwargs):
            partial, more = there.name_for("functools.partial")
            if partial == "functools.partial" and more:
                more = (there.import_line("import functools"),)
            settings = [*new.bound, *(f"{name}={value}" for name, value in new.kwargs)]
            text, imports = f"{partial}({', '.join([text, *settings])})", (*imports, *more)
        splices += [Splice(there.file, *there.span(node), text), *imports]
        built.append(text)
    places = dict.fromkeys(f"line {there.line_of(node)}" for there, node in named)
    told = f"{' or '.join(dict.fromkeys(built))}, named in {' and '.join(places)}"
    return Decision(site, told, last, Change(tuple(dict.fromkeys(splices))))


def _made_by_factory(base: Look, site: Site) -> bool:
    if site.kind != "layer" or site.place is None:
        return False
    doc = base.document(site.place.file)
    return not doc.imported(doc.call_at(site.place).func)


def _suited(base: Look, site: Site, new: New) -> tuple[Splice, ...]:
    """What the call of a factory must leave out, so that it suits the other layer (`momentum=0.01`)."""
    assert site.place is not None
    doc = base.document(site.place.file)
    call = doc.call_at(site.place)
    known = of_callable(found_in_torch(new.full))
    dropped = []
    for position, arg in enumerate(call.args):
        if arg.star or (arg.keyword is None and position):
            raise Refused(f"the factory is called with settings without names in line {doc.line_of(call)}")
        name = arg.keyword.value if arg.keyword is not None else ""
        if name in _OF_STATISTICS:
            dropped.append(position)
        elif name and (known is None or not known.takes(name)):
            layer = new.full.rpartition(".")[2]
            raise Refused(f"line {doc.line_of(call)} gives the factory `{name}`, which {layer} does not take")
    if len(dropped) < 2:
        return tuple(removed(doc, call.args, position) for position in dropped)
    kept = [call.args[position] for position in range(len(call.args)) if position not in dropped]
    listed = ", ".join(doc.text[slice(*_span_of(doc, arg))] for arg in kept)
    return (Splice(doc.file, _span_of(doc, call.args[0])[0], _span_of(doc, call.args[-1])[1], listed),)


def _span_of(doc: Document, arg: cst.Arg) -> tuple[int, int]:
    """An argument with its keyword, without its comma."""
    start = doc.span(arg)[0] if arg.keyword is not None else doc.whole(arg.value)[0]
    return start, doc.whole(arg.value)[1]


def _mentions(base: Look, site: Site) -> list[tuple[Document, cst.BaseExpression]]:
    """Where the class is handed on without being called: defaults, arguments, assignments."""
    found: list[tuple[Document, cst.BaseExpression]] = []
    own = site.modules[0].type
    wanted = {f"torch.nn.{own}", f"normdoctor.layers.{own}"}
    for file in base.seen[site.target].target.files:
        try:
            doc = base.document(file)
        except Refused:
            continue
        for node in doc.all(cst.Attribute, cst.Name):
            parent = doc.parent(node)
            called = isinstance(parent, cst.Call) and parent.func is node
            inside = isinstance(parent, cst.Attribute) or doc.around(node, cst.ImportFrom, cst.Import)
            if called or inside or doc.imported(node) not in wanted or _is_check(doc, node):
                continue
            found.append((doc, node))
    return found


def _is_check(doc: Document, node: cst.CSTNode) -> bool:
    """Is it an argument of isinstance, a base class, or an annotation?"""
    if doc.around(node, cst.Annotation) is not None:
        return True
    call = doc.around(node, cst.Call, cst.ClassDef, cst.FunctionDef)
    if isinstance(call, cst.ClassDef):
        return any(doc.around(node, cst.Arg) is arg for arg in call.bases)
    return isinstance(call, cst.Call) and doc.source(call.func) in ("isinstance", "issubclass", "type")


def _partial(doc: Document, node: cst.CSTNode) -> cst.Call | None:
    """The functools.partial whose first argument a name is."""
    arg = doc.parent(node)
    call = doc.parent(arg) if isinstance(arg, cst.Arg) else None
    if not isinstance(call, cst.Call) or doc.imported(call.func) != "functools.partial":
        return None
    return call if call.args[0].value is node else None


def _settings(doc: Document, made: cst.Call, to: str, site: Site, groups: int | None, new: New) -> list[str]:
    """What a functools.partial gives the other layer: the settings that both know."""
    if any(arg.keyword is None for arg in made.args[1:]):
        raise Refused("functools.partial gives it arguments without names")
    given = {arg.keyword.value: doc.source(arg.value) for arg in made.args[1:] if arg.keyword is not None}
    size = "normalized_shape" if "normalized_shape" in site.modules[0].config else "num_features"
    kept = recipe(to, site, {size: "", "num_channels": "", **given}, groups).kwargs
    return [*new.bound, *(f"{name}={value}" for name, value in kept)]


# -- norms written by hand -------------------------------------------------------------------------


_KINDS = {
    "batch": ("batch_norm",),
    "group": ("group_norm",),
    "layer": ("layer_norm",),
    "instance": ("instance_norm",),
    "rms": ("rms_norm",),
}


def _by_hand(base: Look, site: Site, to: str) -> Decision:
    assert site.norm is not None
    assert site.graph is not None
    kind = site.norm.norm.kind
    if to not in ("ours", "torch") and kind not in _KINDS.get(to, ()):
        raise Refused(f"a {kind} by hand: convert it --to torch first")
    if not site.modules:
        raise Refused("it stands in the code of a forward that does more")
    steps = []
    for found in _members(site):
        made = replacement(site.graph, found)
        if isinstance(made, str):
            raise Refused(made)
        home = "normdoctor.layers" if to == "ours" else "torch.nn"
        steps.append(Edit.build(f"{home}.{made.layer}", made.arguments, at=site.place, carries=made.carries))
    if len({(step.value, step.arguments) for step in steps}) > 1:
        raise Refused("this line builds norms of several sizes")
    seen = base.seen[site.target]
    case = Case(_as_finding(site), Fix(title=""), seen.facts, seen.modules, base.document, seen.target.files)
    change = build(case, steps[0])[0]
    new = next(splice.text for splice in change.splices if "(" in splice.text)
    carries = tuple(dict.fromkeys(pair for step in steps for pair in step.carries))
    return Decision(site, new, steps[0].value.rpartition(".")[2], change, carries=carries)


def _members(site: Site) -> list[ByHand]:
    assert site.graph is not None
    return [one for one in by_hand(site.graph) if one.module in site.paths and one.owner is not None]


def _as_finding(site: Site) -> Finding:
    """The site as an operation takes it."""
    return Finding(
        code="",
        name="",
        severity=Severity.INFO,
        confidence=Confidence.HIGH,
        message="",
        modules=site.paths,
        location=site.place,
        target=site.target,
    )
