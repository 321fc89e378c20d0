"""The probe on a tiny model: true losses, what they cost, and what they must not change."""

from dataclasses import replace

import numpy as np
import pytest
from test_rounds import UTILITY, adapter_of, make_loop, same

from lead_core.fidelity import LAST_SEEN, STALE, Estimator, estimators_for
from lead_core.fidelity_probe import FidelityProbe

OWN = Estimator("displacement", False, 0.1, False).name


def probed(folder, *, n_samples=16, **changes):
    loop, _ = make_loop(folder, **changes)
    probe = FidelityProbe(loop, estimators_for(0.1), n_samples)
    reports = []

    def on_round(report):
        probe.take(report)
        reports.append(report)

    return replace(loop, on_round=on_round), probe, reports


def test_the_figures_are_those_of_the_true_losses(tmp_path):
    loop, probe, _ = probed(tmp_path, n_samples=48)
    state = loop.run()
    chosen = loop.pool.view.difficulty >= 0  # the others are in nobody's way
    with loop.ledger.charged_to("evaluation"):
        true = loop.measure(loop.pool.encoded(np.arange(48)))
    visited = state.selection.uses > 0
    groups = probe.rounds[-1]["groups"]
    for name, members in (("trained", visited), ("unvisited", chosen & ~visited)):
        errors = (state.selection.utility - true)[members]
        figures = groups[name]["estimators"][OWN]
        assert groups[name]["n"] == figures["n"] == members.sum()
        assert groups[name]["true_mean"] == pytest.approx(true[members].mean(), abs=1e-5)
        assert figures["mae"] == pytest.approx(np.abs(errors).mean(), abs=1e-5)
        assert figures["bias"] == pytest.approx(errors.mean(), abs=1e-5)
        stale = groups[name]["estimators"][STALE]
        assert stale["bias"] == pytest.approx(
            (loop.pool.view.loss - true)[members].mean(), abs=1e-5
        )


def test_the_trained_the_fresh_and_the_unvisited_are_told_apart(tmp_path):
    loop, probe, reports = probed(tmp_path)
    loop.run()
    for row, report in zip(probe.rounds, reports, strict=True):
        groups = {name: group["n"] for name, group in row["groups"].items()}
        assert groups["fresh"] == report.round["n_selected"]
        assert groups["trained"] == report.round["distinct"]
        assert groups["unvisited"] <= 16


def test_probing_is_charged_to_evaluation_and_changes_nothing(tmp_path):
    alone, expected = make_loop(tmp_path / "alone", dropout=0.2)
    alone.run()
    loop, probe, reports = probed(tmp_path / "probed", dropout=0.2)
    loop.run()
    assert same(adapter_of(loop), adapter_of(alone))
    assert [report.samples for report in reports] == [report.samples for report in expected]
    ledger = loop.ledger.as_dict()
    groups = [row["groups"] for row in probe.rounds]
    probes = sum(group["trained"]["n"] + group["unvisited"]["n"] for group in groups)
    assert ledger["evaluation"]["sequences"] == probes
    assert {**ledger, "evaluation": None} == {**alone.ledger.as_dict(), "evaluation": None}


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_only_dropout_sets_the_loss_seen_apart_from_the_true_one_before_it(tmp_path, dropout):
    loop, probe, _ = probed(tmp_path, n_samples=48, dropout=dropout)
    loop.run()
    gaps = [row["seen_minus_true_before"] for row in probe.rounds]
    assert all(gap["n"] == 4 for gap in gaps)  # the first step's samples: all are probed
    largest = max(abs(gap["mean"]) for gap in gaps)
    assert largest > 1e-4 if dropout else largest < 1e-5


def test_what_was_not_probed_before_has_no_known_gap(tmp_path):
    loop, probe, reports = probed(tmp_path, n_samples=1)
    loop.run()
    gaps = [row["seen_minus_true_before"] for row in probe.rounds]
    assert gaps[0]["n"] == 4  # the offline losses are the true ones before the first round
    assert gaps[1]["n"] < 4 or all(row["uses"] > 1 for row in reports[1].samples)
    assert {"mean": None, "n": 0} in gaps


def test_last_seen_errs_by_what_came_after_the_sample(tmp_path):
    loop, probe, reports = probed(tmp_path)
    loop.run()
    row = probe.rounds[0]["groups"]["fresh"]
    seen = np.mean([sample["loss_seen"] for sample in reports[0].samples])
    assert row["estimators"][LAST_SEEN]["bias"] == pytest.approx(seen - row["true_mean"])


def test_a_loop_whose_reports_do_not_hold_what_is_needed_is_refused(tmp_path):
    loop, _ = make_loop(tmp_path, utility=replace(UTILITY, drift=True))
    with pytest.raises(ValueError, match="without drift"):
        FidelityProbe(loop, estimators_for(0.1), 4)
