"""A scale and a shift of each channel, folded into the linear map in front or behind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from normdoctor.facts import Node
from normdoctor.rewriting.conversions.base import Refused
from normdoctor.rewriting.flow import Flow, Owner, told
from normdoctor.rewriting.journal import Journal
from normdoctor.rewriting.surgery import all_hooks, wide

_CONVS = ("conv1d", "conv2d", "conv3d")
_EMPTY = "its input is empty, which does not tell its channels"
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_LAYERS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear,
)  # fmt: skip


@dataclass(frozen=True)
class Map:
    """A linear map whose weight can be changed: one layer, each of whose calls stands beside the norm.

    `channels` gives, for each of its output (or input) channels, the channel of the norm.
    """

    owner: Owner
    channels: Tensor
    shape: tuple[int, ...] = field(default=())

    @property
    def weight(self) -> Tensor:
        """The weight of the layer."""
        found = getattr(self.owner.module, self.owner.weight)
        assert isinstance(found, Tensor)
        return found


def maps_in_front(flow: Flow, calls: list[Node]) -> list[Map]:
    """The linear maps that compute the input of each call of a norm, and nothing else.

    Raises `Refused` where there is none, where somebody else sees its output, or where the norm's channels
    are not its channels.
    """
    found: dict[str, Map] = {}
    seen: dict[str, set[int]] = {}
    for call in calls:
        node, chain = flow.producer(call)
        owner = flow.owner(node)
        _demand_changeable(owner, flow)
        if all_hooks(owner.module, "forward"):
            raise Refused(f"forward hooks of `{owner.path}` see its output")
        spread = flow.spread(node, chain, _out_axis(node))
        found[owner.path] = _same(found, Map(owner, _onto(spread, node.shape[_out_axis(node)])))
        seen.setdefault(owner.path, set()).add(node.index)
    for path, one in found.items():
        if {node.index for node in flow.calls_of(one.owner)} != seen[path]:
            raise Refused(f"`{path}` is called elsewhere too")
    return list(found.values())


def maps_behind(flow: Flow, ends: list[Node], shifts: bool) -> list[Map]:
    """The linear maps that read the output of each call of a norm, and nothing else does.

    `ends` hold the outputs. With `shifts`, a convolution that pads with zeros is refused: at the border it
    would see another shift.
    """
    found: dict[str, Map] = {}
    seen: dict[str, set[int]] = {}
    for end in ends:
        for node, chain in flow.consumers(end):
            owner = flow.owner(node)
            _demand_changeable(owner, flow)
            if not isinstance(owner.module, _LAYERS) and not owner.direct:
                raise Refused(f"`{owner.path}` has a forward of its own")
            if all_hooks(owner.module, "forward", "forward_pre"):
                raise Refused(f"hooks of `{owner.path}` see its input")
            if shifts and (pad := _zero_padding(node, owner)):
                raise Refused(f"`{owner.path}` {pad}, where the shift cannot be folded")
            axis = _in_axis(node)
            spread = flow.spread(end, chain, 1)
            found[owner.path] = _same(found, Map(owner, _from(spread, axis)))
            seen.setdefault(owner.path, set()).add(node.index)
    for path, one in found.items():
        if {node.index for node in flow.calls_of(one.owner)} != seen[path]:
            raise Refused(f"`{path}` is called elsewhere too")
    return list(found.values())


def fold_in_front(
    one: Map, scale: Tensor, shift: Tensor, journal: Journal, bias: nn.Parameter | None
) -> nn.Parameter | None:
    """`y <- y * scale + shift` for the output of a map; returns its new bias where it had none.

    `bias` may be that parameter: it is set to what the bias must be.
    """
    device = one.weight.device
    s, t = scale[one.channels.to(scale.device)].to(device), shift[one.channels.to(shift.device)].to(device)
    weight = one.weight.detach().to(s.dtype)
    journal.write(one.weight, weight * _along_out(s, weight, one.owner))
    old: Tensor | None = getattr(one.owner.module, "bias", None)
    if old is not None:
        journal.write(old, wide(old, 0.0, s) * s + t)
        return None
    return _new_bias(one, t, journal, bias)


def fold_behind(one: Map, scale: Tensor, shift: Tensor, journal: Journal) -> nn.Parameter | None:
    """`x <- x * scale + shift` for the input of a map; returns its new bias where it had none."""
    device = one.weight.device
    s, t = scale[one.channels.to(scale.device)].to(device), shift[one.channels.to(shift.device)].to(device)
    weight = one.weight.detach().to(s.dtype)
    scaled, moved = _of_inputs(weight, s, t, one.owner)
    journal.write(one.weight, scaled)
    old: Tensor | None = getattr(one.owner.module, "bias", None)
    if old is not None:
        journal.write(old, wide(old, 0.0, s) + moved)
        return None
    return _new_bias(one, moved, journal, None) if bool(torch.any(moved != 0)) else None


def _new_bias(one: Map, values: Tensor, journal: Journal, bias: nn.Parameter | None) -> nn.Parameter:
    weight = one.weight
    if bias is None or bias.shape != values.shape or bias.dtype != weight.dtype:
        needs = weight.requires_grad if bias is None else bias.requires_grad
        bias = nn.Parameter(values.to(weight.dtype), requires_grad=needs)
    else:
        journal.write(bias, values)
    journal.put(one.owner.module._parameters, "bias", bias)
    return bias


def _demand_changeable(owner: Owner, flow: Flow) -> None:
    module, path = owner.module, owner.path
    if owner.kind not in (*_CONVS, *_TRANSPOSED, "linear", "addmm"):
        raise Refused(f"`{path}` ({owner.kind}) takes no scale")
    if not isinstance(module, _LAYERS) and owner.kind != "addmm":
        raise Refused(f"`{path}` is a {type(module).__name__}: no layer of torch's")
    if parametrize.is_parametrized(module) or owner.weight not in module._parameters:
        raise Refused(f"the weight of `{path}` is computed (weight_norm, spectral_norm, ...)")
    if module._parameters.get("bias") is None and not owner.direct and not _takes_bias(module):
        raise Refused(f"`{path}` has a forward of its own that takes no bias")
    weight = module._parameters[owner.weight]
    assert weight is not None
    if weight.is_meta:
        raise Refused(f"`{path}` is on the meta device: it has no values")
    if type(weight).__name__ == "DTensor":
        raise Refused(f"the weight of `{path}` is sharded")
    name = f"{path}.{owner.weight}" if path else owner.weight
    for one in (name, f"{path}.bias" if path else "bias"):
        entry = flow.recording.parts.tensors.get(one)
        home = [other for other in flow.recording.parts.tensors.values() if one in other.aliases]
        shared = [*(entry.aliases if entry is not None else ()), *(other.name for other in home)]
        if shared:
            raise Refused(f"`{one}` is shared with `{shared[0]}`")
    _demand_unread(owner, flow)


def _demand_unread(owner: Owner, flow: Flow) -> None:
    """Refuse where code besides the layer reads its weight or bias (`self.conv.weight.norm()`)."""
    calls = {node.index for node in flow.calls_of(owner)}
    for attribute in (owner.weight, "bias"):
        name = f"{owner.path}.{attribute}" if owner.path else attribute
        for node in flow.graph.functional_readers.get(name, ()):
            made_of_it = node.role == "parameter" and not owner.direct
            if node.index not in calls and not made_of_it:
                raise Refused(f"`{name}` is read by {told(node)} too")


def _takes_bias(module: nn.Module) -> bool:
    """Does a forward of the user's read `self.bias`?"""
    names = getattr(getattr(type(module), "forward", None), "__code__", None)
    called = {name for one in type(module).__mro__ for name, value in vars(one).items()
              if hasattr(value, "__code__") and "bias" in value.__code__.co_names}  # fmt: skip
    return names is not None and (
        "bias" in names.co_names or "_conv_forward" in names.co_names or bool(called & set(names.co_names))
    )


