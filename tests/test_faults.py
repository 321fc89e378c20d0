"""Faults on real stages with a tiny model: after each, a rerun reaches the undisturbed result.

``make faults`` runs all of it, the longest last, and keeps the figures (fault_record). `make test`
asks the same in short: kills at every file operation (test_rounds), damaged checkpoints
(test_checkpoint), servers that are down, slow or killed (test_tracking), flows ended by signals
(test_pipeline, test_process), a second run at once (test_workspace), a full disk and a killed training
(test_stages).
"""

# ruff: noqa: F401, F811 - fixtures are imported and then asked for by name

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_workspace
import yaml
from test_stages import call, copy, environment, hashes, limited_to, runs_of, workspace
from toy_workspace import lead, processes_in, processes_with, wait_for

pytestmark = pytest.mark.faults

KILLS = 20
TARGETS = ("flow", "dvc", "stage", "sigterm")
STAGES = ("prepare", "score", "cluster", "train", "evaluate", "report")

# A flow without Prefect: the workspace's lock, and DVC under our supervisor, stage after stage.
DRIVER = """
from pathlib import Path
from flows.environment import stage_environment
from flows.graph import stage_order
from flows.reproduce import reproduce_stage
from flows.workspace import hold_workspace
here = Path.cwd()
with hold_workspace(here) as lock:
    for stage in stage_order(here):
        reproduce_stage(here, stage, force=False, environment=stage_environment(), log=print,
                        log_detail=print, keep_open=[lock])
"""


def assert_undisturbed(folder: Path, expected: Path) -> None:
    """Check that a workspace looks as if nothing had ever happened to it."""
    assert hashes(folder / "artifacts") == hashes(expected / "artifacts")
    assert not processes_in(folder)
    assert not [p for p in (folder / "artifacts").rglob(".*") if p.name != ".gitignore"]
    assert {run.info.status for run in runs_of(folder)[1]} <= {"FINISHED", "KILLED", "FAILED"}


def forget(folder: Path, first: str) -> None:
    """Make the stages from `first` on as if they had never run."""
    gone = STAGES[STAGES.index(first) :]
    lock = yaml.safe_load((folder / "dvc.lock").read_text())
    for stage in gone:
        del lock["stages"][stage]
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))
    for name in (".dvc/cache/runs", ".lead_state", "mlartifacts"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "mlflow.db").unlink()
    for name in ("train", "eval", "report"):
        shutil.rmtree(folder / "artifacts" / name)


def start(folder: Path, clock: Path | None = None) -> subprocess.Popen[bytes]:
    """Run the pipeline in the background; `clock`: a folder with a sitecustomize.py for all of it."""
    paths = [str(clock), os.environ.get("PYTHONPATH", "")] if clock else []
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        cwd=folder,
        env=environment() | ({"PYTHONPATH": os.pathsep.join(paths)} if clock else {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


# The stage, killed as soon as the first pass is on disk: a toy's takes no half minute.
KILLED_BEHIND_ITS_FIRST_PASS = """
import os
import signal
from flows.stages.__main__ import main
from lead_core.scored_batches import ScoredBatches

flush = ScoredBatches.flush

def flush_and_die(kept):
    flush(kept)
    os.kill(os.getpid(), signal.SIGKILL)

ScoredBatches.flush = flush_and_die
main(["score"])
"""


def test_a_killed_scoring_forwards_only_the_rest_and_keeps_its_batches_until_they_are_safe(
    workspace, copy
):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_BEHIND_ITS_FIRST_PASS], cwd=copy, env=environment()
    )
    assert killed.returncode == -signal.SIGKILL
    for _ in range(2):  # DVC may be killed before it has taken note of the scores
        output = call(copy, "flows.stages", "score")
        assert output.splitlines()[-1].endswith(" of them kept from before")
        assert_undisturbed(copy, workspace)
    call(copy, "flows.stages", "cluster")
    assert_undisturbed(copy, workspace)
    assert not list((copy / ".lead_state/scores").iterdir())


