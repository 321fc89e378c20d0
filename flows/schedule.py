"""Running the pipeline on a schedule: a served Prefect deployment, one run at a time."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from uuid import UUID

from flows.dead_runs import close_dead_runs
from flows.environment import set_prefect_environment
from flows.process import run_server
from flows.server import SERVER_LOG, PrefectApi, prefect_server
from lead_core.errors import LeadError, TransientError

DEAD_RUNS_SECONDS = 90.0  # a flow that was seen as pending holds the workspace by then


def serve_schedule(workspace: Path, cron: str) -> None:
    """Serve the flow with a cron schedule (UTC) until interrupted; then nothing is left running.

    While nobody serves, the schedule is paused: no queue of missed runs waits for the next start.
    Raises LeadError for an expression that is not cron, TransientError when Prefect's runner or our
    server ends: no run would come any more, and nothing would say so. The runner is a supervised
    process of its own, because a run that it started would survive it (measured with 3.8.8).
    """
    set_prefect_environment(workspace)
    _check_cron(cron)
    signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: the runner ends before the server does
    with prefect_server(workspace) as api:
        print(f"Serving the pipeline at {cron!r} (UTC); Prefect is at {api.url}. Ctrl-C ends it.")
        code = run_server(
            [sys.executable, "-m", "flows.schedule", str(workspace), cron],
            cwd=workspace,
            environment={**os.environ, "PREFECT_API_URL": api.url},
            go_on=_watch(workspace, api),
        )
        if api.process is not None and api.process.poll() is not None:
            raise TransientError(
                f"Prefect's server ended by itself with exit code {api.process.returncode}; its log is "
                f"{workspace / SERVER_LOG}. Serve again"
            )
        raise TransientError(
            f"Prefect's runner ended by itself with exit code {code}; see its log above. Serve again"
        )


def _watch(workspace: Path, api: PrefectApi) -> Callable[[], bool]:
    """Return what serving asks again and again: is our server alive? It closes dead runs as well."""
    suspects: frozenset[UUID] = frozenset()
    due = time.monotonic()

    def go_on() -> bool:
        nonlocal suspects, due
        if api.process is not None and api.process.poll() is not None:
            return False
        if time.monotonic() >= due:
            suspects = close_dead_runs(workspace, suspects)
            due = time.monotonic() + DEAD_RUNS_SECONDS
        return True

    return go_on


def run_schedule(workspace: Path, cron: str) -> None:
    """Be Prefect's runner: register the deployment and start what is due, until stopped."""
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from flows.pipeline import lead_pipeline

    lead_pipeline.serve(
        name="lead",
        schedule=Cron(cron, timezone="UTC"),
        parameters={"workspace": str(workspace)},
        paused=False,  # a schedule that rested since the last Ctrl-C goes on
        pause_on_shutdown=True,
        limit=1,
        global_limit=1,
        print_starting_message=False,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


def _check_cron(cron: str) -> None:
    from prefect.client.schemas.schedules import CronSchedule
    from pydantic import ValidationError

    try:
        CronSchedule(cron=cron, timezone="UTC")
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise LeadError(
            f'--cron {cron!r}: {reason}; expected five fields such as "0 3 * * *"'
        ) from None


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    run_schedule(Path(sys.argv[1]), sys.argv[2])
