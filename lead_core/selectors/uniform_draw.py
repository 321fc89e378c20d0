"""Drawing at random without replacement: no utility, no ranking, no bandit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lead_core.selectors.contract import (
    IntArray,
    Picks,
    PoolView,
    Quota,
    SelectionSettings,
    SelectionState,
    Selector,
    cap,
)
from lead_core.selectors.eligible import (
    Eligible,
    eligible_counts,
    eligible_samples,
    least_used,
    nth_eligible,
)

Draw = Callable[[PoolView, SelectionState, Eligible, int, np.random.Generator], IntArray]


def draw_evenly(
    pool: PoolView, state: SelectionState, eligible: Eligible, n: int, rng: np.random.Generator
) -> IntArray:
    """Draw `n` of the `eligible`, each with the same probability."""
    if not n:
        return np.empty(0, dtype=np.int64)
    total = int(eligible_counts(pool, state, eligible).sum())
    return nth_eligible(pool, state, eligible, rng.choice(total, n, replace=False))


@dataclass(frozen=True, kw_only=True)
class UniformDraw(Selector):
    """One effective batch per round, drawn without replacement, unused samples before used ones.

    below_one: only records with IFD < 1. draw: how n of those that may come are drawn. The rest: see
    `Selector`.
    """

    below_one: bool = False
    draw: Draw = draw_evenly
    reads_scores: bool = False

    def pick(
        self,
        pool: PoolView,
        state: SelectionState,
        settings: SelectionSettings,
        quota: Quota,
        rng: np.random.Generator,
    ) -> Picks:
        """Draw the next batch; used samples come again only when no unused one may."""
        eligible = eligible_samples(quota, settings.max_uses, set_aside=not self.below_one)
        least = least_used(pool, state, eligible)
        n = cap(settings.min_round, int(eligible_counts(pool, state, least).sum()), quota)
        return Picks(self.draw(pool, state, least, n, rng))
