"""Records of the sources that overlap with a benchmark: counted, and as contamination.jsonl."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lead_core.benchmark_check import BenchmarkCheck
from lead_core.decontamination import BenchmarkIndex, Criterion, Overlap
from lead_core.records import Message
from lead_core.sources import RawRecord

CONTAMINATION_FILE = "contamination.jsonl"


@dataclass(frozen=True, slots=True)
class Contaminated:
    """A record of the sources and one benchmark that it overlaps with."""

    id: str
    raw: RawRecord
    messages: list[Message]
    overlap: Overlap


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
