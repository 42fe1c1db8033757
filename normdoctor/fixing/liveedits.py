"""What the edits of fixes mean for a live model."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, remove_spectral_norm, remove_weight_norm

from normdoctor.findings import Edit, Finding
from normdoctor.fixing.signatures import found
from normdoctor.fixing.splices import Refused
from normdoctor.loading.state import inventory

_IN_FORWARD = "it stands in the code of a forward; `normdoctor check --fix` changes the source"


def apply_to(model: nn.Module, finding: Finding) -> None:
    """Apply the fix of a finding to the model itself.

    Raises:
        Refused: It concerns the code of a forward, or the model is not the one that was checked.
    """
    assert finding.fix is not None
    edits = [Edit.argument(name, value) for name, value in finding.fix.edits.items()]
    for edit in (*edits, *finding.fix.steps):
        operation = _OPERATIONS.get(edit.action)
        if operation is None:
            raise Refused(_IN_FORWARD)
        operation(model, finding, edit)


def _module(model: nn.Module, path: str) -> nn.Module:
    entries = inventory(model).modules.values()
    known = {name: entry.module for entry in entries for name in (entry.path, *entry.aliases)}
    plain = re.sub(r"\[(?:'([^']*)'|(\d+))\]", lambda m: f".{m[1] or m[2]}", path)
    module = known.get(path, known.get(plain))
    if module is None:
        raise Refused(f"the model has no module `{path}`")
    return module


def _layers(model: nn.Module, finding: Finding) -> list[nn.Module]:
    """The layers of torch that a finding is about."""
    modules = [_module(model, path) for path in finding.modules]
    if not all(type(module).__module__.startswith("torch.nn.") for module in modules):
        raise Refused(_IN_FORWARD)
    if any(isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict) for module in modules):
        raise Refused(_IN_FORWARD)
    return modules


# -- arguments -------------------------------------------------------------------------------------


def _argument(model: nn.Module, finding: Finding, edit: Edit) -> None:
    for module in _layers(model, finding):
        default = inspect.signature(type(module)).parameters.get(edit.name)
        if default is None:
            raise Refused(f"{type(module).__name__} takes no `{edit.name}`")
        value = default.default if edit.value == "" else _literal(edit.value)
        if edit.name == "bias":
            _without_bias(model, module, finding)
        elif edit.name == "affine":
            _affine(module)
        elif edit.name == "track_running_stats":
            _tracking(module, bool(value))
        elif edit.name in vars(module):
            setattr(module, edit.name, value)
        else:
            raise Refused(f"`{edit.name}` cannot be changed in a {type(module).__name__} that was built")


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except ValueError as error:
        raise Refused(_IN_FORWARD) from error


def _without_bias(model: nn.Module, module: nn.Module, finding: Finding) -> None:
    """Drop the bias; the running mean of the norm behind it becomes smaller by as much."""
    assert finding.fix is not None
    bias = module._parameters.get("bias")
    if bias is None:
        return
    tensors = inventory(model).tensors
    for gone, *takers in finding.fix.absorbed:
        entry = tensors.get(gone)
        if entry is None or entry.tensor is not bias or not takers:
            continue
        taker = next((name for name in takers if "mean" in name.rpartition(".")[2]), takers[0])
        if taker in tensors:
            with torch.no_grad():
                tensors[taker].tensor.sub_(bias.detach().reshape(tensors[taker].tensor.shape))
    module.register_parameter("bias", None)


def _like(module: nn.Module) -> dict[str, Any]:
    held: Tensor | None = next(iter((*module.parameters(), *module.buffers())), None)
    if held is None or not held.is_floating_point():
        return {}
    return {"device": held.device, "dtype": held.dtype}


def _affine(module: Any) -> None:
    if module.weight is None:
        module.weight = nn.Parameter(torch.ones(module.num_features, **_like(module)))
        module.bias = nn.Parameter(torch.zeros(module.num_features, **_like(module)))
    module.affine = True


def _tracking(module: Any, on: bool) -> None:
    module.track_running_stats = on
    size, like = module.num_features, _like(module)
    count = torch.zeros((), dtype=torch.long, device=like.get("device"))
    module.register_buffer("running_mean", torch.zeros(size, **like) if on else None)
    module.register_buffer("running_var", torch.ones(size, **like) if on else None)
    module.register_buffer("num_batches_tracked", count if on else None)


# -- layers ----------------------------------------------------------------------------------------


def _drop(model: nn.Module, finding: Finding, edit: Edit) -> None:
    for module in _layers(model, finding):
        _put(model, module, nn.Identity())


def _put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    if old is model:
        raise Refused("the model itself would have to be replaced")
    for name, value in vars(old).items():
        if name == "training" or name.endswith(("_hooks", "_with_kwargs", "_always_called")):
            vars(new)[name] = value
    for entry in inventory(model).modules.values():
        children = entry.module._modules
        for name, child in children.items():
            if child is old:
                children[name] = new


def _swap(model: nn.Module, finding: Finding, edit: Edit) -> None:
    if edit.name.startswith("torch.nn.utils."):
        _parametrize(model, finding, edit)
        return
    if edit.name:
        raise Refused("it concerns the loss, which is no part of the model")
    new = found(edit.value)
    for module in _layers(model, finding):
        taken = inspect.signature(new).parameters
        _put(model, module, new(**{name: value for name, value in vars(module).items() if name in taken}))


def _parametrize(model: nn.Module, finding: Finding, edit: Edit) -> None:
    way = edit.name.rpartition(".")[2]
    remove: Callable[..., Any] = remove_weight_norm if way == "weight_norm" else remove_spectral_norm
    make: Callable[..., Any] = getattr(parametrizations, way)
    for path in finding.modules:
        module = _module(model, path)
        hooks = [hook for hook in module._forward_pre_hooks.values() if hasattr(hook, "name")]
        for hook in hooks:
            name = str(hook.name)
            with torch.no_grad():
                remove(module, name)
                make(module, name)
        if not hooks:
            raise Refused(f"`{path}` is not under {way} any more")


def _build(model: nn.Module, finding: Finding, edit: Edit) -> None:
    new_class = found(edit.value)
    paths = {new.rpartition(".")[0] for _, new in edit.carries}
    for path in finding.modules:
        if paths and path not in paths:
            continue
        old = _module(model, path)
        call = ast.parse(f"f({', '.join(one.rstrip('?') for one in edit.arguments)})", mode="eval").body
        assert isinstance(call, ast.Call)
        args = [ast.literal_eval(one) for one in call.args]
        kwargs = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
        tensors = inventory(model).tensors
        new = new_class(*args, **kwargs)
        for name, target in edit.carries:
            own, slot = target.rpartition(".")[::2]
            if own != path or name not in tensors or (value := getattr(new, slot, None)) is None:
                continue
            tensor = tensors[name].tensor
            if isinstance(tensor, nn.Parameter) and tensor.shape == value.shape:
                new.register_parameter(slot, tensor)
            else:
                value.data = tensor.detach().reshape(value.shape).clone()
        _put(model, old, new)


# -- registration ----------------------------------------------------------------------------------


def _contain(model: nn.Module, finding: Finding, edit: Edit) -> None:
    path, _, attribute = edit.name.rpartition(".")
    owner = _module(model, path)
    value = vars(owner).get(attribute)
    if isinstance(value, dict):
        made: Any = nn.ModuleDict(value) if _modules(value.values()) else nn.ParameterDict(value)
    elif isinstance(value, list | tuple):
        made = nn.ModuleList(value) if _modules(value) else nn.ParameterList(value)
    else:
        raise Refused(f"`{edit.name}` is no plain container")
    vars(owner).pop(attribute)
    setattr(owner, attribute, made)


def _modules(items: Any) -> bool:
    return all(isinstance(item, nn.Module) for item in items)


def _register(model: nn.Module, finding: Finding, edit: Edit) -> None:
    for path in finding.modules:
        owner = _module(model, path)
        value = vars(owner).get(edit.name)
        if not isinstance(value, Tensor):
            raise Refused(f"`{edit.name}` of `{path}` is no plain tensor")
        vars(owner).pop(edit.name)
        owner.register_buffer(edit.name, value.detach())


_OPERATIONS: dict[str, Callable[[nn.Module, Finding, Edit], None]] = {
    "argument": _argument,
    "build": _build,
    "contain": _contain,
    "drop": _drop,
    "register": _register,
    "swap": _swap,
}
