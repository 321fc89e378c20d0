import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.process import (
    LineSplitter,
    allow_running,
    run_process,
    start_supervised,
    stop_running,
)

REPOSITORY = Path(__file__).parents[1]

# Leaves a process in a group and session of its own behind, as a sandbox does.
ESCAPEE = "subprocess.Popen(['sleep', '300'], start_new_session=True)"
TREE = f"""
import pathlib, subprocess, time
children = [subprocess.Popen(['sleep', '300']), {ESCAPEE}]
pathlib.Path('pids').write_text(' '.join(str(child.pid) for child in children))
print('ready', flush=True)
time.sleep(300)
"""


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def is_running(pid):
    """A zombie does not run any more: where nobody reaps orphans it stays for ever."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pids_in(folder, count=2):
    path = folder / "pids"
    wait_for(lambda: path.exists() and len(path.read_text().split()) == count)
    return [int(word) for word in path.read_text().split()]


def run_python(code, folder, **options):
    lines = []
    options = {"on_line": lines.append, "grace_seconds": 5, **options}
    code = run_process([sys.executable, "-c", code], cwd=folder, environment=os.environ, **options)
    return code, lines


@pytest.fixture
def owner(tmp_path):
    """A process of its own that runs a tree of processes, as a flow runs a stage."""
    program = (
        "import os, sys; from pathlib import Path; from flows.process import run_process\n"
        f"run_process([sys.executable, '-c', {TREE!r}], cwd=Path.cwd(), environment=os.environ,\n"
        "    on_line=print, grace_seconds=5)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment)
    yield process
    process.kill()
    process.wait()


def test_lines_of_both_streams_arrive_in_order_with_the_exit_code(tmp_path):
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(75)"
    assert run_python(code, tmp_path) == (75, ["out", "err"])


def test_a_signal_that_ends_the_command_becomes_128_plus_its_number(tmp_path):
    code, _ = run_python("import os; os.kill(os.getpid(), 9)", tmp_path)
    assert code == 128 + signal.SIGKILL


def test_a_last_line_without_a_newline_is_not_lost(tmp_path):
    assert run_python("print('a\\nb', end='')", tmp_path) == (0, ["a", "b"])


def test_an_exception_while_reading_leaves_no_process_behind(tmp_path):
    def refuse(line):
        raise ValueError(line)

    with pytest.raises(ValueError, match="ready"):
        run_python(TREE, tmp_path, on_line=refuse)
    assert not any(is_running(pid) for pid in pids_in(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_however_the_owner_is_ended_no_process_is_left_behind(owner, tmp_path, number):
    pids = pids_in(tmp_path)
    assert all(is_running(pid) for pid in pids)
    owner.send_signal(number)
    wait_for(lambda: not any(is_running(pid) for pid in pids))


@pytest.fixture
def stopped():
    """Stopping as it is in a process of its own: whatever a test did, the next one may run."""
    yield stop_running
    allow_running()


def test_stopping_ends_the_trees_of_all_threads_and_their_code_says_so(tmp_path, stopped):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(run_python, TREE, folder) for folder in folders]
        pids = [pid for folder in folders for pid in pids_in(folder)]
        assert all(is_running(pid) for pid in pids)
        stopped()
    assert [future.result()[0] for future in futures] == [128 + signal.SIGTERM] * 2
    assert not any(is_running(pid) for pid in pids)


def test_a_command_that_was_still_waiting_for_a_thread_is_stopped_as_it_starts(tmp_path, stopped):
    """The worker whose command was stopped takes the next one: that must not run for hours."""
    with ThreadPoolExecutor(1) as pool:
        futures = [pool.submit(run_python, "import time; time.sleep(9)", tmp_path) for _ in "abc"]
        wait_for(futures[0].running)
        stopped()
    assert [future.result()[0] for future in futures] == [128 + signal.SIGTERM] * 3


def test_a_command_that_is_just_being_started_is_stopped_too(tmp_path, stopped, monkeypatch):
    """The stop comes between the start of its process and the note that it runs."""

    def start_then_stop(*arguments, **options):
        process = start_supervised(*arguments, **options)
        stopped()
        return process

    monkeypatch.setattr("flows.process.start_supervised", start_then_stop)
    assert run_python("import time; time.sleep(9)", tmp_path)[0] == 128 + signal.SIGTERM


def test_commands_run_again_once_that_is_allowed(tmp_path, stopped):
    stopped()
    allow_running()
    assert run_python("print('ran')", tmp_path) == (0, ["ran"])


# As in a comparison: a flow hands commands to threads, and whatever interrupts it stops them all.
FLOW = f"""
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from flows.process import run_process, stop_running

