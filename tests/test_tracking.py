"""Against the real MLflow: SQLite files, and for outages a server that is killed."""

import contextlib
import http.server
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from lead_core import tracking_run
from lead_core.errors import LeadError
from lead_core.tracking import open_run, reconcile, resolve_settings, sync

KEY = {"lead.train_key": "k1"}


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """An MLflow database with all its tables, to copy: making them takes seconds."""
    settings = resolve_settings(
        tmp_path_factory.mktemp("database"), "sqlite:///mlflow.db", "unused"
    )
    assert sync(settings).failure is None
    return settings.workspace / "mlflow.db"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No server named by the environment; what `mlflow.set_tracking_uri` puts there is undone."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")


@pytest.fixture
def settings(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return resolve_settings(tmp_path, None, "lead")


def start(settings, *, name="train", key=KEY, tags=None, params=None, parent_key=None):
    return open_run(
        settings, name=name, key=key, tags=tags or {}, params=params or {}, parent_key=parent_key
    )


def client_of(settings):
    from mlflow import MlflowClient

    return MlflowClient(settings.uri)


def runs_of(settings):
    """All runs that are not deleted, the newest first."""
    client = client_of(settings)
    experiment = client.get_experiment_by_name(settings.experiment)
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def only_run(settings):
    (run,) = runs_of(settings)
    return run


def history(settings, name):
    """The (step, value) pairs of a metric of the only run, in order of steps."""
    run_id = only_run(settings).info.run_id
    points = client_of(settings).get_metric_history(run_id, name)
    return sorted((point.step, point.value) for point in points)


def waiting(settings):
    """The names of the outboxes that were not sent."""
    return sorted(path.name for path in settings.outboxes.glob("[0-9]*"))


def load_table(settings, name):
    """A table of the only run, by the function that users have for it."""
    import mlflow

    mlflow.set_tracking_uri(settings.uri)
    mlflow.set_experiment(settings.experiment)
    return mlflow.load_table(name, run_ids=[only_run(settings).info.run_id])


def train(settings, first=1, last=20):
    """A training as others would record it, with everything that a run can hold."""
    folder = settings.workspace / "artifacts"
    folder.mkdir(exist_ok=True)
    (folder / "rounds.jsonl").write_text('{"round": 1}\n')
    with start(settings, tags={"lead.stage": "train"}, params={"train": {"lr": 1e-4}}) as run:
        run.log_dataset("pool", "d" * 64, "artifacts/pool", 800, "training")
        for step in range(first, last + 1):
            run.log_metrics({"train/loss": 3 - step / 10, "train/tokens": 100 * step}, step)
        run.log_table(pd.DataFrame({"id": ["a", "b"], "step": [1, 2]}), "selection.json")
        run.log_artifact(folder / "rounds.jsonl", "record")
        run.set_tags({"lead.train_hash": "h1"})


def assert_trained(settings, last=20):
    """Check that MLflow holds exactly what one undisturbed `train` records."""
    run, client = only_run(settings), client_of(settings)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "train"
    assert run.data.params == {"train.lr": "0.0001"}
    assert run.data.tags["lead.stage"] == "train"
    assert run.data.tags["lead.train_hash"] == "h1"
    assert "lead.failure" not in run.data.tags
    steps = range(1, last + 1)
    assert history(settings, "train/loss") == [(step, 3 - step / 10) for step in steps]
    assert history(settings, "train/tokens") == [(step, 100.0 * step) for step in steps]
    (used,) = client.get_run(run.info.run_id).inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("pool", "d" * 36)
    assert json.loads(used.dataset.profile) == {"num_rows": 800}
    files = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert files == {"selection.json", "record"}
    (rounds,) = client.list_artifacts(run.info.run_id, "record")
    assert rounds.path == "record/rounds.jsonl"
    table = load_table(settings, "selection.json")
    assert table.to_dict("list") == {"id": ["a", "b"], "step": [1, 2]}
    assert waiting(settings) == []


# --- where ---


def test_without_a_uri_runs_go_to_a_database_in_the_workspace(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    settings = resolve_settings(tmp_path, None, "lead")
    assert settings.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert settings.artifact_location == f"file://{tmp_path}/mlartifacts"


def test_the_environment_names_the_server_only_where_the_parameter_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    settings = resolve_settings(tmp_path, None, "lead")
    assert settings.uri == "http://tracking:5000"
    assert settings.artifact_location is None
    settings = resolve_settings(tmp_path, "sqlite:///runs/all.db", "lead")
    assert settings.uri == f"sqlite:///{tmp_path}/runs/all.db"


@pytest.mark.parametrize("uri", ["file:./mlruns", "mlruns", "sqlite:mlflow.db", "ftp://a:b@host/x"])
def test_a_uri_that_mlflow_has_no_store_for_is_told_with_what_is_expected(tmp_path, uri):
    with pytest.raises(LeadError) as caught:
        resolve_settings(tmp_path, uri, "lead")
    assert str(caught.value).startswith("params.yaml: tracking.uri must be null, sqlite:///FILE")
    assert "a:b" not in str(caught.value)


def test_neither_mlflow_nor_torch_is_imported_with_the_module():
    code = "import sys, lead_core.tracking; print({'mlflow', 'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- what is recorded ---


def test_a_run_holds_all_that_was_logged_and_is_found_by_its_tags(settings):
    train(settings)
    assert_trained(settings)
    client = client_of(settings)
    found = client.search_runs(
        [client.get_experiment_by_name("lead").experiment_id],
        "tags.`lead.stage` = 'train' and tags.`lead.train_key` = 'k1'",
    )
    assert [run.info.run_id for run in found] == [only_run(settings).info.run_id]
    assert found[0].data.tags["lead.pid"] == str(os.getpid())
    assert found[0].info.artifact_uri.startswith(settings.artifact_location)


def test_a_run_is_running_and_its_points_are_there_while_it_is_open(settings, monkeypatch):
    monkeypatch.setattr(tracking_run, "FLUSH_POINTS", 4)
    with start(settings) as run:
        assert only_run(settings).info.status == "RUNNING"
        for step in range(1, 6):
            run.log_metrics({"loss": step}, step)
        assert history(settings, "loss") == [(step, step) for step in range(1, 5)]
        assert run.run_id == only_run(settings).info.run_id
    assert len(history(settings, "loss")) == 5


def test_values_that_are_no_finite_numbers_are_left_out_and_counted(settings):
    with start(settings) as run:
        values = {"acc": 0.5, "acc_stderr": "N/A", "loss": float("inf"), "beta": None}
        run.log_metrics(values, 1)
        run.log_metrics({"loss": float("nan"), "hits@1,none": True}, 2)
        assert run.skipped == {"acc_stderr": 1, "loss": 2}
    recorded = only_run(settings).data
    assert recorded.metrics == {"acc": 0.5, "hits_1_none": 1.0}
    assert recorded.tags["lead.skipped_values"] == "acc_stderr: 1, loss: 2"


def test_numbers_may_be_of_numpy_or_torch(settings):
    import numpy as np
    import torch

    with start(settings) as run:
        run.log_dataset("pool", "d", "pool.arrow", np.int64(3), "training")
        run.log_metrics({"a": np.float32(0.5), "b": torch.tensor(0.25)}, np.int64(7))
    assert history(settings, "a") == [(7, 0.5)]
    assert history(settings, "b") == [(7, 0.25)]


def test_a_workspace_may_have_any_name(tmp_path, empty_database):
    odd = tmp_path / "my runs, 50% é #1"
    odd.mkdir()
    shutil.copy(empty_database, odd)
    settings = resolve_settings(odd, "sqlite:///mlflow.db", "lead")
    train(settings)
    assert_trained(settings)
    assert list(odd.rglob("mlartifacts/*/artifacts/selection.json"))


def test_of_a_figure_the_newest_value_counts_and_an_equal_one_is_no_new_point(settings):
    for value in (0.5, 0.5, 0.7):
        with start(settings) as run:
            run.log_metrics({"eval/acc": value})
    assert only_run(settings).data.metrics == {"eval/acc": 0.7}
    assert history(settings, "eval/acc") == [(0, 0.5), (0, 0.7)]


def test_a_figure_logged_after_the_clock_was_set_back_is_the_newest_all_the_same(
    settings, monkeypatch
):
    now = time.time_ns()
    for value, clock in ((0.9, now), (0.5, now - 3600 * 10**9), (0.7, now - 7200 * 10**9)):
        monkeypatch.setattr(time, "time_ns", lambda clock=clock: clock)
        with start(settings) as run:
            run.log_metrics({"eval/acc": value})
        assert only_run(settings).data.metrics == {"eval/acc": value}


def test_a_table_logged_again_is_replaced(settings):
    for rows in ([1, 2], [3]):
        with start(settings) as run:
            run.log_table(pd.DataFrame({"step": rows}), "tables/selection.json")
    assert load_table(settings, "tables/selection.json")["step"].tolist() == [3]


def test_a_directory_is_kept_with_all_that_is_in_it(settings):
    page = settings.workspace / "page"
    (page / "plots").mkdir(parents=True)
    (page / "index.html").write_text("<p>")
    (page / "plots" / "a.png").write_bytes(b"png")
    with start(settings) as run:
        run.log_artifact(page)
    run_id = only_run(settings).info.run_id
    local = Path(client_of(settings).download_artifacts(run_id, "page"))
    assert (local / "plots" / "a.png").read_bytes() == b"png"
    assert (local / "index.html").read_text() == "<p>"


def test_a_file_that_is_not_there_costs_a_warning_only(settings, caplog):
    with start(settings) as run:
        run.log_artifact(settings.workspace / "absent.txt")
        run.log_metrics({"loss": 1}, 1)
    assert only_run(settings).info.status == "FINISHED"
    assert "no artifact in the record: FileNotFoundError" in caplog.text


def test_more_params_and_tags_than_mlflow_takes_at_once_arrive(settings):
    params = {f"p{number}": number for number in range(230)}
    with start(settings, params=params) as run:
        run.set_tags({f"t{number}": number for number in range(230)})
    recorded = only_run(settings).data
    assert len(recorded.params) == 230
    assert recorded.tags["t229"] == "229"


def test_a_child_run_is_nested_under_its_parent_whoever_comes_first(settings):
    parent_key = {"lead.comparison": "lead's or random"}
    with start(settings, name="cell", key={"lead.cell": "1"}, parent_key=parent_key):
        pass
    with (
        start(settings, name="compare", key=parent_key) as parent,
        start(settings, name="cell", key={"lead.cell": "2"}, parent_key=parent_key),
    ):
        pass
    parents = [run.data.tags.get("mlflow.parentRunId") for run in runs_of(settings)]
    assert sorted(parents, key=str) == sorted([parent.run_id, parent.run_id, None], key=str)


# --- the same run again ---


def test_a_resumed_training_continues_its_run_without_a_point_twice(settings):
    with pytest.raises(ValueError, match="out of memory"), start(settings) as run:
        for step in range(1, 11):
            run.log_metrics({"loss": step / 2, "seconds": 0.1}, step)
        raise ValueError("out of memory\nat some place")
    failed = only_run(settings)
    assert failed.info.status == "FAILED"
    assert failed.data.tags["lead.failure"] == "ValueError: out of memory"
    with start(settings) as run:
        assert "lead.failure" not in only_run(settings).data.tags
        for step in range(6, 16):  # from the last checkpoint; the wall time differs now
            run.log_metrics({"loss": step / 2, "seconds": 0.2}, step)
    assert only_run(settings).info.status == "FINISHED"
    assert history(settings, "loss") == [(step, step / 2) for step in range(1, 16)]
    seconds = [(step, 0.1 if step <= 10 else 0.2) for step in range(1, 16)]
    assert history(settings, "seconds") == seconds


def test_a_point_logged_twice_in_one_process_is_recorded_once(settings):
    with start(settings) as run:
        for step in (5, 3, 5, 4, 3):
            run.log_metrics({"loss": step}, step)
    assert history(settings, "loss") == [(3, 3), (4, 4), (5, 5)]


def test_a_changed_param_of_a_continued_run_is_a_tag_and_a_warning(settings, caplog):
    with start(settings, params={"evaluate": {"limit": 10, "batch": 8}}):
        pass
    with start(settings, params={"evaluate": {"limit": 20, "batch": 8, "seed": 1}}):
        pass
    recorded = only_run(settings).data
    assert recorded.params == {"evaluate.limit": "10", "evaluate.batch": "8", "evaluate.seed": "1"}
    assert recorded.tags["lead.changed.evaluate.limit"] == "10 -> 20"
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "evaluate.limit;" in warning.getMessage()


def test_evaluation_continues_the_newest_training_with_its_hash_that_is_not_deleted(settings):
    ids = []
    for number in range(3):
        with start(settings, key={"lead.train_key": f"k{number}"}) as run:
            run.set_tags({"lead.train_hash": "h1"})
            ids.append(run.run_id)
        time.sleep(0.01)  # MLflow's times are in milliseconds
    client_of(settings).delete_run(ids[2])
    with start(settings, name="evaluate", key={"lead.train_hash": "h1"}) as run:
        run.log_metrics({"eval/acc": 0.5})
    assert run.run_id is not None
    assert client_of(settings).get_run(ids[1]).data.metrics == {"eval/acc": 0.5}
    assert client_of(settings).get_run(ids[1]).info.run_name == "train"
    assert len(runs_of(settings)) == 2


def test_evaluation_without_a_recorded_training_makes_its_own_run(settings):
    with start(settings, name="evaluate", key={"lead.train_hash": "other"}) as run:
        run.log_metrics({"eval/acc": 0.5})
    assert only_run(settings).info.run_name == "evaluate"
    assert only_run(settings).data.tags["lead.train_hash"] == "other"


# --- the adapter ---


def adapted_model(folder):
    """A PEFT model of the tiny base with an adapter that matters, and its tokenizer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(folder)
    model = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear")).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=generator)
    return model, AutoTokenizer.from_pretrained(folder)


def assert_loads_as(settings, model):
    """Check that the only model in MLflow, once loaded, computes what `model` does."""
    import mlflow
    import torch

    client = client_of(settings)
    experiment = client.get_experiment_by_name(settings.experiment)
    (logged,) = client.search_logged_models([experiment.experiment_id])
    assert (logged.name, str(logged.status)) == ("adapter", "READY")
    outputs = client.get_run(logged.source_run_id).outputs.model_outputs
    assert [output.model_id for output in outputs] == [logged.model_id]
    mlflow.set_tracking_uri(settings.uri)
    loaded = mlflow.transformers.load_model(f"models:/{logged.model_id}")
    tokens = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = model(input_ids=tokens).logits
        assert torch.allclose(loaded.model(input_ids=tokens).logits, expected, atol=1e-6)
        with model.disable_adapter():
            assert not torch.allclose(model(input_ids=tokens).logits, expected, atol=1e-3)


def test_the_adapter_is_a_loadable_model_stored_without_its_base_and_only_once(
    settings, tiny_model_folder
):
    model, tokenizer = adapted_model(tiny_model_folder)
    for _ in range(2):  # a training whose last step was repeated
        with start(settings) as run:
            run.log_adapter(model, tokenizer, tiny_model_folder)
    weights = [path.name for path in (settings.workspace / "mlartifacts").rglob("*.safetensors")]
    assert weights == ["adapter_model.safetensors"]
    assert_loads_as(settings, model)


def test_a_model_that_mlflow_cannot_store_costs_a_warning_only(settings, tiny_model, caplog):
    with start(settings) as run:
        run.log_adapter(tiny_model, None, settings.workspace)
    assert only_run(settings).info.status == "FINISHED"
    assert "no adapter in the record: " in caplog.text


# --- how runs end ---


@pytest.mark.parametrize(
    ("error", "status", "failure"),
    [
        (KeyboardInterrupt(), "KILLED", "stopped by Ctrl-C"),
        (LeadError("the pool is empty"), "FAILED", "the pool is empty"),
    ],
)
def test_a_run_tells_how_and_why_it_ended(settings, error, status, failure):
    with pytest.raises(type(error)), start(settings):
        raise error
    assert only_run(settings).info.status == status
    assert only_run(settings).data.tags["lead.failure"] == failure


CHILD = """
import sys, time
from pathlib import Path
from lead_core.tracking import open_run, resolve_settings

settings = resolve_settings(Path(sys.argv[1]), None, "lead")
with open_run(settings, name="train", key={"lead.train_key": sys.argv[2]}, tags={}, params={}) as run:
    for step in range(1, 6):
        run.log_metrics({"loss": step}, step)
    print("up", flush=True)
    time.sleep(float(sys.argv[3]))
"""


@contextlib.contextmanager
def child(settings, key="k1", seconds=60.0):
    """A process with an open run that has logged five points, most of them not sent yet."""
    command = [sys.executable, "-c", CHILD, str(settings.workspace), key, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "up\n"
            yield process
        finally:
            process.kill()


def test_sigterm_leaves_a_run_killed_and_complete(settings):
    with child(settings) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    assert only_run(settings).info.status == "KILLED"
    assert only_run(settings).data.tags["lead.failure"] == "stopped by SIGTERM"
    assert len(history(settings, "loss")) == 5
    assert waiting(settings) == []


def test_after_sigkill_the_next_run_sends_what_was_left_and_marks_the_run_killed(settings):
    with child(settings) as process:
        assert sync(settings).active == 1, "a live run is left alone"
        assert reconcile(settings) == 0
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    assert only_run(settings).info.status == "RUNNING"
    with start(settings, key={"lead.train_key": "another"}):
        pass
    killed = next(run for run in runs_of(settings) if run.data.tags["lead.train_key"] == "k1")
    assert killed.info.status == "KILLED"
    assert "gone before the run was closed" in killed.data.tags["lead.failure"]
    assert killed.data.metrics == {"loss": 5.0}
    assert killed.info.end_time < time.time() * 1000 - 100, "its last sign of life, not now"
    assert waiting(settings) == []


def test_a_run_whose_process_and_outbox_are_gone_is_marked_killed(settings):
    with child(settings) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    shutil.rmtree(settings.outboxes)
    assert reconcile(settings) == 1
    assert reconcile(settings) == 0
    assert only_run(settings).info.status == "KILLED"


def test_processes_that_start_at_once_on_a_fresh_database_all_succeed(tmp_path):
    fresh = resolve_settings(tmp_path, "sqlite:///mlflow.db", "lead")
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-c", CHILD, str(tmp_path)]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes = [
            stack.enter_context(subprocess.Popen([*command, f"k{number}", "0"], **options))
            for number in range(2)
        ]
        for process in processes:
            assert process.communicate(timeout=120)[1] == ""
            assert process.returncode == 0
    assert [run.info.status for run in runs_of(fresh)] == ["FINISHED"] * 2
    assert len({run.info.experiment_id for run in runs_of(fresh)}) == 1
    assert waiting(fresh) == []


# --- outages ---


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_dead_server_costs_seconds_and_one_warning_and_sync_makes_up_for_it(
    settings, free_port, caplog
):
    dead = resolve_settings(settings.workspace, f"http://me:secret@127.0.0.1:{free_port}", "lead")
    began = time.monotonic()
    train(dead)
    assert time.monotonic() - began < 10
    (warning,) = warnings_of(caplog)
    assert warning.startswith(
        f"tracking: MLflow at http://***@127.0.0.1:{free_port} cannot be used"
    )
    assert f"waits in {settings.outboxes}" in warning
    report = sync(dead)
    assert (report.sent, report.waiting) == (0, 1)
    assert report.failure is not None
    written = b"".join(path.read_bytes() for path in settings.outboxes.rglob("*.json*"))
    assert b"secret" not in written + f"{dead} {report} {caplog.text}".encode()

    report = sync(settings)
    assert (report.sent, report.waiting, report.refused, report.failure) == (1, 0, 0, None)
    assert_trained(settings)
    assert only_run(settings).info.end_time < time.time() * 1000
    assert sync(settings).sent == 0


def test_trainings_and_evaluation_during_an_outage_become_one_run_in_their_order(
    settings, free_port
):
    dead = resolve_settings(settings.workspace, f"http://127.0.0.1:{free_port}", "lead")
    with pytest.raises(KeyboardInterrupt), start(dead) as run:
        for step in range(1, 11):
            run.log_metrics({"train/loss": 3 - step / 10, "train/tokens": 100 * step}, step)
        raise KeyboardInterrupt
    train(dead, first=6)
    with start(dead, name="evaluate", key={"lead.train_hash": "h1"}) as run:
        run.log_metrics({"eval/acc": 0.5})
    assert len(waiting(settings)) == 3
    with start(settings, name="report", key={"lead.train_hash": "h1"}):
        pass  # the next run sends all of it first
    assert history(settings, "eval/acc") == [(0, 0.5)]
    run_id = only_run(settings).info.run_id
    assert_trained(settings)
    assert only_run(settings).info.run_id == run_id


def test_a_sending_that_is_cut_off_anywhere_is_completed_without_duplicates(settings, monkeypatch):
    """Every event is sent, but the note of how far we came is lost: the worst place for a kill."""
    from lead_core.tracking_outbox import Outbox

    monkeypatch.setattr(Outbox, "mark_sent", lambda *_: None)
    monkeypatch.setattr(Outbox, "remove", Outbox.release)
    train(settings)
    assert len(waiting(settings)) == 1
    monkeypatch.undo()
    assert sync(settings).sent == 1
    assert_trained(settings)


def test_a_database_that_cannot_be_opened_costs_one_warning(tmp_path, caplog):
    (tmp_path / "mlflow.db").mkdir()
    settings = resolve_settings(tmp_path, "sqlite:///mlflow.db", "lead")
    began = time.monotonic()
    train(settings)
    assert time.monotonic() - began < 10
    (warning,) = warnings_of(caplog)
    assert "unable to open database file" in warning
    assert len(waiting(settings)) == 1


def test_a_deleted_experiment_is_told_and_nothing_is_lost(settings, caplog):
    train(settings)
    client = client_of(settings)
    experiment = client.get_experiment_by_name("lead").experiment_id
    client.delete_experiment(experiment)
    train(settings, last=25)
    assert "experiment 'lead' is deleted: restore it" in warnings_of(caplog)[0]
    client.restore_experiment(experiment)
    assert sync(settings).sent == 1
    assert_trained(settings, last=25)


def test_a_run_deleted_on_the_way_is_left_alone_and_what_it_refused_is_kept(settings, caplog):
    with start(settings) as run:
        client_of(settings).delete_run(run.run_id)
        run.log_metrics({"loss": 1}, 1)
        run.set_tags({"a": "b"})
    assert runs_of(settings) == []
    (warning,) = warnings_of(caplog)
    assert "refused a part of the record" in warning
    lines = (settings.outboxes / "refused.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"]["do"] for line in lines] == ["points", "tags", "close"]
    assert waiting(settings) == []


def test_what_another_mlflow_had_received_is_sent_again_to_the_present_one(
    settings, free_port, tmp_path
):
    dead = resolve_settings(settings.workspace, f"http://127.0.0.1:{free_port}", "lead")
    train(dead)
    (outbox,) = settings.outboxes.glob("[0-9]*")
    size = (outbox / "events.jsonl").stat().st_size
    sent = {"record": size // 2, "files": size, "run_id": "0" * 32}
    (outbox / "sent.json").write_text(json.dumps(sent))
    assert sync(settings).sent == 1
    assert_trained(settings)


def test_a_broken_artifact_store_holds_up_no_metric_and_no_other_run(settings, caplog):
    (settings.workspace / "mlartifacts").write_text("in the way")
    train(settings)
    assert only_run(settings).info.status == "FINISHED"
    assert len(history(settings, "train/loss")) == 20
    assert len(waiting(settings)) == 1
    (warning,) = warnings_of(caplog)
    assert "mlartifacts" in warning
    with start(settings, key={"lead.train_key": "k2"}) as run:
        assert run.run_id is not None
    report = sync(settings)
    assert (report.sent, report.waiting) == (0, 1)
    assert report.failure is not None
    client_of(settings).delete_run(run.run_id)
    (settings.workspace / "mlartifacts").unlink()
    assert sync(settings).sent == 1
    assert_trained(settings)


def test_a_workspace_that_cannot_be_written_costs_one_warning(settings, caplog):
    (settings.workspace / ".lead_state").write_text("in the way")
    with start(settings) as run:
        run.log_metrics({"loss": 1}, 1)
        run.set_tags({"a": "b"})
        run.log_table(pd.DataFrame({"a": [1]}), "a.json")
    (warning,) = warnings_of(caplog)
    assert warning.startswith("tracking: off for the rest of this run: ")


class _Failing(http.server.BaseHTTPRequestHandler):
    """Something in front of a server, in trouble."""

    def do_GET(self):
        self.send_error(500)

    do_POST = do_GET

    def log_message(self, *_):
        pass


def test_a_server_that_answers_500_is_an_outage(settings, caplog):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Failing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        failing = resolve_settings(
            settings.workspace, f"http://127.0.0.1:{server.server_port}", "lead"
        )
        began = time.monotonic()
        train(failing)
        assert time.monotonic() - began < 15
        server.shutdown()
    assert len(warnings_of(caplog)) == 1
    assert sync(settings).sent == 1
    assert_trained(settings)


@pytest.mark.slow
def test_a_server_that_never_answers_costs_seconds(settings, caplog):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        began = time.monotonic()
        train(resolve_settings(settings.workspace, f"http://127.0.0.1:{port}", "lead"))
        assert time.monotonic() - began < 35
    assert len(warnings_of(caplog)) == 1
    assert sync(settings).sent == 1
    assert_trained(settings)


@contextlib.contextmanager
def mlflow_server(settings, port):
    """A real server on the loopback, over the database and the artifacts of `settings`."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", settings.uri, "--workers", "1"]
    command += ["--artifacts-destination", str(settings.workspace / "served")]
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    log = (settings.workspace / "server.log").open("ab")
    process = subprocess.Popen(
        command,
        cwd=settings.workspace,
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)
        log.close()


def test_a_server_killed_in_the_middle_of_a_run_leaves_the_history_of_no_outage(
    settings, free_port, monkeypatch, caplog
):
    monkeypatch.setattr(tracking_run, "FLUSH_POINTS", 4)
    served = resolve_settings(settings.workspace, f"http://127.0.0.1:{free_port}", "lead")
    with mlflow_server(settings, free_port) as process, start(served) as run:
        run_id = run.run_id
        assert run_id is not None
        run.log_table(pd.DataFrame({"step": [1, 2]}), "selection.json")
        for step in range(1, 21):
            if step == 11:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)
            run.log_metrics({"loss": step / 2, "tokens": 100 * step}, step)
        run.set_tags({"lead.train_hash": "h1"})
    assert len(warnings_of(caplog)) == 1
    assert only_run(settings).info.status == "RUNNING", "nobody could tell the server"
    assert len(history(settings, "loss")) == 10
    assert len(list((settings.workspace / "served").rglob("selection.json"))) == 1

    assert sync(settings).sent == 1  # past the server, to its database
    recorded = only_run(settings)
    assert (recorded.info.run_id, recorded.info.status) == (run_id, "FINISHED")
    assert recorded.data.tags["lead.train_hash"] == "h1"
    assert history(settings, "loss") == [(step, step / 2) for step in range(1, 21)]
    assert history(settings, "tokens") == [(step, 100.0 * step) for step in range(1, 21)]
    assert sync(settings).sent == 0


