"""Drawing at random without replacement: no utility, no ranking, no bandit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from lead_core.bandit import BanditState
from lead_core.selectors.contract import (
    IntArray,
    Picks,
    PoolView,
    Quota,
    SelectionSettings,
    SelectionState,
    cap,
    eligible_samples,
)


def draw_evenly(pool: PoolView, indices: IntArray, n: int, rng: np.random.Generator) -> IntArray:
    """Draw `n` of `indices`, each with the same probability."""
    return rng.choice(indices, n, replace=False) if n else indices[:0]


@dataclass(frozen=True)
class UniformDraw:
    """One effective batch per round, drawn without replacement, unused samples before used ones.

    below_one: only records with IFD < 1. draw: how n of the open positions [m] are drawn. The rest: see
    `contract.Selector`.
    """

    name: str
    below_one: bool = False
    draw: Callable[[PoolView, IntArray, int, np.random.Generator], IntArray] = draw_evenly
    exact_utilities: bool = False
    whole_pool: bool = False
    reads_scores: bool = False
    reads_utilities: bool = False
    fixes: Mapping[str, object] = field(default_factory=dict)

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
        least = eligible & (state.uses == state.uses[eligible].min(initial=settings.max_uses))
        n = cap(settings.min_round, least, state, quota)
        return Picks(self.draw(pool, np.flatnonzero(least), n, rng))

    def learn(
        self, state: SelectionState, picks: Picks, reward: float, settings: SelectionSettings
    ) -> BanditState:
        """Return the bandit unchanged: there are no arms."""
        return state.bandit
