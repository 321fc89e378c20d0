"""Run one command so that nothing of it outlives the process that asked for it.

A program of its own (standard library only, started by path, see `flows.process`):
``python -I -S supervisor.py GRACE_SECONDS COMMAND...``

Its standard input is a lifeline: a pipe that the asking process holds open and never writes to.
When it closes, because the asker wants to stop or because it died (kill -9 included, which no
handler can catch), the command's process group gets SIGTERM, after the grace period SIGKILL.
The same sweep follows a command that ends by itself but leaves processes behind.

On Linux the supervisor is also the reaper of orphans below it, so processes that left the group
(a sandbox in a session of its own) are found and stopped too; elsewhere the group is all we see.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

POLL_SECONDS = 0.05
KILL_SECONDS = 5.0  # how long SIGKILL may take to show before we give up on a stuck process
PR_SET_CHILD_SUBREAPER = 36


def supervise(grace_seconds: float, command: list[str]) -> int:
    """Run `command` until it ends or the lifeline closes; return its exit code as a shell would."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ignore)  # a handler, not SIG_IGN: the command must not inherit it
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    while child.poll() is None and not select.select([0], [], [], POLL_SECONDS)[0]:
        pass
    sweep(child, grace_seconds)
    code = child.returncode
    return 128 + signal.SIGKILL if code is None else 128 - code if code < 0 else code


def sweep(child: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """Stop what is left of `child`'s group and of the orphans below us, gently first."""
    kill_at = time.monotonic() + grace_seconds
    asked: set[int] = set()  # SIGTERM goes out once per process: stages save their state on it
    while (alive := remaining(child)) and time.monotonic() < kill_at + KILL_SECONDS:
        if time.monotonic() < kill_at:
            _signal_all(alive - asked, signal.SIGTERM)
            asked |= alive
        else:
            _signal_all(alive, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def remaining(child: subprocess.Popen[bytes]) -> set[int]:
    """Return whom to signal: minus the group's id while it has members, and adopted orphans."""
    if child.poll() is not None:  # only then: it would steal the child's exit code
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    orphans = {pid for pid in children() if _group(pid) != child.pid}
    try:
        os.killpg(child.pid, 0)
    except (ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        return orphans
    return orphans | {-child.pid}


def children() -> set[int]:
    """Return the ids of our direct children; empty where /proc does not tell."""
    try:
        text = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    except OSError:
        return set()
    return {int(word) for word in text.split()}


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _signal_all(targets: set[int], number: int) -> None:
    for target in targets:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(target, number)  # a negative target is a process group


def _ignore(number: int, frame: object) -> None:
    """Let the lifeline decide: a stray signal must not end the one who cleans up."""


if __name__ == "__main__":
    sys.exit(supervise(float(sys.argv[1]), sys.argv[2:]))
