"""A round of selection on large pools: time, memory and start-up, against a naive sort.

No model takes part: utilities fall as training would make them. The naive way masks the whole pool for
what may come, sorts all task clusters that the round draws from, and copies the pool's arrays to update
them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lead_core.bench.interleaving import timed
from lead_core.bench.result import Figure, Target
from lead_core.bench.spread import Spread, spread_of, spread_of_ratios
from lead_core.selectors import Picks, PoolView, Quota, SelectionSettings, get_selector
from lead_core.selectors.contract import (
    IntArray,
    SelectionState,
    init_selection,
    largest_remainder,
    record_use,
)

QUICK_SIZES = (100_000,)
FULL_SIZES = (600_000, 10_000_000)
ROUND_MILLISECONDS = {600_000: 5.0, 10_000_000: 50.0}
BYTES_PER_SAMPLE = Target(40.0, at_most=True)

ARMS = 7
SETTINGS = SelectionSettings(
    exploration=0.1,
    step_size=1.0,
    round_fraction=0.015,
    min_round=16,
    max_uses=4,
    cluster_size_power=0.5,
)
BUDGET_FRACTION = 0.025
SELECTORS = ("lead", "informative")


@dataclass(frozen=True)
class PoolRounds:
    """Rounds of `selector` on one pool.

    picked: samples of each round; rounds, naive: seconds of each, either way.
    """

    selector: str
    samples: int
    task_clusters: int
    start_up_seconds: float
    bytes_per_sample: float
    picked: tuple[int, ...]
    rounds: tuple[float, ...]
    naive: tuple[float, ...]

    @property
    def milliseconds(self) -> Spread:
        """Return what a round's selection and update take."""
        return spread_of(self.rounds).times(1000)

    @property
    def speed_up(self) -> Spread:
        """Return how many times as long the naive way takes."""
        return spread_of_ratios(self.naive, self.rounds)


@dataclass(frozen=True)
class SelectionResult:
    """Rounds on pools of several sizes."""

    pools: tuple[PoolRounds, ...]

    def figures(self) -> Sequence[Figure]:
        """Return time, ratio, memory and start-up for each pool."""
        return [figure for pool in self.pools for figure in _figures_of(pool)]


def measure_selection(sizes: Sequence[int], *, rounds: int) -> SelectionResult:
    """Play `rounds` of `SELECTORS`, and the same naively, by turns, on a made-up pool of each size.

    Raises RuntimeError if the two ever pick differently.
    """
    return SelectionResult(tuple(_play(name, size, rounds) for size in sizes for name in SELECTORS))


def _play(name: str, size: int, rounds: int) -> PoolRounds:
    view = make_pool(size)
    selector, rng = get_selector(name), np.random.default_rng(1)
    started = time.perf_counter()
    state = init_selection(view)
    order = view.by_loss if name == "lead" else view.by_information
    start_up = time.perf_counter() - started
    given = (view.difficulty, view.task, view.loss, view.ifd, view.response_tokens)
    held = sum(array.nbytes for array in (*given, order, state.utility, state.uses))
    values, labels = view.information(), _labels(view)
    picked: list[int] = []
    seconds: list[float] = []
    naive: list[float] = []
    for _ in range(rounds):
        started = time.perf_counter()
        quota = Quota(size, int(BUDGET_FRACTION * size) - state.distinct)
        picks = selector.pick(view, state, SETTINGS, quota, rng)
        seconds.append(time.perf_counter() - started)
        again = partial(_naive_round, view, state, picks, quota, values, labels)
        naive.append(timed(again)())
        started = time.perf_counter()
        utility = state.utility[picks.indices] * 0.8
        bandit = selector.learn(state, picks, 0.5, SETTINGS)
        state = replace(record_use(view, state, picks.indices, utility), bandit=bandit)
        seconds[-1] += time.perf_counter() - started
        picked.append(len(picks.indices))
    return PoolRounds(
        name,
        size,
        len(view.index.sizes),
        start_up,
        held / size,
        tuple(picked),
        tuple(seconds),
        tuple(naive),
    )


