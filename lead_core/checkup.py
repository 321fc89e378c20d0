"""What one reading of a pool showed, and whether that is fine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lead_core.hash_index import Repeats
from lead_core.records import Reason
from lead_core.text_signs import Sign

Kind = Reason | Sign

MOST_TURNS = 20  # conversations with more are counted together, as having one more

_NAMED_SOURCES = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found in one record: where it stands, and one line about it."""

    kind: Kind
    source: str
    file: str
    line: int | None
    index: int
    detail: str

    @property
    def place(self) -> str:
        """Say where it stands: ``data.jsonl:12``, or ``data.parquet, record 11``."""
        return f"{self.file}:{self.line}" if self.line else f"{self.file}, record {self.index}"


@dataclass(frozen=True)
class Lengths:
    """Quantiles of lengths: exact at the ends, within 1 % between."""

    min: int
    p5: int
    median: int
    p95: int
    p99: int
    max: int
    total: int


@dataclass(frozen=True)
class LimitCost:
    """What a limit on length costs: records and their tokens if refused, or the tokens cut off."""

    limit: int
    records: int
    refused: int
    cut_off: int


@dataclass(frozen=True)
class SourceCheckup:
    """One source: its counts (``read = usable + rejected``) and the lengths of its whole records."""

    read: int
    usable: int
    rejected: int
    suspicious: int
    lengths: Lengths


@dataclass(frozen=True)
class Checkup:
    """All that one reading of a pool showed.

    ``read = usable + sum(rejected)``; `suspicious` are usable records with at least one of `signs`.
    Forms count all records; roles, turns and scripts the usable ones; `lengths` (``prompt``,
    ``response``, ``record``) those and the ones that are refused for their length.
    """

    read: int
    usable: int
    suspicious: int
    rejected: Mapping[Reason, int]
    signs: Mapping[Sign, int]
    by_source: Mapping[str, SourceCheckup]
    forms: Mapping[str, int]
    roles: Mapping[str, int]
    turns: Mapping[int, int]
    scripts: Mapping[str, int]
    lengths: Mapping[str, Lengths]
    limit_cost: LimitCost | None
    duplicates: Repeats
    examples: Mapping[Kind, Sequence[Finding]]
    breaks: Sequence[Finding]


@dataclass(frozen=True)
class Tolerances:
    """Shares above which a pool is no longer fine.

    Of all records read: duplicates, too long, rejected for anything else. Of the usable: suspicious.
    """

    rejected: float
    duplicates: float
    too_long: float
    suspicious: float


@dataclass(frozen=True)
class Problem:
    """Why a pool is not fine; `share` and `limit` are None where one case is too many."""

    name: str
    detail: str
    share: float | None = None
    limit: float | None = None


def judge(checkup: Checkup, tolerances: Tolerances) -> list[Problem]:
    """Return why the pool is not fine, worst first; nothing if it is."""
    problems = [Problem("cut_off", f"{found.place}: {found.detail}") for found in checkup.breaks]
    useless = [name for name, source in checkup.by_source.items() if not source.usable]
    if useless or not checkup.by_source:
        more = f" and {len(useless) - _NAMED_SOURCES} more" if len(useless) > _NAMED_SOURCES else ""
        names = ", ".join(useless[:_NAMED_SOURCES]) or "any source"
        problems.append(Problem("nothing_usable", f"no record of {names}{more} can be used"))
    duplicates, too_long = checkup.duplicates.estimate, checkup.rejected.get(Reason.TOO_LONG, 0)
    others = sum(
        n
        for reason, n in checkup.rejected.items()
        if reason not in (Reason.DUPLICATE, Reason.TOO_LONG)
    )
    for name, n, of, limit, what in (
        ("rejected", others, checkup.read, tolerances.rejected, "records cannot be used"),
        ("duplicates", duplicates, checkup.read, tolerances.duplicates, "records are duplicates"),
        ("too_long", too_long, checkup.read, tolerances.too_long, "records are too long"),
        (
            "suspicious",
            checkup.suspicious,
            checkup.usable,
            tolerances.suspicious,
            "usable records are suspicious",
        ),
    ):
        if of and n / of > limit:
            problems.append(Problem(name, f"{n:,} of {of:,} {what}", n / of, limit))
    return problems
