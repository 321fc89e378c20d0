"""One cell of a comparison: a training by one selector and seed, measured on the held-out records.

Started with ``--set select.selector=NAME --set seed=N`` (compare/dvc.yaml); params.yaml is not touched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.stages.base import load_base, measure
from flows.stages.train import train
from lead_core.artifacts import Layout, read_manifest
from lead_core.comparison import (
    COMPARISON_TAG,
    Cell,
    cell_params,
    comparison_id,
    describe_cell,
)
from lead_core.model import load_adapter, resolve_runtime
from lead_core.params import Params, load_params
from lead_core.storage import sha256_file, write_json
from lead_core.tracking import open_run, resolve_settings


def cell(params: Params, layout: Layout, workspace: Path) -> str:
    """Train and measure the cell that `params` name; write its folder below artifacts/compare."""
    own = Cell(params.select.selector, params.seed)
    shared = load_params(workspace / "params.yaml")
    runtime = resolve_runtime(
        shared.runtime.device, shared.runtime.threads, shared.runtime.precision
    )
    manifest = read_manifest(layout.pool, "prepare")
    comparison = comparison_id(shared, manifest, runtime.precision)
    wanted = cell_params(shared, own, manifest["counts"]["kept"])
    layout = Layout.below(layout.pool.parent, run=layout.comparison / own.name)
    parent = {COMPARISON_TAG: comparison}
    summary = train(wanted, layout, workspace, parent_key=parent)
    model = load_adapter(load_base(wanted, runtime), layout.train / "adapter")
    found = describe_cell(
        layout, wanted, measure(wanted, layout, runtime, model), comparison=comparison
    )
    write_json(layout.train.parent / "cell.json", found)
    _record(found, wanted, layout, workspace, parent)
    return (
        f"{summary}\n{own.name}: held-out loss {found['heldout']['macro']:.4f} nats/token (macro)"
    )


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