@pytest.mark.slow
def test_a_run_outlives_a_restart_of_its_server_with_all_its_files(
    settings, free_port, monkeypatch, caplog, tiny_model_folder
):
    monkeypatch.setattr(tracking_run, "FLUSH_POINTS", 4)
    monkeypatch.setattr(tracking_run, "FIRST_RETRY_SECONDS", 0.1)
    served = resolve_settings(settings.workspace, f"http://127.0.0.1:{free_port}", "lead")
    model, tokenizer = adapted_model(tiny_model_folder)
    with start(served, key={"lead.train_key": "k0"}):
        pass  # recorded nowhere yet
    with contextlib.ExitStack() as servers:
        process = servers.enter_context(mlflow_server(settings, free_port))
        with start(served) as run:
            for step in range(1, 11):
                run.log_metrics({"loss": step / 2, "tokens": 100 * step}, step)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
            for step in range(11, 21):
                run.log_metrics({"loss": step / 2, "tokens": 100 * step}, step)
            run.log_adapter(model, tokenizer, tiny_model_folder)
            run.log_table(pd.DataFrame({"step": [1, 2]}), "selection.json")
            assert run.run_id is None
            servers.enter_context(mlflow_server(settings, free_port))
            for step in range(21, 31):
                run.log_metrics({"loss": step / 2, "tokens": 100 * step}, step)
                time.sleep(0.1)
            run_id = run.run_id
            assert run_id is not None, "found again while the run goes on"
        assert len(warnings_of(caplog)) == 2, "one for each run"
        client = client_of(served)
        recorded = client.get_run(run_id)
        assert recorded.info.status == "FINISHED"
        points = client.get_metric_history(run_id, "loss")
        assert sorted(point.step for point in points) == list(range(1, 31))
        assert [each.path for each in client.list_artifacts(run_id)] == ["selection.json"]
        assert_loads_as(served, model)
    assert {run.info.status for run in runs_of(settings)} == {"FINISHED"}
    assert waiting(settings) == []
