"""The default rule by hand: what information is, how a round is spread, what is taken first."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lead_core.selectors import PoolView, Quota, SelectionSettings, get_selector
from lead_core.selectors.contract import init_selection, record_use
from lead_core.selectors.shares import draw_shares, expected_shares

SETTINGS = SelectionSettings(
    exploration=0.1,
    step_size=1.0,
    round_fraction=0.01,
    min_round=4,
    max_uses=2,
    cluster_size_power=0.5,
)


def make_pool(sizes, *, tokens=None, ifd=0.5) -> PoolView:
    """One difficulty cluster with task clusters of these sizes; every loss is 1."""
    n = sum(sizes)
    return PoolView(
        np.zeros(n, np.int16),
        np.repeat(np.arange(len(sizes)), sizes).astype(np.int32),
        np.ones(n),
        np.broadcast_to(np.asarray(ifd, dtype=float), n).copy(),
        np.arange(1, n + 1, dtype=np.int32) if tokens is None else np.asarray(tokens, np.int32),
    )


def pick(pool, quota, seed=0, state=None):
    state = state or init_selection(pool)
    rng = np.random.default_rng(seed)
    return get_selector("informative").pick(pool, state, SETTINGS, quota, rng).indices


def test_information_is_the_log_likelihood_that_the_prompt_adds():
    # log p(r|q) = -10 tokens * 2 nats, log p(r) = -10 * 2 / 0.5: the prompt is worth 20 nats
    pool = PoolView(
        np.array([0, 0, -1, 0], np.int16),
        np.zeros(4, np.int32),
        np.array([2.0, 3.0, 4.0, 0.0]),
        np.array([0.5, 0.75, 1.25, 0.0]),
        np.array([10, 4, 5, 3], np.int32),
    )
    found = pool.information()
    assert found.tolist() == [20.0, 4.0, pytest.approx(-4.0), -np.inf]


def test_the_highest_information_of_a_cluster_comes_first_and_none_twice():
    pool = make_pool([6], tokens=[3, 9, 1, 7, 5, 2])
    state = init_selection(pool)
    first = pick(pool, Quota(6, 6), state=state)
    assert first.tolist() == [1, 3, 4, 0]
    state = record_use(pool, state, first, np.zeros(4))
    assert pick(pool, Quota(2, 2), state=state).tolist() == [5, 2]


def test_a_long_response_that_ignores_its_prompt_comes_last():
    # 90 tokens with an IFD of 0.99 are worth 0.9 nats, 5 tokens with 0.5 are worth 5
    pool = make_pool([5], tokens=[5, 90, 5, 5, 5], ifd=[0.5, 0.99, 0.5, 0.5, 0.5])
    assert 1 not in pick(pool, Quota(4, 4))


def test_clusters_expect_shares_by_the_root_of_their_sizes():
    pool = make_pool([400, 100, 25])
    counts = np.zeros(3)
    for seed in range(600):
        counts += np.bincount(pool.task[pick(pool, Quota(99, 99), seed)], minlength=3)
    # 6 samples (1 % of 525) by 20 : 10 : 5; a count is rounded up or down, its variance at most 1/4
    expected = 6 * np.array([20, 10, 5]) / 35
    np.testing.assert_allclose(counts / 600, expected, atol=4 * 0.5 / np.sqrt(600))


def test_a_round_is_as_large_as_one_of_lead_from_an_average_arm():
    pool = make_pool([500, 500])
    assert len(pick(pool, Quota(999, 999))) == 10  # 1 % of 1,000 in one arm
    halves = PoolView(
        np.repeat([0, 1], 500).astype(np.int16),
        pool.task,
        pool.loss,
        pool.ifd,
        pool.response_tokens,
    )
    assert len(pick(halves, Quota(999, 999))) == 5


@pytest.mark.parametrize(
    ("name", "first"), [("informative", [2, 0]), ("informative-longest", [1, 0])]
)
def test_what_comes_first_inside_a_cluster(name, first):
    pool = make_pool([3], tokens=[20, 30, 10], ifd=[0.5, 0.9, 0.2])  # 20, 3.3 and 40 nats
    rules = replace(SETTINGS, min_round=2)
    rng = np.random.default_rng(0)
    picks = get_selector(name).pick(pool, init_selection(pool), rules, Quota(9, 9), rng)
    assert picks.indices.tolist() == first


def test_at_random_inside_clusters_any_sample_may_come():
    pool, rules = make_pool([8, 8]), replace(SETTINGS, min_round=4)
    seen = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        picks = get_selector("informative-random").pick(
            pool, init_selection(pool), rules, Quota(9, 9), rng
        )
        assert np.bincount(pool.task[picks.indices]).tolist() == [2, 2]
        seen |= set(picks.indices.tolist())
    assert seen == set(range(16))


def test_records_set_aside_are_never_picked():
    pool = make_pool([4, 4])
    aside = PoolView(
        np.repeat([0, -1], 4).astype(np.int16), pool.task, pool.loss, pool.ifd, pool.response_tokens
    )
    assert sorted(pick(aside, Quota(8, 8)).tolist()) == [0, 1, 2, 3]


def test_what_a_full_cluster_cannot_take_goes_to_the_others():
    # 12 by 1 : 1 : 2 would be 3, 3, 6; two clusters hold less
    found = expected_shares(np.array([1.0, 1.0, 2.0]), np.array([1, 9, 4]), 12)
    assert found.tolist() == [1.0, 7.0, 4.0]
    with pytest.raises(ValueError, match="cannot divide 6 among groups that hold 5"):
        expected_shares(np.ones(2), np.array([2, 3]), 6)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.floats(0.1, 99)), min_size=1, max_size=9),
    st.data(),
    st.integers(0, 999),
)
def test_shares_add_up_and_fit_whatever_the_clusters(groups, data, seed):
    counts = np.array([count for count, _ in groups])
    weights = np.array([weight for _, weight in groups])
    n = data.draw(st.integers(0, int(counts.sum())))
    expected = expected_shares(weights, counts, n)
    shares = draw_shares(expected, np.random.default_rng(seed))
    assert shares.sum() == n
    assert (shares <= counts).all()
    assert (abs(shares - expected) < 1).all()
