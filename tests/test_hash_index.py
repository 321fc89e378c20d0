import random

from hypothesis import given
from hypothesis import strategies as st

from lead_core.hash_index import HashIndex

SMALLEST = 1 << 14  # bytes: 1,024 slots


@given(st.lists(st.integers(1, 2**64 - 1) | st.integers(2, 30)))  # 0 stands for 1
def test_below_its_bound_it_knows_every_first_place(keys):
    index, first = HashIndex(SMALLEST), {}
    for place, key in enumerate(keys):
        assert index.first_place(key, place) == first.get(key)
        first.setdefault(key, place)
    repeats = index.repeats()
    assert (repeats.observed, repeats.estimate) == (len(keys) - len(first),) * 2
    assert (repeats.standard_error, repeats.exact) == (0, True)


def test_sixteen_bytes_a_slot_filled_to_three_quarters():
    assert HashIndex(SMALLEST).capacity == 768
    assert HashIndex(64 << 20 >> 2).capacity == 786_432
    assert HashIndex((1 << 20) - 1).capacity == 3 * (1 << 15) // 4  # rounded down


def test_it_grows_up_to_its_bound_and_stays_exact_so_far():
    rng = random.Random(0)
    index = HashIndex(1 << 18)
    keys = [rng.getrandbits(64) for _ in range(index.capacity)]
    assert all(index.first_place(key, place) is None for place, key in enumerate(keys))
    assert [index.first_place(key, 0) for key in keys] == list(range(len(keys)))
    assert index.repeats().exact


def test_beyond_its_bound_it_estimates_and_never_calls_a_repeat_what_is_none():
    rng = random.Random(0)
    index, seen, repeats = HashIndex(SMALLEST), {}, 0
    keys = [rng.getrandbits(64) for _ in range(30_000)]
    stream = keys + rng.sample(keys, 12_000)
    rng.shuffle(stream)
    for place, key in enumerate(stream):
        found = index.first_place(key, place)
        assert found is None or found == seen[key]
        repeats += key in seen
        seen.setdefault(key, place)
    estimated = index.repeats()
    assert not estimated.exact
    assert len(index._keys) == 1024
    assert 0 < estimated.observed < repeats == 12_000
    assert abs(estimated.estimate - repeats) < 3 * estimated.standard_error
    assert estimated.standard_error < 0.15 * repeats


def test_what_is_not_followed_any_more_is_said():
    index = HashIndex(SMALLEST)
    high, low = 1 << 63, 1
    assert index.follows(high)
    rng = random.Random(0)
    for place in range(2000):
        index.first_place(rng.getrandbits(64), place)
    assert not index.follows(high)
    assert index.follows(low)
    assert index.first_place(high, 0) is None
    assert index.first_place(high, 1) is None
