"""`stratified`: at random inside every (difficulty, task) cluster, each in proportion to its size.

Proportional stratified sampling (Neyman 1934), set aside records being one cluster of their own: what
the clusters are worth without utilities and without a bandit.
"""

from __future__ import annotations

import numpy as np

from lead_core.selectors.contract import IntArray, PoolView
from lead_core.selectors.uniform_draw import UniformDraw


def _draw_from_every_cluster(
    pool: PoolView, indices: IntArray, n: int, rng: np.random.Generator
) -> IntArray:
    """Draw `n` of `indices`, split over their clusters."""
    names, groups = np.unique(pool.clusters[indices], axis=0, return_inverse=True)
    groups = groups.reshape(-1)
    shares = _proportional_shares(np.bincount(groups, minlength=len(names)), n, rng)
    chosen = [
        rng.choice(indices[groups == cell], int(share), replace=False)
        for cell, share in enumerate(shares)
        if share
    ]
    return np.concatenate(chosen) if chosen else indices[:0]


def _proportional_shares(counts: IntArray, n: int, rng: np.random.Generator) -> IntArray:
    """Split `n` over groups so that each expects its exact proportion of it.

    Systematic sampling: the groups lie end to end on a line, cut at regular places from a random
    start. A batch is often smaller than the number of groups: by largest remainder the same few large
    ones would take every batch.
    """
    edges = np.concatenate([[0], np.cumsum(counts)]) * n / max(int(counts.sum()), 1)
    return np.diff(np.floor(edges + rng.random())).astype(np.int64)


SELECTOR = UniformDraw("stratified", draw=_draw_from_every_cluster, reads_scores=True)
