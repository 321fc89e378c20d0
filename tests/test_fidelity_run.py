"""`flows.fidelity`: which seeds are measured again, with what, and what is refused."""

import json
from pathlib import Path

import pytest

from flows.cli import _parse_seeds
from flows.fidelity import (
    FidelityPlan,
    configured_estimator,
    deciding_params,
    pending_seeds,
    probed_params,
)
from lead_core.errors import LeadError
from lead_core.params import load_params
from lead_core.storage import sha256_json

PARAMS = Path(__file__).parents[1] / "params.yaml"


def make_plan(out: Path, **changes) -> FidelityPlan:
    fields = {"rounds": 12, "probe_samples": 256, "seeds": (0, 1), "out": out, "overrides": ()}
    return FidelityPlan(**{**fields, **changes})


IDENTITIES = {
    seed: {
        "method_version": 1,
        "params": {"seed": seed},
        "rounds": 12,
        "hashes": {"pool_sha256": "p"},
    }
    for seed in (0, 1)
}


def finish(plan, seed, **changes):
    identity = {**IDENTITIES[seed], **changes}
    result = {"identity": sha256_json(identity), **identity}
    plan.file_of(seed).write_text(json.dumps(result))


def test_a_finished_seed_is_not_measured_again(tmp_path):
    plan = make_plan(tmp_path)
    assert pending_seeds(plan, IDENTITIES) == [0, 1]
    finish(plan, 0)
    assert pending_seeds(plan, IDENTITIES) == [1]
    finish(plan, 1)
    assert pending_seeds(plan, IDENTITIES) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"params": {"seed": 7}}, "other params"),
        ({"hashes": {"pool_sha256": "q"}, "rounds": 3}, "other rounds, hashes"),
        ({"method_version": 0}, "other method_version"),
    ],
)
def test_a_result_of_something_else_is_refused_and_kept(tmp_path, change, named):
    plan = make_plan(tmp_path)
    finish(plan, 1, **change)
    with pytest.raises(LeadError, match=f"seed1.json was measured with {named} than now; give an"):
        pending_seeds(plan, IDENTITIES)
    assert plan.file_of(1).exists()


@pytest.mark.parametrize("text", ["", "{broken", "[]", "{}"])
def test_a_file_that_is_no_result_is_refused(tmp_path, text):
    plan = make_plan(tmp_path)
    plan.file_of(0).write_text(text)
    with pytest.raises(LeadError, match="delete it to measure again"):
        pending_seeds(plan, IDENTITIES)


def test_the_probed_loop_differs_only_in_what_its_reports_must_hold():
    params = load_params(
        PARAMS,
        [
            "utility.loss_change=paper",
            "utility.round_loss_change=whole",
            "utility.drift=cluster",
            "train.monitor_every_rounds=1",
        ],
    )
    probed = probed_params(params, 5)
    expected = load_params(PARAMS, ["seed=5"])
    assert probed == expected
    assert configured_estimator(params).name == "paper/whole, b=0.1 + drift"


def test_without_a_loss_change_how_it_is_charged_makes_no_other_estimator():
    names = [
        configured_estimator(
            load_params(
                PARAMS, ["utility.loss_change=none", f"utility.round_loss_change={charged}"]
            )
        ).name
        for charged in ("remaining", "whole")
    ]
    assert names == ["none, b=0.1"] * 2


def test_the_command_line_is_told_without_a_path_of_the_machine(tmp_path):
    plan = make_plan(tmp_path / "results" / "dropout", overrides=("train.lora.dropout=0.1",))
    start = "lead fidelity --rounds 12 --probe-samples 256 --seeds 0,1"
    assert plan.command(tmp_path) == (f"{start} --out results/dropout --set train.lora.dropout=0.1")
    assert plan.command(tmp_path / "elsewhere") == f"{start} --set train.lora.dropout=0.1"


def test_seeds_are_numbers_with_commas():
    assert _parse_seeds("2, 0,2") == (2, 0)
    for text in ("", "0,,1", "one", "-1"):
        with pytest.raises(LeadError, match="--seeds must be whole numbers with commas between"):
            _parse_seeds(text)


def test_the_committed_results_are_of_the_parameters_that_decide_one_today():
    """A key that decides nothing must not be part of their identity: hours would be orphaned."""
    for path in (PARAMS.parent / "results/fidelity").glob("fidelity-seed*.json"):
        measured = json.loads(path.read_text())["params"]
        now = deciding_params(load_params(PARAMS))
        assert {name: set(now[name]) for name in now if name != "seed"} == {
            name: set(measured[name]) for name in measured if name != "seed"
        }
