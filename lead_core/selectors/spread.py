"""Rounds that are spread over all task clusters, whatever is taken from each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lead_core.selectors.contract import (
    IntArray,
    Picks,
    PoolView,
    Quota,
    SelectionSettings,
    SelectionState,
    Selector,
    cap,
    top_of_groups,
)
from lead_core.selectors.eligible import (
    Eligible,
    contenders,
    eligible_counts,
    eligible_members,
    eligible_samples,
    least_used,
)
from lead_core.selectors.shares import draw_shares, expected_shares, round_size


@dataclass(frozen=True, kw_only=True)
class Spread(Selector):
    """Every round draws from all task clusters of records with IFD < 1, by a power of their sizes.

    order: the pool's records cluster by cluster, the first to be taken first, int32 [m]; None: inside
    a cluster they are drawn at random. The rest: see `Selector`.
    """

    order: Callable[[PoolView], NDArray[np.int32]] | None

    def pick(
        self,
        pool: PoolView,
        state: SelectionState,
        settings: SelectionSettings,
        quota: Quota,
        rng: np.random.Generator,
    ) -> Picks:
        """Draw each cluster's share of the round, then so many of its least used samples."""
        eligible = least_used(pool, state, eligible_samples(quota, settings.max_uses))
        counts = eligible_counts(pool, state, eligible)
        total = int(counts.sum())
        # As many as a round of `lead` takes from an arm of average size.
        n = cap(round_size(settings, total / max(pool.n_arms, 1)), total, quota)
        weights = pool.index.sizes.astype(np.float64) ** settings.cluster_size_power
        shares = draw_shares(expected_shares(weights, counts, n), rng)
        drawn = np.flatnonzero(shares)
        if self.order is None:
            return Picks(_at_random(pool, state, eligible, drawn, shares[drawn], rng))
        order = self.order(pool)
        found = contenders(pool, state, eligible, drawn, shares[drawn], order, still=True)
        indices, groups = found
        # They come in their order already: what comes earlier counts for more.
        return Picks(top_of_groups(-np.arange(len(indices)), indices, groups, shares[drawn]))


def _at_random(
    pool: PoolView,
    state: SelectionState,
    eligible: Eligible,
    clusters: IntArray,
    shares: IntArray,
    rng: np.random.Generator,
) -> IntArray:
    chosen = [
        rng.choice(eligible_members(pool, state, eligible, cluster), share, replace=False)
        for cluster, share in zip(clusters.tolist(), shares.tolist(), strict=True)
    ]
    return np.concatenate(chosen) if chosen else np.empty(0, dtype=np.int64)
