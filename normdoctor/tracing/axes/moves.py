"""What moves, splits, merges, selects and joins axes."""

from __future__ import annotations

from normdoctor.facts import Node
from normdoctor.tracing.axes.atoms import Axis
from normdoctor.tracing.axes.flow import Axes, Flow, Step, dimension, dimensions


def reshape(flow: Flow, node: Node) -> list[Axes]:
    """`view` and its kin: exact, by the order of memory; only factors that are cut across are lost."""
    axes, shape = flow.operand(node)
    return [reshaped(flow, axes, shape, node.shape)]


def reshaped(flow: Flow, axes: Axes, before: tuple[int, ...], after: tuple[int, ...]) -> Axes:
    """The axes of a tensor of shape `before` when it is read with shape `after`."""
    if before == after:
        return axes
    flat = tuple(atom for axis, size in zip(axes, before, strict=True) if size != 1 for atom in axis)
    ones = _ones(axes, before)
    pieces = flow.atoms.cut(flat, [size for size in after if size != 1])
    if pieces is None:
        return _ends(flow, axes, before, after)
    found: list[Axis] = []
    wide = iter(pieces)
    done = 1
    for size in after:
        if size == 1:
            known = ones.get(done)
            found.append(known.pop(0) if known else flow.atoms.new(1))
        else:
            found.append(next(wide))
            done *= size
    return tuple(found)


def _ones(axes: Axes, shape: tuple[int, ...]) -> dict[int, list[Axis]]:
    """The axes of length one, by the number of elements in front of them."""
    found: dict[int, list[Axis]] = {}
    done = 1
    for axis, size in zip(axes, shape, strict=True):
        if size == 1:
            found.setdefault(done, []).append(axis)
        done *= size
    return found


def _ends(flow: Flow, axes: Axes, before: tuple[int, ...], after: tuple[int, ...]) -> Axes:
    """The axes that begin and end both shapes alike; what lies between is known if it was all the same."""
    least = min(len(before), len(after))
    head = next((n for n in range(least) if before[n] != after[n]), least)
    tail = next((n for n in range(least - head) if before[-1 - n] != after[-1 - n]), least - head)
    texts = {flow.text(axis) for axis in axes[head : len(axes) - tail]}
    label = texts.pop() if len(texts) == 1 else ""
    middle = tuple(flow.atoms.new(size, label) for size in after[head : len(after) - tail])
    return (*axes[:head], *middle, *axes[len(axes) - tail :])


def permute(flow: Flow, node: Node) -> list[Axes]:
    """Axes in the order of `dims`."""
    axes, _ = flow.operand(node)
    return [tuple(axes[place] for place in dimensions(node.config["dims"], len(axes)))]


def transpose(flow: Flow, node: Node) -> list[Axes]:
    """Two axes change places; `.T` and `t` turn all around, `.mT` the last two."""
    axes, _ = flow.operand(node)
    first = node.config.get("dim0")
    if first in ("T", "H") or node.kind == "t":
        return [axes[::-1]]
    one, two = (-2, -1) if first in ("mT", "mH") or node.kind == "adjoint" else (first, node.config["dim1"])
    moved = list(axes)
    a, b = dimension(one, len(axes)), dimension(two, len(axes))
    moved[a], moved[b] = moved[b], moved[a]
    return [tuple(moved)]


def movedim(flow: Flow, node: Node) -> list[Axes]:
    """Some axes go to other places, the rest keep their order."""
    axes, _ = flow.operand(node)
    rank = len(axes)
    source = dimensions(node.config["source"], rank)
    goal = dimensions(node.config["destination"], rank)
    rest = iter(place for place in range(rank) if place not in source)
    order = [source[goal.index(place)] if place in goal else next(rest) for place in range(rank)]
    return [tuple(axes[place] for place in order)]


def squeeze(flow: Flow, node: Node) -> list[Axes]:
    """Axes of length one go: all, one or several."""
    axes, shape = flow.operand(node)
    dim = node.config.get("dim")
    chosen = range(len(shape)) if dim is None else dimensions(dim, len(shape))
    gone = {place for place in chosen if shape[place] == 1}
    return [tuple(axis for place, axis in enumerate(axes) if place not in gone)]


def unsqueeze(flow: Flow, node: Node) -> list[Axes]:
    """An axis of length one comes."""
    axes, _ = flow.operand(node)
    place = dimension(node.config["dim"], len(axes) + 1)
    return [(*axes[:place], flow.atoms.new(1), *axes[place:])]


