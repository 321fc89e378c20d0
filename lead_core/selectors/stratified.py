"""`stratified`: at random inside every (difficulty, task) cluster, each in proportion to its size.

Proportional stratified sampling (Neyman 1934), set aside records being one cluster of their own: what
the clusters are worth without utilities and without a bandit.
"""

from __future__ import annotations

import numpy as np

from lead_core.selectors.contract import IntArray, PoolView, SelectionState
from lead_core.selectors.eligible import Eligible, draw_members, eligible_counts
from lead_core.selectors.shares import cut_line
from lead_core.selectors.uniform_draw import UniformDraw


def _draw_from_every_cluster(
    pool: PoolView, state: SelectionState, eligible: Eligible, n: int, rng: np.random.Generator
) -> IntArray:
    """Draw `n` of the `eligible`, split over their clusters."""
    shares = _proportional_shares(eligible_counts(pool, state, eligible), n, rng)
    return draw_members(pool, state, eligible, shares, rng)


def _proportional_shares(counts: IntArray, n: int, rng: np.random.Generator) -> IntArray:
    """Split `n` over groups so that each expects its exact proportion of it, as `draw_shares` does."""
    edges = np.concatenate([[0], np.cumsum(counts)]) * n / max(int(counts.sum()), 1)
    return cut_line(edges, rng)


SELECTOR = UniformDraw("stratified", draw=_draw_from_every_cluster, reads_scores=True)
