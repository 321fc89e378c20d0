"""What a selector is given, what it returns, and the parts that most of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lead_core.bandit import BanditState, init_bandit
from lead_core.reward import RewardRange
from lead_core.selectors.cluster_index import ClusterIndex, index_clusters, rank_members

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class PoolView:
    """What is known of the n records of the pool before training, in order of their ids.

    difficulty int [n]: arm, -1 for records set aside (IFD not below 1, or not finite); task int [n]:
    task cluster inside the difficulty cluster; loss float64 [n]: ``u_0``; ifd float64 [n];
    response_tokens int [n]: tokens that the loss is a mean over. own_losses: whether all that is of the
    model that is trained, not of another one that made the offline pass (`score.model`).
    """

    difficulty: NDArray[np.integer]
    task: NDArray[np.int32]
    loss: FloatArray
    ifd: FloatArray
    response_tokens: NDArray[np.int32]
    own_losses: bool = True

    @cached_property
    def n_arms(self) -> int:
        """Return K, the number of difficulty clusters."""
        return int(self.difficulty.max(initial=-1)) + 1

    @cached_property
    def index(self) -> ClusterIndex:
        """Return the task clusters of the trainable records."""
        return index_clusters(self.difficulty, self.task, self.loss)

    @cached_property
    def by_loss(self) -> NDArray[np.int32]:
        """Return the trainable records of each task cluster, the highest offline loss first.

        As positions, int32 [m]; ties by position. Made once, by a sort of the pool.
        """
        return rank_members(self.index, self.difficulty, self.task, self.loss, self.loss)

    @cached_property
    def by_information(self) -> NDArray[np.int32]:
        """Return the same with the highest `information` first."""
        return rank_members(self.index, self.difficulty, self.task, self.loss, self.information())

    @cached_property
    def by_length(self) -> NDArray[np.int32]:
        """Return the same with the longest responses first."""
        return rank_members(self.index, self.difficulty, self.task, self.loss, self.response_tokens)

    def information(self) -> FloatArray:
        """Return what each record's prompt says about its response, in nats, float64 [n].

        Pointwise mutual information ``log p(r|q) - log p(r)``: response tokens times the mean loss
        that the prompt takes away, ``L(r) - L(r|q)``, with ``L(r)`` read off loss and IFD. Both are
        the scoring model's unless `score.warmup` had IFD from a warmed-up one: then it is an estimate.
        Not finite (a loss of 0): -inf, below everything.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            nats = self.response_tokens * (self.loss / self.ifd - self.loss)
        return np.where(np.isfinite(nats), nats, -np.inf)

    @property
    def clusters(self) -> NDArray[np.int32]:
        """Return the two labels of every record side by side, int [n, 2]: its task cluster."""
        return np.stack([self.difficulty, self.task], axis=1)


@dataclass(frozen=True)
class SelectionSettings:
    """The numbers of selection: see `params.SelectParams` and `params.BanditParams`."""

    exploration: float
    step_size: float
    round_fraction: float
    min_round: int
    max_uses: int
    cluster_size_power: float