def expand(flow: Flow, node: Node) -> list[Axes]:
    """expand, expand_as, broadcast_to: an axis of length one grows, axes come in front."""
    axes, shape = flow.operand(node)
    new = len(node.shape) - len(shape)
    kept = map(flow.resized, axes, shape, node.shape[new:])
    return [(*flow.fresh(node.shape[:new]), *kept)]


def repeat(flow: Flow, node: Node) -> list[Axes]:
    """Copies of an axis behind one another (`repeat`, `tile`): the copies are outermost."""
    axes, shape = flow.operand(node)
    new = len(node.shape) - len(shape)
    found: list[Axis] = list(flow.fresh(node.shape[:new]))
    for axis, before, after in zip(axes, shape, node.shape[new:], strict=True):
        if before == after:
            found.append(axis)
        elif before == 1:
            found.append(flow.atoms.derived(axis, after))
        else:
            found.append((*flow.atoms.derived(axis, after // before), *axis))
    return [tuple(found)]


def repeat_interleave(flow: Flow, node: Node) -> list[Axes] | None:
    """Copies of each element: the copies are innermost."""
    axes, shape = flow.operand(node)
    if node.config.get("dim") is None:
        return None
    place = dimension(node.config["dim"], len(axes))
    before, after = shape[place], node.shape[place]
    axis = axes[place]
    if before != after:
        fits = before > 1 and after % before == 0 and isinstance(node.config.get("repeats"), int)
        copies = flow.atoms.derived(axis, after // before if fits else after)
        axis = (*axis, *copies) if fits else copies
    return [(*axes[:place], axis, *axes[place + 1 :])]


def sliced(flow: Flow, node: Node) -> list[Axes]:
    """What keeps the meaning of each axis and may shorten it: chunk, split, narrow, roll, index_select."""
    axes, shape = flow.operand(node)
    return [tuple(map(flow.resized, axes, shape, fact.shape)) for fact in node.outputs]


def dropped(flow: Flow, node: Node) -> list[Axes]:
    """One axis goes (`select`, `unbind`)."""
    axes, _ = flow.operand(node)
    place = dimension(node.config.get("dim", 0), len(axes))
    return [(*axes[:place], *axes[place + 1 :])] * len(node.outputs)


def getitem(flow: Flow, node: Node) -> list[Axes] | None:
    """x[...] with integers, slices, None, ... and at most one tensor of indices."""
    axes, shape = flow.operand(node)
    index = node.config["index"]
    taken = sum(1 for one in index if one not in ("None", "..."))
    if "bool" in index or "True" in index or "False" in index or index.count("tensor") > 1:
        return None
    if "..." not in index:
        index = [*index, "..."]
    found: list[Axis] = []
    place = 0
    for one in index:
        if one == "...":
            count = len(shape) - taken
            found += axes[place : place + count]
            place += count
        elif one == "None":
            found.append(flow.atoms.new(1))
        elif one == "tensor":
            extra = len(node.shape) - (len(shape) - taken) - sum(1 for o in index if o == "None")
            extra -= sum(1 for o in index if isinstance(o, str) and ":" in o)
            sizes = node.shape[len(found) : len(found) + extra]
            label = flow.text(axes[place]) if extra == 1 else ""
            found += [flow.atoms.new(size, label) for size in sizes]
            place += 1
        else:
            if isinstance(one, str):
                found.append(flow.resized(axes[place], shape[place], node.shape[len(found)]))
            place += 1
    return [tuple(found)]


def element(flow: Flow, node: Node) -> list[Axes] | None:
    """One of the tensors that a node returned."""
    source = node.inputs[0]
    known, facts = flow.axes[source], flow.nodes[source].outputs
    wanted = [fact.shape for fact in node.outputs]
    index = node.config["index"][0]
    if isinstance(index, int):
        place = index % len(facts)
        spans = range(place, place + 1) if len(wanted) == 1 else range(place, len(facts))
    else:
        spans = range(len(facts))
    hits = [at for at in spans if [fact.shape for fact in facts[at : at + len(wanted)]] == wanted]
    return known[hits[0] : hits[0] + len(wanted)] if len(hits) == 1 or isinstance(index, int) else None


def concat(flow: Flow, node: Node) -> list[Axes]:
    """cat: the other axes run together; the joined one is what all its parts are."""
    given = [one for one in flow.operands(node) if one is not None and len(one[1]) == len(node.shape)]
    place = dimension(node.config.get("dim", 0), len(node.shape))
    found: list[Axis] = list(given[0][0])
    for axes, _ in given[1:]:
        for at, axis in enumerate(axes):
            if at != place:
                found[at] = flow.atoms.unify(found[at], axis)
    labelled = [axes[place] for axes, _ in given if flow.text(axes[place])]
    texts = {flow.text(axis) for axis in labelled}
    total = node.shape[place]
    if len(texts) == 1:
        for axes, _ in given:
            flow.atoms.mark(axes[place], next(iter(texts)), 1)
    found[place] = (
        flow.atoms.derived((labelled or [given[0][0][place]])[0], total)
        if len(texts) < 2
        else (flow.atoms.new(total))
    )
    return [tuple(found)]


def stack(flow: Flow, node: Node) -> list[Axes]:
    """stack: a new axis."""
    given = [one for one in flow.operands(node) if one is not None and len(one[1]) == len(node.shape) - 1]
    place = dimension(node.config.get("dim", 0), len(node.shape))
    found = list(given[0][0])
    for axes, _ in given[1:]:
        found = [flow.atoms.unify(one, two) for one, two in zip(found, axes, strict=True)]
    return [(*found[:place], flow.atoms.new(node.shape[place]), *found[place:])]


def pixel_shuffle(flow: Flow, node: Node) -> list[Axes]:
    """(*, C, H, W) to channels and positions of other number."""
    axes, shape = flow.operand(node)
    lead = len(shape) - 3
    return [(*axes[:lead], *map(flow.atoms.derived, axes[lead:], node.shape[lead:]))]


def unfold(flow: Flow, node: Node) -> list[Axes] | None:
    """F.unfold: (N, C, H, W) to (N, C * window, L); Tensor.unfold: windows of one axis come last."""
    axes, shape = flow.operand(node)
    if "dimension" in node.config and len(node.shape) == len(shape) + 1:
        place = dimension(node.config["dimension"], len(axes))
        moved = flow.resized(axes[place], shape[place], node.shape[place])
        return [(*axes[:place], moved, *axes[place + 1 :], flow.atoms.derived(axes[place], node.shape[-1]))]
    if len(shape) == 4 and len(node.shape) == 3:
        return [(axes[0], flow.atoms.new(node.shape[1], "channel"), flow.atoms.new(node.shape[2], "space"))]
    return None


def fold(flow: Flow, node: Node) -> list[Axes] | None:
    """F.fold: (N, C * window, L) to (N, C, H, W)."""
    axes, shape = flow.operand(node)
    if len(shape) != 3 or len(node.shape) != 4:
        return None
    new = [flow.atoms.new(size, word) for size, word in zip(node.shape[1:], _IMAGE, strict=True)]
    return [(axes[0], *new)]


_IMAGE = ("channel", "space", "space")


def complex_view(flow: Flow, node: Node) -> list[Axes]:
    """view_as_complex drops the pair at the end, view_as_real adds one."""
    axes, shape = flow.operand(node)
    return [axes[:-1] if len(node.shape) < len(shape) else (*axes, flow.atoms.new(2))]


def sampled(flow: Flow, node: Node) -> list[Axes]:
    """grid_sample: the image's batch and channels, at the places of the grid."""
    axes, _ = flow.operand(node)
    return [(*axes[:2], *(flow.atoms.new(size, "space") for size in node.shape[2:]))]


STEPS: dict[str, Step] = {
    **dict.fromkeys("view reshape flatten unflatten view_as reshape_as _unsafe_view".split(), reshape),
    "permute": permute, **dict.fromkeys("transpose swapaxes t adjoint".split(), transpose),
    "movedim": movedim, "moveaxis": movedim, "squeeze": squeeze, "unsqueeze": unsqueeze,
    **dict.fromkeys("expand expand_as broadcast_to".split(), expand), "repeat": repeat, "tile": repeat,
    "repeat_interleave": repeat_interleave,
    **dict.fromkeys((
        "chunk split narrow roll flip index_select gather topk sort argsort cumsum cumprod take_along_dim "
        "fft_fft fft_fft2 fft_rfft fft_rfft2 fft_irfft2 fft_irfft fft_ifft2 fft_ifft fft_rfftn fft_irfftn"
    ).split(), sliced),
    "unbind": dropped, "select": dropped, "getitem": getitem, "select_output": element,
    "cat": concat, "stack": stack, "pixel_shuffle": pixel_shuffle, "pixel_unshuffle": pixel_shuffle,
    "unfold": unfold, "Unfold": unfold, "fold": fold, "Fold": fold, "view_as_complex": complex_view,
    "view_as_real": complex_view, "grid_sample": sampled,
}  # fmt: skip
