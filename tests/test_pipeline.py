import signal
import subprocess
import sys

import pytest
from toy_workspace import TRAIN, environment, make_workspace, prefect_api, processes_in, wait_for

from flows import pipeline
from flows.pipeline import lead_pipeline
from flows.reproduce import StageError
from flows.workspace import hold_workspace
from lead_core.errors import LeadError


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    prefect_api()
    retries = {"retry_delay_seconds": [0.0]}
    monkeypatch.setattr(pipeline, "run_stage", pipeline.run_stage.with_options(**retries))
    return make_workspace(tmp_path)


def outcomes(runs):
    return {run.stage: run.outcome for run in runs}


def last_flow_run():
    """Return (state, {task: state}, summary) of the newest flow run."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        run = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)[0]
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        tasks = client.read_task_runs(flow_run_filter=of_run)
        artifacts = client.read_artifacts(flow_run_filter=of_run)
        summaries = [artifact.data for artifact in artifacts if artifact.key == "lead-summary"]
    return run.state, {task.name.rsplit("-", 1)[0]: task.state for task in tasks}, summaries


def start_flow(workspace, **variables):
    """Start the flow in a process of its own, which is what a runner or `lead run` does."""
    program = "from flows.pipeline import lead_pipeline; lead_pipeline()"
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=workspace,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_an_edited_source_makes_all_run_again_and_what_is_unchanged_comes_from_dvc(workspace):
    with hold_workspace(workspace):  # as `lead run` does
        runs = lead_pipeline(workspace)
    assert [(run.stage, run.outcome) for run in runs] == [("train", "ran"), ("report", "ran")]
    state, tasks, (summary,) = last_flow_run()
    assert state.is_completed()
    assert set(tasks) == {"lock", "train", "report"}
    assert "| train | ran |" in summary
    assert "-0.2500 [-0.3000, -0.2000] over 64 records" in summary
    assert "`lead ui`" in summary
    data = workspace / "data.jsonl"
    text = data.read_text()
    data.write_text(text.replace("4", "5"))
    assert outcomes(lead_pipeline(workspace)) == {"train": "ran", "report": "ran"}
    data.write_text(text)
    assert outcomes(lead_pipeline(workspace)) == {"train": "cached", "report": "cached"}


def test_targets_bring_what_they_need_and_force_runs_them_again(workspace):
    assert outcomes(lead_pipeline(workspace, ["train"])) == {"train": "ran"}
    assert outcomes(lead_pipeline(workspace, ["train"], True)) == {"train": "ran"}


def test_a_failed_stage_fails_task_and_flow_with_its_own_reason_code_and_log(workspace, caplog):
    (workspace / "train.sh").write_text(
        "echo try >> ../tries; echo looking around; echo 'error: train.lora is odd' >&2; exit 2\n"
    )
    with pytest.raises(StageError) as caught:
        lead_pipeline(workspace)
    assert caught.value.line == "stage train failed: train.lora is odd"
    assert caught.value.exit_code == 2
    state, tasks, (summary,) = last_flow_run()
    assert state.is_failed()
    assert "stage train failed: train.lora is odd" in state.message
    assert tasks["train"].is_failed()
    assert "looking around" in tasks["train"].message
    assert "report" not in tasks
    assert "| train | failed | |\n| report | not run | |" in summary
    assert (workspace.parent / "tries").read_text() == "try\n"  # a user's mistake is not retried
    assert "looking around" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_transient_failure_is_tried_again(workspace):
    (workspace / "train.sh").write_text(
        "if test -e tried; then touch adapter; else touch tried; echo 'error: busy'; exit 75; fi\n"
    )
    assert outcomes(lead_pipeline(workspace, ["train"])) == {"train": "ran"}


@pytest.mark.slow
def test_a_transient_failure_that_stays_ends_with_its_exit_code(workspace):
    (workspace / "train.sh").write_text("echo try >> tries; echo 'error: no network'; exit 75\n")
    with pytest.raises(StageError, match="no network") as caught:
        lead_pipeline(workspace)
    assert caught.value.exit_code == 75
    assert len((workspace / "tries").read_text().split()) == 1 + len(pipeline.RETRY_DELAYS_SECONDS)


def test_a_source_that_is_not_there_fails_the_flow_before_any_stage(workspace):
    (workspace / "data.jsonl").unlink()
    with pytest.raises(LeadError, match=r"data\.jsonl"):
        lead_pipeline(workspace)
    assert set(last_flow_run()[1]) == {"lock"}


def test_a_workspace_in_use_is_refused(workspace):
    code = (
        "from flows.workspace import hold_workspace; from pathlib import Path\n"
        "with hold_workspace(Path.cwd()): print('held', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=workspace,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LeadError, match=f"in use by another run, process {holder.pid}"):
            lead_pipeline(workspace)
    finally:
        holder.communicate(b"\n")


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
        signal.SIGTERM,
    ],
)
def test_however_a_flow_is_ended_no_process_is_left_and_the_next_run_works(workspace, number):
    (workspace / "train.sh").write_text(
        "trap 'echo saved > state; exit 1' TERM\ntouch started\nsleep 300 & wait\n"
    )
    flow = start_flow(workspace, PREFECT_API_URL=prefect_api())
    wait_for((workspace / "started").exists)
    assert len(processes_in(workspace)) >= 4  # the flow, the supervisor, DVC, the stage
    flow.send_signal(number)
    flow.communicate(timeout=60)
    assert flow.returncode != 0
    wait_for(lambda: not processes_in(workspace))
    assert (workspace / "state").read_text() == "saved\n"
    (workspace / "train.sh").write_text(TRAIN)
    assert outcomes(lead_pipeline(workspace, ["train"])) == {"train": "ran"}


def test_prefect_finds_its_settings_before_it_is_imported(tmp_path):
    program = (
        "import flows.pipeline; from prefect.settings import get_current_settings\n"
        "settings = get_current_settings(); print(settings.home)\n"
        "print(settings.server.analytics_enabled, settings.server.ephemeral.startup_timeout_seconds)"
    )
    make_workspace(tmp_path)
    shown = subprocess.check_output(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), text=True
    )
    assert shown.split() == [str(tmp_path / ".prefect"), "False", "90"]


@pytest.mark.slow
def test_without_any_server_prefects_own_ephemeral_one_does(tmp_path):
    flow = start_flow(make_workspace(tmp_path))
    log, _ = flow.communicate(timeout=180)
    assert flow.returncode == 0, log
    assert "Starting temporary server" in log
    assert (tmp_path / "artifacts" / "report" / "metrics.json").exists()
    assert not processes_in(tmp_path)
