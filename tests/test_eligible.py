"""Every selector, with its index and its counts, picks what a naive sort of the whole pool picks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lead_core.bandit import arm_probabilities, draw_arm
from lead_core.selectors import (
    SELECTORS,
    PoolView,
    Quota,
    SelectionSettings,
    eligible,
    get_selector,
)
from lead_core.selectors.coarse_to_fine import CoarseToFine
from lead_core.selectors.contract import (
    init_selection,
    largest_remainder,
    record_use,
    restore_selection,
    with_utilities,
    withdraw,
)
from lead_core.selectors.ranking import Ranking
from lead_core.selectors.shares import draw_shares, expected_shares
from lead_core.selectors.stratified import _proportional_shares

SETTINGS = SelectionSettings(0.1, 0.5, 0.1, 4, 2, 0.5)


def make_pool(seed: int, n: int = 60, values: int = 1000) -> PoolView:
    """A pool with records set aside, some without a loss; few distinct `values` make many ties."""
    rng = np.random.default_rng(seed)
    difficulty = rng.integers(-1, 3, n).astype(np.int32)
    loss = rng.integers(0, values, n) / values
    loss[(difficulty < 0) & (rng.random(n) < 0.5)] = np.nan
    ifd = np.where(difficulty < 0, 1.1, rng.integers(0, values, n) / values)
    tokens = rng.integers(1, 1 + min(values, 50), n).astype(np.int32)
    return PoolView(difficulty, rng.integers(0, 4, n).astype(np.int32), loss, ifd, tokens)


def naive_top(values, positions, n):
    return sorted(positions, key=lambda i: (-values[i], i))[:n]


def naive_pick(selector, pool, utility, uses, bandit, quota, rng):
    """Return what `selector` picks, by masks over the whole pool and a sort of all that may come."""
    kind = selector.name
    candidates = pool.difficulty >= 0
    if kind in ("random", "stratified", "longest", "full"):
        candidates = np.isfinite(pool.loss)
    may = candidates & (uses < SETTINGS.max_uses) & ((uses > 0) | (quota.distinct > 0))

    def capped(n, mask):
        n = min(n, int(mask.sum()), quota.visits)
        return min(n, quota.distinct) if quota.distinct > 0 else n

    if isinstance(selector, CoarseToFine):
        counts = np.array([(may & (pool.difficulty == k)).sum() for k in range(pool.n_arms)])
        if not counts.any():
            return []
        gamma = SETTINGS.exploration if selector.learns else 1.0
        arm = draw_arm(arm_probabilities(bandit, counts > 0, gamma), rng)
        inside = may & (pool.difficulty == arm)
        share = int(np.ceil(SETTINGS.round_fraction * counts[arm] - 1e-9))
        n = capped(max(SETTINGS.min_round, share), inside)
        if not selector.by_task:
            return naive_top(utility, np.flatnonzero(inside), n)
        groups = [np.flatnonzero(inside & (pool.task == t)) for t in np.unique(pool.task[inside])]
        shares = largest_remainder(np.array([len(group) for group in groups]), n)
        return [i for g, k in zip(groups, shares, strict=True) for i in naive_top(utility, g, k)]
    if kind != "idu" and may.any():
        may &= uses == uses[may].min()
    n, positions = capped(SETTINGS.min_round, may), np.flatnonzero(may)
    if kind.startswith("informative"):
        cells = sorted(
            {(pool.difficulty[i], pool.task[i]) for i in np.flatnonzero(np.isfinite(pool.loss))}
        )
        groups = [
            [i for i in positions if (pool.difficulty[i], pool.task[i]) == cell] for cell in cells
        ]
        share = int(np.ceil(SETTINGS.round_fraction * len(positions) / max(pool.n_arms, 1) - 1e-9))
        n = capped(max(SETTINGS.min_round, share), may)
        sizes = pool.index.sizes**SETTINGS.cluster_size_power
        counts = np.array([len(group) for group in groups], dtype=np.int64)
        shares = draw_shares(expected_shares(sizes, counts, n), rng)
        if kind == "informative-random":
            return [
                i
                for group, k in zip(groups, shares.tolist(), strict=True)
                if k
                for i in rng.choice(group, k, replace=False)
            ]
        values = pool.response_tokens if kind == "informative-longest" else pool.information()
        return [i for g, k in zip(groups, shares, strict=True) for i in naive_top(values, g, k)]
    if isinstance(selector, Ranking):
        values = {
            "idu": utility,
            "loss": pool.loss,
            "ifd": pool.ifd,
            "longest": pool.response_tokens,
        }[kind]
        return naive_top(values, positions, n)
    if kind == "stratified":
        cells = sorted({(pool.difficulty[i], pool.task[i]) for i in positions})
        groups = [
            [i for i in positions if (pool.difficulty[i], pool.task[i]) == cell] for cell in cells
        ]
        counts = np.array([len(group) for group in groups], dtype=np.int64)
        shares = _proportional_shares(counts, n, rng)
        return [
            i
            for group, k in zip(groups, shares, strict=True)
            if k
            for i in rng.choice(group, k, replace=False)
        ]
    return rng.choice(positions, n, replace=False) if n else []


@pytest.mark.parametrize("name", sorted(SELECTORS))
@given(
    seed=st.integers(0, 10_000),
    values=st.sampled_from([2, 1000]),
    distinct=st.integers(1, 40),
    moves=st.booleans(),
    block=st.sampled_from([7, 1 << 15]),
)
@settings(max_examples=20)
def test_picks_are_those_of_a_naive_sort(name, seed, values, distinct, moves, block):
    """moves: utilities of unused samples change too, samples are withdrawn, states read back."""
    pool, selector = make_pool(seed, values=values), get_selector(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eligible, "BLOCK", block)
        state, visits = init_selection(pool), 100
        rng, naive_rng = np.random.default_rng(seed), np.random.default_rng(seed)
        world = np.random.default_rng(seed + 1)
        for number in range(14):
            quota = Quota(visits, distinct - int(np.count_nonzero(state.uses)))
            expected = naive_pick(
                selector, pool, state.utility, state.uses, state.bandit, quota, naive_rng
            )
            picks = selector.pick(pool, state, SETTINGS, quota, rng)
            assert picks.indices.dtype == np.int64
            assert picks.indices.tolist() == list(expected)
            if not len(picks.indices):
                break
            visits -= len(picks.indices)
            bandit = selector.learn(state, picks, world.uniform(-1, 1), SETTINGS)
            after = world.integers(0, values, len(picks.indices)) / values
            state = replace(record_use(pool, state, picks.indices, after), bandit=bandit)
            if moves and number % 3 == 0:
                state = withdraw(pool, state, picks.indices[:1], SETTINGS.max_uses)
            if moves and number == 2:
                moved = np.where(state.uses > 0, state.utility, world.random(len(pool.loss)))
                state = with_utilities(state, moved)
            if moves and number in (1, 4):
                kept = (state.utility, state.uses, state.bandit, state.reward_range)
                restored = restore_selection(pool, *kept)
                np.testing.assert_array_equal(restored.use_counts, state.use_counts)
                assert restored.unused_as_scored == state.unused_as_scored
                state = restored


def test_lead_looks_at_the_samples_used_so_far_and_the_next_few_only():
    zeros = np.zeros(100, np.int32)
    pool = PoolView(zeros, zeros, np.arange(100.0), np.full(100, 0.5), zeros)
    state = init_selection(pool)
    state = record_use(pool, state, np.array([99, 98]), np.array([0.0, 98.5]))
    assert looked_at(pool, state) == [99, 98, 97, 96, 95]
    assert len(looked_at(pool, with_utilities(state, state.utility))) == 100
    out_of_turn = record_use(pool, state, np.array([5]), np.array([1.0]))
    assert len(looked_at(pool, out_of_turn)) == 100


def looked_at(pool, state):
    """Return what a pick of 3 from the only cluster looks at."""
    every, only, three = eligible.Eligible(0, 4), np.array([0]), np.array([3])
    order, still = pool.by_loss, state.unused_as_scored
    found, _ = eligible.contenders(pool, state, every, only, three, order, still=still)
    return found.tolist()


def test_the_index_holds_the_trainable_records_by_cluster_the_highest_loss_first():
    pool = PoolView(
        np.array([1, -1, 1, -1, 0, 1], np.int32),
        np.array([0, 2, 0, 0, 3, 1], np.int32),
        np.array([1.0, 5.0, 2.0, np.nan, 3.0, 4.0]),
        np.full(6, 0.5),
        np.array([9, 1, 2, 1, 1, 1], np.int32),
    )
    index = pool.index
    assert index.labels.tolist() == [[-1, 2], [0, 3], [1, 0], [1, 1]]
    assert index.starts.tolist() == [0, 1, 2, 4, 5]
    assert pool.by_loss.tolist() == [1, 4, 2, 0, 5]
    assert pool.by_information.tolist() == [1, 4, 0, 2, 5]
    assert index.cluster_of(pool.difficulty[[5, 1]], pool.task[[5, 1]]).tolist() == [3, 0]


def test_a_sample_without_an_offline_loss_cannot_be_recorded_as_used():
    zero, lost = np.array([0], np.int32), np.array([np.nan])
    pool = PoolView(zero - 1, zero, lost, lost, zero)
    with pytest.raises(ValueError, match="without a finite offline loss"):
        record_use(pool, init_selection(pool), np.array([0]), np.array([1.0]))
