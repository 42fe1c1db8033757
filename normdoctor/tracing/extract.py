"""From a recording to facts: roles, neighbours, shapes, settings and addresses, without torch in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import parametrize

from normdoctor.facts import Facts, InputFact, ModuleFact, Node, ParameterFact, TensorFact
from normdoctor.loading import frames
from normdoctor.loading.mentions import named_by_forward
from normdoctor.loading.origins import Origin
from normdoctor.loading.state import Inventory
from normdoctor.tracing import roles
from normdoctor.tracing.lossfacts import loss_facts
from normdoctor.tracing.recorder import LOSS_SCOPE, is_leaf_type
from normdoctor.tracing.recording import Recording
from normdoctor.tracing.tape import META_KEY, Call

_REGIONS = (torch.amp.autocast_mode._enter_autocast, torch.amp.autocast_mode._exit_autocast)


class _Extraction:
    """One pass over the graph. `index` maps torch.fx nodes to positions in `nodes`."""

    def __init__(self, recording: Recording, extra_roles: Mapping[str, str]) -> None:
        self.recording = recording
        self.extra = dict(extra_roles)
        self.nodes: list[Node] = []
        self.index: dict[fx.Node, int] = {}
        self.reads: dict[fx.Node, tuple[str, ...]] = {}
        self.replaced: dict[int, int] = {}
        self.settings: dict[str, dict[str, Any]] = {}

    def run(self) -> tuple[Node, ...]:
        for node in self.recording.graph.nodes:
            if node.target in _REGIONS:
                continue
            if node.op == "get_attr":
                tensor = isinstance(self.recording.root.get(node.target), torch.Tensor)
                self.reads[node] = (node.target,) if tensor and node.target in self._names else ()
            else:
                self._add(node)
        return tuple(self.nodes)

    @property
    def _names(self) -> Mapping[str, Any]:
        return self.recording.parts.tensors

    def _add(self, node: fx.Node) -> None:
        call: Call = node.meta[META_KEY]
        inputs, names = self._sources(node)
        kind, role = self._meaning(node, call)
        if kind in roles.READ_ONE:
            inputs = inputs[:1]
        config = self._config(node, call, kind)
        if role == "loss":
            config = config | _target_of(node)
        if node.op == "call_module" and call.module is not None:
            names += [f"{node.target}.{name}" for name, _ in call.module.named_parameters(recurse=True)]
        if node.op.startswith("call_") and (role not in ("norm", "linear") or not inputs):
            operands = self._operands((*node.args, *node.kwargs.values()))
            if operands != inputs:
                config = {**config, "operands": operands}
        if role == "other" and kind in ("mul", "div") and len(inputs) > 1:
            role = "gate"
        if role == "other" and kind in ("matmul", "einsum") and names and len(inputs) == 1:
            role = "linear"
        if not inputs and names and node.op in ("call_function", "call_method") and kind != "embedding":
            role = "parameter"  # made of parameters alone: a weight, not an activation
        index = len(self.nodes)
        self.index[node] = index
        if role == "parameter":
            self.reads[node] = tuple(dict.fromkeys(names))
        mutates = self.index.get(call.mutates) if call.mutates is not None else None
        self.nodes.append(
            Node(
                index=index,
                name=node.name,
                op=node.op,
                role=role,
                kind=kind,
                module=str(node.target) if node.op == "call_module" else None,
                scope=call.scope,
                inputs=tuple(inputs),
                parameters=tuple(dict.fromkeys(names)),
                outputs=tensor_facts(_written(node) if kind == "setitem" else call.result),
                config=config,
                location=frames.location(call.code, call.offset),
                mutates=mutates,
                view_of=self.index.get(call.view_of) if call.view_of is not None else None,
                call=call.count,
            )
        )
        if mutates is not None:
            self._redirect(node, index, mutates, kind)

    def _redirect(self, node: fx.Node, index: int, mutates: int, kind: str) -> None:
        """`F.relu_(x)` as a statement: whoever reads x afterwards reads the result of this call."""
        if not node.users or kind == "setitem":
            self.replaced[mutates] = index
            first = node.args[0] if node.args else None
            if isinstance(first, fx.Node) and first in self.index:
                self.replaced[self.index[first]] = index

    def _sources(self, node: fx.Node) -> tuple[list[int], list[str]]:
        """The activations that a node reads, and the parameters, also through calls on parameters."""
        inputs: list[int] = []
        names: list[str] = []
        for source in node.all_input_nodes:
            known = self.index.get(source)
            if source in self.reads:
                names += self.reads[source]
            elif known is not None:
                inputs.append(self._latest(known))
        return inputs, names

    def _latest(self, known: int) -> int:
        """The node that holds what node `known` made, after calls that changed it in place."""
        while known in self.replaced and self.replaced[known] < len(self.nodes):
            known = self.replaced[known]
        return known

    def _operands(self, values: Iterable[Any]) -> list[int | str | None]:
        """The tensors among arguments, in order: nodes by index, the model's own by name."""
        found: list[int | str | None] = []
        for value in values:
            if isinstance(value, fx.Node):
                known = self.index.get(value)
                name = next(iter(self.reads.get(value, ())), None)
                found.append(name if known is None else self._latest(known))
            elif isinstance(value, list | tuple):
                found += self._operands(value)
        return found

    def _meaning(self, node: fx.Node, call: Call) -> tuple[str, str]:
        if node.op == "placeholder":
            return "input", "input"
        if node.op == "output":
            return "output", "output"
        if node.op == "call_module":
            return roles.kind_of_module(type(call.module), self.extra) if call.module else ("module", "other")
        if node.target is getattr:
            return roles.kind_of_function(str(node.args[1]), self.extra)
        name = node.target if isinstance(node.target, str) else _function_name(node.target)
        kind, role = roles.kind_of_function(name, self.extra)
        if kind == "getitem":
            key = node.args[1]
            base = node.args[0]
            whole = isinstance(base, fx.Node) and not isinstance(base.meta[META_KEY].result, torch.Tensor)
            return ("select_output" if whole and isinstance(key, int | str) else "getitem"), "reshape"
        if kind in ("max", "min") and len(node.all_input_nodes) > 1:
            return kind, "other"
        return kind, role

    def _config(self, node: fx.Node, call: Call, kind: str) -> dict[str, Any]:
        if node.op == "call_module" and call.module is not None:
            known = self.settings.get(str(node.target))
            if known is None:
                known = self.settings[str(node.target)] = {
                    **roles.module_config(call.module),
                    "training": call.module.training,
                }
            return known
        if node.op not in ("call_function", "call_method"):
            return {}
        found: dict[str, Any] = {}
        if kind in ("getitem", "select_output") and len(node.args) > 1:
            key = node.args[1]
            return {"index": [_index_entry(one) for one in (key if isinstance(key, tuple) else (key,))]}
        present: set[str] = set()
        for name, value in roles.bind(kind, node.args, dict(node.kwargs)):
            if value is not None:
                present.add(name)
            if isinstance(value, fx.Node) or name in ("input", "weight", "tensors", "target"):
                continue
            if isinstance(value, list | tuple) and any(isinstance(item, fx.Node) for item in value):
                continue
            found[name] = roles.plain(value)
        if kind == "matmul" and (name := _plain_name(node.target)) not in ("matmul", "bmm", "mm"):
            found["function"] = name
        if kind in ("add", "mul", "div", "sub", "pow") and "other" in found:
            found["scalar"] = found.pop("other")
        if roles.KINDS.get(kind) == "norm":
            found["affine"] = "weight" in present
            found["bias"] = "bias" in present
            found["track_running_stats"] = "running_mean" in present
        elif roles.KINDS.get(kind) == "linear":
            found["bias"] = "bias" in present
        if _in_place_name(node.target):
            found["inplace"] = True
        return found


