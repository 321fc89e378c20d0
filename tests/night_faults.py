"""What goes wrong in the simulated night. Each fault waits for its moment and says what it did."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toy_workspace import lead, processes_with

from flows.workspace import hold_workspace
from lead_core.errors import LeadError

if TYPE_CHECKING:
    from night import Night

DAMAGED = (
    "pool/pool.arrow",
    "scores/scores.parquet",
    "clusters/clusters.parquet",
    "train/adapter/adapter_model.safetensors",
)


@dataclass(frozen=True)
class Fault:
    """`inject` returns what was done, or None while there is nothing to do it to.

    `repair` comes `after_seconds`; None where nothing has to be put right by hand.
    """

    name: str
    inject: Callable[[Night], str | None]
    repair: Callable[[Night], None] | None = None
    after_seconds: float = 0.0


def _killer(word: str, number: int = signal.SIGKILL) -> Callable[[Night], str | None]:
    """Return a fault that sends a signal to the processes whose command line holds `word`."""

    def inject(night: Night) -> str | None:
        found = processes_with(night.workspace, word)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return f"{len(found)} processes" if found else None

    return inject


def _kill_serving(night: Night) -> str | None:
    if not night.serve.runs:
        return None
    busy = bool(night.flows())
    night.serve.kill()
    night.check_orphans_of_serving()
    return "during a run" if busy else "between runs"


def _kill_prefect(night: Night) -> str | None:
    night.prefect.kill()
    return "during a run" if night.flows() else "between runs"


def _stop_mlflow(night: Night) -> str | None:
    night.mlflow.stop(10)
    return "during a run" if night.flows() else "between runs"


def _fill_disk(night: Night) -> str | None:
    """Leave no byte free on the small disk that the workspace lies on."""
    with contextlib.suppress(OSError), night.ballast.open("ab", buffering=0) as stream:
        while stream.write(bytes(1 << 16)):
            pass
    return "during a run" if night.flows() else "between runs"


def _free_disk(night: Night) -> None:
    night.ballast.unlink(missing_ok=True)


def _damage(night: Night) -> str | None:
    """Flip a bit in the middle of an artifact, between runs."""
    path = Path(night.workspace / "artifacts" / night.rng.choice(DAMAGED))
    try:
        with hold_workspace(night.workspace):
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.chmod(0o644)
            path.write_bytes(content)
            night.renew_work()  # else no run would look at it before the next change
    except (LeadError, FileNotFoundError):
        return None
    return path.relative_to(night.workspace).as_posix()


def _run_second(night: Night) -> str | None:
    """`lead run` by hand while a scheduled run is at work."""
    if not night.flows():
        return None
    log = night.folder / "logs" / f"second-{len(night.seconds)}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            lead("run", "--quiet"),
            cwd=night.workspace,
            env=night.environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    night.seconds.append((process, log))
    return "beside a scheduled run"


FAULTS = (
    Fault("kill -9 of the stage", _killer("-m flows.stages")),
    Fault("kill -9 of dvc", _killer("-m dvc repro")),
    Fault("kill -9 of the flow", _killer("spawn_main")),
    Fault("kill -9 of Prefect's runner", _killer("-m flows.schedule")),
    Fault("kill -9 of lead serve", _kill_serving),
    Fault("kill -9 of the Prefect server", _kill_prefect, lambda night: night.prefect.start(), 20),
    Fault("run cancelled in Prefect", lambda night: night.cancel()),
    Fault("MLflow server stopped", _stop_mlflow, lambda night: night.mlflow.start(), 60),
    Fault("disk full", _fill_disk, _free_disk, 40),
    Fault("artifact damaged", _damage),
    Fault("second run", _run_second),
)
