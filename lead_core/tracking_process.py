"""The process behind a recorded run: where it comes from, how it ends, whether it still lives."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from lead_core import __version__
from lead_core.tracking_names import first_line, legal_tags

KILLED_EXIT_CODES = (128 + signal.SIGINT, 128 + signal.SIGTERM)


def origin_tags(workspace: Path) -> dict[str, str]:
    """Return where a run comes from: library version, commit, flow run, host and process."""
    process = psutil.Process()
    tags: dict[str, object] = {
        "lead.version": __version__,
        "lead.host": socket.gethostname(),
        "lead.pid": process.pid,
        "lead.process_start": _start_seconds(process),
        "lead.flow_run_id": os.environ.get("LEAD_FLOW_RUN_ID"),
        "lead.flow_run_url": os.environ.get("LEAD_FLOW_RUN_URL"),
    }
    origin = git_origin(workspace)
    if origin:
        tags["mlflow.source.git.commit"] = origin[
            "commit"
        ]  # MLflow's UI has a column for this name
        tags["lead.git_dirty"] = "true" if origin["edited"] else "false"
    return legal_tags(tags)


def git_origin(workspace: Path) -> dict[str, Any]:
    """Return the workspace's `commit` and the tracked files `edited` since; empty without git."""
    commit = _git(workspace, "rev-parse", "HEAD")
    if commit is None:
        return {}
    # What DVC itself writes and stages is no edit of anybody's.
    ignored = [
        f":(exclude){name}" for name in ("dvc.lock", "compare/dvc.lock", "sources.lock.json")
    ]
    edited = _git(workspace, "diff", "--name-only", "HEAD", "--", ".", *ignored)
    return {"commit": commit, "edited": (edited or "").splitlines()}


def is_alive(tags: Mapping[str, str]) -> bool:
    """Return whether the process that `origin_tags` described, on this host, still runs.

    A process that the tags do not describe is taken for alive.
    """
    try:
        pid, start = int(tags["lead.pid"]), float(tags["lead.process_start"])
    except (KeyError, ValueError):
        return True
    try:
        process = psutil.Process(pid)
        same = _start_seconds(process) == start  # process ids are used again
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _start_seconds(process: psutil.Process) -> float:
    """Return when the process started, in seconds since the machine did.

    Not since the epoch: that changes for a living process when the clock is set.
    """
    return round(process.create_time() - psutil.boot_time(), 2)


def ending_after(error: BaseException) -> tuple[str, str | None]:
    """Return the state of a run that `error` ended, and the reason in one line."""
    code = error.code if isinstance(error, SystemExit) else getattr(error, "exit_code", None)
    if isinstance(error, SystemExit) and not code:
        return "FINISHED", None
    if isinstance(error, KeyboardInterrupt):
        return "KILLED", "stopped by Ctrl-C"
    if code in KILLED_EXIT_CODES:
        by_signal = f"stopped by {signal.Signals(code - 128).name}"
        return "KILLED", by_signal if isinstance(error, SystemExit) else first_line(error)
    return "FAILED", first_line(error)


@contextlib.contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM end the block by `SystemExit(143)`, unless somebody handles it already."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _git(directory: Path, *arguments: str) -> str | None:
    """Return what git prints; None where there is no git, no repository or no commit."""
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
