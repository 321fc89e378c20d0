import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.workspace import find_workspace, hold_workspace
from lead_core.errors import LeadError

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def start_holder(tmp_path):
    """Start processes that hold the workspace while they run a stage that is slow to stop."""
    started = []

    def start():
        stage = "trap 'sleep 2; exit' TERM; echo ready; while :; do sleep 0.1; done"
        program = (
            "import os; from pathlib import Path; from flows.process import run_process\n"
            "from flows.workspace import hold_workspace\n"
            "with hold_workspace(Path.cwd()) as lock:\n"
            f"    run_process(['sh', '-c', {stage!r}], cwd=Path.cwd(), environment=os.environ,\n"
            "        on_line=lambda line: print(line, flush=True), keep_open=[lock])"
        )
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_workspace_is_found_from_a_folder_inside_it(tmp_path):
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").touch()
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "dvc.yaml").touch()  # a comparison's graph alone makes no workspace
    assert find_workspace(inner) == tmp_path


def test_outside_a_workspace_the_error_says_what_makes_one(tmp_path):
    with pytest.raises(LeadError, match=r"holds both dvc\.yaml and params\.yaml; change into"):
        find_workspace(tmp_path)


def test_the_lock_may_be_nested_in_one_process_and_is_free_afterwards(tmp_path):
    for _ in range(2):
        with hold_workspace(tmp_path) as outer, hold_workspace(tmp_path) as inner:
            assert outer == inner


def test_a_second_writer_is_refused_with_the_process_of_the_first(start_holder, tmp_path):
    holder = start_holder()
    expected = f"is in use by another run, process {holder.pid}: wait for it, or stop it with `kill"
    with pytest.raises(LeadError, match=expected), hold_workspace(tmp_path):
        pass


def test_a_killed_writers_lock_lasts_as_long_as_its_stage_and_no_longer(start_holder, tmp_path):
    holder = start_holder()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    expected = f"the stages of process {holder.pid}, which has ended, are still being stopped"
    with pytest.raises(LeadError, match=expected), hold_workspace(tmp_path):
        pass
    deadline = time.monotonic() + 15
    while True:
        try:
            with hold_workspace(tmp_path):
                return
        except LeadError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
