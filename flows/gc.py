"""What `lead gc` does: find what a workspace no longer needs, and remove it.

Only what LEAD itself keeps below `.lead_state` and half-written files below `artifacts`: DVC's cache
and MLflow's runs, the champion among them, have commands of their own (docs/operations.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flows.graph import plan_run
from flows.stages.cell import with_monitoring
from flows.stages.score import scoring_key
from flows.stages.train import TrainInputs, read_inputs, training_key
from lead_core.artifacts import Layout, read_manifest
from lead_core.champion_runs import CHAMPIONS
from lead_core.comparison.cells import planned_cells
from lead_core.earlier_run import champion_name
from lead_core.errors import LeadError
from lead_core.garbage import (
    Waste,
    former_champions,
    remove,
    scraps,
    stale_scores,
    stale_states,
    surplus_answers,
)
from lead_core.lock_file import LOCK_FILE, read_lock
from lead_core.model import resolve_runtime
from lead_core.params import Params, effective_params, load_params
from lead_core.tracking import resolve_settings
from lead_core.tracking_outbox import list_outboxes
from lead_core.training_state import scores_folder, state_folder

MEGABYTE = 1_000_000


def collect_garbage(workspace: Path, *, eval_cache_mb: int, dry_run: bool) -> Iterator[str]:
    """Remove what is of no more use, or only list it; yield a line for each, and the sum.

    Raises LeadError for what cannot be removed.
    """
    layout = Layout.below(workspace / "artifacts")
    state = workspace / ".lead_state"
    found = [
        *surplus_answers(state / "eval-cache", eval_cache_mb * MEGABYTE),
        *scraps(state),
        *scraps(layout.pool.parent),
    ]
    if any(state.glob("train-*")):
        try:
            found += stale_states(state, wanted_states(workspace, layout))
        except LeadError as error:  # then nobody knows which state is whose
            yield f"resume states are kept, for params.yaml and artifacts do not fit: {error}"
    if any((state / "scores").glob("*")):
        try:
            found += stale_scores(state / "scores", {wanted_scores(workspace)})
        except LeadError as error:
            yield f"finished batches of scoring are kept, for nobody knows whose they are: {error}"
    if any((workspace / CHAMPIONS).glob("[!.]*")):
        try:
            found += former_champions(workspace / CHAMPIONS, wanted_runs(workspace))
        except LeadError as error:
            yield f"kept runs are kept, for nobody knows which is the champion's: {error}"
    for waste in found:
        if not dry_run:
            remove(waste)
        yield f"{_size(waste.size_bytes):>10}  {_name(waste, workspace)}: {waste.why}"
    total = _size(sum(waste.size_bytes for waste in found))
    yield f"{total:>10}  {'would be freed' if dry_run else 'freed'}"


def wanted_states(workspace: Path, layout: Layout) -> set[str]:
    """Return the names of the state folders of what params.yaml asks for: run and comparison.

    Raises LeadError when the inputs of the training are not there or not up to date.
    """
    if stale := [plan.stage for plan in plan_run(workspace, ["cluster"], []) if plan.reasons]:
        raise LeadError(f"{', '.join(stale)} would run anew; `lead run` first")
    params = load_params(workspace / "params.yaml")
    inputs = read_inputs(params, layout, workspace)
    records = read_manifest(layout.pool, "prepare")["counts"]["kept"]
    compare = params.compare
    cells = planned_cells(compare.selectors, compare.seeds, compare.fewer_seeds)
    trainings = [params]
    for cell in cells:
        select = params.select.model_copy(update={"selector": cell.selector})
        own = params.model_copy(update={"seed": cell.seed, "select": select})
        trainings.append(with_monitoring(own, records))
    return {_state_name(workspace, training, inputs) for training in trainings}


def wanted_scores(workspace: Path) -> str:
    """Return the name of the state folder of the scoring that params.yaml and lock ask for.

    Raises LeadError when one of them is not as it should be.
    """
    params = load_params(workspace / "params.yaml")
    lock = read_lock(workspace / LOCK_FILE)
    model = lock["model"] if params.score.model is None else lock["scoring_model"]
    if model is None:
        raise LeadError(f"{LOCK_FILE} names no score.model; run `lead lock`")
    runtime = resolve_runtime(
        params.runtime.device, params.runtime.threads, params.runtime.precision
    )
    return scores_folder(workspace, scoring_key(params, model["sha256"], runtime)).name


def wanted_runs(workspace: Path) -> set[str]:
    """Return the names of the kept runs that are of use: the champion's, and the one of the lock.

    Raises LeadError where MLflow cannot say, or has yet to hear of a candidate.
    """
    params = load_params(workspace / "params.yaml")
    tracking = params.tracking
    if list_outboxes(resolve_settings(workspace, tracking.uri, tracking.experiment).outboxes):
        raise LeadError("some of what was logged is not in MLflow yet; `lead sync` first")
    wanted = {champion_name(params, workspace)}
    if (workspace / LOCK_FILE).is_file():
        start = read_lock(workspace / LOCK_FILE)["start"]
        wanted |= set() if start is None else {Path(start["folder"]).name}
    return wanted


def _state_name(workspace: Path, params: Params, inputs: TrainInputs) -> str:
    effective, _ = effective_params(params)
    runtime = resolve_runtime(
        effective.runtime.device, effective.runtime.threads, effective.runtime.precision
    )
    return state_folder(workspace, training_key(effective, inputs, runtime)).name


def _name(waste: Waste, workspace: Path) -> str:
    return waste.path.relative_to(workspace).as_posix()


def _size(size_bytes: int) -> str:
    return f"{size_bytes / MEGABYTE:.1f} MB"
