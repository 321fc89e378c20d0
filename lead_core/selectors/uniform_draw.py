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
    eligible_samples,
    least_used,
)


def draw_evenly(pool: PoolView, indices: IntArray, n: int, rng: np.random.Generator) -> IntArray:
    """Draw `n` of `indices`, each with the same probability."""
    return rng.choice(indices, n, replace=False) if n else indices[:0]


@dataclass(frozen=True, kw_only=True)
class UniformDraw(Selector):
    """One effective batch per round, drawn without replacement, unused samples before used ones.

    below_one: only records with IFD < 1. draw: how n of the open positions [m] are drawn. The rest: see
    `Selector`.
    """

    below_one: bool = False
    draw: Callable[[PoolView, IntArray, int, np.random.Generator], IntArray] = draw_evenly
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
        candidates = np.isfinite(pool.loss) & ((pool.difficulty >= 0) | (not self.below_one))
        eligible = eligible_samples(state, candidates, quota, settings.max_uses)
        least = least_used(state, eligible)
        n = cap(settings.min_round, least, state, quota)
        return Picks(self.draw(pool, np.flatnonzero(least), n, rng))
