import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lead_core.length_sketch import RELATIVE_ERROR, LengthSketch, bucket


def sketch(lengths):
    result = LengthSketch()
    for length in lengths:
        result.add(length)
    return result


def test_small_lengths_are_exact():
    assert [sketch([n]).quantile(0.5) for n in range(50)] == list(range(50))
    mixed = sketch([0, 1, 1, 2, 30])
    assert [mixed.quantile(q) for q in (0.2, 0.4, 0.6, 0.8, 1)] == [0, 1, 1, 2, 30]
    assert (mixed.count, mixed.total, mixed.smallest, mixed.largest) == (5, 34, 0, 30)


def test_without_lengths_everything_is_zero():
    empty = LengthSketch()
    assert (empty.quantile(0.5), empty.largest, empty.count_beyond(0, 0)) == (0, 0, (0, 0))


@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=200),
    st.floats(0, 1, exclude_min=True),
)
def test_a_quantile_is_within_one_percent(lengths, share):
    exact = sorted(lengths)[math.ceil(share * len(lengths)) - 1]
    estimate = sketch(lengths).quantile(share)
    assert abs(estimate - exact) <= RELATIVE_ERROR * exact * 1.0001 + 0.5  # and rounding


@given(st.lists(st.integers(0, 10**6), min_size=1), st.randoms())
def test_the_order_of_lengths_does_not_matter(lengths, random):
    shuffled = random.sample(lengths, len(lengths))
    shares = (0.05, 0.5, 0.95)
    assert [sketch(lengths).quantile(q) for q in shares] == [
        sketch(shuffled).quantile(q) for q in shares
    ]


@given(st.lists(st.integers(0, 10**4)), st.integers(0, 10**4), st.integers(0, 10**4))
def test_what_lies_beyond_is_counted_bucket_by_bucket(lengths, low, high):
    below = sum(bucket(n) < bucket(low) for n in lengths)
    above = sum(bucket(n) > bucket(high) for n in lengths)
    assert sketch(lengths).count_beyond(low, high) == (below, above)


def test_a_thousand_buckets_hold_every_length_there_is():
    assert bucket(10**9) - bucket(0) == pytest.approx(1037, abs=2)
