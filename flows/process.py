"""Child processes that end with us: started under a supervisor, read line by line, stopped whole.

What a stage command (`python -m flows.stages NAME`) must honour to run well under this:

- exit with `error.exit_code` of a LeadError: 2 for a user's mistake, 75 for a TransientError.
  DVC itself always exits with 255, but names the stage's code in its last line ("..., exited
  with 75"), which `flows.reproduce` reads; no file has to be written.
- print one line ``error: ...`` to stderr before that; it becomes the reason shown to the user.
- on SIGTERM save what is needed to resume and exit within `GRACE_SECONDS`; SIGKILL comes after.
- start helpers as ordinary children; they are stopped with the stage.
"""

from __future__ import annotations

import codecs
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

GRACE_SECONDS = 20.0  # below the 30 s that Prefect's runner leaves us between SIGTERM and SIGKILL
PROGRESS_SECONDS = 10.0
SUPERVISOR = Path(__file__).with_name("supervisor.py")


def start_supervised(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    output: int | IO[bytes] | None,
    grace_seconds: float = GRACE_SECONDS,
    keep_open: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start `command` under a supervisor; closing the returned process's stdin stops all of it.

    stdout and stderr go to `output` (None: our own) together, so that their order is kept. The
    descriptors in `keep_open` stay open in the supervisor (not in the command) until everything has
    ended: so a lock outlives a killed owner for as long as there is something to protect.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(SUPERVISOR), str(grace_seconds), *command],
        cwd=cwd,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C in the terminal reaches us alone, and we stop the rest
        pass_fds=tuple(keep_open),
    )


_running: set[subprocess.Popen[bytes]] = set()  # of `run_process`, in whatever thread
_stopping = threading.Event()  # set before `_running` is read, and looked at after it grew


def stop_running() -> None:
    """Begin to stop every command that `run_process` runs in some thread; does not wait for them.

    A command that a thread starts from now on is stopped at once, until `allow_running`.
    """
    _stopping.set()
    for process in tuple(_running):
        _cut_lifeline(process)


def allow_running() -> None:
    """Let `run_process` run commands again; for after the threads that `stop_running` meant."""
    _stopping.clear()


def stop_supervised(process: subprocess.Popen[bytes]) -> int:
    """Cut the lifeline, wait until nothing is left, and return the command's exit code."""
    _cut_lifeline(process)
    return process.wait()


def _cut_lifeline(process: subprocess.Popen[bytes]) -> None:
    """Let the supervisor of `process` see that its command is to be stopped; twice is once."""
    if process.stdin is not None:
        process.stdin.close()


def run_server(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    go_on: Callable[[], bool] = lambda: True,
) -> int:
    """Run `command` on our own output until it ends or we are stopped; return its exit code.

    It is stopped too as soon as `go_on`, asked twice a second, says no.
    """
    process = start_supervised(command, cwd=cwd, environment=environment, output=None)
    try:
        while process.poll() is None and go_on():
            time.sleep(0.5)
    finally:
        code = stop_supervised(process)
    return code


def run_process(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    on_line: Callable[[str], None],
    grace_seconds: float = GRACE_SECONDS,
    keep_open: Sequence[int] = (),
) -> int:
    """Run `command`, pass each line it prints to `on_line`, and return its exit code.

    Whatever ends this function (an exception, a signal turned into one, Ctrl-C) stops the command
    and all its descendants first; lines they print while they stop still arrive. So does
    `stop_running` from another thread, and the code is returned. A code of 128 + n means that signal n
    ended the command.
    """
    process = start_supervised(
        command,
        cwd=cwd,
        environment=environment,
        output=subprocess.PIPE,
        grace_seconds=grace_seconds,
        keep_open=keep_open,
    )
    lines = LineSplitter(on_line)
    _running.add(process)
    try:
        if _stopping.is_set():  # `stop_running` may have come before there was anything to stop
            _cut_lifeline(process)
        _read_until_end(process, lines)
    finally:
        _running.discard(process)
        _cut_lifeline(process)
        _read_until_end(process, lines)  # a full pipe would keep a stage from saving its state
        lines.close()
        if process.stdout is not None:
            process.stdout.close()
    return process.wait()


def _read_until_end(process: subprocess.Popen[bytes], lines: LineSplitter) -> None:
    """Feed `lines` until the supervisor has ended; a stray holder of the pipe is not waited for."""
    if process.stdout is None:
        raise ValueError("the process was started without an output pipe")
    descriptor = process.stdout.fileno()
    while True:
        ended = process.poll() is not None
        if select.select([descriptor], [], [], 0 if ended else 0.1)[0]:
            data = os.read(descriptor, 65536)
            if data:
                lines.feed(data)
                continue
            process.wait()
            return
        if ended:
            return


class LineSplitter:
    """Cuts a byte stream into lines; of a progress bar's redraws only one every 10 s is kept."""

    def __init__(self, on_line: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        self._on_line = on_line
        self._clock = clock
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._pending = ""
        self._progress_at = clock()

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream."""
        self._pending += self._decoder.decode(data)
        *lines, self._pending = self._pending.split("\n")
        for line in lines:
            self._on_line(_visible(line))
        drawn, redrawn, drawing = self._pending.rpartition("\r")
        if redrawn:
            latest = _visible(drawn)
            self._pending = f"{latest}\r{drawing}"
            if latest and self._clock() - self._progress_at >= PROGRESS_SECONDS:
                self._progress_at = self._clock()
                self._on_line(latest)

    def close(self) -> None:
        """Pass on a last line that has no newline."""
        if last := _visible(self._pending):
            self._on_line(last)
        self._pending = ""


def _visible(line: str) -> str:
    """Return what a terminal would show of `line` after its carriage returns."""
    return next((part.rstrip() for part in reversed(line.split("\r")) if part.strip()), "")
