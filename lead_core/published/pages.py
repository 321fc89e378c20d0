"""Pages whose tables are written from the files under `results/`, between marks.

A table NAME stands between ``<!-- results: NAME -->`` and ``<!-- end of NAME -->``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from lead_core.errors import LeadError
from lead_core.published.benchmarks import benchmarks
from lead_core.published.budgets import budgets, budgets_picture
from lead_core.published.comparison import comparison_cost, comparison_picks
from lead_core.published.confirmation import (
    confirmation,
    confirmation_goals,
    confirmation_picture,
    confirmation_short,
)
from lead_core.published.faults import faults
from lead_core.published.fidelity import fidelity
from lead_core.published.learning_rates import learning_rates
from lead_core.published.reference_cost import reference_cost
from lead_core.published.targets import targets
from lead_core.storage import write_bytes, write_text

PAGES = (
    "README.md",
    "docs/informative.md",
    "docs/operations.md",
    "docs/performance.md",
    "docs/results.md",
)
TABLES: dict[str, Callable[[Path], str]] = {
    "comparison-cost": comparison_cost,
    "comparison-picks": comparison_picks,
    "fidelity": fidelity,
    "benchmarks": benchmarks,
    "faults": faults,
    "confirmation": confirmation,
    "confirmation-short": confirmation_short,
    "confirmation-goals": confirmation_goals,
    "budgets": budgets,
    "learning-rates": learning_rates,
    "reference-cost": reference_cost,
    "targets": targets,
}
PICTURES: dict[str, Callable[[Path], bytes | None]] = {
    "confirmation.png": confirmation_picture,
    "budgets.png": budgets_picture,
}
_MARKED = re.compile(
    r"(?P<head><!-- results: (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- end of (?P=name) -->)",
    re.DOTALL,
)


def fill(page: str, results: Path) -> str:
    """Return `page` with every marked table written anew from the folder `results`.

    Raises LeadError for a mark whose name is none of a table's.
    """

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise LeadError(f"results: {name} is none of {', '.join(TABLES)}")
        return f"{match['head']}\n{TABLES[name](results)}\n\n{match['end']}"

    return _MARKED.sub(table, page)


def write_pages(root: Path) -> None:
    """Write the tables of all pages below `root`, and the pictures they show, from `results`."""
    results = root / "results"
    for page in PAGES:
        path = root / page
        write_text(path, fill(path.read_text(encoding="utf-8"), results))
    for name, picture in PICTURES.items():
        png = picture(results)
        if png is not None:
            write_bytes(results / name, png)
