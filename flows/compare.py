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

from flows.comparison import Books, keep_finished, open_books, tabulate
from flows.pipeline import lock_sources, publish_summary, run_stage
from flows.process import stop_running
from flows.reproduce import StageError
from flows.workspace import hold_workspace
from lead_core.comparison import COMPARISON_TAG
from lead_core.comparison_table import Comparison, as_markdown
from lead_core.errors import LeadError
from lead_core.tracking import open_run, resolve_settings

BASE_STAGE = "compare/dvc.yaml:base"
CELL_STAGE = "compare/dvc.yaml:cell@{cell.selector}-{cell.seed}"


def compare_selectors(workspace: Path, jobs: int) -> Comparison | None:
    """Run the missing cells, `jobs` at a time; return the comparison (None: too few cells).

    Raises LeadError for the first cell that failed, after the others are done and kept.
    """
    runner: Any = ThreadPoolTaskRunner(max_workers=jobs)  # its own type is narrower than asked for
    return compare_pipeline.with_options(task_runner=runner)(workspace)


@flow(name="lead-compare")
def compare_pipeline(workspace: Path) -> Comparison | None:
    """Bring the comparison of `workspace` up to date; its jobs are those of the task runner."""
    with hold_workspace(workspace) as lock:
        lock_sources(workspace)
        run_stage.with_options(name="prepare")(workspace, "prepare", False, lock)
        books = open_books(workspace)
        keep_finished(books)
        missing = books.missing()
        get_run_logger().info("%d of %d cells to compute", len(missing), len(books.cells))
        failure: LeadError | None = None
        if missing or books.base_missing():
            _record(books, None)  # the parent, before its children
            failure = _run_missing(books, lock)
        result = tabulate(books)
        _record(books, result)
        if result is not None:
            publish_summary(as_markdown(result), key="lead-comparison")
        if failure is None and (left := books.missing()):
            failure = LeadError(
                f"{len(left)} cells were computed with other parameters than params.yaml had at the "
                "start; run `lead compare` again"
            )
        if failure is not None:
            raise failure
    return result


def _run_missing(books: Books, lock: int) -> LeadError | None:
    """Compute what is missing; return the first failure, if any."""
    for stage in ("score", "cluster"):
        run_stage.with_options(name=stage)(books.workspace, stage, False, lock)
    stages = [BASE_STAGE] if books.base_missing() else []
    stages += [CELL_STAGE.format(cell=cell) for cell in books.missing()]
    failure: LeadError | None = None
    with _stopped_whole():
        futures: list[PrefectFuture] = [
            run_stage.with_options(name=stage.rpartition(":")[2]).submit(
                books.workspace, stage, False, lock
            )
            for stage in stages
        ]
        for done, future in enumerate(as_completed(futures), start=1):
            try:
                future.result()
            except StageError as error:
                failure = failure or error.without_log()
            keep_finished(books)
            tabulate(books)
            get_run_logger().info("%d of %d done", done, len(futures))
    return failure


@contextlib.contextmanager
def _stopped_whole() -> Iterator[None]:
    """On Ctrl-C or a cancellation end the cells at work, whose threads would be waited for."""
    try:
        yield
    except BaseException:
        stop_running()
        raise


def _record(books: Books, result: Comparison | None) -> None:
    """Open the comparison's MLflow run, the parent of its cells' runs; give it what was found."""
    tracking = books.params.tracking
    with open_run(
        resolve_settings(books.workspace, tracking.uri, tracking.experiment),
        name=f"comparison of {len(books.params.compare.selectors)} selectors",
        key={COMPARISON_TAG: books.comparison},
        tags={"lead.stage": "compare"},
        params={"compare": books.params.compare.model_dump(mode="json")},
    ) as run:
        if result is None:
            return
        run.log_metrics({"compare/heldout_loss.base": result.base_loss})
        for row in result.rows:
            run.log_metrics({f"compare/heldout_loss/{row.selector}": row.loss})
        for path in sorted(books.folder.glob("comparison*")):
            run.log_artifact(path)
