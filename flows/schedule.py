"""Running the pipeline on a schedule: a served Prefect deployment, one run at a time."""

from __future__ import annotations

from pathlib import Path

from flows.server import prefect_server
from lead_core.errors import LeadError


def serve_schedule(workspace: Path, cron: str) -> None:
    """Serve the flow with a cron schedule (UTC) until interrupted.

    While nobody serves, the schedule is paused: no queue of missed runs waits for the next start.
    Raises LeadError for an expression that is not cron.
    """
    with prefect_server(workspace) as url:
        from prefect.client.schemas.schedules import CronSchedule
        from prefect.schedules import Cron
        from prefect.types.entrypoint import EntrypointType
        from pydantic import ValidationError

        from flows.pipeline import lead_pipeline

        try:
            CronSchedule(cron=cron, timezone="UTC")
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise LeadError(
                f'--cron {cron!r}: {reason}; expected five fields such as "0 3 * * *"'
            ) from None
        print(f"Serving the pipeline at {cron!r} (UTC); Prefect is at {url}. Ctrl-C ends it.")
        lead_pipeline.serve(
            name="lead",
            schedule=Cron(cron, timezone="UTC"),
            parameters={"workspace": str(workspace)},
            paused=False,  # a schedule that rested since the last Ctrl-C goes on
            limit=1,
            global_limit=1,
            pause_on_shutdown=True,
            print_starting_message=False,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
