"""How the train stage ends: by itself or by a signal, alone or as a part of something longer."""

import signal
from dataclasses import replace

import pytest
from test_rounds import adapter_of, make_loop, same

from flows.stages.train import run_unless_stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def handlers() -> list:
    return [signal.getsignal(number) for number in SIGNALS]


def stopped_at(folder, at_round: int, number: int):
    """Return a loop to which signal `number` comes within the last step of round `at_round`."""
    loop, reports = make_loop(folder)

    def on_round(report):
        reports.append(report)
        if report.round["round"] == at_round:
            signal.raise_signal(number)

    return replace(loop, on_round=on_round)


def test_training_that_nobody_stops_leaves_the_signals_as_they_were(tmp_path):
    before = handlers()
    loop, reports = make_loop(tmp_path)
    assert run_unless_stopped(loop).round == len(reports)
    assert handlers() == before


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("in_last_round", [False, True])
def test_a_stop_saves_the_step_and_ends_the_process_even_where_no_step_is_left(
    tmp_path, number, in_last_round
):
    whole, reports = make_loop(tmp_path / "whole")
    whole.run()
    before = handlers()
    loop = stopped_at(tmp_path / "stopped", len(reports) if in_last_round else 1, number)
    with pytest.raises(SystemExit) as caught:
        run_unless_stopped(loop)
    assert caught.value.code == 128 + signal.SIGTERM
    assert handlers() == before
    again, _ = make_loop(tmp_path / "stopped")
    assert run_unless_stopped(again).round == len(reports)
    assert again.ledger.sequences["replayed"] == 0
    assert same(adapter_of(again), adapter_of(whole))
