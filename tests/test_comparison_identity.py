from pathlib import Path

import pytest

from lead_core.comparison.cells import planned_cells
from lead_core.comparison.identity import TRAINED, comparison_id, deciding, rule_id
from lead_core.params import effective_params, load_params
from lead_core.selectors import get_selector

PARAMS = Path(__file__).parents[1] / "params.yaml"
INPUTS = {"pool_sha256": "p", "heldout_sha256": "h", "model_sha256": "m"}


def settings(*overrides: str) -> dict:
    return load_params(PARAMS, overrides).model_dump(mode="json")


def identity(*overrides: str, inputs=INPUTS, precision: str = "fp32") -> str:
    return comparison_id(settings(*overrides), inputs, precision)


def rule(selector: str, *overrides: str) -> str:
    params = load_params(PARAMS, [f"select.selector={selector}", *overrides])
    effective = effective_params(params)[0].model_dump(mode="json")
    return rule_id(get_selector(selector), effective)


def test_cells_come_seed_by_seed_and_some_selectors_get_fewer():
    names = [cell.name for cell in planned_cells(["random", "lead", "full"], [4, 7], {"full": 1})]
    assert names == ["random-seed4", "lead-seed4", "full-seed4", "random-seed7", "lead-seed7"]


@pytest.mark.parametrize(
    "override",
    ["train.learning_rate=0.1", "model.revision=x", "select.max_uses=2", "cluster.fit_limit=99"],
)
def test_a_comparison_is_another_one_when_a_shared_number_changes(override):
    assert identity(override) != identity()


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
    assert identity(override) == identity()


def test_another_data_seed_pool_or_precision_is_another_comparison():
    others = {
        identity(),
        identity("seed=3"),
        identity(precision="bf16"),
        identity(inputs={**INPUTS, "pool_sha256": "q"}),
    }
    assert len(others) == 4


def test_a_key_added_later_counts_only_when_it_is_used():
    """`score.warmup` and `score.model` came after the first kept cells: null is what was before."""
    assert "model" not in deciding(settings(), ("score",))["score"]
    assert identity("score.model=o/small") != identity()
    assert "warmup" not in deciding(settings(), ("score",))["score"]
    warm = "{samples: 9, epochs: 1, rank: 2, alpha: 2, learning_rate: 0.1, effective_batch: 2}"
    assert "warmup" in deciding(settings(f"score.warmup={warm}"), ("score",))["score"]
    assert identity(f"score.warmup={warm}") != identity()


def test_a_rules_own_settings_retire_only_its_own_cells():
    changed = "bandit.step_size=0.7"
    assert rule("lead", changed) != rule("lead")
    assert rule("random", changed) == rule("random")
    assert rule("lead-paper", changed) == rule("lead-paper")  # it fixes its own


def test_what_a_selector_fixes_of_the_selection_is_part_of_its_rule():
    paper, lead = get_selector("lead-paper"), get_selector("lead")
    params = load_params(PARAMS, ["select.selector=lead-paper"])
    effective = effective_params(params)[0].model_dump(mode="json")
    assert rule_id(paper, effective) != rule_id(lead, effective)


def test_only_trained_sections_are_recorded_with_a_cell():
    assert set(deciding(settings(), TRAINED)) == set(TRAINED)
    assert "monitor_samples" not in deciding(settings(), TRAINED)["train"]
