"""`informative`: a share of every task cluster; inside it the responses that prompts say most about.

Three changes to LEAD's rule, each for a loss that was measured (docs/informative.md): every round draws
from all task clusters instead of one difficulty cluster, smaller ones by more than their share; samples
rank by the pointwise mutual information of prompt and response instead of the loss per token, whose top
is short, odd or wrong; none comes again before all have come.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    eligible_counts,
    eligible_samples,
    least_used,
)
from lead_core.selectors.shares import draw_shares, expected_shares, round_size


@dataclass(frozen=True, kw_only=True)
class Informative(Selector):
    """Every round is spread over all task clusters; in each the highest information first."""

    def pick(
        self,
        pool: PoolView,
        state: SelectionState,
        settings: SelectionSettings,
        quota: Quota,
        rng: np.random.Generator,
    ) -> Picks:
        """Draw each cluster's share of the round, then its unused samples of highest information."""
        eligible = least_used(pool, state, eligible_samples(quota, settings.max_uses))
        counts = eligible_counts(pool, state, eligible)
        total = int(counts.sum())
        # As many as a round of `lead` takes from an arm of average size.
        n = cap(round_size(settings, total / max(pool.n_arms, 1)), total, quota)
        weights = pool.index.sizes.astype(np.float64) ** settings.cluster_size_power
        shares = draw_shares(expected_shares(weights, counts, n), rng)
        drawn = np.flatnonzero(shares)
        order, shares = pool.by_information, shares[drawn]
        indices, groups = contenders(pool, state, eligible, drawn, shares, order, still=True)
        return Picks(top_of_groups(pool.information(indices), indices, groups, shares))


SELECTOR = Informative("informative")
