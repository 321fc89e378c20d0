"""One cell of a comparison: a training by one selector and seed, measured on the held-out records.

Started with ``--set select.selector=NAME --set seed=N`` (compare/dvc.yaml); params.yaml is not touched.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from flows.stages.base import load_base, measure
from flows.stages.train import run_training
from lead_core.artifacts import Layout, read_manifest
from lead_core.comparison.cells import COMPARISON_TAG, Cell, check_no_start
from lead_core.comparison.identity import comparison_id
from lead_core.comparison.record import describe_cell, measured_on
from lead_core.model import load_adapter, resolve_runtime
from lead_core.origin import write_origin
from lead_core.params import Params, effective_params, load_params
from lead_core.selectors import get_selector
from lead_core.storage import read_jsonl_log, sha256_file, write_json
from lead_core.tracking import open_run, resolve_settings
from lead_core.training_state import mark_finished


def cell(params: Params, layout: Layout, workspace: Path) -> str:
    """Train and measure the cell that `params` name; write its folder below artifacts/compare."""
    check_no_start(params.grow.start_from)  # here too: DVC can be asked for a cell by hand
    own = Cell(params.select.selector, params.seed)
    runtime = resolve_runtime(
        params.runtime.device, params.runtime.threads, params.runtime.precision
    )
    manifest = read_manifest(layout.pool, "prepare")
    params = with_monitoring(params, manifest["counts"]["kept"])
    shared = load_params(workspace / "params.yaml").model_dump(mode="json")
    parent = {COMPARISON_TAG: comparison_id(shared, manifest, runtime.precision)}
    layout = Layout.below(layout.pool.parent, run=layout.comparison / own.name)
    trained = run_training(params, layout, workspace, parent_key=parent)
    model = load_adapter(load_base(params, layout, runtime), layout.train / "adapter")
    heldout, cost = measure(params, layout, runtime, model)
    effective = effective_params(params)[0].model_dump(mode="json")
    measured = measured_on(runtime, params.evaluate.batch_size)
    found = describe_cell(layout, effective, heldout, cost, measured)
    path = layout.train.parent / "cell.json"
    write_json(path, found)
    write_origin(path, workspace, {"seconds": _seconds(layout)})
    _record(found, params, layout, workspace, parent)
    mark_finished(trained.state)
    loss = found["heldout"]["macro"]
    return f"{trained.summary}\n{own.name}: held-out loss {loss:.4f} nats/token (macro)"


def with_monitoring(params: Params, pool_records: int) -> Params:
    """Return `params` with held-out losses taken during training for the first seeds alone.

    About `compare.curve_points` times, for the first `compare.curve_seeds` of the seeds.
    """
    compare, every = params.compare, None
    if params.seed in compare.seeds[: compare.curve_seeds]:
        steps = _visits(params, pool_records) / params.train.effective_batch
        every = max(1, math.ceil(steps / compare.curve_points))
    train = params.train.model_copy(update={"monitor_every_rounds": every})
    return params.model_copy(update={"train": train})


def _visits(params: Params, pool_records: int) -> float:
    """Return about how many samples the cell trains on."""
    select = params.select
    if get_selector(select.selector).whole_pool:
        return pool_records
    distinct = select.budget_samples or (select.budget_fraction or 0.0) * pool_records
    return distinct * (select.visits_per_budget or 1.0)


def _seconds(layout: Layout) -> dict[str, float]:
    """Return the seconds of the offline pass and of this training, where they are known whole."""
    scores_sha256 = read_manifest(layout.scores, "score")["scores_sha256"]
    scored = [
        row["offline_seconds"]
        for row in read_jsonl_log(layout.scores.parent / "timings.jsonl")
        if row.get("scores_sha256") == scores_sha256 and not row.get("taken_over")
    ]
    trained = [
        row for row in read_jsonl_log(layout.train / "timings.jsonl") if row.get("stage") == "train"
    ]
    seconds = {"offline": scored[-1]} if scored else {}
    if trained and trained[-1]["attempt"] == 1:
        seconds["training"] = trained[-1]["ledger_seconds"]["training"]
    return seconds


def _record(
    found: dict[str, Any],
    params: Params,
    layout: Layout,
    workspace: Path,
    parent: dict[str, str],
) -> None:
    """Add the cell's figures to the MLflow run of its training, a child of the comparison's run."""
    tracking = resolve_settings(workspace, params.tracking.uri, params.tracking.experiment)
    figures = {"compare/heldout_loss": found["heldout"]["macro"]}
    for source, loss in found["heldout"]["by_source"].items():
        figures[f"compare/heldout_loss/{source}"] = loss
    for kind, counts in found["planted"].items():
        figures[f"compare/picked/{kind}"] = counts["visits"]
    with open_run(
        tracking,
        name=f"{found['selector']}-seed{found['seed']}",
        key={"lead.train_hash": sha256_file(layout.train / "manifest.json")},
        tags={},
        params={},
        parent_key=parent,
    ) as run:
        run.log_metrics(figures)