SCHEDULED = {
    "flow": "spawn_main",
    "Prefect's runner": "-m flows.schedule",
    "lead serve": "serve --cron",
    "Prefect's server": "prefect server start",
}


def serve(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as stream:
        return subprocess.Popen(
            lead("serve", "--cron", "* * * * *"),
            cwd=folder,
            env=toy_workspace.environment(),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )


def scheduled_runs(log: Path) -> list:
    """The begun runs of the server that the log named last, oldest first; none while it is away."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    found = re.findall(r"Prefect is at (\S+)\.", log.read_text())
    if not found:
        return []
    with temporary_settings({PREFECT_API_URL: found[-1]}), contextlib.suppress(httpx.HTTPError):
        with get_client(sync_client=True) as client:
            runs = [run for run in client.read_flow_runs() if run.start_time]
        return sorted(runs, key=lambda run: run.start_time)
    return []


@pytest.mark.parametrize("victim", SCHEDULED)
def test_a_kill_in_a_scheduled_run_is_told_in_prefect_and_a_later_run_is_whole(
    workspace, copy, tmp_path, victim
):
    """Also that the killed run keeps none of the later ones from starting."""
    forget(copy, "train")
    log = tmp_path / "serve.log"
    serving = serve(copy, log)
    try:
        wait_for(lambda: processes_with(copy, "-m flows.stages train"), seconds=300)
        for pid in processes_with(copy, SCHEDULED[victim]):
            os.kill(pid, signal.SIGKILL)
        if victim != "flow":
            assert serving.wait(120) == (-signal.SIGKILL if victim == "lead serve" else 75)
            wait_for(lambda: not processes_in(copy))
            serving = serve(copy, log)

        def is_over() -> bool:
            first, *later = scheduled_runs(log) or [None]
            done = any(run.state_name == "Completed" for run in later)
            return done and first.state_name in ("Crashed", "Failed") and bool(first.state.message)

        wait_for(is_over, seconds=1200)
    finally:
        serving.terminate()
        serving.wait(120)
    assert_undisturbed(copy, workspace)


# A wall clock for every Python process that finds this as its sitecustomize: 400 days ahead and back,
# in turns of a third of a second. C libraries (SQLite, the kernel's file times) keep the right time.
JUMPING_CLOCK = """
import time

now_ns, monotonic = time.time_ns, time.monotonic

def jumping_ns():
    return now_ns() + (-1) ** int(3 * monotonic()) * 400 * 86_400 * 10**9

time.time_ns = jumping_ns
time.time = lambda: jumping_ns() / 1e9
"""


def test_a_clock_that_jumps_all_the_time_decides_nothing(workspace, copy, tmp_path):
    forget(copy, "train")
    (tmp_path / "sitecustomize.py").write_text(JUMPING_CLOCK)
    for ahead, path in enumerate(sorted((copy / "artifacts").rglob("*"))):
        then = time.time() + (-1) ** ahead * 400 * 86_400
        os.utime(path, (then, then))
    assert start(copy, clock=tmp_path).wait(900) == 0
    assert_undisturbed(copy, workspace)
    assert [run.info.status for run in runs_of(copy)[1]] == ["FINISHED"]
    assert "Data and pipelines are up to date" in call(copy, "dvc", "repro")


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_ends_a_stage_in_one_line_and_a_rerun_is_whole(workspace, copy, stage):
    output = limited_to(copy, 512, "flows.stages", stage)
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith("error: ")
    assert "cannot be written (File too large); raise the limit" in output
    call(copy, "flows.stages", stage)
    assert_undisturbed(copy, workspace)


@pytest.mark.parametrize(
    ("stage", "path", "maker"),
    [
        ("train", "pool/pool.arrow", "prepare"),
        ("score", "pool/pool.arrow", "prepare"),
        ("cluster", "scores/scores.parquet", "score"),
        ("train", "scores/scores.parquet", "score"),
        ("train", "clusters/clusters.parquet", "cluster"),
        ("evaluate", "train/adapter/adapter_model.safetensors", "train"),
        ("evaluate", "pool/heldout.arrow", "prepare"),
    ],
)
def test_a_damaged_file_is_refused_and_dvc_puts_it_right(workspace, copy, stage, path, maker):
    damaged = copy / "artifacts" / path
    damaged.chmod(0o644)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    output = call(copy, "flows.stages", stage, code=2)
    assert output.splitlines()[-1].startswith("error: ")
    assert f"dvc repro {maker}" in output
    call(copy, "dvc", "repro")
    assert_undisturbed(copy, workspace)


# In a mount namespace of its own: gone with the command, seen by nobody else.
READ_ONLY = "mount --bind artifacts artifacts && mount -o remount,bind,ro artifacts && exec "
UNSHARE = ("unshare", "--map-root-user", "--mount", "sh", "-c")


@pytest.mark.parametrize("stage", STAGES)
def test_outputs_on_a_read_only_disk_end_a_stage_in_one_line_and_leave_all_as_it_was(
    workspace, copy, stage
):
    if subprocess.run([*UNSHARE, READ_ONLY + "true"], cwd=copy, capture_output=True).returncode:
        pytest.skip("this machine lets us make no mounts of our own")
    command = f"{READ_ONLY} {sys.executable} -m flows.stages {stage}"
    done = subprocess.run(
        [*UNSHARE, command], cwd=copy, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: artifacts/")
    assert last.endswith(
        "cannot be written (Read-only file system); mount its file system for writing, and run again"
    )
    assert_undisturbed(copy, workspace)
    call(copy, "flows.stages", stage)
    assert_undisturbed(copy, workspace)


def test_an_output_that_cannot_be_written_leaves_the_earlier_one(workspace, copy):
    """A file where a folder has to go."""
    shutil.rmtree(copy / "artifacts/eval")
    (copy / "artifacts/eval").write_text("in the way")
    call(copy, "flows.stages", "evaluate", code=1)
    assert (copy / "artifacts/eval").read_text() == "in the way"
    (copy / "artifacts/eval").unlink()
    call(copy, "flows.stages", "evaluate")
    assert_undisturbed(copy, workspace)


def test_stages_run_to_the_same_result_without_mlflow_which_is_told_later(workspace, copy):
    forget(copy, "train")
    away = environment() | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    for stage in ("train", "evaluate", "report"):
        done = subprocess.run(
            [sys.executable, "-m", "flows.stages", stage], cwd=copy, env=away, capture_output=True
        )
        assert done.returncode == 0
    call(copy, "lead", "sync")
    (run,) = runs_of(copy)[1]
    assert "eval/lead_heldout/loss" in run.data.metrics
    assert_undisturbed(copy, workspace)


@pytest.fixture(scope="module")
def undisturbed_seconds(workspace, tmp_path_factory):
    """How long the stages from train on take, with nothing in their way."""
    folder = Path(shutil.copytree(workspace, tmp_path_factory.mktemp("timed") / "w", symlinks=True))
    forget(folder, "train")
    began = time.monotonic()
    assert start(folder).wait(900) == 0
    assert_undisturbed(folder, workspace)
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("number", "target"),
    [pytest.param(n, TARGETS[n % 4], id=f"{TARGETS[n % 4]}-{n}") for n in range(KILLS)],
)
def test_a_kill_at_a_random_moment_costs_time_alone(
    workspace, copy, undisturbed_seconds, record_property, number, target
):
    """Kill -9 of the driver, of DVC or of the stage; every fourth time SIGTERM to the driver."""
    rng = random.Random(number)
    word = {"dvc": "-m dvc repro", "stage": "-m flows.stages"}.get(target, "hold_workspace")
    forget(copy, "train")
    began = time.monotonic()
    driver = start(copy)
    time.sleep(rng.uniform(0.1, 0.9) * undisturbed_seconds)
    for pid in processes_with(copy, word) or [driver.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM if target == "sigterm" else signal.SIGKILL)
    driver.wait(60)
    wait_for(lambda: not processes_in(copy))
    assert start(copy).wait(900) == 0
    lost = max(0.0, time.monotonic() - began - undisturbed_seconds)
    record_property("seconds_lost", lost)
    assert_undisturbed(copy, workspace)
