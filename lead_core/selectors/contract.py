"""What a selector is given, what it returns, and the parts that most of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lead_core.bandit import BanditState, init_bandit
from lead_core.reward import RewardRange

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class PoolView:
    """What is known of the n records of the pool before training, in order of their ids.

    difficulty int [n]: arm, -1 for records set aside (IFD not below 1, or not finite); task int [n]:
    task cluster inside the difficulty cluster; loss float64 [n]: ``u_0``; ifd float64 [n].
    """

    difficulty: NDArray[np.int32]
    task: NDArray[np.int32]
    loss: FloatArray
    ifd: FloatArray

    @property
    def n_arms(self) -> int:
        """Return K, the number of difficulty clusters."""
        return int(self.difficulty.max(initial=-1)) + 1

    @property
    def clusters(self) -> NDArray[np.int32]:
        """Return the two labels of every record side by side, int [n, 2]: its task cluster."""
        return np.stack([self.difficulty, self.task], axis=1)


@dataclass(frozen=True)
class SelectionSettings:
    """The numbers of selection: gamma, step size, rho, smallest round, uses per sample."""

    exploration: float
    step_size: float
    round_fraction: float
    min_round: int
    max_uses: int


@dataclass(frozen=True)
class SelectionState:
    """All that selection carries from round to round, and all that a checkpoint must keep of it.

    utility float64 [n]; uses int16 [n], how often each sample was trained on.
    """

    utility: FloatArray
    uses: NDArray[np.int16]
    bandit: BanditState
    reward_range: RewardRange


@dataclass(frozen=True)
class Quota:
    """What may still be chosen: training samples in all, and samples not used before."""

    visits: int
    distinct: int


@dataclass(frozen=True)
class Picks:
    """One round's choice.

    indices int [m]: positions in the pool, in the order of preference. For a selector with arms: the
    drawn arm, the probabilities [K] and log-weights [K] it was drawn with, eligible counts [K].
    """

    indices: IntArray
    arm: int | None = None
    probabilities: FloatArray | None = None
    log_weights: FloatArray | None = None
    eligible: IntArray | None = None


@dataclass(frozen=True)
class Selector(ABC):
    """A rule for choosing samples; it holds settings of its own at most, never state.

    name: in params.yaml and in every record. exact_utilities: utilities are measured by a full
    inference pass before every round. whole_pool: the budget is one epoch over the pool, not the
    configured one.
    reads_scores: the rule needs the offline pass at all; its cost is counted for those that do.
    reads_utilities: picks depend on utilities or bandit, and so on their parameters. fixes: the values
    of params.yaml that the rule fixes, by dotted name.
    """

    name: str
    _: KW_ONLY
    exact_utilities: bool = False
    whole_pool: bool = False
    reads_scores: bool = True
    reads_utilities: bool = False
    fixes: Mapping[str, object] = field(default_factory=dict)

    @abstractmethod
    def pick(
        self,
        pool: PoolView,
        state: SelectionState,
        settings: SelectionSettings,
        quota: Quota,
        rng: np.random.Generator,
    ) -> Picks:
        """Return the next round's samples; none when nothing is eligible."""

    def learn(
        self, state: SelectionState, picks: Picks, reward: float, settings: SelectionSettings
    ) -> BanditState:
        """Return the bandit after `picks` paid the rescaled `reward`: as it was, for most have none."""
        return state.bandit


def init_selection(pool: PoolView) -> SelectionState:
    """Return the state before the first round: offline losses as utilities, nothing used."""
    return SelectionState(
        utility=pool.loss.astype(np.float64).copy(),
        uses=np.zeros(len(pool.loss), dtype=np.int16),
        bandit=init_bandit(pool.n_arms),
        reward_range=RewardRange(),
    )


def record_use(state: SelectionState, indices: IntArray, utility: FloatArray) -> SelectionState:
    """Return the state after training on `indices` (each once), with their new utilities."""
    utilities, uses = state.utility.copy(), state.uses.copy()
    utilities[indices] = utility
    uses[indices] += 1
    return replace(state, utility=utilities, uses=uses)


def withdraw(state: SelectionState, indices: IntArray, max_uses: int) -> SelectionState:
    """Return the state in which `indices` never come again: all their uses count as made."""
    uses = state.uses.copy()
    uses[indices] = max_uses
    return replace(state, uses=uses)


def eligible_samples(
    state: SelectionState, candidates: BoolArray, quota: Quota, max_uses: int
) -> BoolArray:
    """Return which of `candidates` may be trained on now, bool [n].

    A sample may be used `max_uses` times; once the distinct budget is spent, only samples that were
    used before may come again.
    """
    open_uses = candidates & (state.uses < max_uses)
    return open_uses & (state.uses > 0) if quota.distinct <= 0 else open_uses


def least_used(state: SelectionState, eligible: BoolArray) -> BoolArray:
    """Return which of `eligible` were trained on least often, bool [n]: used ones wait for unused."""
    least: BoolArray = state.uses == state.uses[eligible].min(initial=np.iinfo(np.int16).max)
    return eligible & least


def cap(n: int, eligible: BoolArray, state: SelectionState, quota: Quota) -> int:
    """Return `n` lowered to what the quota and the eligible samples allow.

    With distinct budget left, a round never holds more samples than that budget: then it cannot
    overrun, however many of them are new.
    """
    n = min(n, int(eligible.sum()), quota.visits)
    return n if quota.distinct <= 0 else min(n, quota.distinct)


def top_by(values: FloatArray, indices: IntArray, n: int) -> IntArray:
    """Return the `n` of `indices` with the highest `values` [len(indices)]; ties by position (id)."""
    order = np.lexsort((indices, -values))
    return indices[order[:n]]


def largest_remainder(counts: IntArray, n: int) -> IntArray:
    """Split `n` over groups in proportion to `counts`, in whole numbers, at most `counts` each.

    Hamilton's method: floors first, then one each to the largest remainders, ties to the earlier
    group. `n` must not exceed the sum of `counts`.
    """
    total = int(counts.sum())
    if n > total:
        raise ValueError(f"cannot split {n} over groups that hold {total}")
    shares = counts * n
    floors = shares // max(total, 1)
    remainders = shares % max(total, 1)
    order = np.lexsort((np.arange(len(counts)), -remainders))
    floors[order[: n - int(floors.sum())]] += 1
    return floors