def make_pool(size: int) -> PoolView:
    """Return a pool whose arms are equally large and hold up to 150 task clusters of unequal size."""
    rng = np.random.default_rng(0)
    ifd = rng.uniform(0, 1.05, size)
    arms = np.minimum((ifd * ARMS).astype(np.int32), ARMS - 1)
    return PoolView(
        difficulty=np.where(ifd < 1, arms, -1).astype(np.int16),
        task=np.minimum(rng.geometric(1 / 40, size) - 1, 149).astype(np.int32),
        loss=rng.gamma(4, 0.5, size),
        ifd=ifd,
        response_tokens=rng.integers(1, 500, size).astype(np.int32),
    )


def _naive_round(
    view: PoolView,
    state: SelectionState,
    picks: Picks,
    quota: Quota,
    values: NDArray[np.float64],
    labels: IntArray,
) -> None:
    """Pick the samples of `picks` once more and update copies of the arrays of `state`.

    values, labels [n]: each record's information and its task cluster as one number, for
    `informative`; as in ours they are made once, before the first round.
    """
    may = (view.difficulty >= 0) & (state.uses < SETTINGS.max_uses)
    if quota.distinct <= 0:
        may &= state.uses > 0
    if picks.arm is None:
        indices = _naive_informative(picks, may & (state.uses == 0), values, labels)
    else:
        indices = _naive_lead(view, state, picks, may)
    if not np.array_equal(indices, picks.indices):
        raise RuntimeError("selection differs from a naive sort")
    utility, uses = state.utility.copy(), state.uses.copy()
    utility[indices] *= 0.8
    uses[indices] += 1


def _naive_lead(
    view: PoolView, state: SelectionState, picks: Picks, may: NDArray[np.bool_]
) -> IntArray:
    np.bincount(view.difficulty[may], minlength=ARMS)
    inside = np.flatnonzero(may & (view.difficulty == picks.arm))
    tasks, groups = np.unique(view.task[inside], return_inverse=True)
    shares = largest_remainder(np.bincount(groups, minlength=len(tasks)), len(picks.indices))
    chosen = [
        _sorted_top(state.utility, inside[groups == task], int(share))
        for task, share in enumerate(shares)
    ]
    return np.concatenate(chosen)


def _naive_informative(
    picks: Picks, may: NDArray[np.bool_], values: NDArray[np.float64], labels: IntArray
) -> IntArray:
    # How many each cluster gives was drawn at random: read off the picks.
    drawn, shares = np.unique(labels[picks.indices], return_counts=True)
    chosen = [
        _sorted_top(values, np.flatnonzero(may & (labels == cluster)), int(share))
        for cluster, share in zip(drawn, shares, strict=True)
    ]
    return np.concatenate(chosen)


def _labels(view: PoolView) -> IntArray:
    return view.difficulty.astype(np.int64) * (int(view.task.max()) + 1) + view.task


def _sorted_top(values: NDArray[np.float64], members: IntArray, n: int) -> IntArray:
    return members[np.lexsort((members, -values[members]))[:n]]


def _figures_of(pool: PoolRounds) -> list[Figure]:
    name = f"{pool.selector}, {pool.samples:,} samples"
    limit = ROUND_MILLISECONDS.get(pool.samples)
    target = None if limit is None else Target(limit, at_most=True)
    return [
        Figure(f"{name}, a round", pool.milliseconds, "ms", target),
        Figure(f"{name}, naive over ours", pool.speed_up, "x"),
        Figure(f"{name}, state", pool.bytes_per_sample, "bytes/sample", BYTES_PER_SAMPLE),
        Figure(f"{name}, start-up", pool.start_up_seconds, "s"),
    ]