def _written(node: fx.Node) -> Any:
    """What `x[...] = y` leaves behind, which returns nothing: x."""
    target = node.args[0]
    return target.meta[META_KEY].result if isinstance(target, fx.Node) else None


def _index_entry(key: Any) -> int | str:
    """One entry of `x[...]`: an integer as it is, `a:b:c`, `...`, `None`, or `tensor`."""
    if isinstance(key, slice):
        ends = (key.start, key.stop, key.step)
        return ":".join("" if end is None else str(end) for end in ends)
    if key is ...:
        return "..."
    if key is None or isinstance(key, bool):
        return str(key)
    return key if isinstance(key, int | str) else "tensor"


def _target_of(node: fx.Node) -> dict[str, Any]:
    """Shape and dtype of what a loss compares its input with."""
    target = node.args[1] if len(node.args) > 1 else node.kwargs.get("target")
    value = target.meta[META_KEY].result if isinstance(target, fx.Node) else None
    if not isinstance(value, torch.Tensor):
        return {}
    fact = tensor_facts(value)[0]
    return {"target_shape": list(fact.shape), "target_dtype": fact.dtype}


def _in_place_name(target: Any) -> bool:
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    return name.endswith("_") and not name.endswith("__")


def _plain_name(target: Any) -> str:
    return (target if isinstance(target, str) else _function_name(target)).strip("_")


