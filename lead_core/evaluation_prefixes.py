"""Prompts that begin alike, in groups whose common beginning is worth a forward of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

LEAST_SHARED = 32
GROUP_COST = 128  # tokens: a forward of a few costs what one of 64 does, and a group adds two


@dataclass(frozen=True)
class PrefixGroup:
    """Sequences, by number, and how many tokens they all begin with that are to be run once."""

    members: tuple[int, ...]
    shared: int


@dataclass
class _Subtree:
    """Sequences from `start` on, in order, that share a prefix, and the best groups inside."""

    start: int
    shared: int
    saved: int = 0
    groups: list[tuple[int, int, int]] = field(default_factory=list)  # start, stop, shared

    def close(self, stop: int) -> None:
        """Take all sequences as one group if that saves more than the groups inside."""
        saved = saved_tokens(self.shared, stop - self.start)
        if saved > self.saved:
            self.saved, self.groups = saved, [(self.start, stop, self.shared)]

    def take(self, inner: _Subtree) -> None:
        self.saved += inner.saved
        self.groups += inner.groups


def saved_tokens(shared: int, sequences: int) -> int:
    """Return what it saves to run `shared` tokens of `sequences` once, in tokens; 0: not worth it."""
    return max(0, shared * (sequences - 1) - GROUP_COST) if shared >= LEAST_SHARED else 0


def common_length(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    """Return how many tokens two sequences have in common from their start."""
    size = min(len(first), len(second))
    other = np.flatnonzero(np.asarray(first[:size]) != np.asarray(second[:size]))
    return int(other[0]) if len(other) else size


def shared_by_all(sequences: Sequence[tuple[int, ...]]) -> int:
    """Return how many tokens all sequences begin with, 0 if it is not worth running them once."""
    shared = common_length(min(sequences), max(sequences))
    return shared if saved_tokens(shared, len(sequences)) else 0


def group_by_prefix(sequences: Sequence[tuple[int, ...]]) -> list[PrefixGroup]:
    """Split `sequences` so that running each group's prefix once saves the most tokens.

    In lexicographic order those that share a prefix stand together, and prefixes are nested as in a
    tree (all examples of a task, then a question, then its choices): of each subtree either the whole
    is a group or the best groups of its parts are. What is in no group comes as one that shares 0.
    """
    order = sorted(range(len(sequences)), key=sequences.__getitem__)
    path = [_Subtree(0, 0)]  # the subtrees that the latest sequence is in, outermost first
    for place in range(1, len(order)):
        shared = common_length(sequences[order[place - 1]], sequences[order[place]])
        start = place - 1
        while path[-1].shared > shared:
            inner = path.pop()
            inner.close(place)
            start = inner.start
            if path[-1].shared < shared:
                path.append(_Subtree(start, shared))
            path[-1].take(inner)
        if path[-1].shared < shared:
            path.append(_Subtree(start, shared))
    while len(path) > 1:
        inner = path.pop()
        inner.close(len(order))
        path[-1].take(inner)
    groups = [PrefixGroup(tuple(order[a:b]), shared) for a, b, shared in path[0].groups]
    alone = set(order).difference(*(group.members for group in groups))
    return [*([PrefixGroup(tuple(sorted(alone)), 0)] if alone else []), *groups]
