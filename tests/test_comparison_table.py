import math

import pytest

from lead_core.comparison.table import (
    BY_RECORD,
    NO_DIFFERENCE,
    as_markdown,
    tabulate_cells,
    throughput,
)
from lead_core.errors import LeadError

MEASURED = {"device": "cpu", "precision": "fp32", "threads": 1, "batch_size": 8}
BASE = {"comparison": "c0ffee", "heldout": {"macro": 2.0, "records": 60}, "measured": MEASURED}


def cell(
    selector: str,
    seed: int,
    loss: float,
    *,
    exchanged: int = 0,
    selection: int = 0,
    steps: int = 1,
    seconds: float | None = None,
):
    spent = {"sequences": 16, "tokens": 1600}
    timed = {} if seconds is None else {"offline": 60.0, "training": seconds}
    return {
        "selector": selector,
        "seed": seed,
        "heldout": {"macro": loss},
        "visits": 16,
        "distinct": 15,
        "steps": steps,
        "tokens": 1600,
        "measured": MEASURED,
        "inputs": {"scores_sha256": "s" * 64},
        "origin": {"commit": "abc", "machine": "x", "libraries": {"torch": "2"}, "seconds": timed},
        "ledger": {
            "offline": {"sequences": 400, "tokens": 30000},
            "selection": {"sequences": selection, "tokens": 100 * selection},
            "training": spent,
            "evaluation": {"sequences": 60, "tokens": 6000},
        },
        "planted": {"exchanged": {"pool": 20, "visits": exchanged, "distinct": exchanged}},
    }


def losses(selector: str, *values: float, **more):
    return [cell(selector, seed, value, **more) for seed, value in enumerate(values)]


def found(*cells):
    flat = [one for group in cells for one in group]
    return tabulate_cells(flat, BASE, baseline="random", pool_records=200, wanted=len(flat))


def row(result, name):
    return next(row for row in result.rows if row.selector == name)


def test_rows_come_in_the_order_of_their_difference_with_mean_and_spread_over_seeds():
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
    assert row(result, "ifd").verdict == "too few seeds for a finding"


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
    table = found(losses("random", 1.5, 1.6), losses("lead", 1.4, 1.45, exchanged=4))
    text = as_markdown(table, "lead compare")
    lines = text.splitlines()
    assert lines[2].startswith("| `lead` | 2 | 1.4250 ± 0.0354 | -0.1250 [")
    assert "(n = 2)" in lines[2]
    assert "| baseline |" in lines[3]
    assert "25.0%" in lines[2]
    assert "400 / 0 / 16 / 60" in lines[2]
    assert "not corrected for their number" in text
    assert "exchanged 10.0%" in text
    assert "Comparison `c0ffee`; commits abc; x; torch 2. Command: `lead compare`" in text
    assert "all that the comparison asks for" in text


def test_a_table_of_some_cells_says_how_many_are_missing():
    table = tabulate_cells(
        losses("random", 1.0), BASE, baseline="random", pool_records=200, wanted=80
    )
    assert "**1 of 80**" in as_markdown(table, "lead compare")


def test_unequal_steps_are_named_beside_the_finding():
    result = found(losses("random", 1.0, 1.1, 1.2), losses("lead", 0.9, 1.01, 1.1, steps=2))
    assert row(result, "lead").verdict == "better than random; other steps"
    full = found(losses("random", 1.0, 1.1, 1.2), losses("full", 0.9, 1.01, 1.1, steps=9))
    assert row(full, "full").verdict == "better than random"


def test_rows_over_other_seeds_are_ordered_by_their_paired_difference():
    """`ifd` has the lower mean but only because of its one easy seed, where it is behind."""
    result = found(losses("random", 1.0, 3.0), losses("loss", 1.1, 3.1), [cell("ifd", 0, 1.5)])
    assert [r.selector for r in result.rows] == ["random", "loss", "ifd"]


def test_a_gain_is_shared_out_over_the_seeds_that_full_has_too():
    result = found(losses("random", 1.5, 0.1, 0.1), losses("full", 1.0))
    assert row(result, "random").recovered == pytest.approx(0.5)
    worse = found(losses("random", 1.5), losses("full", 2.5))
    assert row(worse, "random").recovered is None


def test_seconds_are_tokens_over_the_median_throughput_of_all_cells():
    """Medians of 1,600 tokens in 8, 10 and 5 s: 200 tokens/s; offline 30,000 in 60 s: 500."""
    groups = [
        losses("random", 1.4, seconds=8.0),
        losses("lead", 1.4, seconds=10.0),
        losses("iterative", 1.4, selection=99, seconds=5.0),
    ]
    result = found(*groups)
    assert result.throughput == {"forward": 500.0, "training": 200.0}
    assert row(result, "random").seconds == pytest.approx(8)  # it reads no scores
    assert row(result, "lead").seconds == pytest.approx(60 + 8)
    assert row(result, "iterative").seconds == pytest.approx(60 + 19.8 + 8)


def test_without_times_there_are_no_seconds():
    result = found(losses("random", 1.4), losses("lead", 1.4))
    assert throughput([cell("random", 0, 1.0)]) is None
    assert row(result, "lead").seconds is None


def test_losses_measured_in_another_way_are_not_compared():
    other = {**cell("lead", 0, 1.0), "measured": {**MEASURED, "device": "cuda"}}
    with pytest.raises(LeadError, match=r"lead-seed0 was measured with .*cuda.*cannot be compared"):
        found(losses("random", 1.0), [other])


def test_what_is_known_by_record_has_columns_and_a_note_and_older_cells_are_blank_there():
    def by_record(one, first):
        losses = {"r": first + 0.1 * one["seed"], "s": 2.0}
        return {**one, "heldout": {**one["heldout"], "by_record": {"a": losses}}}

    cells = [cell("lead", seed, 1.5) for seed in (0, 1)]
    cells += [by_record(cell("random", seed, 1.4), 1.0) for seed in (0, 1)]
    cells += [by_record(cell("stratified", seed, 1.2), 0.6) for seed in (0, 1)]

    def page(some):
        table = tabulate_cells(some, BASE, baseline="random", pool_records=100, wanted=6)
        return as_markdown(table, "lead compare")

    head, _, *rows = [
        [part.strip() for part in line.removeprefix("|").removesuffix("|").split("|")]
        for line in page(cells).splitlines()
        if line.startswith("|")
    ]
    assert {len(row) for row in rows} == {len(head)}
    known = {row[0]: [row[head.index(name)] for name in BY_RECORD] for row in rows}
    assert known == {
        "`random`": ["", ""],
        "`lead`": ["", ""],
        # record r is lower by 0.4 with both seeds, s is the same
        "`stratified`": ["+0.0000 [+0.0000, +0.0000] (n = 2)", "50%"],
    }
    assert "found by looking" in page(cells)
    assert BY_RECORD[0] not in page([cell("random", seed, 1.4) for seed in (0, 1)])
