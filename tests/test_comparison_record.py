import json

import numpy as np
import pandas as pd
import pytest
from test_comparison_identity import settings

from lead_core.artifacts import Layout
from lead_core.comparison.record import describe_base, describe_cell, heldout_losses

MEASURED = {"device": "cpu", "precision": "fp32", "threads": 1, "batch_size": 8}
COST = {"sequences": 12, "tokens": 500}
HASHES = {f"{name}_sha256": name[0] for name in ("pool", "heldout", "model", "scores", "clusters")}


def write_training(layout: Layout) -> None:
    """Write what a training of four samples in two rounds leaves behind."""
    layout.train.mkdir(parents=True)
    layout.pool.mkdir()
    rows = [
        {"id": i, "kind": "exchanged", "replaces": "x", "taken_from": "y"} for i in ("1a", "2b")
    ]
    rows.append({"id": "33", "kind": "near_duplicate", "replaces": "x", "taken_from": "y"})
    (layout.pool / "planted.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    samples = pd.DataFrame({"id": ["1a", "c", "1a", "33"], "source": ["s", "s", "s", "t"]})
    samples.to_parquet(layout.train / "selection.parquet")
    record = {"arm": 0, "probabilities": [1.0], "reward_raw": 0.1, "reward": 0.0}
    rounds = [
        {**record, "round": n, "tokens": 50, "n_selected": 2, "heldout_loss": loss}
        for n, loss in ((1, None), (2, 1.25))
    ]
    (layout.train / "rounds.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rounds))
    manifest = {
        **HASHES,
        "selector": "lead",
        "seed": 0,
        "visits": 4,
        "distinct": 3,
        "rounds": 2,
        "steps": 2,
        "tokens": 100,
        "ledger": {"evaluation": {"sequences": 3, "tokens": 90}},
    }
    (layout.train / "manifest.json").write_text(json.dumps(manifest))


def described(folder) -> dict:
    layout = Layout.below(folder)
    write_training(layout)
    heldout = pd.DataFrame({"id": ["r"], "source": ["a"], "loss": np.array([1.5])})
    return describe_cell(layout, settings(), heldout, COST, MEASURED)


def test_a_cell_counts_the_planted_faults_that_it_trained_on(tmp_path):
    cell = described(tmp_path)
    assert cell["planted"] == {
        "exchanged": {"pool": 2, "visits": 2, "distinct": 1},
        "near_duplicate": {"pool": 1, "visits": 1, "distinct": 1},
    }
    assert cell["selected"] == ["1a", "c", "1a", "33"]
    assert cell["visits_by_source"] == {"s": 3, "t": 1}


def test_a_curve_is_over_training_tokens(tmp_path):
    assert described(tmp_path)["curve"] == [{"tokens": 100, "loss": 1.25}]


def test_measuring_the_heldout_records_is_charged_to_evaluation(tmp_path):
    assert described(tmp_path)["ledger"]["evaluation"] == {"sequences": 15, "tokens": 590}


def test_a_record_names_what_it_was_made_from_and_no_comparison(tmp_path):
    cell = described(tmp_path)
    assert cell["inputs"] == HASHES
    assert cell["measured"] == MEASURED
    assert "comparison" not in cell


def test_losses_are_averaged_within_sources_first():
    frame = pd.DataFrame(
        {"id": ["r", "s", "t"], "source": ["a", "a", "b"], "loss": [1.0, 2.0, 3.000001]}
    )
    assert heldout_losses(frame) == {
        "macro": pytest.approx(2.25),
        "by_source": {"a": 1.5, "b": pytest.approx(3.0)},
        "records": 3,
        "by_record": {"a": {"r": 1.0, "s": 2.0}, "b": {"t": 3.0}},
    }
    base = describe_base(frame, COST, MEASURED, {**HASHES, "more": "x"})
    assert base["inputs"] == {"heldout_sha256": "h", "model_sha256": "m"}
    assert base["ledger"] == {"evaluation": COST}
