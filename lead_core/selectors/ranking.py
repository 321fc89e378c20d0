"""Training on the highest values first, over the pool as a whole: no clusters, no bandit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from lead_core.bandit import BanditState
from lead_core.selectors.contract import (
    FloatArray,
    Picks,
    PoolView,
    Quota,
    SelectionSettings,
    SelectionState,
    cap,
    eligible_samples,
    top_by,
)


@dataclass(frozen=True)
class Ranking:
    """One effective batch per round, the highest values first, among records with IFD < 1.

    values: what is ranked, float64 [n]. once: used samples come again only when no unused one may, as
    suits a fixed ranking; False: a sample may lead twice. The rest: see `contract.Selector`.
    """

    name: str
    values: Callable[[PoolView, SelectionState], FloatArray]
    once: bool = True
    exact_utilities: bool = False
    whole_pool: bool = False
    reads_scores: bool = True
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
        """Return the next batch of the ranking."""
        eligible = eligible_samples(state, pool.difficulty >= 0, quota, settings.max_uses)
        if self.once:
            eligible &= state.uses == state.uses[eligible].min(initial=settings.max_uses)
        indices = np.flatnonzero(eligible)
        values = self.values(pool, state)[indices]
        return Picks(top_by(values, indices, cap(settings.min_round, eligible, state, quota)))

    def learn(
        self, state: SelectionState, picks: Picks, reward: float, settings: SelectionSettings
    ) -> BanditState:
        """Return the bandit unchanged: there are no arms."""
        return state.bandit
