"""Where the nodes of a small graph stand: in ranks from top to bottom, with few crossings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

#: How wide the way of an edge is that passes a rank, relative to a box.
NARROW = 0.3
#: How often the order within ranks is improved, down and up.
ROUNDS = 4


class Place(NamedTuple):
    """A node's rank, its centre and its width as shares of the whole."""

    rank: int
    centre: float
    width: float


def arranged(count: int, edges: Sequence[tuple[int, int]]) -> tuple[list[Place], list[tuple[float, ...]]]:
    """Lay out `count` nodes, of which each edge leads from an earlier to a later one (Sugiyama's method).

    Returns:
        The places of the nodes, and for each edge the centres in the ranks that it passes.
    """
    ranks = _ranks(count, edges)
    chains, rank_of = _with_ways(count, edges, ranks)
    rows = _ordered(chains, rank_of)
    boxes = max((sum(one < count for one in row) for row in rows), default=1)
    places: dict[int, Place] = {}
    for rank, row in enumerate(rows):
        sizes = [1.0 if one < count else NARROW for one in row]
        whole = max(sum(sizes), 1.0)
        used, width = 0.0, 1.0 / max(whole, boxes * 0.75)
        margin = (1.0 - sum(sizes) * width) / 2
        for one, size in zip(row, sizes, strict=True):
            places[one] = Place(rank, round(margin + (used + size / 2) * width, 4), round(size * width, 4))
            used += size
    ways = [tuple(places[one].centre for one in chain[1:-1]) for chain in chains]
    return [places[one] for one in range(count)], ways


def _ranks(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The longest way from the top; what nothing leads to stands directly above its first reader."""
    ranks = [0] * count
    for source, reader in sorted(edges, key=lambda edge: edge[1]):
        ranks[reader] = max(ranks[reader], ranks[source] + 1)
    fed = {reader for _, reader in edges}
    for one in range(count):
        below = [ranks[reader] for source, reader in edges if source == one]
        if one not in fed and below:
            ranks[one] = min(below) - 1
    return ranks


def _with_ways(
    count: int, edges: Sequence[tuple[int, int]], ranks: Sequence[int]
) -> tuple[list[list[int]], dict[int, int]]:
    """Each edge as a chain with a node of its own in every rank that it passes."""
    rank_of = dict(enumerate(ranks))
    chains, fresh = [], count
    for source, reader in edges:
        chain = [source]
        for rank in range(ranks[source] + 1, ranks[reader]):
            rank_of[fresh] = rank
            chain.append(fresh)
            fresh += 1
        chains.append([*chain, reader])
    return chains, rank_of


def _ordered(chains: Sequence[Sequence[int]], rank_of: Mapping[int, int]) -> list[list[int]]:
    """The nodes of each rank from left to right, each near the middle of its neighbours."""
    rows: list[list[int]] = [[] for _ in range(max(rank_of.values(), default=-1) + 1)]
    for one, rank in rank_of.items():
        rows[rank].append(one)
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for chain in chains:
        for upper, lower in pairwise(chain):
            above.setdefault(lower, []).append(upper)
            below.setdefault(upper, []).append(lower)
    for turn in range(ROUNDS):
        neighbours = below if turn % 2 else above
        for row in reversed(rows) if turn % 2 else rows:
            centre = {one: _middle(one, neighbours, rows, rank_of) for one in row}
            row.sort(key=lambda one: centre[one])
    return rows


def _middle(
    one: int, neighbours: Mapping[int, Sequence[int]], rows: Sequence[list[int]], rank_of: Mapping[int, int]
) -> float:
    """The mean place of a node's neighbours in their rows, from 0 to 1; its own where it has none."""
    others = neighbours.get(one) or [one]
    shares = [(rows[rank_of[other]].index(other) + 0.5) / len(rows[rank_of[other]]) for other in others]
    return sum(shares) / len(shares)
