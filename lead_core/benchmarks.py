"""Which benchmarks a pool is checked against, and the text of each of their rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from lead_core.benchmark_files import BENCHMARKS
from lead_core.decontamination import BenchmarkText, split_words
from lead_core.errors import LeadError
from lead_core.params import AUTO, BenchmarkParams
from lead_core.sources import read_source

_OURS = "lead_heldout"  # over the pool's own held-out records: there is nothing to check

_QUESTION_FIELDS = ("question", "problem", "instruction", "prompt", "query", "input", "text")
_CHOICE_FIELDS = ("choices", "options")
_SHOWN_KEYS = 12


@dataclass(frozen=True)
class Benchmark:
    """A set of rows that the pool is checked against.

    `name` is what reports call it; None: the name that reading gives its rows. `fields` hold a row's
    text; None: they are chosen by their names. `automatic`: named by `evaluate.tasks`.
    """

    uri: str
    name: str | None
    fields: tuple[str, ...] | None
    automatic: bool = False


@dataclass(frozen=True)
class _KnownBenchmark:
    """The data set behind tasks of lm-eval, as their own definitions name it.

    `split` holds the questions that they ask; `config` is the part of the data set, if it has parts.
    """

    name: str
    data_set: str
    config: str | None
    split: str
    tasks: re.Pattern[str]

    def uri(self, data_dir: str | None) -> str:
        """Return where its questions are: the file in `data_dir`, if that is set, else the hub."""
        if data_dir is not None:
            return f"{data_dir}/{BENCHMARKS[self.data_set].splits[self.split]}"
        config = "" if self.config is None else f"config={self.config}&"
        return f"hf://{self.data_set}?{config}split={self.split}"


_KNOWN = (
    _KnownBenchmark(
        "mmlu",
        "cais/mmlu",
        "all",
        "test",
        # MMLU-Pro, -ProX, -Redux, translations and Meta's own copies are other data sets
        re.compile(r"mmlu(?!_(pro|prox|redux|early_training)(_|$))(?!.*_(llama|spanish))(_.*)?"),
    ),
    _KnownBenchmark(
        "gsm8k",
        "openai/gsm8k",
        "main",
        "test",
        re.compile(r"gsm8k(?!_platinum)(_.*)?"),
    ),
    _KnownBenchmark(
        "humaneval",
        "openai/openai_humaneval",
        None,
        "test",
        re.compile(r"humaneval(?!.*(_infilling|_plus))(_.*)?"),
    ),
    _KnownBenchmark(
        "tydiqa",
        "google-research-datasets/tydiqa",
        "secondary_task",
        "validation",
        re.compile(r"tydiqa_goldp(_.*)?"),
    ),
)


def benchmarks_to_check(
    against: Sequence[BenchmarkParams], tasks: Sequence[str], *, data_dir: str | None = None
) -> tuple[Benchmark, ...]:
    """Return the benchmarks that `against` names; ``auto`` stands for those behind `tasks`.

    A task whose name, or whose benchmark's, an entry bears is checked with that entry's data. With
    `data_dir`, a folder in the layout of `benchmark_files`, ``auto`` takes its files and not the hub's.
    Raises LeadError if ``auto`` meets a task of which no data set is known.
    """
    listed = [entry for entry in against if entry.uri != AUTO]
    found = [Benchmark(entry.uri, entry.name, entry.fields) for entry in listed]
    if len(listed) == len(against):
        return tuple(found)
    names = {benchmark.name for benchmark in found}
    for task in tasks:
        if task.startswith(_OURS) or task in names:
            continue
        known = _known(task)
        if known is None:
            raise LeadError(
                f"params.yaml: evaluate.tasks: {task}: no data set is known to check the pool against; "
                f"{way_out(task)}"
            )
        if known.name not in names:
            names.add(known.name)
            found.append(Benchmark(known.uri(data_dir), known.name, None, automatic=True))
    return tuple(found)


def unchecked_tasks(against: Sequence[BenchmarkParams], tasks: Sequence[str]) -> list[str]:
    """Return the tasks whose data no entry of `against` names; none is left out by ``auto``."""
    if any(entry.uri == AUTO for entry in against):
        return []
    names = {entry.name for entry in against}
    return [
        task
        for task in tasks
        if not task.startswith(_OURS)
        and task not in names
        and ((known := _known(task)) is None or known.name not in names)
    ]


def way_out(name: str) -> str:
    """Say what to do when the data of a benchmark cannot be had."""
    return (
        f"name a copy as {{uri: FILE, name: {name}}} in data.decontaminate.against, or set "
        "data.decontaminate to null to train on an unchecked pool"
    )


def read_texts(
    benchmark: Benchmark,
    *,
    min_words: int,
    workspace: Path,
    locked: Mapping[str, Any] | None = None,
) -> Iterator[BenchmarkText]:
    """Yield the texts of each row, rows counted from 0 over all files.

    A question of fewer than `min_words` words comes alone, with its choices, and with these behind
    letters, as prompts have them. `locked`: the benchmark's entry in the lock. Raises LeadError for a
    row that cannot be read or has no question.
    """
    rows = read_source(benchmark.uri, name=benchmark.name, workspace=workspace, locked=locked)
    for number, raw in enumerate(rows):
        if raw.problem:
            raise LeadError(
                f"{raw.place}: {raw.problem.detail}; a benchmark must be read to its last row: repair "
                "the file or fetch it again"
            )
        for text in _row_texts(raw.value, benchmark.fields, min_words, raw.place):
            yield BenchmarkText(raw.source, number, text)


def _known(task: str) -> _KnownBenchmark | None:
    return next((known for known in _KNOWN if known.tasks.fullmatch(task)), None)


def _row_texts(row: Any, fields: Sequence[str] | None, min_words: int, place: str) -> list[str]:
    if not isinstance(row, Mapping):
        raise LeadError(f"{place}: a row of a benchmark must be an object")
    if fields is not None:
        parts = [part for name in fields for part in _texts(row.get(name))]
        missing = [name for name in fields if not _texts(row.get(name))]
        if missing:
            raise LeadError(
                f"{place}: no text in {', '.join(missing)} (data.decontaminate.against, fields); found "
                f"{_keys(row)}"
            )
        return ["\n".join(parts)]
    question = "\n".join(_first(row, _QUESTION_FIELDS))
    if not question:
        raise LeadError(
            f"{place}: no question ({', '.join(_QUESTION_FIELDS)}); found {_keys(row)}; name the "
            "keys of the text in data.decontaminate.against, as in {uri: FILE, fields: [KEY]}"
        )
    choices = _first(row, _CHOICE_FIELDS)
    if not choices or len(split_words(question)) >= min_words:
        return [question]
    lettered = [
        f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)
    ]
    return [question, "\n".join([question, *choices]), "\n".join([question, *lettered])]


def _first(row: Mapping[Any, Any], names: Sequence[str]) -> list[str]:
    """Return the texts of the first of these keys that has any."""
    return next((texts for name in names if (texts := _texts(row.get(name)))), [])


def _texts(value: Any) -> list[str]:
    """Return the texts in a field: one, those of a list, or of a mapping (``text``, or by letter)."""
    if isinstance(value, Mapping):
        return _texts(value["text"] if "text" in value else list(value.values()))
    if isinstance(value, list | tuple):
        return [text for part in value for text in _texts(part)]
    text = "" if value is None else str(value)
    return [text] if text.strip() else []


def _keys(row: Mapping[Any, Any]) -> str:
    return "keys " + ", ".join(str(key)[:40] for key in list(row)[:_SHOWN_KEYS])
