"""Estimates beside the loop: the loop's own setting is the loop, the naive ones are what they say."""

from dataclasses import replace

import numpy as np
import pytest
from test_rounds import UTILITY, make_loop

from lead_core.fidelity import (
    LAST_SEEN,
    STALE,
    Estimator,
    SeenRound,
    compare,
    draw_probe,
    estimators_for,
    init_shadow,
    read_round,
    update_shadow,
)
from lead_core.selectors import SelectionSettings

BLIND = {"selector": "stratified", "settings": SelectionSettings(0.1, 0.5, 0.3, 8, 3, 0.5)}
OWN = Estimator("displacement", False, 0.1, False)
LOSS = np.array([4.0, 3.0, 2.0, 1.0])
CLUSTERS = np.array([[0, 0], [0, 0], [0, 1], [0, 0]], dtype=np.int32)
SEEN = SeenRound(  # two samples, one step each
    indices=np.array([0, 1]),
    steps=np.array([0, 1]),
    loss_seen=np.array([3.5, 2.5]),
    predicted=-0.8,
    displacement=np.array([-0.4, -0.1]),
    learning_rates=np.array([3.0, 1.0]),
)


def after_one_round(estimator: Estimator) -> np.ndarray:
    state = update_shadow(init_shadow((estimator,), LOSS), SEEN, CLUSTERS, 2.0)
    return state.estimates[estimator]


@pytest.mark.parametrize(
    ("loss_change", "whole", "expected"),
    [
        ("none", False, [3.5, 2.5]),
        ("displacement", False, [3.1, 2.4]),
        ("displacement", True, [3.1, 2.1]),
        ("paper", False, [2.7, 2.3]),  # the second sample's step has a quarter of the rates
        ("paper", True, [2.7, 1.7]),
    ],
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_every_variant_computed_by_hand(loss_change, whole, expected, smoothing):
    estimate = after_one_round(Estimator(loss_change, whole, smoothing, False))
    mixed = (1 - smoothing) * np.array(expected) + smoothing * LOSS[:2]
    np.testing.assert_allclose(estimate, [*mixed, 2.0, 1.0], rtol=1e-14)


def test_the_naive_estimates_are_the_ends_of_the_same_update():
    rules = {rule.name: rule for rule in estimators_for(0.1)}
    np.testing.assert_array_equal(after_one_round(rules[STALE]), LOSS)
    np.testing.assert_array_equal(after_one_round(rules[LAST_SEEN]), [3.5, 2.5, 2.0, 1.0])


def test_drift_moves_only_unvisited_neighbours():
    # drops 0.9 and 0.6 of cluster (0, 0), against two samples that did not move: 1.5 / 4
    drifted = after_one_round(Estimator("displacement", False, 0.0, True))
    np.testing.assert_allclose(drifted, [3.1, 2.4, 2.0, 1.0 - 0.375], rtol=1e-14)


def test_estimators_have_names_of_their_own_at_any_smoothing():
    for smoothing in (0.0, 0.1):
        rules = estimators_for(smoothing)
        assert len({rule.name for rule in rules}) == len(rules)


def test_figures_computed_by_hand():
    # ranks 1 2 4 3 against 1 2 3 4: 1 - 6 * 2 / (4 * 15) = 0.8; errors 1, 0, 2, -1
    figures = compare(np.array([2.0, 2.5, 5.0, 3.0]), np.array([1.0, 2.5, 3.0, 4.0]))
    assert figures.spearman == pytest.approx(0.8)
    assert (figures.mae, figures.bias, figures.n) == (1.0, 0.5, 4)


def test_a_perfect_estimate_has_rank_correlation_one_and_no_error():
    figures = compare(LOSS, LOSS)
    assert figures.spearman == pytest.approx(1.0)
    assert figures.mae == figures.bias == 0.0


def test_a_rank_correlation_that_is_not_defined_is_none():
    assert compare(np.array([2.0]), np.array([1.0])).spearman is None
    assert compare(np.array([2.0, 2.0]), np.array([1.0, 3.0])).spearman is None
    assert compare(np.array([]), np.array([])) is None


def test_the_probe_is_drawn_without_repeats_and_is_all_when_there_are_fewer():
    candidates = np.arange(10, 20)
    drawn = draw_probe(candidates, 5, np.random.default_rng(0))
    assert len(set(drawn)) == 5
    assert set(drawn) <= set(candidates)
    np.testing.assert_array_equal(draw_probe(candidates, 99, np.random.default_rng(0)), candidates)


def estimates_after(loop, reports, *rules: Estimator) -> list[np.ndarray]:
    """Return what each rule estimates after a loop's rounds."""
    places = {name: place for place, name in enumerate(loop.pool.ids)}
    state = init_shadow(rules, loop.pool.view.loss)
    for report in reports:
        seen = read_round(report, places, loop.trainer.learning_rate_at)
        state = update_shadow(state, seen, loop.pool.view.clusters, UTILITY.drift_prior_samples)
    return [state.estimates[rule] for rule in rules]


def test_the_loops_own_setting_reproduces_its_utilities_exactly(tmp_path):
    loop, reports = make_loop(tmp_path)
    utility = loop.run().selection.utility
    (estimate,) = estimates_after(loop, reports, OWN)
    np.testing.assert_array_equal(estimate, utility)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A loop of rounds of two steps whose rule looks at no utility, and its reports."""
    loop, reports = make_loop(tmp_path_factory.mktemp("plain"), **BLIND)
    loop.run()
    return loop, reports


@pytest.mark.parametrize("drift", [False, True])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("change", ["paper", "displacement", "none"])
def test_every_setting_gives_the_utilities_of_a_loop_that_has_it(
    plain, tmp_path, change, whole, drift
):
    utility = replace(UTILITY, loss_change=change, charge_whole_round=whole, drift=drift)
    other, reports = make_loop(tmp_path, utility=utility, **BLIND)
    expected = other.run().selection.utility
    assert max(report.round["steps"] for report in reports) > 1
    (estimate,) = estimates_after(*plain, Estimator(change, whole, 0.1, drift))
    np.testing.assert_array_equal(estimate, expected)


def test_the_published_change_is_read_off_the_record_exactly(tmp_path):
    loop, reports = make_loop(tmp_path, utility=replace(UTILITY, loss_change="paper"))
    loop.run()
    places = {name: place for place, name in enumerate(loop.pool.ids)}
    for report in reports:
        seen = read_round(report, places, loop.trainer.learning_rate_at)
        assert seen.predicted == report.round["loss_change"]
    assert any(report.round["beta"] for report in reports)
