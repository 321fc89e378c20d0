import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lead_core.utility import (
    GradientSummary,
    cluster_drift,
    combined_sq_norm,
    cosine,
    drift_unvisited,
    init_memory,
    minimum_norm_weight,
    predict_change,
    remember,
    share_of_round,
    update_utility,
)

norms = st.floats(0, 1e6)
cosines = st.floats(-1, 1)


def summary(*vector: float) -> GradientSummary:
    """A gradient that is its own sketch."""
    values = np.array(vector)
    return GradientSummary(float(values @ values), values)


def test_utility_smooths_loss_seen_plus_loss_change():
    # 0.9 * (2 - 0.5) + 0.1 * 3 = 1.65
    u = update_utility(np.array([3.0]), np.array([2.0]), np.array([-0.5]), 0.1)
    np.testing.assert_allclose(u, [1.65], rtol=1e-15)


def test_without_smoothing_utility_forgets_and_with_full_smoothing_it_stays():
    before, seen, change = np.array([3.0]), np.array([2.0]), np.array([-0.5])
    assert update_utility(before, seen, change, 0.0)[0] == 1.5
    assert update_utility(before, seen, change, 1 - 1e-12)[0] == pytest.approx(3.0)


def test_utility_is_not_clamped():
    assert update_utility(np.array([0.0]), np.array([0.1]), np.array([-1.0]), 0.0)[0] < 0


def test_beta_of_orthogonal_gradients_weighs_the_shorter_one_more():
    # d_k = 1, d_p = 4, cos 0: beta = 4 / 5; the combination has norm^2 4/5
    beta = minimum_norm_weight(1.0, 4.0, 0.0)
    assert beta == pytest.approx(0.8)
    assert combined_sq_norm(1.0, 4.0, 0.0, beta) == pytest.approx(0.8)


def test_beta_with_an_angle_computed_by_hand():
    # d_k = 4, d_p = 9, cos 0.5: cross 3; beta = (9 - 3) / (13 - 6) = 6/7
    beta = minimum_norm_weight(4.0, 9.0, 0.5)
    assert beta == pytest.approx(6 / 7)
    # (36/49) 4 + (1/49) 9 + 2 (6/49) 3 = 189/49
    assert combined_sq_norm(4.0, 9.0, 0.5, beta) == pytest.approx(189 / 49)


def test_beta_is_zero_when_both_gradients_are_the_same_round():
    assert minimum_norm_weight(2.0, 2.0, 1.0) == 0.0
    assert minimum_norm_weight(0.0, 0.0, 0.0) == 0.0


@given(norms, norms, cosines)
def test_beta_lies_in_the_unit_interval_and_the_bracket_is_never_negative(d_k, d_p, cos):
    beta = minimum_norm_weight(d_k, d_p, cos)
    assert 0 <= beta <= 1
    assert combined_sq_norm(d_k, d_p, cos, beta) >= 0


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.floats(-0.999, 0.999), st.floats(0, 1))
def test_beta_minimises_the_bracket(d_k, d_p, cos, other):
    beta = minimum_norm_weight(d_k, d_p, cos)
    best = combined_sq_norm(d_k, d_p, cos, beta)
    assert best <= combined_sq_norm(d_k, d_p, cos, other) + 1e-9 * (d_k + d_p)


def test_the_cosine_comes_from_the_sketches_and_is_clipped():
    assert cosine(summary(1.0, 0.0), summary(1.0, 1.0)) == pytest.approx(np.sqrt(0.5))
    assert cosine(summary(3.0, 4.0), summary(3.0, 4.0)) == 1.0
    assert cosine(summary(0.0, 0.0), summary(3.0, 4.0)) == 0.0


def test_the_first_round_has_no_loss_change():
    change = predict_change(init_memory(2), 0, 0.1)
    assert change.loss_change == 0.0
    assert change.beta is None


def test_an_arm_never_drawn_before_uses_the_last_round_alone():
    memory = remember(init_memory(2), 0, summary(3.0, 4.0))
    change = predict_change(memory, 1, 0.1)
    assert change.beta == 0.0
    assert change.sq_norm_arm is None
    assert change.loss_change == pytest.approx(-0.1 * 25)


def test_the_published_loss_change_computed_by_hand():
    memory = remember(init_memory(2), 0, summary(2.0, 0.0))  # arm 0: d_k = 4
    memory = remember(memory, 1, summary(0.0, 3.0))  # last round: d_p = 9, orthogonal
    change = predict_change(memory, 0, 0.5)
    # beta = 9/13, bracket 36/13
    assert change.beta == pytest.approx(9 / 13)
    assert change.loss_change == pytest.approx(-0.5 * 36 / 13)


def test_memory_keeps_the_last_round_of_each_arm():
    memory = remember(init_memory(2), 0, summary(1.0))
    memory = remember(memory, 0, summary(2.0))
    memory = remember(memory, 1, summary(3.0))
    assert [s.sq_norm for s in memory.of_arm] == [4.0, 9.0]
    assert memory.previous.sq_norm == 9.0


def test_a_sample_is_charged_its_own_step_and_the_later_ones():
    rates = np.array([3.0, 2.0, 1.0])
    shares = share_of_round(rates, np.array([0, 1, 2, 2]))
    np.testing.assert_allclose(shares, [1.0, 0.5, 1 / 6, 1 / 6])


def test_drift_is_the_mean_drop_shrunk_towards_none():
    # drops 1 and 3 against two samples that did not move: 4 / 4
    assert cluster_drift(np.array([1.0, 3.0]), 2.0) == 1.0


def test_drift_moves_the_unvisited_part_of_each_trained_task_cluster():
    clusters = np.array([[0, 0], [0, 0], [0, 0], [0, 1], [0, 1], [1, 0]], dtype=np.int32)
    visited = np.array([True, False, True, True, False, False])
    utility = np.array([5.0, 5.0, 5.0, 5.0, 5.0, 5.0])
    trained, drops = np.array([0, 3]), np.array([1.0, -3.0])
    # one sample each against two that did not move: 1/3 and -1; sample 2 was trained earlier
    shifted = drift_unvisited(utility, visited, clusters, trained, drops, 2.0)
    np.testing.assert_allclose(shifted, [5.0, 5 - 1 / 3, 5.0, 5.0, 6.0, 5.0])
    np.testing.assert_array_equal(utility, 5.0)
