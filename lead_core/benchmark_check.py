"""How the check of the pool against benchmarks went: decontamination.json, and the same in words.

The file lies outside the pool's folder, so that one more benchmark without hits leaves that as it is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from lead_core.errors import LeadError
from lead_core.storage import read_json, write_json

SCHEMA = 1
_MADE_BY = "dvc repro prepare"


@dataclass(frozen=True)
class BenchmarkCheck:
    """How the check against one benchmark went.

    unchecked_rows: rows without a telling n-gram, which nothing can overlap with. verbatim, edited: the
    records that overlap, each counted once.
    """

    name: str
    rows: int
    unchecked_rows: int
    verbatim: int
    edited: int

    @property
    def records(self) -> int:
        """Return how many records overlap."""
        return self.verbatim + self.edited


@dataclass(frozen=True)
class Check:
    """The whole check. action: ``remove``, ``report`` or ``none`` when there was none.

    unchecked_tasks: tasks to be evaluated whose data were not looked at.
    """

    action: str
    benchmarks: tuple[BenchmarkCheck, ...]
    unchecked_tasks: tuple[str, ...]


def write_check(path: Path, check: Check) -> None:
    """Write the check to `path`."""
    write_json(path, {"schema": SCHEMA, **asdict(check)})


def read_check(path: Path) -> Check:
    """Return the check in `path`; LeadError if it is not there or of another version."""
    value = read_json(path, made_by=_MADE_BY)
    if value.get("schema") != SCHEMA:
        raise LeadError(
            f"{path} has schema {value.get('schema')}, this version reads {SCHEMA}; run `{_MADE_BY}`"
        )
    return Check(
        action=value["action"],
        benchmarks=tuple(BenchmarkCheck(**benchmark) for benchmark in value["benchmarks"]),
        unchecked_tasks=tuple(value["unchecked_tasks"]),
    )


def check_lines(check: Check) -> list[str]:
    """Return the check in lines for people: one per benchmark, and one for what was left out."""
    fate = "removed" if check.action == "remove" else "kept (data.decontaminate.action)"
    lines = []
    for benchmark in check.benchmarks:
        line = f"checked against {benchmark.name} ({benchmark.rows:,} rows): "
        if benchmark.records:
            line += (
                f"{benchmark.records:,} overlapping ({benchmark.verbatim:,} verbatim, "
                f"{benchmark.edited:,} edited), {fate}"
            )
        else:
            line += "no record overlaps"
        if benchmark.unchecked_rows:
            line += f"; {benchmark.unchecked_rows:,} rows say too little to be looked for"
        lines.append(line)
    if check.unchecked_tasks:
        lines.append(
            f"note: the pool is not checked against {', '.join(check.unchecked_tasks)} "
            "(data.decontaminate)"
        )
    return lines
