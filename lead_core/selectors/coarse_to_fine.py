"""LEAD's two levels of choice: EXP3 draws a difficulty cluster, utility ranks inside it.

Lin et al. 2025 (arXiv 2505.07437), coarse-to-fine selection; the split over task clusters by largest
remainder, the smallest round and the order of ties are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lead_core.bandit import BanditState, arm_probabilities, draw_arm, update_bandit
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
    largest_remainder,
    top_by,
)


@dataclass(frozen=True, kw_only=True)
class CoarseToFine(Selector):
    """EXP3 draws a difficulty cluster; inside it the highest utilities of each task cluster.

    learns: whether EXP3 learns (False: arms are drawn uniformly). by_task: whether the round is split
    over task clusters (False: the highest utilities of the whole difficulty cluster). The rest: see
    `Selector`.
    """

    learns: bool = True
    by_task: bool = True
    reads_utilities: bool = True

    def pick(
        self,
        pool: PoolView,
        state: SelectionState,
        settings: SelectionSettings,
        quota: Quota,
        rng: np.random.Generator,
    ) -> Picks:
        """Draw an arm among those with an eligible sample, then its samples."""
        eligible = eligible_samples(state, pool.difficulty >= 0, quota, settings.max_uses)
        counts = np.bincount(pool.difficulty[eligible], minlength=pool.n_arms)
        if not counts.any() or quota.visits <= 0:
            return Picks(np.empty(0, dtype=np.int64), eligible=counts)
        exploration = settings.exploration if self.learns else 1.0
        probabilities = arm_probabilities(state.bandit, counts > 0, exploration)
        arm = draw_arm(probabilities, rng)
        inside = eligible & (pool.difficulty == arm)
        wanted = max(settings.min_round, _share(settings.round_fraction, counts[arm]))
        n = cap(wanted, inside, state, quota)
        indices = self._finest(pool, state, np.flatnonzero(inside), n)
        return Picks(indices, arm, probabilities, state.bandit.log_weights, counts)

    def learn(
        self, state: SelectionState, picks: Picks, reward: float, settings: SelectionSettings
    ) -> BanditState:
        """Return the bandit after the drawn arm paid `reward`; unchanged if it does not learn."""
        if not self.learns or picks.arm is None or picks.probabilities is None:
            return state.bandit
        return update_bandit(
            state.bandit,
            picks.arm,
            reward,
            float(picks.probabilities[picks.arm]),
            int(np.count_nonzero(picks.probabilities)),
            settings.step_size,
        )

    def _finest(self, pool: PoolView, state: SelectionState, inside: IntArray, n: int) -> IntArray:
        """Return the `n` samples of highest utility, split over task clusters if asked."""
        if not self.by_task:
            return top_by(state.utility[inside], inside, n)
        tasks, groups = np.unique(pool.task[inside], return_inverse=True)
        shares = largest_remainder(np.bincount(groups, minlength=len(tasks)), n)
        chosen = [
            top_by(state.utility[members], members, int(share))
            for task, share in enumerate(shares)
            for members in [inside[groups == task]]
        ]
        return np.concatenate(chosen)


def _share(fraction: float, count: int) -> int:
    """Return ``ceil(fraction * count)``, not one more for a product that rounding put above it."""
    return int(np.ceil(fraction * count - 1e-9))
