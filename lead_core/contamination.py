"""What checking the pool against benchmarks found, as files and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lead_core.decontamination import BenchmarkIndex, Criterion, Overlap
from lead_core.errors import LeadError
from lead_core.records import Message
from lead_core.sources import RawRecord
from lead_core.storage import read_json, write_json

SCHEMA = 1
CONTAMINATION_FILE = "contamination.jsonl"

_MADE_BY = "dvc repro prepare"


@dataclass(frozen=True, slots=True)
class Contaminated:
    """A record of the sources and one benchmark that it overlaps with."""

    id: str
    raw: RawRecord
    messages: list[Message]
    overlap: Overlap


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


def count_contaminated(
    index: BenchmarkIndex, found: Sequence[Contaminated]
) -> tuple[BenchmarkCheck, ...]:
    """Return how many of the records `found` overlap with each benchmark, these by name."""
    kinds = Counter((hit.overlap.found.benchmark, hit.overlap.criterion) for hit in found)
    return tuple(
        BenchmarkCheck(
            name,
            rows=index.rows[name],
            unchecked_rows=index.unchecked[name],
            verbatim=kinds[name, Criterion.VERBATIM],
            edited=kinds[name, Criterion.EDITED],
        )
        for name in sorted(index.rows)
    )


def contamination_rows(found: Sequence[Contaminated], *, removed: bool) -> Iterator[dict[str, Any]]:
    """Yield the lines of contamination.jsonl: a record, a benchmark's row, both texts."""
    for hit in found:
        overlap = hit.overlap
        yield {
            "id": hit.id,
            "file": hit.raw.file,
            "line": hit.raw.line,
            "index": hit.raw.index,
            "source": hit.raw.source,
            "removed": removed,
            "benchmark": overlap.found.benchmark,
            "row": overlap.found.row,
            "rows": overlap.rows,
            "criterion": overlap.criterion.value,
            "share": round(overlap.share, 4),
            "benchmark_text": overlap.found.text,
            "text": "\n\n".join(message["content"] for message in hit.messages),
        }


def write_check(path: Path, check: Check) -> None:
    """Write the counts, outside the pool: so one more benchmark without hits leaves that as it is."""
    write_json(path, {"schema": SCHEMA, **asdict(check)})


def read_check(path: Path) -> Check:
    """Return the counts; LeadError if they are not there or of another version."""
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
                f"{benchmark.records:,} records overlap ({benchmark.verbatim:,} verbatim, "
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
