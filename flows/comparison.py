"""The books of a comparison: which cells are wanted, which are kept, and the tables made of them.

Nothing is computed here and no service is needed: `flows/compare.py` runs what is missing.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lead_core.artifacts import Layout, read_manifest
from lead_core.comparison import (
    BASE,
    Cell,
    comparison_id,
    keep_base,
    keep_cell,
    kept_base,
    kept_cell,
    missing_cells,
    planned_cells,
    rule_id,
)
from lead_core.comparison_plots import arms_plot, cost_plot, differences_plot
from lead_core.comparison_table import Comparison, as_markdown, compare
from lead_core.model import resolve_runtime
from lead_core.params import Params, load_params
from lead_core.storage import read_json, write_bytes, write_json, write_text
from lead_core.tracking_process import git_origin

ARTIFACTS = Path("artifacts")
LIBRARIES = ("numpy", "peft", "torch", "transformers")


@dataclass(frozen=True)
class Books:
    """One comparison: its parameters, its identity, its cells in order, and where they are kept."""

    workspace: Path
    params: Params
    comparison: str
    cells: tuple[Cell, ...]
    folder: Path

    @property
    def kept(self) -> Path:
        """Return the folder of kept cells."""
        return self.folder / "cells"

    def missing(self) -> list[Cell]:
        """Return the cells that have to be computed, in their order."""
        return missing_cells(self.kept, self.cells, self.comparison, self.params)

    def base_missing(self) -> bool:
        """Whether the untuned model has to be measured."""
        return kept_base(self.kept, self.comparison) is None


def open_books(workspace: Path) -> Books:
    """Return the comparison that params.yaml asks for; the pool must be prepared.

    Raises LeadError without a pool.
    """
    params = load_params(workspace / "params.yaml")
    manifest = read_manifest(Layout.below(workspace / ARTIFACTS).pool, "prepare")
    runtime = resolve_runtime(
        params.runtime.device, params.runtime.threads, params.runtime.precision
    )
    folder = params.compare.results or "artifacts/compare"
    return Books(
        workspace=workspace,
        params=params,
        comparison=comparison_id(params, manifest, runtime.precision),
        cells=tuple(planned_cells(params)),
        folder=workspace / folder,
    )


def keep_finished(books: Books) -> list[Cell]:
    """Keep every missing cell that DVC has finished; return those newly kept."""
    layout = Layout.below(books.workspace / ARTIFACTS)
    if books.base_missing() and (found := _finished(layout, BASE, books.comparison)):
        keep_base(books.kept, found, _provenance(books.workspace))
    new = []
    for cell in books.missing():
        found = _finished(layout, cell.name, books.comparison)
        if found is None or found["rule"] != rule_id(books.params, cell.selector):
            continue
        seconds = _seconds(layout, cell)
        keep_cell(books.kept, found, {**_provenance(books.workspace), "seconds": seconds})
        new.append(cell)
    return new


def tabulate(books: Books) -> Comparison | None:
    """Write the tables and pictures of the kept cells; None while there are too few of them."""
    base = kept_base(books.kept, books.comparison)
    found = [
        cell
        for wanted in books.cells
        if (cell := kept_cell(books.kept, wanted, books.comparison, books.params))
    ]
    baseline = books.params.compare.baseline
    if base is None or all(cell["selector"] != baseline for cell in found):
        return None
    manifest = read_manifest(Layout.below(books.workspace / ARTIFACTS).pool, "prepare")
    result = compare(found, base, baseline=baseline, pool_records=manifest["counts"]["kept"])
    write_text(books.folder / "comparison.md", as_markdown(result))
    write_json(books.folder / "comparison.json", asdict(result))
    pictures = {
        "differences": differences_plot(result, found),
        "cost": cost_plot(result, found),
        "arms": arms_plot(found),
    }
    for name, png in pictures.items():
        if png is not None:
            write_bytes(books.folder / f"comparison-{name}.png", png)
    return result


def _finished(layout: Layout, name: str, comparison: str) -> dict[str, Any] | None:
    """Return what DVC's cell `name` left behind, if it is of this comparison."""
    path = layout.comparison / name / "cell.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = read_json(path, made_by="lead compare")
    return found if found.get("comparison") == comparison else None


def _seconds(layout: Layout, cell: Cell) -> dict[str, float]:
    """Return the seconds of the offline pass and of the cell's training, where they are known whole.

    A training that was killed in between left its seconds in several processes: not known.
    """
    trained = _rows(layout.comparison / cell.name / "train" / "timings.jsonl")
    wholes = [row["ledger_seconds"]["training"] for row in trained if row.get("stage") == "train"]
    rounds = sum("round" in row for row in trained)
    stages = _rows(layout.pool.parent / "timings.jsonl")
    scored = [row["seconds"] for row in stages if row["stage"] == "score"]
    known = {"offline": scored[-1]} if scored else {}
    whole = len(wholes) == 1 and rounds == _round_count(layout, cell)
    return {**known, "training": wholes[0]} if whole else known


def _round_count(layout: Layout, cell: Cell) -> int:
    manifest = read_json(
        layout.comparison / cell.name / "train" / "manifest.json", made_by="lead compare"
    )
    return int(manifest["rounds"])


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _provenance(workspace: Path) -> dict[str, Any]:
    """Return what was behind a cell that is not part of its figures."""
    return {
        **git_origin(workspace),
        "libraries": {name: version(name) for name in LIBRARIES},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }
