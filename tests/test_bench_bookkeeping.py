"""What LEAD adds to training: every second of a real loop is charged, shares are exact."""

import pytest
from test_rounds import make_loop

from lead_core.bench.bookkeeping import PARTS, BookkeepingResult, measure_bookkeeping
from lead_core.bench.spread import Spread
from lead_core.round_rule import Limits


def test_the_loop_is_taken_apart_and_the_bare_trainer_gets_the_same_batches(tmp_path):
    loop, _ = make_loop(tmp_path, limits=Limits(24, 24, 2))
    told = []
    result = measure_bookkeeping(loop, on_round=told.append, repetitions=2)
    # once to warm up, twice to count
    assert [report.round["round"] for report in told] == [1, 2, 1, 2, 1, 2]
    assert result.rounds == 2
    assert result.samples == sum(report.round["n_selected"] for report in told[-2:])
    assert set(result.seconds) == {"training", "checkpoints", *PARTS}
    assert all(len(seconds) == 2 for seconds in result.seconds.values())
    assert all(value > 0 for seconds in result.seconds.values() for value in seconds)
    visits = sum(report.round["n_selected"] for report in told)
    assert loop.ledger.sequences["training"] == 2 * visits  # the loop's, and the bare trainer's
    assert not any(tmp_path.iterdir())  # checkpoints went to a folder of their own


def test_shares_are_of_the_loop_without_checkpoints():
    result = BookkeepingResult(
        rounds=1,
        samples=4,
        seconds={
            "training": (96.0, 47.0),
            "selection": (1.0, 1.0),
            "gradients": (2.0, 1.0),
            "logging": (1.0, 1.0),
            "checkpoints": (50.0, 25.0),
        },
        fixed_list=(80.0, 50.0),
    )
    assert result.share(*PARTS) == Spread(5.0, 4.0, 6.0)
    assert result.share("logging") == Spread(1.5, 1.0, 2.0)
    assert result.share("checkpoints") == Spread(50.0, 50.0, 50.0)
    assert result.over_fixed_list.high == pytest.approx(25.0)
    assert result.over_fixed_list.low == pytest.approx(0.0)
    targets = {f.name: f.target.limit for f in result.figures() if f.target}
    assert targets == {"all that LEAD adds": 2.0, "logging": 1.0}
