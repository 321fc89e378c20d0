import os
import signal
import subprocess
import sys

import psutil
import pytest

from lead_core.errors import LeadError
from lead_core.tracking_process import ending_after, is_alive, origin_tags, sigterm_as_exit


def _git(directory, *arguments):
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True)


def test_the_commit_and_uncommitted_changes_are_told(tmp_path):
    _git(tmp_path, "init", "-q")
    assert "mlflow.source.git.commit" not in origin_tags(tmp_path), "no commit yet"
    (tmp_path / "a").write_text("1")
    _git(tmp_path, "add", "a")
    _git(tmp_path, "commit", "-q", "-m", "first")
    tags = origin_tags(tmp_path)
    assert len(tags["mlflow.source.git.commit"]) == 40
    assert tags["lead.git_dirty"] == "false"
    (tmp_path / "a").write_text("2")
    assert origin_tags(tmp_path)["lead.git_dirty"] == "true"


def test_outside_of_a_repository_and_a_flow_their_tags_are_absent(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("LEAD_FLOW_RUN_ID", raising=False)
    monkeypatch.delenv("LEAD_FLOW_RUN_URL", raising=False)
    assert set(origin_tags(tmp_path)) == {
        "lead.version",
        "lead.host",
        "lead.pid",
        "lead.process_start",
    }


def test_the_flow_run_is_taken_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAD_FLOW_RUN_ID", "abc")
    monkeypatch.setenv("LEAD_FLOW_RUN_URL", "http://user:secret@localhost/runs/abc")
    tags = origin_tags(tmp_path)
    assert tags["lead.flow_run_id"] == "abc"
    assert tags["lead.flow_run_url"] == "http://***@localhost/runs/abc"


def test_this_process_is_alive_and_one_with_its_id_but_another_start_is_not(tmp_path):
    tags = origin_tags(tmp_path)
    assert is_alive(tags)
    assert not is_alive({**tags, "lead.process_start": str(float(tags["lead.process_start"]) - 60)})


def test_a_clock_that_is_set_makes_no_living_process_a_dead_one(tmp_path, monkeypatch):
    tags = origin_tags(tmp_path)
    booted = psutil.boot_time()  # what the kernel makes of the new time
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: booted + 3600)
    assert psutil.Process().create_time() - booted > 3600
    assert is_alive(tags)


def test_a_process_that_ended_is_not_alive_not_even_as_a_zombie():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = round(psutil.Process(child.pid).create_time() - psutil.boot_time(), 2)
    tags = {"lead.pid": str(child.pid), "lead.process_start": str(start)}
    assert is_alive(tags)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, not yet waited for
    assert not is_alive(tags)
    child.communicate()
    assert not is_alive(tags)


def test_a_run_of_unknown_process_counts_as_alive():
    assert is_alive({})


class _StoppedError(LeadError):
    exit_code = 143


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (KeyboardInterrupt(), ("KILLED", "stopped by Ctrl-C")),
        (SystemExit(143), ("KILLED", "stopped by SIGTERM")),
        (SystemExit(130), ("KILLED", "stopped by SIGINT")),
        (_StoppedError("stopped in round 3"), ("KILLED", "stopped in round 3")),
        (SystemExit(2), ("FAILED", "SystemExit: 2")),
        (LeadError("the pool is empty"), ("FAILED", "the pool is empty")),
        (ValueError("bad\nworse"), ("FAILED", "ValueError: bad")),
        (SystemExit(0), ("FINISHED", None)),
        (SystemExit(), ("FINISHED", None)),
    ],
)
def test_what_stops_a_run_from_outside_kills_it_and_errors_fail_it(error, ending):
    assert ending_after(error) == ending


def test_sigterm_becomes_an_exit_and_its_handler_is_put_back():
    with pytest.raises(SystemExit) as caught, sigterm_as_exit():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_of_somebody_else_is_left_alone():
    seen = []
    signal.signal(signal.SIGTERM, lambda *_: seen.append("theirs"))
    try:
        with sigterm_as_exit():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert seen == ["theirs"]
