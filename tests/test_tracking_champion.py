"""The promotion gate on the real MLflow: a SQLite file, and an outage in between."""

import socket

import numpy as np
import pandas as pd
import pytest
from test_tracking import adapted_model, client_of

from flows.stages.evaluate import offer_champion
from lead_core.tracking import open_run, resolve_settings, sync
from lead_core.tracking_champion import PROMOTION_TAG, judge, judge_against_champion

RECORDS = 24
NOISE = np.random.default_rng(0).normal(0, 0.05, (8, RECORDS))


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """One MLflow for all tests: each has a registered model of its own."""
    return resolve_settings(tmp_path_factory.mktemp("registry"), "sqlite:///mlflow.db", "lead")


@pytest.fixture(scope="module")
def adapter(tiny_model_folder):
    return adapted_model(tiny_model_folder)


def losses(mean, *, seed=0, first=0):
    """Held-out losses as the evaluate stage writes them; record ids from `first` on."""
    ids = [f"{number:04x}" for number in range(first, first + RECORDS)]
    return pd.DataFrame({"id": ids, "tuned_loss": mean + NOISE[seed]})


def train(settings, key, adapter, folder):
    """Record a training with its adapter."""
    tags = {"lead.model_hash": "m"}
    with open_run(
        settings, name="train", key={"lead.train_hash": key}, tags=tags, params={}
    ) as run:
        run.log_adapter(*adapter, folder)


def evaluate(settings, key, frame, *, champion, model="m", base=9.0):
    """Record an evaluation and offer its adapter as the evaluate stage does; return what it says."""
    folder = settings.workspace / key
    folder.mkdir(exist_ok=True)
    frame.to_parquet(folder / "heldout.parquet")
    change = judge_against_champion(frame, losses(base).assign(id=frame["id"]), "base").figures
    paired = {"lead_heldout/loss": {**change, "n": RECORDS}}
    results = {"paired": paired, "inputs": {"model_sha256": model}}
    with open_run(
        settings, name="evaluate", key={"lead.train_hash": key}, tags={}, params={}
    ) as run:
        run.log_artifact(folder / "heldout.parquet", "eval")
        offer_champion(run, champion, results, folder)
    return run.verdict


def champion_of(settings, name):
    """The version with the alias, the hash of its training, and how many versions there are."""
    client = client_of(settings)
    version = client.get_model_version_by_alias(name, "champion")
    key = client.get_run(version.run_id).data.tags["lead.train_hash"]
    return str(version.version), key, len(client.search_model_versions(f"name = '{name}'"))


def tag_of(settings, key):
    client = client_of(settings)
    experiment = client.get_experiment_by_name("lead").experiment_id
    [run] = client.search_runs([experiment], f"tags.`lead.train_hash` = '{key}'")
    return run.data.tags[PROMOTION_TAG]


@pytest.mark.parametrize(
    ("change", "passed", "reason"),
    [
        (
            {"difference": -0.2, "low": -0.3, "high": -0.1, "n": 9},
            True,
            "better than X: held-out loss -0.2000 [-0.3000, -0.1000] over 9 records",
        ),
        (
            {"difference": -0.2, "low": -0.5, "high": 0.1, "n": 9},
            False,
            "not better than X: held-out loss -0.2000 [-0.5000, +0.1000] over 9 records",
        ),
        (
            {"difference": -0.2, "low": None, "high": None, "n": 1},
            False,
            "one held-out record is too few to judge against X",
        ),
        (None, False, "no held-out loss to judge by: put lead_heldout into evaluate.tasks"),
    ],
)
def test_only_an_interval_below_zero_passes(change, passed, reason):
    verdict = judge(change, "X")
    assert (verdict.passed, verdict.reason) == (passed, reason)


def test_only_records_that_both_held_out_are_compared():
    verdict = judge_against_champion(losses(1.0, first=20), losses(1.5), "C")
    assert verdict.passed
    assert verdict.reason.endswith("over 4 records")
    assert not judge_against_champion(losses(1.0, first=99), losses(1.5), "C").passed


def test_the_alias_goes_to_what_is_better_and_stays_where_it_is_otherwise(
    settings, adapter, tiny_model_folder
):
    for key, mean, said, champion in (
        ("first", 2.0, "night version 1 is champion: the first one", ("1", "first", 1)),
        ("worse", 2.1, "not better than champion night version 1: ", ("1", "first", 1)),
        ("base", 9.0, "not better than the base model: ", ("1", "first", 1)),
        ("better", 1.5, "night version 2 is champion: better than ", ("2", "better", 2)),
        ("better", 1.5, "it is champion night version 2 already", ("2", "better", 2)),
    ):
        train(settings, key, adapter, tiny_model_folder)
        seed = 1 if key in ("worse", "base") else 0
        verdict = evaluate(settings, key, losses(mean, seed=seed), champion="night")
        assert verdict.startswith(said)
        assert tag_of(settings, key) == verdict
        assert champion_of(settings, "night") == champion


def test_what_cannot_be_compared_is_no_champion_and_says_what_to_do(
    settings, adapter, tiny_model_folder
):
    train(settings, "a", adapter, tiny_model_folder)
    evaluate(settings, "a", losses(2.0), champion="other")
    train(settings, "b", adapter, tiny_model_folder)
    for changes, said in (
        (
            {"frame": losses(1.0), "model": "n"},
            "is an adapter of another base model; take its alias",
        ),
        ({"frame": losses(1.0, first=RECORDS)}, "was measured on other held-out records; take its"),
    ):
        verdict = evaluate(settings, "b", champion="other", **{"base": 9.0, **changes})
        assert f"champion other version 1 {said}" in verdict
    assert champion_of(settings, "other") == ("1", "a", 1)


def test_an_evaluation_without_its_training_in_mlflow_has_no_adapter_to_register(settings):
    assert evaluate(settings, "alone", losses(1.0), champion="none") == (
        "its adapter is not in MLflow"
    )


def test_a_name_that_mlflow_refuses_is_no_candidate_for_ever(settings, adapter, tiny_model_folder):
    train(settings, "refused", adapter, tiny_model_folder)
    verdict = evaluate(settings, "refused", losses(2.0), champion="a/b")
    assert verdict.startswith("MLflow refused it: ")
    assert tag_of(settings, "refused") == verdict
    assert sync(settings).waiting == 0


def test_after_an_outage_candidates_are_judged_in_their_order(settings, adapter, tiny_model_folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dead = resolve_settings(settings.workspace, f"http://127.0.0.1:{port}", "lead")
    for key, mean in (("one", 2.0), ("two", 1.5), ("three", 1.8)):
        train(dead, key, adapter, tiny_model_folder)
        verdict = evaluate(dead, key, losses(mean), champion="outage")
        assert verdict.startswith("undecided, for MLflow cannot be reached")
    report = sync(settings)
    assert (report.sent, report.waiting, report.refused) == (6, 0, 0)
    assert champion_of(settings, "outage") == ("2", "two", 2)
    assert tag_of(settings, "three").startswith("not better than champion outage version 2: ")
