"""The Prefect flow: DVC's stages in DVC's order, with logs, retries, cancellation and a summary.

It computes nothing and caches nothing: each task is one ``dvc repro --single-item``, so a
scheduled run, `lead run` and `dvc repro` are the same computation with the same cache.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any

from flows.environment import set_prefect_environment, stage_environment
from flows.graph import stage_order
from flows.reproduce import StageError, StageRun, reproduce_stage
from flows.source_lock import update_source_lock
from flows.summary import run_summary
from flows.workspace import find_workspace, hold_workspace
from lead_core.errors import LeadError, TransientError
from lead_core.training_state import drop_finished_states

with contextlib.suppress(LeadError):  # imported outside a workspace, Prefect keeps its own home
    set_prefect_environment(find_workspace(Path.cwd()))

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

RETRY_DELAYS_SECONDS = [10.0, 60.0]


def _is_transient(_task: object, _task_run: object, state: Any) -> bool:
    """Tell whether trying again may help: the stage said so with TransientError's exit code."""
    error = state.data
    return isinstance(error, LeadError) and error.exit_code == TransientError.exit_code


@task(
    name="lock",
    cache_policy=NO_CACHE,
    retries=len(RETRY_DELAYS_SECONDS),
    retry_delay_seconds=RETRY_DELAYS_SECONDS,
    retry_condition_fn=_is_transient,
)
def lock_sources(workspace: Path) -> None:
    """Write sources.lock.json, through which DVC sees the sources and the model."""
    update_source_lock(workspace)


@task(
    cache_policy=NO_CACHE,  # a Prefect cache hit would not look at the files; DVC's does
    retries=len(RETRY_DELAYS_SECONDS),
    retry_delay_seconds=RETRY_DELAYS_SECONDS,
    retry_condition_fn=_is_transient,
)
def run_stage(workspace: Path, stage: str, force: bool, lock: int) -> StageRun:
    """Bring one stage up to date; `lock` is the descriptor of the workspace's lock."""
    logger = get_run_logger()
    links = {"LEAD_FLOW_RUN_ID": flow_run.id, "LEAD_FLOW_RUN_URL": flow_run.ui_url}
    return reproduce_stage(
        workspace,
        stage,
        force=force,
        environment=stage_environment({name: str(at) for name, at in links.items() if at}),
        log=logger.info,
        log_detail=logger.debug,
        keep_open=[lock],
    )


@flow(name="lead")
def lead_pipeline(
    workspace: Path | None = None, targets: list[str] | None = None, force: bool = False
) -> list[StageRun]:
    """Bring `targets` (default: every stage of dvc.yaml) and what they need up to date.

    `workspace` defaults to the one around the working directory; `force` runs stages that are up
    to date too. Raises LeadError: the workspace is in use, the sources cannot be locked, or a stage
    failed (StageError). Whatever ends the flow, no process of a stage is left behind.
    """
    workspace = find_workspace(workspace or Path.cwd())
    with hold_workspace(workspace) as lock:
        lock_sources(workspace)
        stages = stage_order(workspace, targets or ())
        if force:  # a finished training's state would otherwise be taken for the result
            drop_finished_states(workspace)
        runs: list[StageRun] = []
        try:
            # Called, not submitted: only so does a cancellation reach the child process.
            for stage in stages:
                runs.append(run_stage.with_options(name=stage)(workspace, stage, force, lock))
        except StageError as error:
            publish_summary(run_summary(workspace, stages, runs, failure=error.line))
            raise error.without_log() from None  # the task's state holds the log
        publish_summary(run_summary(workspace, stages, runs))
    return runs


def publish_summary(markdown: str, key: str = "lead-summary") -> None:
    """Show `markdown` with the flow run in Prefect's interface."""
    create_markdown_artifact(markdown, key=key, description="Stages and results")


class _OneLineErrors(logging.Filter):
    """Shows a LeadError in Prefect's log as its line; the traceback would tell a user nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record of a LeadError; let every record pass."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, LeadError):
            record.msg, record.args, record.exc_info = "Stopped: %s", (_line(error),), None
        return True


def _line(error: LeadError) -> str:
    return error.line if isinstance(error, StageError) else str(error)


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_OneLineErrors())
