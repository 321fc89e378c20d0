import json
import subprocess
import sys

import pytest
from toy_workspace import make_workspace, wait_for

from flows.environment import stage_environment
from flows.reproduce import StageError, reproduce_stage
from flows.source_lock import source_lock_problem, update_source_lock
from lead_core.errors import TransientError


@pytest.fixture
def workspace(tmp_path):
    make_workspace(tmp_path)
    update_source_lock(tmp_path)
    return tmp_path


def reproduce(workspace, stage="train", force=False, **environment):
    lines, details = [], []
    run = reproduce_stage(
        workspace,
        stage,
        force=force,
        environment=stage_environment(environment),
        log=lines.append,
        log_detail=details.append,
    )
    return run.outcome, lines, details


def failure(workspace):
    with pytest.raises(StageError) as caught:
        reproduce(workspace)
    return caught.value


def test_the_stages_own_lines_are_logged_and_dvcs_remarks_are_details(workspace):
    outcome, lines, details = reproduce(workspace)
    assert (outcome, lines) == ("ran", ["training"])
    assert "Running stage 'train':" in details
    outcome, lines, _ = reproduce(workspace)
    assert (outcome, lines) == ("cached", ["Stage 'train' didn't change, skipping"])
    assert reproduce(workspace, force=True)[0] == "ran"


def test_an_output_restored_from_the_cache_is_no_run(workspace):
    reproduce(workspace)
    (workspace / "adapter").unlink()
    outcome, lines, _ = reproduce(workspace)
    assert outcome == "cached"
    assert "training" not in lines


def test_a_stage_gets_our_python_whatever_the_path_says(workspace):
    (workspace / "train.sh").write_text(
        "python -c 'import sys; print(sys.prefix)' > adapter; echo $LEAD_FLOW_RUN_ID >> adapter\n"
    )
    reproduce(workspace, LEAD_FLOW_RUN_ID="some-run")
    assert (workspace / "adapter").read_text().split() == [sys.prefix, "some-run"]


@pytest.mark.parametrize("code", [2, 75])
def test_a_failure_carries_the_stages_exit_code_its_reason_and_its_last_lines(workspace, code):
    lines = "for n in $(seq 30); do echo line $n; done"
    (workspace / "train.sh").write_text(f"{lines}; echo 'error: it is odd' >&2; exit {code}\n")
    error = failure(workspace)
    assert error.exit_code == code
    assert error.line == "stage train failed: it is odd"
    assert "line 30" in str(error)
    assert "line 3\n" not in str(error)
    assert str(error.without_log()) == error.line


def test_a_stage_without_a_reason_is_reported_with_dvcs(workspace):
    (workspace / "train.sh").write_text("kill -6 $$\n")
    error = failure(workspace)
    assert error.line.startswith("stage train failed: failed to reproduce 'train': failed to run")
    assert error.exit_code not in (0, 75)


def test_a_killed_stage_names_what_kills_without_a_word(workspace):
    (workspace / "train.sh").write_text("kill -9 $$\n")
    error = failure(workspace)
    assert error.line == (
        "stage train was killed, as the system does when memory runs out; if it was that, lower "
        "train.micro_batch_tokens or data.max_tokens, and run again"
    )
    assert error.exit_code == 137


def test_a_stage_that_dvc_cannot_start_is_reported_with_dvcs_reason(workspace):
    (workspace / "train.sh").unlink()
    assert "No such file or directory" in failure(workspace).line


# Takes DVC's own lock, as a process does that hashes a large pool, for longer than DVC waits.
HOLD_LOCK = """
import pathlib, sys, time, zc.lockfile
lock = zc.lockfile.LockFile(".dvc/tmp/lock")
pathlib.Path("held").touch()
time.sleep(60)
"""


def test_a_lock_of_dvc_that_another_holds_may_be_free_at_the_next_try(workspace):
    holder = subprocess.Popen([sys.executable, "-c", HOLD_LOCK], cwd=workspace)
    try:
        wait_for((workspace / "held").exists)
        error = failure(workspace)
    finally:
        holder.kill()
        holder.wait()
    assert error.line.startswith("stage train failed: Unable to acquire lock")
    assert error.exit_code == TransientError.exit_code
    assert reproduce(workspace)[0] == "ran"


def test_so_may_one_that_was_taken_while_the_stage_ran(workspace):
    (workspace / "hold.py").write_text(HOLD_LOCK)
    (workspace / "train.sh").write_text(
        "python hold.py & until test -e held; do sleep 0.1; done; touch adapter\n"
    )
    error = failure(workspace)
    assert "failed to reproduce 'train': Unable to acquire lock" in error.line
    assert error.exit_code == TransientError.exit_code


def test_a_list_of_paths_in_use_that_a_kill_cut_short_does_not_block_the_next_run(workspace):
    path = workspace / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"write": {')
    assert reproduce(workspace)[0] == "ran"
    json.loads(path.read_text())


def test_the_source_lock_is_written_only_when_something_changed(workspace):
    assert source_lock_problem(workspace) is None
    assert not update_source_lock(workspace)
    (workspace / "data.jsonl").write_text("{}\n")
    assert "data.jsonl changed since it was locked" in source_lock_problem(workspace)
    assert update_source_lock(workspace)
    assert source_lock_problem(workspace) is None
