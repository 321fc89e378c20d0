"""What a comparison wants, what is kept of it, and the tables of that; nothing is computed here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lead_core.artifacts import Layout, read_clusters, read_manifest, read_scores
from lead_core.comparison.cells import BASE, Cell, planned_cells
from lead_core.comparison.identity import TRAINED, comparison_id, deciding, rule_id
from lead_core.comparison.kept import KeptCells, Wanted
from lead_core.comparison.plots import arms_plot, cost_plot, differences_plot
from lead_core.comparison.table import ComparisonTable, as_markdown, tabulate_cells
from lead_core.errors import LeadError
from lead_core.model import resolve_runtime
from lead_core.origin import read_origin
from lead_core.params import Params, effective_params, load_params
from lead_core.selectors import get_selector
from lead_core.storage import read_json, write_bytes, write_json, write_text

ARTIFACTS = Path("artifacts")
COMMAND = "lead compare"


@dataclass(frozen=True)
class ComparePlan:
    """One comparison: its parameters, its cells in order, and where finished ones are kept."""

    workspace: Path
    params: Params
    cells: tuple[Wanted, ...]
    kept: KeptCells
    pool_records: int

    @property
    def layout(self) -> Layout:
        """Return where the stages write."""
        return Layout.below(self.workspace / ARTIFACTS)

    def missing(self) -> list[Wanted]:
        """Return the cells that have to be computed, in their order."""
        return self.kept.missing(self.cells)

    def base_missing(self) -> bool:
        """Whether the untuned model has to be measured."""
        return self.kept.base() is None

    def keep_base(self) -> None:
        """Keep the record that the `base` stage wrote."""
        found, origin = self._finished(BASE)
        self.kept.keep_base(found, self._inputs(scored=False), origin)

    def keep(self, wanted: Wanted) -> None:
        """Keep the record that the cell's stage wrote; LeadError if it is of other inputs."""
        found, origin = self._finished(wanted.cell.name)
        self.kept.keep(wanted, found, self._inputs(scored=True), origin)

    def _finished(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        path = self.layout.comparison / name / "cell.json"
        return read_json(path, made_by=COMMAND), read_origin(path)

    def _inputs(self, *, scored: bool) -> dict[str, str]:
        """Return the hashes of what is here now, of scores and clusters if asked."""
        inputs = _pool_hashes(read_manifest(self.layout.pool, "prepare"))
        if scored:
            inputs["scores_sha256"] = read_scores(self.layout.scores)[1]["scores_sha256"]
            inputs["clusters_sha256"] = read_clusters(self.layout.clusters)[1]["clusters_sha256"]
        return inputs


def open_plan(workspace: Path) -> ComparePlan:
    """Return the comparison that params.yaml asks for; the pool must be prepared.

    Raises LeadError without a pool, or when nothing is held out to compare on.
    """
    params = load_params(workspace / "params.yaml")
    manifest = read_manifest(Layout.below(workspace / ARTIFACTS).pool, "prepare")
    if not manifest["counts"]["heldout"]:
        raise LeadError(
            "a comparison needs held-out records; set data.heldout_per_source to at least 1"
        )
    runtime = resolve_runtime(
        params.runtime.device, params.runtime.threads, params.runtime.precision
    )
    compare = params.compare
    plain = params.model_dump(mode="json")
    identity = comparison_id(plain, _pool_hashes(manifest), runtime.precision)
    cells = planned_cells(compare.selectors, compare.seeds, compare.fewer_seeds)
    return ComparePlan(
        workspace=workspace,
        params=params,
        cells=tuple(_wanted(params, cell) for cell in cells),
        kept=KeptCells.below(workspace / (compare.results or ARTIFACTS / "compare"), identity),
        pool_records=manifest["counts"]["kept"],
    )


def _wanted(params: Params, cell: Cell) -> Wanted:
    select = params.select.model_copy(update={"selector": cell.selector})
    effective, _ = effective_params(params.model_copy(update={"select": select}))
    plain = effective.model_dump(mode="json")
    return Wanted(cell, rule_id(get_selector(cell.selector), plain), deciding(plain, TRAINED))


def _pool_hashes(manifest: dict[str, Any]) -> dict[str, str]:
    return {name: manifest[name] for name in ("pool_sha256", "heldout_sha256", "model_sha256")}


def tabulate(plan: ComparePlan) -> ComparisonTable | None:
    """Write table and pictures of the kept cells; None while base or baseline are missing."""
    base = plan.kept.base()
    found = [record for wanted in plan.cells if (record := plan.kept.cell(wanted))]
    baseline = plan.params.compare.baseline
    if base is None or all(record["selector"] != baseline for record in found):
        return None
    table = tabulate_cells(
        found, base, baseline=baseline, pool_records=plan.pool_records, wanted=len(plan.cells)
    )
    folder = plan.kept.folder
    write_text(folder / "comparison.md", as_markdown(table, COMMAND))
    write_json(folder / "comparison.json", asdict(table))
    pictures = {
        "differences": differences_plot(table, found),
        "cost": cost_plot(table, found),
        "arms": arms_plot(found),
    }
    for name, png in pictures.items():
        if png is not None:
            write_bytes(folder / f"comparison-{name}.png", png)
    return table
