"""The workspace: the folder with dvc.yaml and params.yaml, and the lock that makes one writer."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from lead_core.errors import LeadError

_held: dict[Path, int] = {}  # locks of this process, so that a flow may run under `lead run`'s


def find_workspace(start: Path) -> Path:
    """Return the nearest folder, from `start` upwards, that holds dvc.yaml and params.yaml."""
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file():
            return folder
    raise LeadError(
        f"no workspace here: neither {start} nor a folder above it holds both dvc.yaml and "
        "params.yaml; change into a checkout of LEAD"
    )


@contextlib.contextmanager
def hold_workspace(workspace: Path) -> Iterator[int]:
    """Make this process the workspace's only writer; yield the descriptor that carries the lock.

    Nested use in one process is fine. Raises LeadError naming the holder when another has it.
    The kernel drops the lock when the last copy of the descriptor closes, so a dead process holds
    nothing; a supervisor that still stops a dead run's stages keeps a copy until it is done.
    """
    path = workspace.resolve() / ".lead_state" / "writer.lock"
    if path in _held:
        yield _held[path]
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LeadError(_refusal(workspace, os.pread(descriptor, 32, 0))) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        _held[path] = descriptor
        try:
            yield descriptor
        finally:
            del _held[path]
    finally:
        os.close(descriptor)


def _refusal(workspace: Path, written: bytes) -> str:
    """Say who holds the lock and what to do about it."""
    holder = written.decode("ascii", "replace").strip() or "unknown"
    if holder.isdecimal() and not _exists(int(holder)):
        return (
            f"{workspace} is in use: the stages of process {holder}, which has ended, are still "
            "being stopped; try again in a moment"
        )
    return (
        f"{workspace} is in use by another run, process {holder}: wait for it, or stop it with "
        f"`kill {holder}`"
    )


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
