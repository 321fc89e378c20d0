import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lead_core.bandit import (
    BanditState,
    arm_probabilities,
    draw_arm,
    init_bandit,
    update_bandit,
)

ALL = np.ones(3, dtype=bool)


def test_probabilities_mix_weights_with_exploration():
    # w = (1, 3), gamma = 0.1: p = 0.9 * (1/4, 3/4) + 0.1 / 2
    state = BanditState(np.log([1.0, 3.0]))
    p = arm_probabilities(state, np.ones(2, dtype=bool), 0.1)
    np.testing.assert_allclose(p, [0.275, 0.725], rtol=1e-12)


def test_an_arm_without_eligible_samples_has_probability_zero_and_is_not_counted():
    # w = (1, 3, 4) without arm 1: sum 5, K' = 2
    state = BanditState(np.log([1.0, 3.0, 4.0]))
    p = arm_probabilities(state, np.array([True, False, True]), 0.1)
    np.testing.assert_allclose(p, [0.9 / 5 + 0.05, 0.0, 0.9 * 4 / 5 + 0.05], rtol=1e-12)


def test_no_eligible_arm_is_an_error():
    with pytest.raises(ValueError, match="no eligible arm"):
        arm_probabilities(init_bandit(2), np.zeros(2, dtype=bool), 0.1)


def test_the_drawn_arm_gains_the_importance_weighted_reward():
    # step 0.1 / K' 2 * R' 0.5 / p 0.25 = 0.1
    state = update_bandit(BanditState(np.zeros(2)), 0, 0.5, 0.25, 2, 0.1)
    assert state.log_weights[0] - state.log_weights[1] == pytest.approx(0.1, abs=1e-15)


def test_at_the_papers_setting_an_always_best_arm_reaches_only_17_percent_in_12_rounds():
    """The issue's figure: gamma 0.1, K = 7, R' = 1 on every draw of one arm, drawn every round."""
    state = init_bandit(7)
    for _ in range(12):
        p = arm_probabilities(state, np.ones(7, dtype=bool), 0.1)
        state = update_bandit(state, 0, 1.0, p[0], 7, 0.1)
    p = arm_probabilities(state, np.ones(7, dtype=bool), 0.1)
    assert 0.25 < p[0] < 0.35  # if it is drawn in every one of the 12 rounds
    state = init_bandit(7)
    for _ in range(2):  # 12 rounds of uniform draws pick it about twice
        p = arm_probabilities(state, np.ones(7, dtype=bool), 0.1)
        state = update_bandit(state, 0, 1.0, p[0], 7, 0.1)
    assert arm_probabilities(state, np.ones(7, dtype=bool), 0.1)[0] == pytest.approx(
        0.168, abs=0.003
    )


@given(
    arrays(np.float64, 5, elements=st.floats(-1e6, 1e6)),
    arrays(np.bool_, 5).filter(lambda a: bool(a.any())),
    st.floats(0.01, 1),
)
def test_probabilities_sum_to_one_and_respect_eligibility(log_weights, eligible, exploration):
    p = arm_probabilities(BanditState(log_weights), eligible, exploration)
    assert p.sum() == pytest.approx(1)
    assert (p[~eligible] == 0).all()
    assert (p[eligible] >= exploration / eligible.sum() * (1 - 1e-9)).all()


def test_a_million_rounds_keep_the_weights_finite():
    state = init_bandit(3)
    for _ in range(1_000_000):
        state = update_bandit(state, 1, 1.0, 0.05, 3, 0.5)
    p = arm_probabilities(state, ALL, 0.1)
    assert np.isfinite(state.log_weights).all()
    np.testing.assert_allclose(p, [0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3])


def test_draws_follow_the_probabilities():
    rng = np.random.default_rng(0)
    p = np.array([0.2, 0.0, 0.8])
    counts = np.bincount([draw_arm(p, rng) for _ in range(5000)], minlength=3)
    assert counts[1] == 0
    assert abs(counts[0] - 1000) < 5 * np.sqrt(5000 * 0.2 * 0.8)


def test_a_draw_at_the_upper_edge_stays_on_an_arm_that_can_be_drawn():
    class Edge:
        def random(self):
            return 1.0

    assert draw_arm(np.array([0.5, 0.5, 0.0]), Edge()) == 1


def exp3_regret(rewards: np.ndarray, gamma: float, seed: int) -> float:
    """Regret of EXP3 in its original form on rewards in [0, 1], [T, K]."""
    k = rewards.shape[1]
    rng, state, earned = np.random.default_rng(seed), init_bandit(k), 0.0
    for payoff in rewards:
        p = arm_probabilities(state, np.ones(k, dtype=bool), gamma)
        arm = draw_arm(p, rng)
        earned += payoff[arm]
        state = update_bandit(state, arm, payoff[arm], p[arm], k, gamma)
    return float(rewards.sum(axis=0).max() - earned)


def test_regret_against_a_known_adversary_stays_within_auers_bound():
    """Theorem 3.1 of Auer et al. 2002, for rewards in [0, 1]:

    E[G_max - G] <= (e - 1) gamma G_max + K ln K / gamma.

    The adversary pays arm 0 in the first third of the rounds and arm 2 afterwards. The mean over 20
    seeds has a standard error far below the bound's slack; one seed may differ from the mean by
    about sqrt(T K).
    """
    rounds, k = 3000, 3
    rewards = np.zeros((rounds, k))
    rewards[: rounds // 3, 0] = 1.0
    rewards[rounds // 3 :, 2] = 1.0
    best = rewards.sum(axis=0).max()
    gamma = min(1.0, np.sqrt(k * np.log(k) / ((np.e - 1) * best)))
    bound = (np.e - 1) * gamma * best + k * np.log(k) / gamma
    regrets = [exp3_regret(rewards, gamma, seed) for seed in range(20)]
    assert np.mean(regrets) <= bound
