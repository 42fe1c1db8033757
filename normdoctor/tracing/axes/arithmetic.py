"""Arithmetic: elementwise with broadcasting, reductions, products and einsum."""

from __future__ import annotations

from normdoctor.facts import Node
from normdoctor.tracing.axes.atoms import Axis
from normdoctor.tracing.axes.flow import Axes, Flow, Step, dimensions
from normdoctor.tracing.axes.layers import heads


def same(flow: Flow, node: Node) -> list[Axes] | None:
    """The axes of the first tensor."""
    axes, shape = flow.operand(node)
    return [axes] * len(node.outputs) if shape == node.shape else None


def glu(flow: Flow, node: Node) -> list[Axes]:
    """Half of one axis."""
    axes, shape = flow.operand(node)
    return [tuple(map(flow.resized, axes, shape, node.shape))]


def elementwise(flow: Flow, node: Node) -> list[Axes]:
    """Axes that run together are one; one of length one follows the other's."""
    out = node.shape
    rank = len(out)
    columns: list[list[Axis]] = [[] for _ in out]
    given = node.config.get("operands", node.inputs)
    for one in given:
        if not isinstance(one, int):
            continue
        axes, shape = flow.tensor(one)
        for back in range(1, min(len(shape), rank) + 1):
            if shape[-back] == out[-back]:
                columns[-back].append(axes[-back])
    found = []
    for size, column in zip(out, columns, strict=True):
        axis = column[0] if column else flow.atoms.new(size)
        for other in column[1:]:
            axis = flow.atoms.unify(axis, other)
        found.append(axis)
    return [tuple(found)]


def reduction(flow: Flow, node: Node) -> list[Axes] | None:
    """mean, sum, max, var, ...: over all axes, or over `dim`, which stays as one with `keepdim`."""
    axes, shape = flow.operand(node)
    dim = node.config.get("dim")
    if isinstance(dim, bool) or not isinstance(dim, int | list | tuple | type(None)):
        return None
    if dim is None and len(node.inputs) > 1:
        return elementwise(flow, node)  # torch.max(a, b)
    over = set(dimensions(dim, len(shape))) if dim not in (None, [], ()) else set(range(len(shape)))
    if len(node.shape) == len(shape):
        kept = [flow.atoms.derived(axis, 1) if at in over else axis for at, axis in enumerate(axes)]
    else:
        kept = [axis for at, axis in enumerate(axes) if at not in over]
    return [tuple(kept)] * len(node.outputs)


def matmul(flow: Flow, node: Node) -> list[Axes] | None:
    """(..., M, K) @ (..., K, N); q @ k.T of one sequence is time x time."""
    given = [one for one in flow.operands(node) if one is not None]
    name = node.config.get("function", "")
    if name == "baddbmm":
        given = given[1:]
    elif name == "rmatmul":
        given = given[::-1]
    elif name in ("inner", "tensordot"):
        return None
    (one, one_shape), (two, two_shape) = given
    weights = _is_weight(flow, node, 1)
    if len(one_shape) == 1 or len(two_shape) == 1:
        return [one[:-1] if len(two_shape) == 1 else (*two[:-2], two[-1])]
    if one_shape[-1] != two_shape[-2]:
        return None
    flow.atoms.unify(one[-1], two[-2])
    rows, columns = one[-2], two[-1]
    around: list[Axis] = []
    rank = len(node.shape)
    for back in range(rank, 2, -1):
        pair = [
            axes[-back]
            for axes, shape in ((one, one_shape), (two, two_shape))
            if back <= len(shape) and shape[-back] == node.shape[-back]
        ]
        axis = flow.atoms.unify(*pair) if len(pair) == 2 else pair[0]
        if len(pair) == 2 and not weights:
            heads(flow, axis)
        around.append(axis)
    if any(flow.text(axis) == "heads" for axis in around) and flow.text(one[-1]) == "channel":
        flow.late += [(rows, "time"), (columns, "time")]  # queries by keys
    if weights and not flow.text(columns) and flow.text(one[-1]).endswith("channel"):
        columns = flow.atoms.new(node.shape[-1], "channel")
    return [(*around, rows, columns)]


