"""Running one stage through DVC: the command, its outcome, and the reason when it fails."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.process import run_process
from lead_core.errors import LeadError, TransientError
from lead_core.shortage import memory_advice

TAIL_LINES = 20
_STAGE_EXIT = re.compile(r", exited with (-?\d+)$")  # the end of DVC's StageCmdFailedError
_LOCKED = "Unable to acquire lock"  # DVC waits 3 s for its lock, which another may hold for minutes
_CACHED = ("didn't change, skipping", "is cached - skipping run, checking out outputs")
_HOUSEKEEPING = (
    "Running stage '",
    "> ",
    "Generating lock file",
    "Updating lock file",
    "Data and pipelines are up to date",
    "Use `dvc push` to send",
)


@dataclass(frozen=True)
class StageRun:
    """How one stage went."""

    stage: str
    outcome: Literal["ran", "cached"]
    seconds: float


class StageError(LeadError):
    """A stage failed. `line` says it in one line; the text adds the last lines of the log."""

    def __init__(self, line: str, exit_code: int, tail: Sequence[str] = ()):
        self.line = line
        self.exit_code = exit_code
        super().__init__("\n".join([line, *(f"  {text}" for text in tail)]))

    def __repr__(self) -> str:
        return f"StageError({self.line!r})"

    def without_log(self) -> StageError:
        """Return the same error as its one line."""
        return StageError(self.line, self.exit_code)


def reproduce_stage(
    workspace: Path,
    stage: str,
    *,
    force: bool,
    environment: Mapping[str, str],
    log: Callable[[str], None],
    log_detail: Callable[[str], None],
    keep_open: Sequence[int] = (),
) -> StageRun:
    """Bring one stage up to date with ``dvc repro --single-item``; log its output line by line.

    DVC's own remarks go to `log_detail`. Raises StageError, whose exit code is the stage's; where DVC
    itself failed, that of TransientError if its lock was taken, else DVC's own.
    """
    _drop_broken_rwlock(workspace)
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    cached = False
    started = time.monotonic()

    def on_line(line: str) -> None:
        nonlocal cached
        if not line:
            return
        if line.startswith(f"Stage '{stage}' ") and line.endswith(_CACHED):
            cached = True
        if line.startswith(_HOUSEKEEPING):
            log_detail(line)
            return
        tail.append(line)
        log(line)

    code = run_process(
        [*command, "--force"] if force else command,
        cwd=workspace,
        environment=environment,
        on_line=on_line,
        keep_open=keep_open,
    )
    if code:
        raise _failure(stage, code, list(tail))
    return StageRun(stage, "cached" if cached else "ran", time.monotonic() - started)


def _failure(stage: str, code: int, tail: list[str]) -> StageError:
    """Find the stage's own exit code and its reason in what was printed last."""
    codes = [int(found[1]) for line in tail if (found := _STAGE_EXIT.search(line))]
    if codes and codes[-1] in (-signal.SIGKILL, 128 + signal.SIGKILL):
        line = (
            f"stage {stage} was killed, as the system does when memory runs out; if it was that, "
        )
        return StageError(line + memory_advice(stage), 128 + signal.SIGKILL, tail)
    if codes:
        code = codes[-1]
    elif any(line.startswith("ERROR: ") and _LOCKED in line for line in tail):
        code = TransientError.exit_code
    for prefix in ("error: ", "ERROR: "):
        for line in reversed(tail):
            if line.startswith(prefix):
                return StageError(f"stage {stage} failed: {line.removeprefix(prefix)}", code, tail)
    return StageError(f"stage {stage} failed with exit code {code}", code, tail)


def _drop_broken_rwlock(workspace: Path) -> None:
    """Remove DVC's list of paths in use if a kill cut it short: DVC would refuse to start.

    It is read twice, since a `dvc` started by hand may be in the middle of writing it.
    """
    path = workspace / ".dvc" / "tmp" / "rwlock"
    for final in (False, True):
        try:
            json.loads(path.read_bytes())
        except FileNotFoundError:
            return
        except ValueError:
            if final:
                path.unlink(missing_ok=True)
            else:
                time.sleep(0.5)
        else:
            return
