import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest, ttest_rel

from lead_core.statistics import exact_mcnemar, holm, paired_difference, paired_t_p

VALUES = st.floats(-1e3, 1e3)


def test_the_interval_agrees_with_one_computed_by_hand():
    # Differences -1, -2, -3: mean -2, standard deviation 1, t(0.975; 2) = 4.302653.
    pair = paired_difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (pair.base, pair.tuned, pair.difference, pair.n) == (4.0, 2.0, -2.0, 3)
    assert pair.low == pytest.approx(-2 - 4.302653 / 3**0.5, abs=1e-6)
    assert pair.high == pytest.approx(-2 + 4.302653 / 3**0.5, abs=1e-6)


def test_a_narrower_confidence_gives_a_narrower_interval():
    wide = paired_difference([1.0, 2.0, 4.0], [1.0, 1.0, 1.0])
    narrow = paired_difference([1.0, 2.0, 4.0], [1.0, 1.0, 1.0], confidence=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_one_item_has_a_difference_but_no_interval():
    pair = paired_difference([2.0], [1.5])
    assert (pair.difference, pair.low, pair.high, pair.n) == (-0.5, None, None, 1)


def test_equal_changes_give_an_interval_of_no_width():
    pair = paired_difference([1.0, 2.0, 3.0], [0.5, 1.5, 2.5])
    assert pair.low == pair.high == pair.difference == -0.5


@pytest.mark.parametrize(("base", "tuned"), [([], []), ([1.0], [1.0, 2.0])])
def test_nothing_to_pair_is_an_error(base, tuned):
    with pytest.raises(ValueError, match="equally long"):
        paired_difference(base, tuned)


def test_the_interval_covers_the_true_change_in_95_of_100_cases():
    rng = np.random.default_rng(0)
    base, changes = rng.normal(size=(2000, 12)), rng.normal(0.3, 1, size=(2000, 12))
    pairs = [paired_difference(a, a + c) for a, c in zip(base, changes, strict=True)]
    covered = sum(pair.low <= 0.3 <= pair.high for pair in pairs)
    # Binomial(2000, 0.95): mean 1900, standard deviation 9.7; four of them.
    assert abs(covered - 1900) < 39


@given(arrays(np.float64, 8, elements=VALUES), arrays(np.float64, 8, elements=VALUES))
def test_exchanging_the_two_only_changes_signs(first, second):
    pair, back = paired_difference(first, second), paired_difference(second, first)
    assert pair.low <= pair.difference <= pair.high
    assert (pair.difference, pair.low, pair.high) == pytest.approx(
        (-back.difference, -back.high, -back.low)
    )


def outcomes(up, down, right, wrong):
    """0/1 outcomes of two models: `up` items became right, `down` wrong, the others stayed."""
    base = [0] * up + [1] * down + [1] * right + [0] * wrong
    tuned = [1] * up + [0] * down + [1] * right + [0] * wrong
    return base, tuned


@pytest.mark.parametrize(
    ("up", "down", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 * 1/2
        (5, 0, 0.0625),  # 2 / 2^5
        (0, 6, 0.03125),
        (7, 1, 2 * 9 / 256),
        (4, 4, 1.0),  # 2 * P(X <= 4) is more than 1
    ],
)
def test_mcnemars_exact_p_against_hand_computed_values(up, down, p):
    assert exact_mcnemar(*outcomes(up, down, 10, 3)) == pytest.approx(p)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemars_exact_p_is_the_binomial_test_and_takes_no_side(up, down):
    p = exact_mcnemar(*outcomes(up, down, 1, 1))
    assert p == pytest.approx(exact_mcnemar(*outcomes(down, up, 5, 0)))
    if up + down:
        assert p == pytest.approx(binomtest(up, up + down).pvalue)


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=3, max_size=12))
def test_the_p_of_a_paired_difference_is_that_of_the_paired_t_test(pairs):
    first, second = (np.array(values) for values in zip(*pairs, strict=True))
    assume((second - first).std() > 1e-3)
    expected = ttest_rel(second, first).pvalue
    assert paired_t_p(paired_difference(first, second)) == pytest.approx(expected, abs=1e-9)


def test_a_single_item_has_no_p_and_equal_changes_have_a_sure_one():
    assert paired_t_p(paired_difference([1.0], [2.0])) is None
    assert paired_t_p(paired_difference([1.0, 2.0], [1.5, 2.5])) == 0
    assert paired_t_p(paired_difference([1.0, 2.0], [1.0, 2.0])) == 1


def test_holms_correction_by_hand():
    # sorted 0.01, 0.03, 0.04: times 3, 2, 1 is 0.03, 0.06, 0.04, and none below one before it
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