def _function_name(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.split("::")[-1]
    name = getattr(target, "__name__", "") or type(target).__name__
    return str(name)


def nodes_of(recording: Recording, extra_roles: Mapping[str, str]) -> tuple[Node, ...]:
    """The steps of a recording."""
    return _Extraction(recording, extra_roles).run()


def tensor_facts(result: Any) -> tuple[TensorFact, ...]:
    """Shape and dtype of every tensor in a result."""
    if isinstance(result, torch.Tensor):
        if result.is_nested:  # its sizes are no numbers
            return ()
        return (TensorFact(tuple(int(n) for n in result.shape), str(result.dtype).removeprefix("torch.")),)
    if isinstance(result, list | tuple):
        return tuple(fact for item in result for fact in tensor_facts(item))
    if isinstance(result, dict):
        return tensor_facts(list(result.values()))
    return ()


def module_facts(
    parts: Inventory,
    origins: Mapping[str, Origin],
    calls: Mapping[str, int],
    created: Mapping[str, nn.Module],
    extra_roles: Mapping[str, str],
) -> tuple[ModuleFact, ...]:
    """One fact for each module, in the order in which the model lists them."""
    found = []
    owned: dict[str, list[str]] = {}
    for entry in parts.tensors.values():
        owned.setdefault(entry.module, []).append(entry.name)
    rows = [(path, e.module, e.container, tuple(e.aliases)) for path, e in parts.modules.items()]
    rows += [(path, module, _holder_of(path), ()) for path, module in created.items()]
    for path, module, container, aliases in rows:
        kind = type(module)
        _, role = roles.kind_of_module(kind, dict(extra_roles))
        origin = origins.get(path)
        found.append(
            ModuleFact(
                path=path,
                type=kind.__name__,
                qualname=f"{kind.__module__}.{kind.__qualname__}",
                base=roles.base_of(kind),
                role=role,
                leaf=is_leaf_type(kind),
                training=getattr(module, "training", False),  # a frozen ScriptModule has no mode
                registered=not container,
                container=container,
                calls=calls.get(path, 0),
                config=roles.module_config(module),
                parameters=tuple(owned.get(path, ())),
                aliases=aliases,
                origin=origin.location if origin else None,
                via=origin.via if origin else (),
                reparametrized=reparametrizations(module),
                named=_is_named(path, parts),
            )
        )
    return tuple(found)


def _is_named(path: str, parts: Inventory) -> bool:
    """Does the forward of the module around it name it?"""
    around, _, name = path.rpartition(".")
    holder = parts.modules.get(around)
    kind: Any = type(holder.module) if holder is not None else None  # types of modules are hashable
    return kind is not None and name in named_by_forward(kind)


def _holder_of(path: str) -> str:
    """What holds a module that is not one of the model's: the forward, or the loss that was given."""
    return "loss" if path.startswith(LOSS_SCOPE) else "forward"


def reparametrizations(module: nn.Module) -> dict[str, str]:
    """Parameter to how it is computed from others: see `ModuleFact.reparametrized`."""
    found: dict[str, str] = {}
    for hook in module._forward_pre_hooks.values():
        word = _OLD_HOOKS.get(type(hook).__name__)
        if word is not None:
            found[str(getattr(hook, "name", "weight"))] = word
    # Children of a ScriptModule are held by no dict.
    holder = dict(module._modules.items()).get("parametrizations")
    for name, chain in holder.named_children() if isinstance(holder, nn.ModuleDict) else ():
        for one in chain.children() if isinstance(chain, parametrize.ParametrizationList) else ():
            kind = type(one)
            torch_own = kind.__module__ == "torch.nn.utils.parametrizations"
            word = _PARAMETRIZATIONS.get(kind.__name__, kind.__name__.lower().strip("_"))
            found[name] = f"parametrizations.{word}" if torch_own else kind.__name__
    return found


_OLD_HOOKS = {"WeightNorm": "weight_norm", "SpectralNorm": "spectral_norm"}
_PARAMETRIZATIONS = {
    "_WeightNorm": "weight_norm",
    "_SpectralNorm": "spectral_norm",
    "_Orthogonal": "orthogonal",
}


def parameter_facts(parts: Inventory, updated: frozenset[str] = frozenset()) -> tuple[ParameterFact, ...]:
    """One fact for each parameter, buffer and plain tensor attribute; `updated` names what forward wrote."""
    return tuple(
        ParameterFact(
            name=entry.name,
            module=entry.module,
            tensor=tensor_facts(entry.tensor)[0],
            kind=entry.kind,
            trainable=entry.tensor.requires_grad,
            aliases=tuple(entry.aliases),
            updated=entry.name in updated,
        )
        for entry in parts.tensors.values()
        if not nn.parameter.is_lazy(entry.tensor)
    )


def extract(
    name: str,
    recording: Recording,
    origins: Mapping[str, Origin],
    *,
    extra_roles: Mapping[str, str] | None = None,
    notes: tuple[str, ...] = (),
) -> Facts:
    """Everything that the recording, the model and its origins say; weights and losses come later."""
    extra = extra_roles or {}
    nodes = nodes_of(recording, extra)
    inputs = tuple(
        InputFact(name=given, tensor=node.outputs[0], source=recording.example.source)
        for given, node in zip(recording.input_names, nodes, strict=False)
    )
    return Facts(
        target=name,
        modules=module_facts(recording.parts, origins, recording.calls, recording.created, extra),
        parameters=parameter_facts(recording.parts, recording.updated),
        nodes=nodes,
        inputs=inputs,
        losses=loss_facts(nodes),
        recorded=recording.carrier,
        training=recording.training,
        notes=(*notes, *recording.notes),
    )