def _same(found: dict[str, Map], new: Map) -> Map:
    known = found.get(new.owner.path)
    if known is not None and not torch.equal(known.channels, new.channels):
        raise Refused(f"the calls of `{new.owner.path}` meet it along different axes")
    return new


def _out_axis(node: Node) -> int:
    if node.kind in (*_CONVS, *_TRANSPOSED):
        return len(node.shape) - 1 - int(node.kind[-2])
    return len(node.shape) - 1


def _in_axis(node: Node) -> int:
    """Counted from the end."""
    return -1 - int(node.kind[-2]) if node.kind in (*_CONVS, *_TRANSPOSED) else -1


def _onto(spread: Tensor, channels: int) -> Tensor:
    """Of `spread` (the channel of a map at each place of the norm's input) the norm's channel of each."""
    rows = spread.movedim(1, 0).flatten(1) if spread.dim() > 1 else spread[:, None]
    if not rows.numel():
        raise Refused(_EMPTY)
    if rows.shape[0] == channels and bool((rows == rows[:, :1]).all()):
        order = rows[:, 0]
        if set(order.tolist()) == set(range(channels)):
            return torch.argsort(order)
    place = torch.arange(rows.shape[0], device="cpu")[:, None].expand_as(rows)
    flat: Tensor = rows.flatten() * rows.shape[0] + place.flatten()
    pairs: Tensor = flat.unique()  # type: ignore[no-untyped-call]
    sources, places = pairs // rows.shape[0], pairs % rows.shape[0]
    if len(set(sources.tolist())) != pairs.numel() or sources.numel() != channels:
        raise Refused("its channels are not the output channels of the layer in front")
    return places


