"""A run of `lead bench` as a whole: what is written to JSON, and the table for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lead_core.bench.effort import Effort
from lead_core.bench.machine import Machine
from lead_core.bench.result import Result, as_json, table_rows

SCHEMA = 1
COLUMNS = ("measurement", "figure", "median", "least to greatest", "target")


@dataclass(frozen=True)
class BenchReport:
    """Results by measurement, and why the others of those asked for have none."""

    machine: Machine
    model: str
    effort: Effort
    results: Mapping[str, Result] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return everything as values of JSON."""
        return {
            "schema": SCHEMA,
            "machine": asdict(self.machine),
            "model": self.model,
            "effort": asdict(self.effort),
            "results": {name: as_json(result) for name, result in self.results.items()},
            "skipped": dict(self.skipped),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table's lines, in the order of `COLUMNS`."""
        return [row for name, result in self.results.items() for row in table_rows(name, result)]

    def notes(self) -> list[str]:
        """Return what belongs beneath the table: where it was measured, and what was not."""
        where = f"{self.model} on {self.machine}"
        return [where, *(f"{name}: skipped, {reason}" for name, reason in self.skipped.items())]

    def as_markdown(self, command: str) -> str:
        """Return the table as a page, with the `command` that makes it."""
        lines = ["# lead bench", "", f"`{command}`", "", _row(COLUMNS), _row(["---"] * 5)]
        lines += [_row(row) for row in self.rows()]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes()), ""])


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"
