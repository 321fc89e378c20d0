import math

import pytest

from lead_core.comparison.overlap import overlap_of_picks


def cell(selector: str, seed: int, selected: list[str]) -> dict:
    return {"selector": selector, "seed": seed, "selected": selected}


def test_shares_are_of_the_rows_distinct_samples_over_shared_seeds():
    shares = overlap_of_picks(
        [
            cell("lead", 0, ["a", "a", "b"]),  # twice the same sample counts once
            cell("lead", 1, ["a", "c"]),
            cell("random", 0, ["a", "b", "x", "y"]),
            cell("random", 1, ["p", "q", "c", "r"]),
            cell("random", 2, ["a", "b", "c", "d"]),  # no such seed of lead
        ]
    )
    assert shares.loc["lead", "random"] == pytest.approx((1 + 1 / 2) / 2)
    assert shares.loc["random", "lead"] == pytest.approx((2 / 4 + 1 / 4) / 2)


def test_the_diagonal_holds_the_seeds_of_one_selector_against_each_other():
    shares = overlap_of_picks(
        [
            cell("ifd", 0, ["a", "b"]),
            cell("ifd", 1, ["b", "a"]),
            cell("lead", 0, ["a", "b"]),
            cell("lead", 1, ["a", "c", "d", "e"]),
            cell("idu", 0, ["a"]),
        ]
    )
    assert shares.loc["ifd", "ifd"] == 1
    assert shares.loc["lead", "lead"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert math.isnan(shares.loc["idu", "idu"])


def test_selectors_without_a_shared_seed_have_no_overlap_and_full_is_left_out():
    shares = overlap_of_picks(
        [cell("lead", 0, ["a"]), cell("random", 1, ["a"]), cell("full", 0, ["a", "b"])]
    )
    assert list(shares.index) == list(shares.columns) == ["lead", "random"]
    assert math.isnan(shares.loc["lead", "random"])
