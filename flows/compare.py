"""`lead compare` as a Prefect flow: the cells of compare/dvc.yaml that are not there yet.

Each cell is one ``dvc repro --single-item``, several at a time if asked, and is kept as soon as it is
done: a stopped comparison goes on where it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.compare_plan import COMMAND, ComparePlan, illustrate, open_plan, tabulate
from flows.pipeline import lock_sources, publish_summary, run_stage
from flows.process import allow_running, stop_running
from flows.reproduce import StageError
from flows.workspace import hold_workspace
from lead_core.comparison.cells import COMPARISON_TAG, Cell
from lead_core.comparison.kept import Wanted
from lead_core.comparison.table import ComparisonTable, as_markdown
from lead_core.errors import LeadError
from lead_core.tracking import open_run, resolve_settings
from lead_core.training_state import drop_finished_states

BASE_STAGE = "compare/dvc.yaml:base"


def compare_selectors(workspace: Path, jobs: int) -> ComparisonTable | None:
    """Run the missing cells, `jobs` at a time; return the table (None: too few cells).

    Raises LeadError when cells failed, after the others are done and kept.
    """
    runner: Any = ThreadPoolTaskRunner(max_workers=jobs)  # its own type is narrower than asked for
    try:
        return compare_pipeline.with_options(task_runner=runner)(workspace)
    finally:
        allow_running()  # its threads have ended


@flow(name="lead-compare")
def compare_pipeline(workspace: Path) -> ComparisonTable | None:
    """Bring the comparison of `workspace` up to date; its jobs are those of the task runner."""
    with hold_workspace(workspace) as lock:
        lock_sources(workspace)
        drop_finished_states(workspace)  # cells leave that to us: others may run beside them
        run_stage.with_options(name="prepare")(workspace, "prepare", False, lock)
        plan = open_plan(workspace)
        missing = plan.missing()
        get_run_logger().info("%d of %d cells to compute", len(missing), len(plan.cells))
        failures: list[str] = []
        if missing or plan.base_missing():
            _record(plan, None)  # the parent, before its children
            failures = _run_missing(plan, missing, lock)
            drop_finished_states(workspace)
        table = tabulate(plan)
        if table is not None:
            illustrate(plan, table)
        _record(plan, table)
        if table is not None:
            publish_summary(as_markdown(table, COMMAND), key="lead-comparison")
        if failures:
            raise LeadError("\n".join([*failures, "run `lead compare` again for what is missing"]))
    return table


def stage_of(cell: Cell) -> str:
    """Return the name of a cell's stage, as DVC addresses it."""
    return f"compare/dvc.yaml:cell@{cell.selector}-{cell.seed}"


def _run_missing(plan: ComparePlan, missing: list[Wanted], lock: int) -> list[str]:
    """Compute what is missing and keep it; return a line for each thing that failed."""
    for stage in ("score", "cluster"):
        run_stage.with_options(name=stage)(plan.workspace, stage, False, lock)
    failures: list[str] = []
    if plan.base_missing():
        run_stage.with_options(name="base")(plan.workspace, BASE_STAGE, False, lock)
        plan.keep_base()
    with _stopped_whole():
        started: dict[PrefectFuture[Any], Wanted] = {
            run_stage.with_options(name=wanted.cell.name).submit(
                plan.workspace, stage_of(wanted.cell), False, lock
            ): wanted
            for wanted in missing
        }
        for done, future in enumerate(as_completed(list(started)), start=1):
            wanted = started[future]
            try:
                future.result()
                plan.keep(wanted)
                tabulate(plan)  # to be read meanwhile; pictures are drawn at the end
            except StageError as error:
                failures.append(error.line)
            except LeadError as error:
                failures.append(str(error))
            get_run_logger().info("%s: %d of %d done", wanted.cell.name, done, len(started))
    return failures


@contextlib.contextmanager
def _stopped_whole() -> Iterator[None]:
    """On Ctrl-C or a cancellation end the cells at work, whose threads would be waited for."""
    try:
        yield
    except BaseException:
        stop_running()
        raise


def _record(plan: ComparePlan, table: ComparisonTable | None) -> None:
    """Open the comparison's MLflow run, the parent of its cells' runs; give it what was found."""
    tracking = plan.params.tracking
    with open_run(
        resolve_settings(plan.workspace, tracking.uri, tracking.experiment),
        name=f"comparison of {len(plan.params.compare.selectors)} selectors",
        key={COMPARISON_TAG: plan.kept.comparison},
        tags={"lead.stage": "compare"},
        params={"compare": plan.params.compare.model_dump(mode="json")},
    ) as run:
        if table is None:
            return
        run.log_metrics({"compare/heldout_loss.base": table.base_loss})
        for row in table.rows:
            run.log_metrics({f"compare/heldout_loss/{row.selector}": row.loss})
        for path in sorted(plan.kept.folder.glob("comparison*")):
            run.log_artifact(path)