def _is_weight(flow: Flow, node: Node, place: int) -> bool:
    given = node.config.get("operands", node.inputs)
    if place >= len(given) or given[place] is None:
        return False
    one = given[place]
    return isinstance(one, str) or flow.nodes[one].role == "parameter"


def einsum(flow: Flow, node: Node) -> list[Axes] | None:
    """By its equation."""
    equation = node.config.get("equation")
    given = flow.operands(node)
    if not isinstance(equation, str) or "..." in equation or "->" not in equation:
        return None
    left, _, right = equation.replace(" ", "").partition("->")
    letters: dict[str, Axis] = {}
    seen: dict[str, int] = {}
    for place, (word, one) in enumerate(zip(left.split(","), given, strict=True)):
        if one is None:
            continue
        axes, shape = one
        for letter, axis, size in zip(word, axes, shape, strict=True):
            if letter in letters and flow.atoms.size(letters[letter]) == size:
                letters[letter] = flow.atoms.unify(letters[letter], axis)
            elif size != 1 or letter not in letters:
                letters[letter] = axis
            seen[letter] = seen.get(letter, 0) + (not _is_weight(flow, node, place))
    for letter in right:
        contracted = any(seen[other] > 1 and other not in right for other in seen)
        if seen.get(letter, 0) > 1 and contracted:
            heads(flow, letters[letter])
    if any(_is_weight(flow, node, place) for place in range(len(given))):
        summed = [letter for letter in letters if letter not in right]
        for letter in right:
            unknown = seen.get(letter) == 0 and not flow.text(letters[letter])
            if unknown and any("channel" in flow.text(letters[one]) for one in summed):
                flow.atoms.mark(letters[letter], "channel", 1)
    return [tuple(letters.get(letter) or flow.atoms.new(1) for letter in right)]


def distances(flow: Flow, node: Node) -> list[Axes]:
    """cdist: (..., P, M) and (..., R, M) to (..., P, R)."""
    (one, _), (two, _) = (given for given in flow.operands(node) if given is not None)
    return [(*one[:-1], two[-2])]


_ELEMENTWISE = (
    "add sub mul div pow rsub addcmul addcdiv lerp where masked_fill maximum minimum fmax fmin "
    "remainder fmod floor_divide floordiv atan2 xlogy logaddexp eq ne lt le gt ge and or xor "
    "logical_and logical_or copysign bitwise_and bitwise_or bitwise_xor bitwise_not polar complex "
    "nextafter hypot heaviside dist"
).split()
_SAME = (
    "identity contiguous clone to type float half bfloat16 double detach alias requires_grad cpu cuda "
    "type_as data relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish hardswish hardsigmoid "
    "hardtanh sigmoid logsigmoid tanh softplus softsign tanhshrink softshrink hardshrink threshold "
    "softmax log_softmax softmin gumbel_softmax dropout dropout1d dropout2d dropout3d alpha_dropout "
    "feature_alpha_dropout normalize exp expm1 log log1p log2 log10 sqrt rsqrt abs neg reciprocal sign "
    "floor ceil round trunc erf erfc erfinv sin cos tan asin acos atan sinh cosh clamp clamp_min "
    "clamp_max logit nan_to_num isnan isinf isfinite logical_not not invert tril triu setitem "
    "masked_scatter index_add index_copy index_put index_fill scatter scatter_add scatter_reduce "
    "zeros_like ones_like rand_like randn_like empty_like full_like bernoulli channel_shuffle fill zero "
    "zero_ copy frac square int long bool short byte real imag angle conj fft_fftshift fft_ifftshift "
    "erfcx i0 sinc Softmax2d ChannelShuffle logcumsumexp renorm float_power bfloat int8 cummax cummin "
    "lift_fresh requires_grad_ as_subclass pin_memory softmax_dropout"
).split()

STEPS: dict[str, Step] = {
    **dict.fromkeys(_SAME, same), **dict.fromkeys(_ELEMENTWISE, elementwise), "glu": glu,
    **dict.fromkeys((
        "mean sum amax amin max min var std norm logsumexp prod nanmean median argmax argmin var_mean "
        "std_mean all any count_nonzero nansum"
    ).split(), reduction),
    "matmul": matmul, "einsum": einsum, "cdist": distances,
}  # fmt: skip
