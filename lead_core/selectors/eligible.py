"""Which samples may be trained on now, found without looking at the whole pool where that can be.

How many they are per task cluster is known from `SelectionState.use_counts` at no cost. Where the pool
as a whole has to be looked at, that goes block by block, so that nothing of its size is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lead_core.selectors.contract import (
    BoolArray,
    IntArray,
    PoolView,
    Quota,
    SelectionState,
    top_by,
)

BLOCK = 1 << 15  # samples; small enough for the processor's cache


@dataclass(frozen=True)
class Eligible:
    """The samples trained on at least `low` and fewer than `high` times.

    set_aside: those that have no arm too, as long as they have an offline loss.
    """

    low: int
    high: int
    set_aside: bool = False


def eligible_samples(quota: Quota, max_uses: int, *, set_aside: bool = False) -> Eligible:
    """Return what may be trained on now.

    A sample may be used `max_uses` times; once the distinct budget is spent, only samples that were
    used before may come again.
    """
    return Eligible(1 if quota.distinct <= 0 else 0, max_uses, set_aside)


def least_used(pool: PoolView, state: SelectionState, eligible: Eligible) -> Eligible:
    """Return those of `eligible` that were trained on least often: used ones wait for unused."""
    candidates = state.use_counts[_has_arm(pool) | eligible.set_aside]
    levels = np.flatnonzero(candidates.sum(axis=0)[eligible.low : eligible.high])
    low = eligible.low + int(levels[0]) if len(levels) else eligible.high
    return replace(eligible, low=low, high=min(low + 1, eligible.high))


def eligible_counts(pool: PoolView, state: SelectionState, eligible: Eligible) -> IntArray:
    """Return how many samples of each task cluster are `eligible`, int64 [C]."""
    counts = state.use_counts[:, eligible.low : eligible.high].sum(axis=1)
    return np.where(_has_arm(pool) | eligible.set_aside, counts, 0)


def eligible_members(
    pool: PoolView, state: SelectionState, eligible: Eligible, cluster: int
) -> IntArray:
    """Return the positions of a task cluster's `eligible` samples, rising."""
    start, stop = pool.index.starts[cluster : cluster + 2]
    members = np.sort(pool.by_loss[start:stop]).astype(np.int64)
    return members[_in_range(state, eligible, members)]


def draw_members(
    pool: PoolView,
    state: SelectionState,
    eligible: Eligible,
    shares: IntArray,
    rng: np.random.Generator,
) -> IntArray:
    """Draw `shares` [C] of each task cluster's `eligible` samples at random, cluster after cluster."""
    chosen = [
        rng.choice(
            eligible_members(pool, state, eligible, cluster), int(shares[cluster]), replace=False
        )
        for cluster in np.flatnonzero(shares).tolist()
    ]
    return np.concatenate(chosen) if chosen else np.empty(0, dtype=np.int64)


def contenders(
    pool: PoolView,
    state: SelectionState,
    eligible: Eligible,
    clusters: IntArray,
    shares: IntArray,
    order: NDArray[np.int32],
    *,
    still: bool,
) -> tuple[IntArray, IntArray]:
    """Return `eligible` samples of `clusters` [J], the `shares` [J] best of each included.

    Their positions [m], and of which of the J each is, int [m]. order: the pool's records cluster by
    cluster, the best first; still: whether unused samples rank by it as ever. If so, and the best were
    always taken, the samples used so far are the first of a cluster's order, and of the others only
    the next few can be among the best. Of a cluster where it is not so, all samples are looked at.
    """
    sizes = pool.index.sizes[clusters]
    used = state.use_counts[clusters, 1:].sum(axis=1)
    lengths = np.minimum(used + shares, sizes) if still else sizes
    positions, groups = _first_of(pool, order, clusters, lengths)
    found = np.bincount(groups[state.uses[positions] > 0], minlength=len(clusters))
    if (found < used).any():
        lengths = np.where(found < used, sizes, lengths)
        positions, groups = _first_of(pool, order, clusters, lengths)
    may = _in_range(state, eligible, positions)
    return positions[may], groups[may]


def top_eligible(
    pool: PoolView, state: SelectionState, eligible: Eligible, values: NDArray[np.number], n: int
) -> IntArray:
    """Return the `n` of all `eligible` with the highest `values` [n of pool]; ties by position."""
    best = np.empty(0, dtype=np.int64)
    floor = -np.inf
    for start, mask in _blocks(pool, state, eligible) if n else ():
        mask &= values[start : start + len(mask)] >= floor
        found = np.concatenate([best, start + np.flatnonzero(mask)])
        if len(found) > len(best):
            best = top_by(values[found], found, n)
            floor = values[best[-1]] if len(best) == n else floor
    return best


def nth_eligible(
    pool: PoolView, state: SelectionState, eligible: Eligible, ranks: IntArray
) -> IntArray:
    """Return the positions of the ranks-th (from 0, in order of position) of all `eligible`."""
    positions = np.empty(len(ranks), dtype=np.int64)
    seen = 0
    for start, mask in _blocks(pool, state, eligible) if len(ranks) else ():
        count = int(np.count_nonzero(mask))
        here = (ranks >= seen) & (ranks < seen + count)
        if here.any():
            positions[here] = start + np.flatnonzero(mask)[ranks[here] - seen]
        seen += count
    return positions


def _first_of(
    pool: PoolView, order: NDArray[np.int32], clusters: IntArray, lengths: IntArray
) -> tuple[IntArray, IntArray]:
    """Return the first `lengths` [J] positions in `order` of each of `clusters`, as `contenders`."""
    groups = np.repeat(np.arange(len(clusters)), lengths)
    begins = np.cumsum(lengths) - lengths
    offsets = np.arange(len(groups)) + np.repeat(pool.index.starts[clusters] - begins, lengths)
    return order[offsets].astype(np.int64), groups


def _blocks(
    pool: PoolView, state: SelectionState, eligible: Eligible
) -> Iterator[tuple[int, BoolArray]]:
    """Yield the pool's `eligible` as bool arrays, each with the position that it begins at."""
    for start in range(0, len(state.uses), BLOCK):
        block = slice(start, start + BLOCK)
        mask = _in_range(state, eligible, block)
        mask &= np.isfinite(pool.loss[block])
        if not eligible.set_aside:
            mask &= pool.difficulty[block] >= 0
        yield start, mask


def _in_range(state: SelectionState, eligible: Eligible, where: slice | IntArray) -> BoolArray:
    uses = state.uses[where]
    return (uses >= eligible.low) & (uses < eligible.high)


def _has_arm(pool: PoolView) -> BoolArray:
    """Return which task clusters belong to an arm, bool [C]: not those of records set aside."""
    return pool.index.labels[:, 0] >= 0
