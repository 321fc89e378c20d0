"""Baselines that rank the pool: `loss` and `ifd` once and for all, `idu` by current utility."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lead_core.bandit import BanditState
from lead_core.selectors.contract import (
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
class RankedSelector:
    """One effective batch per round, the highest values first, over the pool as a whole.

    by: ``loss`` (u_0) and ``ifd`` are fixed rankings, whose used samples come again only when the
    distinct budget is spent; ``utility`` is the current IDU, where a sample may lead twice.
    """

    name: str
    by: Literal["loss", "ifd", "utility"]
    exact_utilities: bool = False
    whole_pool: bool = False

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
        if self.by != "utility":
            eligible &= state.uses == state.uses[eligible].min(initial=settings.max_uses)
        indices = np.flatnonzero(eligible)
        values = {"loss": pool.loss, "ifd": pool.ifd, "utility": state.utility}[self.by]
        return Picks(
            top_by(values[indices], indices, cap(settings.min_round, eligible, state, quota))
        )

    def learn(
        self, state: SelectionState, picks: Picks, reward: float, settings: SelectionSettings
    ) -> BanditState:
        """Return the bandit unchanged: there are no arms."""
        return state.bandit


SELECTORS = (
    RankedSelector("loss", by="loss"),
    RankedSelector("ifd", by="ifd"),
    RankedSelector("idu", by="utility"),
)
