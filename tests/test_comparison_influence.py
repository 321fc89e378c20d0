"""What is left of a difference without the held-out record that it hangs on most."""

import numpy as np
import pytest

from lead_core.comparison.influence import spread_over_records


def cell(**sources):
    return {
        "heldout": {
            "by_record": {
                source: {f"{source}{place}": loss for place, loss in enumerate(losses)}
                for source, losses in sources.items()
            }
        }
    }


def test_one_record_can_decide_between_two_selectors():
    baseline = [cell(chat=[1.0, 1.0, 1.0, 3.0]), cell(chat=[1.2, 1.0, 1.0, 3.0])]
    proposed = [cell(chat=[0.9, 0.9, 0.9, 9.0]), cell(chat=[0.9, 0.9, 0.9, 9.0])]
    spread = spread_over_records(proposed, baseline)  # in the mean 1.4 worse, with all four
    assert spread.lower == 0.75
    left = spread.without_one
    assert (left.difference, left.n) == (pytest.approx(-0.4 / 3), 2)
    assert (left.base, left.tuned) == (pytest.approx(3.1 / 3), pytest.approx(0.9))


def test_a_record_of_a_small_source_weighs_more():
    # 0.3 of two records moves the average of sources by 0.15, 0.4 of four by 0.1
    baseline = cell(code=[1.0, 1.0], chat=[1.0, 1.0, 1.0, 1.0])
    proposed = cell(code=[1.3, 1.0], chat=[1.4, 1.0, 1.0, 1.0])
    left = spread_over_records([proposed], [baseline]).without_one
    assert left.difference == pytest.approx(0.1 / 2)
    assert left.low is None


def test_leaving_out_by_hand_gives_the_same():
    rng = np.random.default_rng(0)
    sizes = {"a": 5, "b": 3, "c": 9}

    def draw():
        return {name: rng.normal(size=size) for name, size in sizes.items()}

    ours, theirs = [draw() for _ in range(4)], [draw() for _ in range(4)]

    def macro(losses, source, place):
        return np.mean(
            [np.delete(v, place).mean() if k == source else v.mean() for k, v in losses.items()]
        )

    def change(source, place):
        pairs = zip(ours, theirs, strict=True)
        return np.mean([macro(a, source, place) - macro(b, source, place) for a, b in pairs])

    whole = np.mean(
        [
            np.mean([a[k].mean() - b[k].mean() for k in sizes])
            for a, b in zip(ours, theirs, strict=True)
        ]
    )
    changes = [change(source, place) for source, size in sizes.items() for place in range(size)]
    expected = max(changes, key=lambda value: abs(value - whole))
    left = spread_over_records([cell(**x) for x in ours], [cell(**x) for x in theirs]).without_one
    assert left.difference == pytest.approx(expected)


def test_cells_older_than_losses_by_record_or_of_other_records_have_none():
    old = {"heldout": {"macro": 1.0}}
    assert spread_over_records([old], [cell(a=[1.0, 2.0])]) is None
    assert spread_over_records([cell(a=[1.0])], [cell(a=[2.0, 1.0])]) is None
    assert spread_over_records([cell()], [cell()]) is None
    assert spread_over_records([], []) is None


def test_nothing_is_left_of_a_source_without_its_single_record():
    spread = spread_over_records([cell(a=[1.0], b=[2.0, 4.0])], [cell(a=[2.0], b=[3.0, 3.0])])
    assert (spread.lower, spread.without_one) == (pytest.approx(2 / 3), None)
