import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lead_core.comparison import (
    Cell,
    cell_params,
    comparison_id,
    describe_base,
    describe_cell,
    keep_base,
    keep_cell,
    kept_base,
    kept_cell,
    missing_cells,
    planned_cells,
    rule_id,
)
from lead_core.errors import LeadError
from lead_core.params import Params, load_params

ROOT = Path(__file__).parents[1]
INPUTS = {"pool_sha256": "p", "heldout_sha256": "h", "model_sha256": "m"}


def params_with(*overrides: str) -> Params:
    return load_params(ROOT / "params.yaml", overrides)


def found(cell: Cell, params: Params, **changes):
    same = {
        "schema": 1,
        "comparison": comparison_id(params, INPUTS, "fp32"),
        "rule": rule_id(params, cell.selector),
        "selector": cell.selector,
        "seed": cell.seed,
    }
    return {**same, **changes}


def test_cells_come_seed_by_seed_and_some_selectors_get_fewer():
    params = params_with(
        "compare.selectors=[random, lead, full]",
        "compare.seeds=[4, 7]",
        "compare.fewer_seeds={full: 1}",
    )
    names = [cell.name for cell in planned_cells(params)]
    assert names == ["random-seed4", "lead-seed4", "full-seed4", "random-seed7", "lead-seed7"]


def test_a_cell_has_its_own_selector_and_seed_and_curves_only_for_the_first_seeds():
    params = params_with(
        "select.budget_fraction=null",
        "select.budget_samples=160",
        "compare.seeds=[0, 1]",
        "compare.curve_seeds=1",
        "compare.curve_points=4",
    )
    own = cell_params(params, Cell("random", 0), pool_records=2000)
    assert (own.select.selector, own.seed) == ("random", 0)
    assert own.train.monitor_every_rounds == 3  # ten steps of 16, four points
    assert cell_params(params, Cell("full", 0), 2000).train.monitor_every_rounds == 32
    assert cell_params(params, Cell("random", 1), 2000).train.monitor_every_rounds is None


@pytest.mark.parametrize(
    "override",
    ["train.learning_rate=0.1", "model.revision=x", "select.max_uses=2", "seed=3"],
)
def test_a_comparison_is_another_one_when_a_shared_number_changes(override):
    ids = [comparison_id(params_with(*o), INPUTS, "fp32") for o in ([], [override])]
    assert ids[0] != ids[1]


@pytest.mark.parametrize(
    "override",
    [
        "select.selector=random",
        "train.monitor_samples=3",
        "train.checkpoint_every_steps=5",
        "report.top_records=3",
        "utility.smoothing=0.5",
    ],
)
def test_a_comparison_stays_the_same_when_nothing_shared_changes(override):
    ids = [comparison_id(params_with(*o), INPUTS, "fp32") for o in ([], [override])]
    assert ids[0] == ids[1]


def test_sums_in_another_precision_and_another_pool_are_another_comparison():
    params = params_with()
    first = comparison_id(params, INPUTS, "fp32")
    assert comparison_id(params, INPUTS, "bf16") != first
    assert comparison_id(params, {**INPUTS, "pool_sha256": "q"}, "fp32") != first


def test_a_rules_own_settings_retire_only_its_own_cells():
    before, after = params_with(), params_with("bandit.step_size=0.7")
    assert rule_id(before, "lead") != rule_id(after, "lead")
    assert rule_id(before, "random") == rule_id(after, "random")
    assert rule_id(before, "lead-paper") == rule_id(after, "lead-paper")  # it fixes its own


def test_kept_cells_are_reused_only_for_the_same_comparison_and_rule(tmp_path):
    params, cell = params_with(), Cell("lead", 0)
    comparison = comparison_id(params, INPUTS, "fp32")
    assert kept_cell(tmp_path, cell, comparison, params) is None
    keep_cell(tmp_path, found(cell, params), {"commit": "abc"})
    kept = kept_cell(tmp_path, cell, comparison, params)
    assert kept is not None
    assert kept["provenance"] == {"commit": "abc"}
    assert kept_cell(tmp_path, cell, "another", params) is None
    assert kept_cell(tmp_path, cell, comparison, params_with("bandit.step_size=0.7")) is None
    assert missing_cells(tmp_path, [cell, Cell("random", 0)], comparison, params) == [
        Cell("random", 0)
    ]


def test_a_cell_of_other_settings_never_overwrites_a_kept_one(tmp_path):
    cell = Cell("lead", 0)
    for overrides in ([], ["bandit.step_size=0.7"], ["train.learning_rate=0.1"]):
        keep_cell(tmp_path, found(cell, params_with(*overrides)), {})
    assert len(list(tmp_path.rglob("lead-seed0.*.json"))) == 3


def test_a_file_that_is_no_cell_is_named(tmp_path):
    params, cell = params_with(), Cell("lead", 0)
    comparison = comparison_id(params, INPUTS, "fp32")
    keep_cell(tmp_path, found(cell, params), {})
    next(tmp_path.rglob("lead-seed0.*.json")).write_text("[]")
    with pytest.raises(LeadError, match=r"lead-seed0\.\w+\.json is not a cell of this version"):
        kept_cell(tmp_path, cell, comparison, params)


def test_the_base_model_is_kept_beside_the_cells(tmp_path):
    frame = pd.DataFrame({"source": ["a", "a", "b"], "loss": [1.0, 2.0, 3.0]})
    keep_base(tmp_path, describe_base(frame, "c"), {})
    kept = kept_base(tmp_path, "c")
    assert kept is not None
    assert kept["heldout"] == {"macro": 2.25, "by_source": {"a": 1.5, "b": 3.0}, "records": 3}
    assert kept_base(tmp_path, "d") is None


def test_a_finished_cell_counts_the_planted_faults_that_it_trained_on(tmp_path):
    from lead_core.artifacts import Layout

    layout = Layout.below(tmp_path)
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
        "selector": "lead",
        "seed": 0,
        "visits": 4,
        "distinct": 3,
        "rounds": 2,
        "steps": 2,
        "tokens": 100,
        "ledger": {},
    }
    (layout.train / "manifest.json").write_text(json.dumps(manifest))
    heldout = pd.DataFrame({"source": ["a"], "loss": np.array([1.5])})
    cell = describe_cell(layout, params_with(), heldout, comparison="c")
    assert cell["planted"] == {
        "exchanged": {"pool": 2, "visits": 2, "distinct": 1},
        "near_duplicate": {"pool": 1, "visits": 1, "distinct": 1},
    }
    assert cell["curve"] == [{"tokens": 100, "loss": 1.25}]
    assert cell["visits_by_source"] == {"s": 3, "t": 1}
    assert cell["selected"] == ["1a", "c", "1a", "33"]
