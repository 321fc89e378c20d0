"""What a comparison wants, what is kept of it, and the tables of that; nothing is computed here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lead_core.artifacts import Layout, read_clusters, read_manifest, read_scores
from lead_core.comparison.cells import BASE, Cell, check_no_start, planned_cells
from lead_core.comparison.identity import TRAINED, comparison_id, deciding, rule_id
from lead_core.comparison.kept import KeptCells, Wanted
from lead_core.comparison.page import render_comparison
from lead_core.comparison.plots import draw_comparison
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
        self.kept.keep_base(found, _pool_hashes(self._pool_manifest()), origin)

    def keep(self, wanted: Wanted) -> None:
        """Keep the record that the cell's stage wrote; LeadError if it is of other inputs."""
        found, origin = self._finished(wanted.cell.name)
        self.kept.keep(wanted, found, self._inputs, origin)

    def finished(self) -> list[dict[str, Any]]:
        """Return the records of the cells that are kept, in their order."""
        return [record for wanted in self.cells if (record := self.kept.cell(wanted))]

    def _finished(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        path = self.layout.comparison / name / "cell.json"
        return read_json(path, made_by=COMMAND), read_origin(path)

    def _pool_manifest(self) -> dict[str, Any]:
        return read_manifest(self.layout.pool, "prepare")

    @cached_property
    def _inputs(self) -> dict[str, str]:
        """Return the hashes of what the cells read.

        Taken once, at the first cell that is kept: to hash scores is to read them whole, and the
        workspace is held, so nothing replaces them.
        """
        return {
            **_pool_hashes(self._pool_manifest()),
            "scores_sha256": read_scores(self.layout.scores)[1]["scores_sha256"],
            "clusters_sha256": read_clusters(self.layout.clusters)[1]["clusters_sha256"],
        }


def open_plan(workspace: Path) -> ComparePlan:
    """Return the comparison that params.yaml asks for; the pool must be prepared.

    Raises LeadError without a pool, or when nothing is held out to compare on.
    """
    params = load_params(workspace / "params.yaml")
    check_no_start(params.grow.start_from)
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
    problems = [
        f"params.yaml: compare.selectors: {problem}"
        for selector in compare.selectors
        if (problem := params.misleading_scores(selector))
    ]
    if problems:
        raise LeadError("\n".join(problems))
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
    """Write the table of the kept cells; None while base or baseline are missing."""
    base, cells = plan.kept.base(), plan.finished()
    baseline = plan.params.compare.baseline
    if base is None or all(record["selector"] != baseline for record in cells):
        return None
    table = tabulate_cells(
        cells, base, baseline=baseline, pool_records=plan.pool_records, wanted=len(plan.cells)
    )
    write_text(plan.kept.folder / "comparison.md", as_markdown(table, COMMAND))
    write_json(plan.kept.folder / "comparison.json", asdict(table))
    return table


def illustrate(plan: ComparePlan, table: ComparisonTable) -> None:
    """Write the page and the pictures of the kept cells that `table` is of."""
    cells, folder = plan.finished(), plan.kept.folder
    plots = draw_comparison(table, cells)
    for old in folder.glob("comparison-*"):  # of an earlier list of selectors, perhaps
        old.unlink()
    for plot in plots:
        write_bytes(folder / f"comparison-{plot.name}.png", plot.png)
        if plot.data is not None:
            write_text(folder / f"comparison-{plot.name}.csv", plot.data.to_csv(index=False))
    write_text(folder / "comparison.html", render_comparison(table, cells, plots, COMMAND))
