"""Residual streams of mean zero: where LayerNorm has no mean to take off, RMSNorm is the same.

A LayerNorm sees the sum of what embeddings and the ends of residual branches wrote. It takes the mean of
each position off, so nothing changes when every writer leaves the mean out: the weight of a linear layer
gets `W - mean of W over its outputs`, likewise biases and the rows of embeddings. Then
`var(x) = mean(x**2)`, and LayerNorm is RMSNorm with a bias (arXiv 2305.14858, section 3). It holds where
all readers of the stream are LayerNorms, as in networks that normalize first.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from normdoctor.facts import Node
from normdoctor.rewriting.conversions.base import Refused
from normdoctor.rewriting.flow import Flow, told
from normdoctor.rewriting.ledger import Heir
from normdoctor.rewriting.scene import Scene
from normdoctor.rewriting.surgery import all_hooks

_ELEMENTWISE = frozenset({"add", "sub"})
_OUT_AXIS = {"linear": 0, "addmm": 1, "embedding": 1, "conv1d": 0, "conv2d": 0, "conv3d": 0}


@dataclass
class Stream:
    """What must have mean zero for one LayerNorm: calls, with the axis counted from the end, and writers.

    `writers` maps the name of a parameter to the axis of its features; `users` the calls that use it.
    """

    width: int
    nodes: dict[int, int] = field(default_factory=dict)
    writers: dict[str, int] = field(default_factory=dict)
    users: dict[str, set[int]] = field(default_factory=dict)
    scaled: dict[str, str] = field(default_factory=dict)


class Recentring:
    """Finds the streams of a model and leaves the mean out of what is written to them."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.flow: Flow = scene.demand_flow()
        self.done: set[str] = set()

    def stream(self, norm: nn.LayerNorm) -> Stream:
        """The stream that a LayerNorm reads; raises `Refused` where it cannot have mean zero."""
        calls = self.flow.calls(norm)
        if not calls:
            raise Refused("it is not called in eval mode")
        found = Stream(norm.normalized_shape[0])
        for call in calls:
            self._require(found, self.flow.nodes[call.inputs[0]], -1)
        self._demand_readers(found)
        for name in found.writers:
            self._demand_changeable(found, name)
        return found

    def apply(self, stream: Stream) -> None:
        """Leave the mean out of every writer."""
        for name, axis in stream.writers.items():
            if name not in self.done:
                self.done.add(name)
                self._untie(stream, name)
                self._centre(name, axis, stream.scaled.get(name))

    def _require(self, stream: Stream, node: Node, axis: int) -> None:
        pending = [(node, axis)]
        while pending:
            node, axis = pending.pop()
            known = stream.nodes.get(node.index)
            if known is not None and known != axis:
                raise Refused(f"the features of {told(node)} lie along two axes")
            if known is None:
                stream.nodes[node.index] = axis
                pending += self._sources(stream, node, axis)

    def _sources(self, stream: Stream, node: Node, axis: int) -> list[tuple[Node, int]]:
        """The calls that must have mean zero for this one to have it; notes parameters among them."""
        flow = self.flow
        if node.role == "input":
            raise Refused("what it normalizes comes from outside the model")
        if node.kind == "multi_head_attention" and node.module is not None:
            return self._written(stream, node, f"{node.module}.out_proj", "weight", 0)
        if node.kind in _OUT_AXIS:
            return self._by_layer(stream, node, axis)
        scalar = node.kind in ("mul", "div") and len(node.inputs) == 1 and not node.parameters
        if node.kind in _ELEMENTWISE or scalar or (node.kind == "cat" and self._along_others(node, axis)):
            for name in node.parameters:
                self._parameter(stream, node, name, axis)
            return [(before, axis) for before in flow.graph.inputs(node) if self._fits(stream, before, axis)]
        if node.kind == "mul" and len(node.inputs) == 1 and len(node.parameters) == 1:
            return self._scaled(stream, node, axis)
        if (flow.is_silent(node) or node.role == "reshape") and len(node.inputs) == 1:
            before = flow.graph.inputs(node)[0]
            if before.kind == "multi_head_attention":
                return [(before, axis)]
            return [(before, self._axis_before(stream, node, before, axis))]
        raise Refused(f"{told(node)} writes to what it normalizes, and cannot leave a mean out")

    def _fits(self, stream: Stream, before: Node, axis: int) -> bool:
        if len(before.shape) < -axis or before.shape[axis] != stream.width:
            raise Refused(f"{told(before)} adds the same to all features")
        return True

    @staticmethod
    def _along_others(node: Node, axis: int) -> bool:
        dim = node.config.get("dim", 0)
        return isinstance(dim, int) and dim % len(node.shape) != axis % len(node.shape)

    def _axis_before(self, stream: Stream, node: Node, before: Node, axis: int) -> int:
        """Along which axis of its input the features lie that a call moves to `axis`."""
        shape = before.shape
        for candidate in range(len(shape)):
            if shape[candidate] != stream.width:
                continue
            view = [1] * len(shape)
            view[candidate] = stream.width
            marks = torch.arange(stream.width, device="cpu").view(view).expand(shape)
            result = self.flow.moved(node, before.name, marks)
            if result.dim() >= -axis and result.shape[axis] == stream.width:
                rows = result.movedim(axis, -1)
                if bool((rows == torch.arange(stream.width, device="cpu")).all()):
                    return candidate - len(shape)
        raise Refused(f"{told(node)} mixes its features with others")

    def _by_layer(self, stream: Stream, node: Node, axis: int) -> list[tuple[Node, int]]:
        if node.kind == "embedding":
            path = node.module if node.module is not None else node.scope
            attribute = "weight"
        else:
            owner = self.flow.owner(node)
            path, attribute = owner.path, owner.weight
        expected = -1 - int(node.kind[-2]) if node.kind.startswith("conv") else -1
        if axis != expected:
            raise Refused(f"the features of {told(node)} lie along another axis")
        return self._written(stream, node, path, attribute, _OUT_AXIS[node.kind])

    def _written(
        self, stream: Stream, node: Node, path: str, attribute: str, axis: int
    ) -> list[tuple[Node, int]]:
        """Note weight and bias of a layer; nothing in front of it matters."""
        entry = self.flow.recording.parts.modules.get(path)
        if entry is None:
            raise Refused(f"the layer of {told(node)} is not known")
        for name, along in ((attribute, axis), ("bias", 0)):
            if entry.module._parameters.get(name) is not None:
                full = f"{path}.{name}" if path else name
                stream.writers[full] = along
                stream.users.setdefault(full, set()).add(node.index)
            elif name == attribute:
                raise Refused(f"the weight of `{path}` is computed from others")
        if all_hooks(entry.module, "forward"):
            raise Refused(f"forward hooks of `{path}` see what it writes")
        return []

    def _parameter(self, stream: Stream, node: Node, name: str, axis: int) -> None:
        entry = self.flow.recording.parts.tensors.get(name)
        if entry is None or entry.tensor.dim() < -axis or entry.tensor.shape[axis] != stream.width:
            raise Refused(f"`{name}` adds the same to all features")
        stream.writers[name] = entry.tensor.dim() + axis
        stream.users.setdefault(name, set()).add(node.index)

    def _scaled(self, stream: Stream, node: Node, axis: int) -> list[tuple[Node, int]]:
        """A scale of each feature (LayerScale) between a linear layer and the stream."""
        entry = self.flow.recording.parts.tensors.get(node.parameters[0])
        before, _ = self.flow.producer(node)
        if entry is None or entry.tensor.shape != (stream.width,) or before.kind != "linear":
            raise Refused(f"{told(node)} scales what is written")
        if not bool(torch.all(entry.tensor.abs() > 1e-20)):
            raise Refused(f"`{entry.name}` holds zeros")
        owner = self.flow.owner(before)
        self._written(stream, before, owner.path, owner.weight, 0)
        for name in (owner.weight, "bias"):
            full = f"{owner.path}.{name}"
            if full in stream.writers:
                stream.scaled[full] = entry.name
        return []

    def _demand_readers(self, stream: Stream) -> None:
        """Everybody who reads the stream, further sums included, must be a LayerNorm over its features."""
        pending = list(stream.nodes.items())
        seen = set(pending)
        while pending:
            index, axis = pending.pop()
            node = self.flow.nodes[index]
            for user in self.flow.graph.users(node):
                if _normalizes(user, stream.width) and axis == -1:
                    continue
                behind = (user.index, self._axis_behind(stream, node, user, axis))
                if behind not in seen:
                    seen.add(behind)
                    pending.append(behind)

    def _axis_behind(self, stream: Stream, node: Node, user: Node, axis: int) -> int:
        """Along which axis of its output a reader that only moves or adds has the features."""
        scalar = user.kind in ("mul", "div") and len(user.inputs) == 1 and not user.parameters
        alike = len(user.shape) >= -axis and user.shape[axis] == stream.width
        if user.kind in _ELEMENTWISE or scalar or (user.kind == "cat" and self._along_others(user, axis)):
            if alike:
                return axis
        elif (self.flow.is_silent(user) or user.role == "reshape") and len(user.inputs) == 1:
            for candidate in range(-len(user.shape), 0):
                if user.shape[candidate] == stream.width and node.shape[axis] == stream.width:
                    with contextlib.suppress(Refused):
                        if self._axis_before(stream, user, node, candidate) == axis:
                            return candidate
        raise Refused(f"{told(user)} reads what it normalizes, and would see the mean gone")

    def _demand_changeable(self, stream: Stream, name: str) -> None:
        entry = self.flow.recording.parts.tensors.get(name)
        if entry is None:
            first = [one for one in self.flow.recording.parts.tensors.values() if name in one.aliases]
            if not first:
                raise Refused(f"`{name}` is no parameter")
            entry = first[0]
        module = self.flow.recording.parts.modules[name.rpartition(".")[0]].module
        if parametrize.is_parametrized(module) or not entry.tensor.is_floating_point():
            raise Refused(f"`{name}` is computed from others")
        if entry.tensor.is_meta:
            raise Refused("the model is on the meta device: it has no values")
        names = {entry.name, *entry.aliases}
        used = stream.users[name] | {one for other in names for one in stream.users.get(other, ())}
        untied = {one.rpartition(".")[0] for one in names - {name}}
        for node in self.flow.nodes:
            # What is made of parameters alone (`pos[:n]`) counts where it is read.
            if node.index in used or node.role == "parameter" or not names & set(node.parameters):
                continue
            home = node.module if node.module is not None else node.scope
            if home not in untied or home == name.rpartition(".")[0]:
                raise Refused(f"{told(node)} uses `{name}` too")

    def _untie(self, stream: Stream, name: str) -> None:
        """Give others who use the same parameter one of their own, with the values that it had."""
        module, attribute = self._held(name)
        parameter = module._parameters[attribute]
        assert parameter is not None
        twin: nn.Parameter | None = None
        for other_path, other in self.scene.model.named_modules():
            for key, value in list(other._parameters.items()):
                full = f"{other_path}.{key}" if other_path else key
                if value is not parameter or (other is module and key == attribute) or full in stream.writers:
                    continue
                if twin is None:
                    twin = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
                    self.scene.heirs[id(twin)] = Heir(parameter, same=True)
                self.scene.journal.put(other._parameters, key, twin)
                self.scene.notes.append(
                    f"`{full}` was the same parameter as `{name}` and is one of its own now"
                )

    def _held(self, name: str) -> tuple[nn.Module, str]:
        path, _, attribute = name.rpartition(".")
        return self.flow.recording.parts.modules[path].module, attribute

    def _centre(self, name: str, axis: int, scale: str | None) -> None:
        module, attribute = self._held(name)
        tensor = getattr(module, attribute)
        kind = torch.float32 if tensor.device.type == "mps" else torch.float64
        values: Tensor = tensor.detach().to(kind)
        factor = torch.ones((), dtype=kind, device=values.device)
        if scale is not None:
            home, label = self._held(scale)
            view = [1] * values.dim()
            view[axis] = -1
            factor = getattr(home, label).detach().to(kind).view(view)
        scaled = values * factor
        self.scene.journal.write(tensor, (scaled - scaled.mean(axis, keepdim=True)) / factor)


def _normalizes(node: Node, width: int) -> bool:
    """Is it a LayerNorm over the features alone?"""
    shape = node.config.get("normalized_shape")
    sizes = list(shape) if isinstance(shape, list | tuple) else [shape]
    return node.kind == "layer_norm" and sizes == [width]
