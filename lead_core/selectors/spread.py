"""Rounds that are spread over all task clusters, whatever is taken from each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lead_core.selectors.contract import (
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
    contenders,
    draw_members,
    eligible_counts,
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
        if self.order is None:
            return Picks(draw_members(pool, state, eligible, shares, rng))
        drawn = np.flatnonzero(shares)
        indices, groups = contenders(
            pool, state, eligible, drawn, shares[drawn], self.order(pool), still=True
        )
        # They come in their order already: what comes earlier counts for more.
        return Picks(top_of_groups(-np.arange(len(indices)), indices, groups, shares[drawn]))
