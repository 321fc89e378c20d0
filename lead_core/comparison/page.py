"""A comparison as one HTML page that opens without a network, in the report's look."""

from __future__ import annotations

from collections.abc import Sequence

from lead_core.comparison.table import (
    BY_RECORD,
    COLUMNS,
    NO_DIFFERENCE,
    ComparisonTable,
    Record,
    describe_interval,
    describe_records,
    describe_span,
)
from lead_core.page import Table, render
from lead_core.plots import Plot


def render_comparison(
    found: ComparisonTable, cells: Sequence[Record], plots: Sequence[Plot], command: str
) -> str:
    """Return the page's HTML; plots link to ``comparison-<name>.csv`` where they have data.

    command: what makes this page.
    """
    return render(
        "comparison.html.j2",
        found=found,
        verdict=verdict(found),
        results=_results(found),
        records=_records(found),
        costs=_costs(found),
        seeds=_seeds(found, cells),
        plots=plots,
        command=command,
    )


def verdict(found: ComparisonTable) -> str:
    """Return in a few words which selectors the paired intervals set apart from the baseline."""
    better, worse = f"better than {found.baseline}", f"worse than {found.baseline}"
    groups: dict[str, list[str]] = {better: [], worse: [], NO_DIFFERENCE: []}
    for row in found.rows:
        finding = row.verdict.partition(";")[0]
        if finding:
            groups.setdefault(finding, []).append(row.selector)
    groups[better] = groups[better] or ["none"]
    parts = [f"{finding}: {', '.join(names)}." for finding, names in groups.items() if names]
    return " ".join(part[0].upper() + part[1:] for part in parts)


def _results(found: ComparisonTable) -> Table:
    recovered = any(row.recovered is not None for row in found.rows)
    rows = []
    for row in found.rows:
        loss = f"{row.loss:.4f}" + (f" ± {row.spread:.4f}" if row.spread is not None else "")
        cells = [row.selector, str(len(row.seeds)), loss, describe_interval(row.versus)]
        if recovered:
            cells.append("" if row.recovered is None else f"{row.recovered:.0%}")
        rows.append((*cells, row.verdict or "baseline"))
    head = ["selector", "seeds", "held-out loss", f"minus {found.baseline}, paired 95 %"]
    return Table((*head, *(["of full's gain"] if recovered else []), "finding"), rows)


def _records(found: ComparisonTable) -> Table | None:
    """Return how the differences are spread over held-out records; None where no row has that."""
    rows = [
        (row.selector, describe_interval(row.versus), *describe_records(row.records))
        for row in found.rows
        if row.records
    ]
    head = ("selector", f"minus {found.baseline}, paired 95 %", *BY_RECORD)
    return Table(head, rows) if rows else None


def _costs(found: ComparisonTable) -> Table:
    rows = [
        (
            row.selector,
            *(f"{row.forwards[column]:,.0f}" for column in COLUMNS),
            f"{row.tokens['training']:,.0f}",
            f"{row.distinct:,.0f}",
            describe_span(row.visits),
            describe_span(row.steps),
            "" if row.seconds is None else f"{row.seconds:,.0f}",
        )
        for row in found.rows
    ]
    head = ("selector", "offline", "to select", "training", "evaluation", "training tokens")
    return Table((*head, "distinct samples", "visits", "steps", "seconds"), rows)


def _seeds(found: ComparisonTable, cells: Sequence[Record]) -> Table:
    """Return the held-out loss of every training."""
    losses = {(c["selector"], c["seed"]): c["heldout"]["macro"] for c in cells}
    seeds = sorted({seed for _, seed in losses})
    rows = []
    for row in found.rows:
        known = [losses.get((row.selector, seed)) for seed in seeds]
        rows.append((row.selector, *("" if loss is None else f"{loss:.4f}" for loss in known)))
    return Table(("selector", *(f"seed {seed}" for seed in seeds)), rows)
