"""Baselines that draw at random: `random`, `random-ifd`, `stratified` and `full`."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class UniformSelector:
    """One effective batch per round, drawn without replacement, unused samples before used ones.

    below_one: only records with IFD < 1, so that the filter's share of a gain is seen. by_task: each
    round is split over all (difficulty, task) clusters in proportion to their eligible records.
    whole_pool: one epoch over everything, outside the budget.
    """

    name: str
    below_one: bool = False
    by_task: bool = False
    whole_pool: bool = False
    exact_utilities: bool = False

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
        open_indices = np.flatnonzero(least)
        if not self.by_task:
            return Picks(rng.choice(open_indices, n, replace=False) if n else open_indices[:0])
        cells = np.stack([pool.difficulty[open_indices], pool.task[open_indices]], axis=1)
        names, groups = np.unique(cells, axis=0, return_inverse=True)
        groups = groups.reshape(-1)
        shares = _proportional_shares(np.bincount(groups, minlength=len(names)), n, rng)
        chosen = [
            rng.choice(open_indices[groups == cell], int(share), replace=False)
            for cell, share in enumerate(shares)
            if share
        ]
        return Picks(np.concatenate(chosen) if chosen else open_indices[:0])

    def learn(
        self, state: SelectionState, picks: Picks, reward: float, settings: SelectionSettings
    ) -> BanditState:
        """Return the bandit unchanged: there are no arms."""
        return state.bandit


def _proportional_shares(counts: IntArray, n: int, rng: np.random.Generator) -> IntArray:
    """Split `n` over groups so that each expects its exact proportion of it.

    Systematic sampling: the groups lie end to end on a line, cut at regular places from a random
    start. A batch is often smaller than the number of groups: by largest remainder the same few large
    ones would take every batch.
    """
    edges = np.concatenate([[0], np.cumsum(counts)]) * n / max(int(counts.sum()), 1)
    return np.diff(np.floor(edges + rng.random())).astype(np.int64)


SELECTORS = (
    UniformSelector("random"),
    UniformSelector("random-ifd", below_one=True),
    UniformSelector("stratified", by_task=True),
    UniformSelector("full", whole_pool=True),
)
