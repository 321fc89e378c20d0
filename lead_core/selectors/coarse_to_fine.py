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
    largest_remainder,
    top_by,
    top_of_groups,
)
from lead_core.selectors.eligible import Eligible, contenders, eligible_counts, eligible_samples
from lead_core.selectors.shares import round_size


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
    starts_from_losses: bool = True

    def pick(
        self,
        pool: PoolView,
        state: SelectionState,
        settings: SelectionSettings,
        quota: Quota,
        rng: np.random.Generator,
    ) -> Picks:
        """Draw an arm among those with an eligible sample, then its samples."""
        eligible = eligible_samples(quota, settings.max_uses)
        by_task = eligible_counts(pool, state, eligible)
        counts = _sum_per_arm(pool, by_task)
        if not counts.any() or quota.visits <= 0:
            return Picks(np.empty(0, dtype=np.int64), eligible=counts)
        exploration = settings.exploration if self.learns else 1.0
        probabilities = arm_probabilities(state.bandit, counts > 0, exploration)
        arm = draw_arm(probabilities, rng)
        n = cap(round_size(settings, counts[arm]), int(counts[arm]), quota)
        inside = np.flatnonzero((pool.index.labels[:, 0] == arm) & (by_task > 0))
        indices = self._finest(pool, state, eligible, inside, by_task[inside], n)
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

    def _finest(
        self,
        pool: PoolView,
        state: SelectionState,
        eligible: Eligible,
        clusters: IntArray,
        counts: IntArray,
        n: int,
    ) -> IntArray:
        """Return the `n` samples of highest utility, split over task clusters if asked.

        clusters [J]: the arm's task clusters; counts [J]: how many of their samples are eligible.
        """
        if not self.by_task:
            shares = np.minimum(counts, n)
            indices, _ = self._highest(pool, state, eligible, clusters, shares)
            return top_by(state.utility[indices], indices, n)
        shares = largest_remainder(counts, n)
        indices, groups = self._highest(pool, state, eligible, clusters, shares)
        return top_of_groups(state.utility[indices], indices, groups, shares)

    def _highest(
        self,
        pool: PoolView,
        state: SelectionState,
        eligible: Eligible,
        clusters: IntArray,
        shares: IntArray,
    ) -> tuple[IntArray, IntArray]:
        """Return samples among which are the `shares` [J] highest utilities of `clusters` [J]."""
        # An unused sample's utility is its offline loss, as long as nothing else moves it.
        still = state.unused_as_scored
        return contenders(pool, state, eligible, clusters, shares, pool.by_loss, still=still)


def _sum_per_arm(pool: PoolView, counts: IntArray) -> IntArray:
    """Return the sums of `counts` [C] over the task clusters of each arm, int64 [K]."""
    arms = pool.index.labels[:, 0]
    sums = np.zeros(pool.n_arms, dtype=np.int64)
    np.add.at(sums, arms[arms >= 0], counts[arms >= 0])
    return sums
