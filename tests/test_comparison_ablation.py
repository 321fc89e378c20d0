import pytest

from lead_core.comparison.ablation import ablations


def cell(selector: str, seed: int, loss: float) -> dict:
    return {"selector": selector, "seed": seed, "heldout": {"macro": loss}}


def test_each_part_is_held_against_the_whole_rule_seed_by_seed():
    found = ablations(
        [
            cell("lead", 0, 1.5),
            cell("lead", 1, 1.4),
            cell("lead", 2, 1.0),
            cell("lead-no-bandit", 0, 1.4),
            cell("lead-no-bandit", 1, 1.5),
            cell("lead-no-loss-change", 0, 1.8),
            cell("random", 0, 1.2),
        ]
    )
    assert [item.part for item in found] == ["loss change", "bandit"]
    assert found[0].changes == pytest.approx((0.3,))
    assert found[0].versus.low is None
    assert found[1].changes == pytest.approx((-0.1, 0.1))
    assert found[1].versus.difference == pytest.approx(0)
    assert found[1].versus.n == 2


def test_without_the_whole_rule_there_is_nothing_to_hold_against():
    assert ablations([cell("lead-no-bandit", 0, 1.4), cell("random", 0, 1.2)]) == []
    assert ablations([cell("lead-no-bandit", 1, 1.4), cell("lead", 0, 1.2)]) == []