def run(folder):
    folder.mkdir()
    return run_process([sys.executable, '-c', {TREE!r}], cwd=folder, environment=os.environ,
        on_line=print, grace_seconds=5)

with ThreadPoolExecutor(2) as pool:
    try:
        for n in range(4):
            pool.submit(run, Path(str(n)))
            print('submitted', flush=True)
            time.sleep(float(sys.argv[1]))
        time.sleep(300)
    except KeyboardInterrupt:
        stop_running()
        raise
"""


@pytest.mark.parametrize("moment", ["submit", "middle"])
def test_ctrl_c_ends_a_process_whose_threads_run_commands(tmp_path, moment):
    seconds = "300" if moment == "submit" else "0"
    flow = subprocess.Popen(
        [sys.executable, "-c", FLOW, seconds],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert flow.stdout.readline() == b"submitted\n"
        if moment == "middle":
            assert all(is_running(pid) for name in "01" for pid in pids_in(tmp_path / name))
        flow.send_signal(signal.SIGINT)
        assert flow.wait(60) != 0
    finally:
        flow.kill()
        flow.communicate()
    started = list(tmp_path.glob("*/pids"))
    assert not any(is_running(int(pid)) for path in started for pid in path.read_text().split())


def test_a_command_that_ends_does_not_leave_its_background_jobs(tmp_path):
    code, lines = run_python(TREE.replace("time.sleep(300)", ""), tmp_path)
    assert (code, lines) == (0, ["ready"])
    assert not any(is_running(pid) for pid in pids_in(tmp_path))


def test_a_stopped_command_may_save_its_state_and_what_it_says_then_is_heard(tmp_path):
    code = """
import pathlib, signal, sys, time
def save(*_):
    print('x' * 200_000)  # more than a pipe holds
    time.sleep(0.5)
    pathlib.Path('state').write_text('saved')
    print('saved', flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print('ready', flush=True)
time.sleep(300)
"""
    lines = []

    def stop_when_ready(line):
        lines.append(line)
        if line == "ready":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_python(code, tmp_path, on_line=stop_when_ready)
    assert (tmp_path / "state").read_text() == "saved"
    assert lines[-1] == "saved"


def test_a_command_that_ignores_sigterm_is_killed_after_the_grace_period(tmp_path):
    code = """
import os, pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path('pids').write_text(str(os.getpid()))
print('ready', flush=True)
time.sleep(300)
"""

    def stop(line):
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_python(code, tmp_path, on_line=stop, grace_seconds=1)
    assert 1 <= time.monotonic() - started < 10
    assert not any(is_running(pid) for pid in pids_in(tmp_path, 1))


def test_a_descriptor_kept_open_is_closed_to_the_command_itself(tmp_path):
    with (tmp_path / "lock").open("w") as stream:
        number = stream.fileno()
        code = f"import os\ntry: os.fstat({number}); print('open')\nexcept OSError: print('closed')"
        assert run_python(code, tmp_path, keep_open=[number]) == (0, ["closed"])


def test_signals_are_not_ignored_in_the_command(tmp_path):
    code = "import signal; print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)"
    assert run_python(code, tmp_path) == (0, ["True"])


def split(*pieces, seconds_between=0.0):
    lines, now = [], [0.0]
    splitter = LineSplitter(lines.append, clock=lambda: now[0])
    for piece in pieces:
        now[0] += seconds_between
        splitter.feed(piece)
    splitter.close()
    return lines


def test_a_progress_bar_that_redraws_fast_leaves_only_its_final_state():
    pieces = [b"\r%3d%%|bar" % n for n in range(101)]
    assert split(*pieces, b"\n", b"done\n") == ["100%|bar", "done"]


def test_a_slow_progress_bar_shows_every_ten_seconds_and_at_its_end():
    pieces = [b"\r%d%%" % n for n in range(30)]
    assert split(*pieces, b"\n", seconds_between=1.0) == ["8%", "18%", "28%", "29%"]


def test_lines_are_cut_alike_however_the_stream_is_cut():
    stream = "eins\r\nzwei ä\n\n\rbar\rbar 2\ndrei".encode()
    expected = ["eins", "zwei ä", "", "bar 2", "drei"]
    assert split(stream) == expected
    assert split(*(stream[i : i + 1] for i in range(len(stream)))) == expected


def test_bytes_that_are_not_text_do_no_harm():
    assert split(b"a\xff\n") == ["a\ufffd"]
