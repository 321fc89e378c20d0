"""Training on the highest values first, over the pool as a whole: no clusters, no bandit."""

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
)
from lead_core.selectors.eligible import (
    eligible_counts,
    eligible_samples,
    least_used,
    top_eligible,
)


@dataclass(frozen=True)
class Ranking(Selector):
    """One effective batch per round, the highest values first.

    values: what is ranked, a number per record [n]. below_one: only records with IFD < 1. once: used
    samples come again only when no unused one may, as suits a fixed ranking; False: a sample may lead
    twice. The rest: see `Selector`.
    """

    values: Callable[[PoolView, SelectionState], NDArray[np.number]]
    below_one: bool = True
    once: bool = True

    def pick(
        self,
        pool: PoolView,
        state: SelectionState,
        settings: SelectionSettings,
        quota: Quota,
        rng: np.random.Generator,
    ) -> Picks:
        """Return the next batch of the ranking."""
        eligible = eligible_samples(quota, settings.max_uses, set_aside=not self.below_one)
        if self.once:
            eligible = least_used(pool, state, eligible)
        n = cap(settings.min_round, int(eligible_counts(pool, state, eligible).sum()), quota)
        return Picks(top_eligible(pool, state, eligible, self.values(pool, state), n))
