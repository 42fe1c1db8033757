"""Axes as products of atoms: what each stands for, which are the same, and how they split and merge.

An axis of a tensor is a tuple of atoms, outermost first: one for most, several where axes were merged.
An atom has a size and a label. Elementwise arithmetic makes two atoms one (union-find), so that what
is learned of an axis late in the forward is known of it everywhere. `view` of 64 channels as 8 x 8
splits an atom into parts; merged again in the same order, they are the axis that they were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Axis = tuple[int, ...]

#: How sure a label is: what a layer's definition says, what is usual, what a norm or a split suggests.
CERTAIN, USUAL, LIKELY = 3, 2, 1
_DEEPEST = 24


class Atoms:
    """All atoms of one forward."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._size: list[int] = []
        self._label: list[str] = []
        self._strength: list[int] = []
        self._parts: list[Axis] = []
        #: (atom, place): the label follows that atom's; place > 0 for inner parts of a split.
        self._follows: list[list[tuple[int, int]]] = []
        #: Not to be taken for features because a weight is applied along it.
        self._unlike: list[bool] = []

    def new(self, size: int, label: str = "", strength: int = CERTAIN) -> Axis:
        """An axis that nothing else is known to be."""
        self._parent.append(len(self._parent))
        self._size.append(size)
        self._label.append(label)
        self._strength.append(strength if label else 0)
        self._parts.append(())
        self._follows.append([])
        self._unlike.append(False)
        return (len(self._parent) - 1,)

    def unlike_features(self, size: int) -> Axis:
        """An unknown axis that a weight applied along it does not make the features.

        An axis of an input that is not its last, or what a weight applied along positions writes.
        """
        found = self.new(size)
        self._unlike[found[0]] = True
        return found

    def may_be_features(self, axis: Axis) -> bool:
        """Does a weight that is applied along this axis tell that it holds the features?"""
        wide = self._wide(axis)
        return len(wide) > 1 or not self._unlike[wide[0]]

    def derived(self, axis: Axis, size: int) -> Axis:
        """An axis of another size that stands for the same: a slice, a pooled or padded axis."""
        known = self._wide(axis)
        if len(known) != 1:
            return self.new(size, self.text(axis))
        found = self.new(size)
        self._follows[found[0]].append((known[0], 0))
        return found

    def find(self, atom: int) -> int:
        """The atom that stands for all that are the same as this one."""
        parent = self._parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def size(self, axis: Axis) -> int:
        """The length of an axis."""
        return math.prod(self._size[self.find(atom)] for atom in axis)

    # -- labels --------------------------------------------------------------------------------

    def text(self, axis: Axis) -> str:
        """What an axis stands for: a label, several joined by `*`, or "" where a factor is unknown."""
        words: list[str] = []
        for atom in self._wide(axis):
            label, how = self._known(atom)
            if how <= LIKELY and self._parts[atom]:  # its parts may know better: heads of channels
                label = self.text(self._parts[atom]) or label
            if not label:
                return ""
            words += label.split("*")
        return "*".join(_collapsed(words))

    def mark(self, axis: Axis, label: str, strength: int = CERTAIN) -> None:
        """State what an axis stands for; what is known with more certainty stays."""
        wide = self._wide(axis)
        if len(wide) == 1:
            self._mark(wide[0], label, strength, 0)
        elif label != "batch":
            known = {self._known(atom)[0] for atom in wide} - {""}
            if known == {label}:
                for atom in wide:
                    self._mark(atom, label, LIKELY, 0)

    def strength(self, axis: Axis) -> int:
        """How sure the label of an axis is; 0 where it is unknown or the axis was merged."""
        wide = self._wide(axis)
        return self._known(wide[0])[1] if len(wide) == 1 else 0

    def _mark(self, atom: int, label: str, strength: int, depth: int) -> None:
        atom = self.find(atom)
        known, how = self._known(atom)
        if known and (how >= strength or known == label):
            return
        self._label[atom], self._strength[atom] = label, strength
        for source, place in self._follows[atom] if depth < _DEEPEST else ():
            whole = self._size[self.find(source)]
            if place == 0 and label != "heads" and (label != "channel" or whole == self._size[atom]):
                self._mark(source, label, min(strength, USUAL), depth + 1)

    def _known(self, atom: int) -> tuple[str, int]:
        atom = self.find(atom)
        if self._label[atom]:
            return self._label[atom], self._strength[atom]
        label = self._heard(atom, {}, 0) if self._follows[atom] else ""
        return label, LIKELY if label else 0

    def _heard(self, atom: int, heard: dict[int, str], depth: int) -> str:
        """The label of what an atom follows; `heard` keeps each atom from being asked twice."""
        atom = self.find(atom)
        if self._label[atom]:
            return self._label[atom]
        if atom not in heard and depth < _DEEPEST:
            heard[atom] = ""
            for source, place in self._follows[atom]:
                label = self._heard(source, heard, depth + 1)
                if label and not (place and "batch" in label):
                    heard[atom] = label
                    break
        return heard.get(atom, "")

    # -- sameness ------------------------------------------------------------------------------

    def unify(self, first: Axis, second: Axis) -> Axis:
        """Two axes of one length that run together are one; where their labels contradict, neither."""
        one, two = self._wide(first), self._wide(second)
        if one == two:
            return first
        if len(one) == 1 and len(two) == 1:
            return self._link(one[0], two[0])
        for single, many in ((one, two), (two, one)):
            if len(single) == 1 and not self._parts[single[0]]:
                return self._compose(single[0], many)
            if len(single) == 1:
                self.unify(self._parts[single[0]], many)
                return single
        sizes = [self._size[atom] for atom in one]
        pieces = self.cut(two, sizes)
        if pieces is None:
            return first if self.text(first) == self.text(second) else self.new(self.size(first))
        joined: list[int] = []
        for atom, piece in zip(one, pieces, strict=True):
            joined += self.unify((atom,), piece)
        return tuple(joined)

    def _link(self, one: int, two: int) -> Axis:
        (a, how_a), (b, how_b) = self._known(one), self._known(two)
        if a and b and a != b:
            if {a, b} != {"channel", "heads"}:
                return self.new(self._size[one])
            one, two = (one, two) if how_a >= how_b else (two, one)
        elif b and not a:
            one, two = two, one
        self._unlike[one] = self._unlike[one] or self._unlike[two]
        parts, others = self._parts[one], self._parts[two]
        self._parts[one] = parts or others
        self._parent[two] = one
        if not self._label[one] and self._label[two]:
            self._label[one], self._strength[one] = self._label[two], self._strength[two]
        if not self._label[one]:
            self._follows[one] += self._follows[two][: _DEEPEST - len(self._follows[one])]
        if parts and others:
            self.unify(parts, others)
        return (one,)

    def _compose(self, single: int, many: Axis) -> Axis:
        """An axis turns out to be the product of others."""
        label, how = self._known(single)
        text = self.text(many)
        if label and text and label != text and how > LIKELY:
            return self.new(self._size[single])
        self._parts[single] = many
        for place, atom in enumerate(many):
            if label and not self._known(atom)[0]:
                self._follows[atom].append((single, place))
        return many

    # -- splitting -----------------------------------------------------------------------------

    def cut(self, axis: Axis, sizes: Sequence[int]) -> list[Axis] | None:
        """Split an axis, as `view` does, into axes of these sizes; None where they cut across factors.

        An axis that was split before is split in the same way where that fits (windows of 8 x 7), and
        in another way otherwise (a grid of 7 x 8 over the same positions).
        """
        return self._cut(axis, sizes, again=True) or self._cut(axis, sizes, again=False)

    def _cut(self, axis: Axis, sizes: Sequence[int], *, again: bool) -> list[Axis] | None:
        queue = list(reversed(self._wide(axis)))
        found: list[Axis] = []
        for size in sizes:
            taken: list[int] = []
            need = size
            while need > 1:
                if not queue:
                    return None
                atom = self.find(queue.pop())
                length = self._size[atom]
                if need % length == 0:
                    taken.append(atom)
                    need //= length
                elif self._parts[atom] and (again or length % need):
                    queue += reversed(self._wide(self._parts[atom]))
                elif length % need == 0:
                    queue += reversed(self._split(atom, need))
                else:
                    return None
            found.append(self._whole(tuple(taken)) if taken else self.new(1))
        return found if not queue else None

    def _whole(self, parts: Axis) -> Axis:
        """The axis that these are all parts of, in order; themselves where there is none."""
        for source, place in self._follows[parts[0]] if len(parts) > 1 else ():
            if place == 0 and self._wide(self._parts[self.find(source)]) == parts:
                return (self.find(source),)
        return parts

    def _split(self, atom: int, outer: int) -> Axis:
        parts = (*self.new(outer), *self.new(self._size[atom] // outer))
        for place, part in enumerate(parts):
            self._follows[part].append((atom, place))
        self._parts[atom] = self._parts[atom] or parts
        return parts

    def _wide(self, axis: Axis) -> Axis:
        """The atoms of an axis, without those of size one unless it has no other."""
        if len(axis) == 1:
            return (self.find(axis[0]),)
        found = tuple(map(self.find, axis))
        return tuple(atom for atom in found if self._size[atom] != 1) or found[:1]


def _collapsed(words: list[str]) -> list[str]:
    """`space space` is space; heads and the channels of each are the channels of all."""
    found: list[str] = []
    for word in words:
        if found and (found[-1] == word or {found[-1], word} == {"channel", "heads"}):
            found[-1] = "channel" if word != found[-1] else word
        else:
            found.append(word)
    return found
