"""Where modules were built, read off the source: for models that nobody watched being built."""

from __future__ import annotations

import ast
import functools
import inspect
import linecache

from torch import nn

from normdoctor.facts import Location
from normdoctor.loading.origins import Origin, Origins, character_column
from normdoctor.loading.state import Inventory, TensorEntry, inventory

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_ADDS = ("add_module", "register_module", "register_parameter", "register_buffer")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def origins_for(model: nn.Module, origins: Origins | None = None) -> dict[str, Origin]:
    """The origin of every module of `model`, by path; what is unknown is left out.

    A module takes its own record; else what its parent's source says; else its nearest ancestor's.
    A root that nobody saw being built takes its class statement.
    """
    found: dict[str, Origin] = {}
    modules = dict(model.named_modules(remove_duplicate=False))
    for path, entry in inventory(model).modules.items():
        modules.setdefault(path, entry.module)  # those that hide in plain containers
    for path, module in modules.items():
        own = origins.of(module) if origins is not None else None
        if own is None and not path:
            header = _class_header(type(module))
            own = Origin(header) if header is not None else None
        elif own is None:
            parent = path.rpartition(".")[0]
            if parent not in modules:
                continue
            recorded = origins is not None and origins.of(modules[parent]) is not None
            place = None if recorded else _from_source(modules, path)
            own = Origin(place) if place is not None else found.get(parent)
        if own is not None:
            found[path] = own
    return found


def tensor_origins(parts: Inventory, origins: Origins | None = None) -> dict[str, Location]:
    """Where user code made each tensor of a model, by name: recorded, or read off the class's source.

    Parameters that torch's own layers made are left out: their module's origin stands for them.
    """
    found: dict[str, Location] = {}
    modules = {path: entry.module for path, entry in parts.modules.items()}
    for name, entry in parts.tensors.items():
        recorded = origins.tensors.of(entry.tensor) if origins is not None else None
        place = recorded.location if recorded is not None else _tensor_from_source(modules, entry)
        if place is not None:
            found[name] = place
    return found


def _tensor_from_source(modules: dict[str, nn.Module], entry: TensorEntry) -> Location | None:
    path, name = entry.module, entry.name[len(entry.module) :].lstrip(".").partition("[")[0]
    while isinstance(modules.get(path), nn.ParameterList | nn.ParameterDict) and path:
        path, _, name = path.rpartition(".")
    if path not in modules:
        return None
    for cls in type(modules[path]).__mro__:
        if cls.__module__.partition(".")[0] == "torch" or cls is object:
            return None
        if (source := _class_source(cls)) is not None:
            values = [value for value, _ in _assigned(source[1]).get(name, [])]
            calls = [value for value in values if not isinstance(value, ast.Constant)]
            if values:
                return _span(source[0], calls[0]) if len(calls) == 1 else None
    return None


def _class_header(cls: type) -> Location | None:
    """The `class` statement, which stands for a model of which nobody saw the construction."""
    if cls.__module__.partition(".")[0] == "torch" or (source := _class_source(cls)) is None:
        return None
    file, definition = source
    text = linecache.getline(file, definition.lineno).rstrip()
    return Location(file, definition.lineno, definition.col_offset + 1, definition.lineno, len(text) + 1)


def _from_source(modules: dict[str, nn.Module], path: str) -> Location | None:
    """The constructor call of `path` in the source of the class that holds it."""
    parent, _, name = path.rpartition(".")
    inside: list[str] = [name]
    while isinstance(modules[parent], _CONTAINERS) and type(modules[parent]) in _CONTAINERS and parent:
        parent, _, name = parent.rpartition(".")
        inside.insert(0, name)
    for cls in type(modules[parent]).__mro__:
        if cls.__module__.partition(".")[0] == "torch" or cls is object:
            break
        source = _class_source(cls)
        if source is None:
            continue
        file, definition = source
        values = _assigned(definition).get(inside[0], [])
        if values:
            return _element(file, values[0], inside[1:]) if len(values) == 1 else None
    return None


@functools.lru_cache(maxsize=256)
def _definitions(file: str, text: str) -> tuple[ast.ClassDef, ...]:
    try:
        tree = ast.parse(text, file)
    except (SyntaxError, ValueError):
        return ()
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