@dataclass(frozen=True)
class SelectionState:
    """All that selection carries from round to round.

    utility float64 [n]; uses int16 [n], how often each sample was trained on: both are handed on from
    state to state, see `record_use`. use_counts int64 [C, U]: how many samples of each task cluster of
    the pool's index were trained on 0, 1, .. U - 1 times. unused_as_scored: whether every unused
    sample's utility is still its offline loss. The last two follow from the others and the pool.
    """

    utility: FloatArray
    uses: NDArray[np.int16]
    bandit: BanditState
    reward_range: RewardRange
    use_counts: IntArray
    unused_as_scored: bool = True

    @property
    def distinct(self) -> int:
        """Return how many samples were trained on."""
        return int(self.use_counts[:, 1:].sum())


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
    reads_utilities: picks depend on utilities or bandit, and so on their parameters.
    starts_from_losses: the first picks depend on how high the losses of the trained model itself are;
    another model's (`PoolView.own_losses`) would mislead it. fixes: the values of params.yaml that the
    rule fixes, by dotted name.
    """

    name: str
    _: KW_ONLY
    exact_utilities: bool = False
    whole_pool: bool = False
    reads_scores: bool = True
    reads_utilities: bool = False
    starts_from_losses: bool = False
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
        utility=pool.loss.astype(np.float64),  # a copy
        uses=np.zeros(len(pool.loss), dtype=np.int16),
        bandit=init_bandit(pool.n_arms),
        reward_range=RewardRange(),
        use_counts=pool.index.sizes[:, None],
    )


def restore_selection(
    pool: PoolView,
    utility: FloatArray,
    uses: NDArray[np.int16],
    bandit: BanditState,
    reward_range: RewardRange,
) -> SelectionState:
    """Return the state that these parts, kept by a checkpoint, belonged to."""
    index = pool.index
    trainable = np.flatnonzero(np.isfinite(pool.loss))
    clusters = index.cluster_of(pool.difficulty[trainable], pool.task[trainable])
    levels = int(uses[trainable].max(initial=0)) + 1
    keys = clusters * levels + uses[trainable]
    counts = np.bincount(keys, minlength=len(index.sizes) * levels)
    unused = trainable[uses[trainable] == 0]
    as_scored = np.array_equal(utility[unused], pool.loss[unused])
    return SelectionState(
        utility, uses, bandit, reward_range, counts.reshape(-1, levels), bool(as_scored)
    )


def record_use(
    pool: PoolView, state: SelectionState, indices: IntArray, utility: FloatArray
) -> SelectionState:
    """Return the state after training on `indices` (each once), with their new utilities.

    The arrays [n] of `state` are written in place and belong to the state returned: `state` must not
    be used again. To copy them would cost more than all the rest of a round on a large pool.
    """
    if not np.isfinite(pool.loss[indices]).all():
        raise ValueError("a sample without a finite offline loss cannot be trained on")
    state.utility[indices] = utility
    return _with_uses(pool, state, indices, state.uses[indices] + 1)


def withdraw(
    pool: PoolView, state: SelectionState, indices: IntArray, max_uses: int
) -> SelectionState:
    """Return the state in which `indices` never come again: all their uses count as made.

    `state` must not be used again, as in `record_use`.
    """
    return _with_uses(pool, state, indices, np.full(len(indices), max_uses))


def _with_uses(
    pool: PoolView, state: SelectionState, indices: IntArray, uses: NDArray[np.integer]
) -> SelectionState:
    """Return the state in which `indices` (each once) have these `uses`, written in place."""
    clusters = pool.index.cluster_of(pool.difficulty[indices], pool.task[indices])
    levels = max(state.use_counts.shape[1], int(uses.max(initial=0)) + 1)
    counts = np.zeros((len(state.use_counts), levels), dtype=np.int64)
    counts[:, : state.use_counts.shape[1]] = state.use_counts
    np.subtract.at(counts, (clusters, state.uses[indices]), 1)
    np.add.at(counts, (clusters, uses), 1)
    state.uses[indices] = uses
    return replace(state, use_counts=counts)


def with_utilities(state: SelectionState, utility: FloatArray) -> SelectionState:
    """Return `state` with other utilities for all samples [n], unused ones included."""
    return replace(state, utility=utility, unused_as_scored=False)


def cap(n: int, eligible: int, quota: Quota) -> int:
    """Return `n` lowered to what the quota and the number of eligible samples allow.

    With distinct budget left, a round never holds more samples than that budget: then it cannot
    overrun, however many of them are new.
    """
    n = min(n, eligible, quota.visits)
    return n if quota.distinct <= 0 else min(n, quota.distinct)


def top_by(values: FloatArray, indices: IntArray, n: int) -> IntArray:
    """Return the `n` of `indices` with the highest `values` [len(indices)]; ties by position (id)."""
    if 0 < n < len(values):
        # Only what is not below the n-th highest is sorted; ties with it are all still there.
        keep = np.flatnonzero(values >= -np.partition(-values, n - 1)[n - 1])
        values, indices = values[keep], indices[keep]
    order = np.lexsort((indices, -values))
    return indices[order[:n]]


def top_of_groups(
    values: NDArray[np.number], indices: IntArray, groups: IntArray, shares: IntArray
) -> IntArray:
    """Return the `shares` [J] of `indices` with the highest `values` of each of `groups` 0 .. J - 1.

    values, indices, groups [m]. Group after group; inside by value, ties by position.
    """
    order = np.lexsort((indices, -values, groups))
    ordered = groups[order]
    ranks = np.arange(len(order)) - np.searchsorted(ordered, np.arange(len(shares)))[ordered]
    return indices[order[ranks < shares[ordered]]]


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
