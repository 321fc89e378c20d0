"""What is kept of a run that may become champion, and that the lock finds it again."""

import os

import pytest
from test_earlier_run import KEY, MODEL, starting_from, write_run

from lead_core.artifacts import Layout
from lead_core.champion_runs import CHAMPIONS, keep_run, run_name
from lead_core.earlier_run import check_start, lock_start
from lead_core.errors import LeadError
from lead_core.garbage import former_champions
from lead_core.storage import sha256_file, write_text
from lead_core.tracking import open_run, resolve_settings


@pytest.fixture
def workspace(tmp_path):
    """A workspace with a finished run, as far as a later one reads it, and an adapter."""
    artifacts = write_run(tmp_path / "artifacts")
    write_text(artifacts / "train/adapter/adapter_config.json", "{}")
    write_text(artifacts / "train/timings.jsonl", "grows")
    return tmp_path


def kept(workspace):
    keep_run(workspace, Layout.below(workspace / "artifacts"))
    return sorted((workspace / CHAMPIONS).iterdir())


def test_a_kept_run_holds_what_a_start_needs_and_outlives_the_run_itself(workspace):
    train_hash = sha256_file(workspace / "artifacts/train/manifest.json")
    [folder] = kept(workspace)
    assert folder.name == run_name(train_hash)
    file = folder / "train/adapter/adapter_config.json"
    assert file.stat().st_nlink == 2  # a hard link, no second copy on disk
    assert not (folder / "train/timings.jsonl").exists()
    name = (CHAMPIONS / folder.name).as_posix()
    before = lock_start(starting_from(name), workspace, MODEL)
    write_text(workspace / "artifacts/train/utilities.parquet", "of the next run")
    assert lock_start(starting_from(name), workspace, MODEL) == before
    assert kept(workspace) == [folder]


def test_of_a_run_that_is_not_all_there_nothing_is_kept(workspace):
    (workspace / "artifacts/train/utilities.parquet").unlink()
    keep_run(workspace, Layout.below(workspace / "artifacts"))
    assert not (workspace / CHAMPIONS).exists()


def test_gc_takes_runs_that_are_not_wanted_and_have_rested(workspace):
    [champion] = kept(workspace)
    write_text(workspace / "artifacts/train/manifest.json", '{"schema": 1}')
    _, other = sorted(kept(workspace), key=lambda folder: folder != champion)
    assert list(former_champions(workspace / CHAMPIONS, {champion.name})) == []
    for path in [*other.rglob("*"), other, *champion.rglob("*"), champion]:
        os.utime(path, (0, 0))
    [waste] = former_champions(workspace / CHAMPIONS, {champion.name})
    assert waste.path == other


def test_the_champion_is_what_mlflow_says_at_the_time_of_the_lock(workspace, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    params = starting_from("champion", "tracking.champion=night")
    with pytest.raises(LeadError, match=r"^params\.yaml: tracking\.champion must name .* got null"):
        lock_start(starting_from("champion"), workspace, MODEL)
    with pytest.raises(LeadError, match=r"^MLflow has no champion of the registered model 'night'"):
        lock_start(params, workspace, MODEL)
    train_hash = sha256_file(workspace / "artifacts/train/manifest.json")
    with open_run(
        resolve_settings(workspace, None, "lead"),
        name="toy",
        key={"lead.train_hash": train_hash},
        tags={},
        params={},
    ):
        pass
    make_champion(workspace, "night")
    with pytest.raises(LeadError, match=rf"{KEY}: the champion's run is not on this machine \(\.l"):
        lock_start(params, workspace, MODEL)
    [folder] = kept(workspace)
    entry = lock_start(params, workspace, MODEL)
    assert entry["folder"] == (CHAMPIONS / folder.name).as_posix()
    lock = {"model": {"sha256": MODEL}, "start": entry}
    start = check_start(lock, params, workspace)
    assert start.layout.train == folder / "train"
    elsewhere = {**lock, "start": {**entry, "folder": "first"}}
    with pytest.raises(LeadError, match=rf"{KEY} is champion, locked was first; run `lead lock`"):
        check_start(elsewhere, params, workspace)


def make_champion(workspace, name):
    """Give the only run of the workspace's MLflow the alias that a promotion would."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{workspace / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lead")
    [run] = client.search_runs([experiment.experiment_id])
    client.create_registered_model(name)
    version = client.create_model_version(name, workspace.as_uri(), run_id=run.info.run_id)
    client.set_registered_model_alias(name, "champion", version.version)