@functools.lru_cache(maxsize=512)
def _class_source(cls: type) -> tuple[str, ast.ClassDef] | None:
    """The file and the definition of a class, also where its module is no longer imported."""
    codes = [value.__code__ for value in vars(cls).values() if inspect.isfunction(value)]
    codes = [code for code in codes if code.co_qualname.rpartition(".")[0] == cls.__qualname__]
    if not codes:
        return None
    file, first = codes[0].co_filename, codes[0].co_firstlineno
    holders = [
        node
        for node in _definitions(file, "".join(linecache.getlines(file)))
        if node.name == cls.__name__ and node.lineno <= first <= (node.end_lineno or node.lineno)
    ]
    return (file, holders[-1]) if holders else None


_Value = tuple[ast.expr, _Function]


@functools.lru_cache(maxsize=1024)
def _assigned(definition: ast.ClassDef) -> dict[str, list[_Value]]:
    """Every value that a method of the class gives to a submodule, by the submodule's name."""
    found: dict[str, list[_Value]] = {}
    for method in definition.body:
        if not isinstance(method, _Function) or not method.args.args:
            continue
        first = method.args.args[0].arg
        for node in ast.walk(method):
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if name := _attribute(target, first):
                        found.setdefault(name, []).append((node.value, method))
            elif isinstance(node, ast.Call) and len(node.args) >= 2:
                label = node.args[0]
                adds = _attribute(node.func, first) in _ADDS
                if adds and isinstance(label, ast.Constant) and isinstance(label.value, str):
                    found.setdefault(label.value, []).append((node.args[1], method))
    return found


def _attribute(node: ast.expr, owner: str) -> str:
    """The name in the expression `owner.name`, "" for any other expression."""
    owned = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == owner
    return node.attr if owned and isinstance(node, ast.Attribute) else ""


def _says(node: ast.expr, text: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == text


def _element(file: str, value: tuple[ast.expr, _Function], inside: list[str]) -> Location | None:
    """Follow a path into nested container calls, as far as the source spells them out."""
    node, method = value
    if isinstance(node, ast.Name):
        node = _local(method, node.id) or node
    if not isinstance(node, ast.Call):
        return None
    for name in inside:
        deeper = _child(node, name)
        if not isinstance(deeper, ast.Call):
            break
        node = deeper
    return _span(file, node)


def _span(file: str, node: ast.expr) -> Location:
    end_line, end = node.end_lineno or node.lineno, node.end_col_offset or 0
    return Location(
        file=file,
        line=node.lineno,
        column=character_column(file, node.lineno, node.col_offset),
        end_line=end_line,
        end_column=character_column(file, end_line, end),
    )


def _local(method: _Function, name: str) -> ast.expr | None:
    """The value of a local variable that is assigned exactly once."""
    values = [
        node.value
        for node in ast.walk(method)
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
    ]
    return values[0] if len(values) == 1 else None


def _child(call: ast.Call, name: str) -> ast.expr | None:
    """The expression for one element of `nn.Sequential(...)`, `ModuleList([...])`, `ModuleDict({...})`."""
    items: list[ast.expr] = list(call.args)
    if len(items) == 1:
        only = items[0].value if isinstance(items[0], ast.Starred) else items[0]
        if isinstance(only, ast.Call) and only.args:  # OrderedDict([...])
            only = only.args[0]
            if isinstance(only, ast.List | ast.Tuple):
                pairs = [
                    pair.elts for pair in only.elts if isinstance(pair, ast.Tuple) and len(pair.elts) == 2
                ]
                return next((value for key, value in pairs if _says(key, name)), None) or items[0]
        if isinstance(only, ast.ListComp | ast.GeneratorExp):
            return only.elt
        if isinstance(only, ast.Dict):
            pairs_ = zip(only.keys, only.values, strict=True)
            return next((value for key, value in pairs_ if key is not None and _says(key, name)), None)
        if isinstance(only, ast.List | ast.Tuple):
            items = only.elts
    index = int(name) if name.isdecimal() else -1
    if not 0 <= index < len(items) or any(isinstance(item, ast.Starred) for item in items[: index + 1]):
        return None
    return items[index]
