"""Benchmarks as files of this machine, in the place of the hub's data sets that lm-eval's tasks name.

What a task makes of the rows (prompt, filters, metrics) stays lm-eval's; `docs/evaluation.md` shows the
layout. Every row is checked before it is used.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lead_core.errors import LeadError
from lead_core.storage import sha256_file

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Column:
    """What the values of a column must be, in words and as a check of one row's value."""

    kind: str
    fits: Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


TEXT = Column("text", _is_text)
FOUR_TEXTS = Column("a list of four texts", lambda v: _are_texts(v) and len(v) == 4)
INDEX_OF_FOUR = Column("0, 1, 2 or 3", lambda v: type(v) is int and 0 <= v < 4)
ANSWERS = Column(
    'a mapping with "text", a list of texts',
    lambda v: isinstance(v, dict) and bool(v.get("text")) and _are_texts(v["text"]),
)


@dataclass(frozen=True)
class BenchmarkFiles:
    """Where the rows of one data set are.

    splits: split of the data set -> JSON-lines file below the folder. subset: column that holds what
    tasks name as the data set's configuration, where they read a part of the rows each.
    """

    splits: Mapping[str, str]
    columns: Mapping[str, Column]
    subset: str | None = None


BENCHMARKS: Mapping[str, BenchmarkFiles] = {
    "cais/mmlu": BenchmarkFiles(
        splits={"dev": "mmlu/dev.jsonl", "test": "mmlu/test.jsonl"},
        columns={
            "subject": TEXT,
            "question": TEXT,
            "choices": FOUR_TEXTS,
            "answer": INDEX_OF_FOUR,
        },
        subset="subject",
    ),
    "openai/gsm8k": BenchmarkFiles(
        splits={"train": "gsm8k_train.jsonl", "test": "gsm8k_test.jsonl"},
        columns={"question": TEXT, "answer": TEXT},
    ),
    "openai/openai_humaneval": BenchmarkFiles(
        splits={"test": "humaneval_test.jsonl"},
        columns=dict.fromkeys(
            ("task_id", "prompt", "entry_point", "canonical_solution", "test"), TEXT
        ),
    ),
    "google-research-datasets/tydiqa": BenchmarkFiles(
        splits={"train": "tydiqa/train.jsonl", "validation": "tydiqa/validation.jsonl"},
        columns={"id": TEXT, "title": TEXT, "context": TEXT, "question": TEXT, "answers": ANSWERS},
    ),
}


def files_in(folder: Path) -> list[str]:
    """Return the names of the layout's files that are there; LeadError if there is no such folder."""
    if not folder.is_dir():
        raise LeadError(
            f"evaluate.data_dir: no folder {folder}; put the benchmarks' files there "
            "(docs/evaluation.md), or set it to null"
        )
    names = sorted(name for files in BENCHMARKS.values() for name in files.splits.values())
    return [name for name in names if (folder / name).is_file()]


def hash_files(folder: Path, *, called: str) -> list[dict[str, Any]]:
    """Return ``path`` (below the folder's name, `called`), ``sha256`` and ``bytes`` of `files_in`."""
    return [
        {
            "path": f"{called}/{name}",
            "sha256": sha256_file(folder / name),
            "bytes": (folder / name).stat().st_size,
        }
        for name in files_in(folder)
    ]


def load_rows(
    *, benchmark: str, folder: str, splits: Sequence[str], subset: str | None, **_metadata: Any
) -> dict[str, datasets.Dataset]:
    """Return `splits` of `benchmark`, a hub id among `BENCHMARKS`, from files below `folder`.

    subset: rows to keep, by the subset column where the benchmark has one. Raises LeadError for a file
    that is not there, a row of another form, or a subset without rows.
    """
    import datasets

    files = BENCHMARKS[benchmark]
    found = {}
    for split in splits:
        path = Path(folder) / files.splits[split]
        rows = _read(path, benchmark)
        if files.subset is not None:
            rows = tuple(row for row in rows if row[files.subset] == subset)
            if not rows:
                raise LeadError(
                    f"evaluate.data_dir: {path} has no row with {files.subset} {subset!r}"
                )
        found[split] = datasets.Dataset.from_list(list(rows))
    return found


def _read(path: Path, benchmark: str) -> tuple[dict[str, Any], ...]:
    """Return the checked rows of a file; read once, however many tasks share it."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        columns = ", ".join(BENCHMARKS[benchmark].columns)
        raise LeadError(
            f"evaluate.data_dir: no file {path} for {benchmark}; it must hold one JSON mapping a line, "
            f"with {columns} (docs/evaluation.md), or set evaluate.data_dir to null"
        ) from None
    return _read_unchanged(path, benchmark, changed)


@functools.lru_cache(maxsize=8)
def _read_unchanged(path: Path, benchmark: str, changed_ns: int) -> tuple[dict[str, Any], ...]:
    columns = BENCHMARKS[benchmark].columns
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LeadError(f"evaluate.data_dir: {path} cannot be read ({error})") from error
    rows = tuple(
        _row(line, f"evaluate.data_dir: {path}, line {number}", columns)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    )
    if not rows:
        raise LeadError(f"evaluate.data_dir: {path} is empty; expected rows of {benchmark}")
    return rows


def _row(line: str, where: str, columns: Mapping[str, Column]) -> dict[str, Any]:
    """Return the columns of one line; LeadError says what is wrong with it."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise LeadError(f"{where}: not valid JSON ({error})") from error
    expected = ", ".join(columns)
    if not isinstance(row, dict):
        raise LeadError(f"{where}: expected a mapping with {expected}, got {type(row).__name__}")
    missing = ", ".join(name for name in columns if name not in row)
    if missing:
        got = ", ".join(map(str, row)) or "nothing"
        raise LeadError(f"{where}: no column {missing}; expected {expected}, got {got}")
    for name, column in columns.items():
        if not column.fits(row[name]):
            shown = json.dumps(row[name], ensure_ascii=False)
            raise LeadError(f"{where}: {name} must be {column.kind}, got {shown[:60]}")
    return {name: row[name] for name in columns}