def _from(spread: Tensor, axis: int) -> Tensor:
    """Of `spread` (the norm's channel at each place of a map's input) that of each input channel."""
    rows = spread.movedim(axis, 0).flatten(1) if spread.dim() > 1 else spread[:, None]
    if not rows.numel():
        raise Refused(_EMPTY)
    if not bool((rows == rows[:, :1]).all()):
        raise Refused("its channels are not the input channels of the layer behind")
    return rows[:, 0].clone()


def _along_out(scale: Tensor, weight: Tensor, owner: Owner) -> Tensor:
    """`scale` of each output channel, in a shape that multiplies the weight."""
    if owner.kind == "addmm":
        return scale[None, :]
    if owner.kind in _TRANSPOSED:
        groups = int(getattr(owner.module, "groups", 1))
        inside = scale.view(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1)
        return inside.reshape(weight.shape[0], -1, *(1,) * (weight.dim() - 2))
    return scale.view(-1, *(1,) * (weight.dim() - 1))


def _of_inputs(weight: Tensor, scale: Tensor, shift: Tensor, owner: Owner) -> tuple[Tensor, Tensor]:
    """The weight for inputs that are scaled, and what the shift of the inputs adds to the output."""
    if owner.kind == "addmm":
        return weight * scale[:, None], shift @ weight
    spatial = (1,) * (weight.dim() - 2)
    if owner.kind in _TRANSPOSED:
        groups = int(getattr(owner.module, "groups", 1))
        sums = (
            (weight * shift.view(-1, 1, *spatial)).flatten(2).sum(2) if spatial else weight * shift[:, None]
        )
        return weight * scale.view(-1, 1, *spatial), sums.view(groups, -1, sums.shape[1]).sum(1).flatten()
    groups = int(getattr(owner.module, "groups", 1))
    s, t = (_per_group(value, groups, weight) for value in (scale, shift))
    return weight * s, (weight * t).flatten(1).sum(1)


def _per_group(values: Tensor, groups: int, weight: Tensor) -> Tensor:
    """Values of the input channels, in a shape that multiplies a weight of a grouped convolution."""
    inside = values.view(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1)
    return inside.reshape(weight.shape[0], -1, *(1,) * (weight.dim() - 2))


def _zero_padding(node: Node, owner: Owner) -> str:
    """Say how a convolution sees zeros beyond the border, empty where it does not."""
    if node.kind in _TRANSPOSED:
        kernel = getattr(owner.module, "kernel_size", (1,))
        return "" if all(size == 1 for size in kernel) else "is transposed"
    if node.kind not in _CONVS:
        return ""
    module = owner.module
    padding = getattr(module, "padding", 0)
    if getattr(module, "padding_mode", "zeros") != "zeros" or padding == "valid":
        return ""
    if padding == "same":
        return "" if all(size == 1 for size in getattr(module, "kernel_size", (1,))) else "pads with zeros"
    sizes: Iterable[int] = padding if isinstance(padding, tuple) else (padding,)
    return "pads with zeros" if any(size for size in sizes) else ""
