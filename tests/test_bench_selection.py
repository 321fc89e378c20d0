import json

import pytest

from lead_core.bench.result import as_json, table_rows
from lead_core.bench.selection import PoolRounds, SelectionResult, measure_selection


def test_a_round_is_measured_against_a_naive_sort_that_picks_the_same():
    lead, informative = measure_selection([3000], rounds=4).pools
    assert (lead.selector, informative.selector) == ("lead", "informative")


@pytest.mark.parametrize("place", [0, 1])
def test_rounds_keep_to_the_budget_and_the_state_is_small(place):
    pool = measure_selection([3000], rounds=4).pools[place]
    assert pool.samples == 3000
    assert pool.task_clusters > 500
    assert len(pool.picked) == len(pool.rounds) == len(pool.naive) == 4
    assert all(pool.picked)
    assert sum(pool.picked) <= 0.025 * 3000 * 4
    assert pool.bytes_per_sample == 40  # two labels, loss, IFD, length, order; utility and uses


def test_figures_carry_the_targets_of_the_sizes_that_have_one():
    known = PoolRounds("lead", 600_000, 900, 0.5, 38.0, (8, 8), (0.001, 0.004), (0.1, 0.2))
    other = PoolRounds("lead", 1000, 900, 0.5, 38.0, (8,), (0.001,), (0.1,))
    result = SelectionResult((known, other))
    rows = table_rows("selection", result)
    assert rows[0][1:] == ("lead, 600,000 samples, a round", "2.5 ms", "1 to 4", "at most 5: met")
    assert rows[1][1:] == ("lead, 600,000 samples, naive over ours", "75 x", "50 to 100", "")
    assert rows[2][-1] == "at most 40: met"
    assert rows[4][-1] == ""
    assert json.loads(json.dumps(as_json(result)))["pools"][0]["naive"] == [0.1, 0.2]


def test_a_pick_that_differs_from_the_naive_sort_is_an_error(monkeypatch):
    monkeypatch.setattr(
        "lead_core.bench.selection._sorted_top", lambda values, members, n: members[:n]
    )
    with pytest.raises(RuntimeError, match="differs from a naive sort"):
        measure_selection([3000], rounds=2)
