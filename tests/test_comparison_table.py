import math

import pytest

from lead_core.comparison_table import NO_DIFFERENCE, as_markdown, compare

BASE = {"heldout": {"macro": 2.0, "records": 60}}


def cell(selector: str, seed: int, loss: float, *, exchanged: int = 0, selection: int = 0):
    spent = {"sequences": 16, "tokens": 1600}
    return {
        "selector": selector,
        "seed": seed,
        "heldout": {"macro": loss},
        "visits": 16,
        "distinct": 15,
        "steps": 1,
        "ledger": {
            "offline": {"sequences": 400, "tokens": 30000},
            "selection": {"sequences": selection, "tokens": 100 * selection},
            "training": spent,
        },
        "planted": {"exchanged": {"pool": 20, "visits": exchanged, "distinct": exchanged}},
    }


def losses(selector: str, *values: float, **more):
    return [cell(selector, seed, value, **more) for seed, value in enumerate(values)]


def found(*cells):
    flat = [one for group in cells for one in group]
    return compare(flat, BASE, baseline="random", pool_records=200)


def row(result, name):
    return next(row for row in result.rows if row.selector == name)


def test_rows_come_best_first_with_mean_and_spread_over_seeds():
    result = found(losses("random", 1.5, 1.7), losses("lead", 1.2, 1.3))
    assert [r.selector for r in result.rows] == ["lead", "random"]
    assert row(result, "lead").loss == pytest.approx(1.25)
    assert row(result, "random").spread == pytest.approx(math.sqrt(0.02))


def test_differences_are_paired_by_seed_so_that_what_seeds_share_cancels():
    """Differences -0.10, -0.12, -0.08: mean -0.1, sd 0.02, t(2) = 4.303, half width 0.0497."""
    result = found(losses("random", 1.0, 2.0, 3.0), losses("lead", 0.9, 1.88, 2.92))
    versus = row(result, "lead").versus
    assert versus is not None
    assert versus.difference == pytest.approx(-0.1)
    assert (versus.low, versus.high) == pytest.approx((-0.1497, -0.0503), abs=1e-4)
    assert row(result, "lead").verdict == "better than random"


def test_only_shared_seeds_are_paired():
    result = found(losses("random", 1.0, 2.0, 3.0), [cell("ifd", 1, 2.5), cell("ifd", 9, 0.0)])
    versus = row(result, "ifd").versus
    assert versus is not None
    assert (versus.n, versus.difference) == (1, pytest.approx(0.5))
    assert row(result, "ifd").verdict == "too few seeds for an interval"


def test_the_words_say_what_the_interval_says():
    result = found(
        losses("random", 1.0, 1.1, 1.2),
        losses("loss", 1.3, 1.41, 1.5),
        losses("ifd", 1.1, 0.9, 1.3),
    )
    assert row(result, "loss").verdict == "worse than random"
    assert row(result, "ifd").verdict == NO_DIFFERENCE
    assert row(result, "random").verdict == ""


def test_gain_is_measured_in_shares_of_what_training_on_everything_gains():
    result = found(losses("random", 1.5, 1.5), losses("full", 1.0, 1.0))
    assert row(result, "random").recovered == pytest.approx(0.5)
    assert row(found(losses("random", 1.5)), "random").recovered is None


def test_faults_are_shares_of_the_pool_and_of_the_training_samples():
    result = found(losses("random", 1.5, exchanged=2), losses("loss", 1.5, exchanged=8))
    assert result.pool_faults == {"exchanged": 0.1}
    assert row(result, "loss").picked == {"exchanged": 0.5}


def test_the_offline_pass_is_charged_to_the_rules_that_read_it():
    result = found(
        losses("random", 1.5), losses("lead", 1.4), losses("iterative", 1.3, selection=99)
    )
    assert row(result, "random").forwards["offline"] == 0
    assert row(result, "lead").forwards["offline"] == 400
    assert row(result, "iterative").forwards["selection"] == 99


def test_the_table_holds_every_row_and_says_how_to_read_it():
    text = as_markdown(found(losses("random", 1.5, 1.6), losses("lead", 1.4, 1.45, exchanged=4)))
    lines = text.splitlines()
    assert lines[2].startswith("| `lead` | 2 | 1.4250 ± 0.0354 | -0.1250 [")
    assert "| baseline |" in lines[3]
    assert "25.0%" in lines[2]
    assert "400 / 0 / 16" in lines[2]
    assert "not corrected for their number" in text
    assert "exchanged 10.0%" in text


def test_without_the_baseline_there_is_nothing_to_compare_with():
    with pytest.raises(ValueError, match="no cell of the baseline random"):
        found(losses("lead", 1.0))
