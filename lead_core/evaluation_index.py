"""lm-eval's index of tasks: which names there are and what stands behind them, without loading any.

Building lm-eval's own index of 14,000 tasks takes 16 s, once per process. So the benchmarks that most
ask for are looked up in their own folders, with our tasks; only another name needs the whole.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.tasks import TaskManager

from lead_core.benchmark_files import BENCHMARKS
from lead_core.errors import LeadError

TASKS = Path(__file__).parent / "tasks"
STOCK = Path(lm_eval.tasks.__file__).parent
BENCHMARK_FOLDERS = tuple(STOCK / name for name in ("gsm8k", "mmlu/default", "tydiqa"))
# Tags that tasks of other folders carry too: here they would stand for a part of what they name.
PARTIAL_TAGS = frozenset({"chain_of_thought", "math_word_problems", "self_consistency"})
FILE_FORMATS = frozenset({"arrow", "csv", "json", "parquet", "text"})  # no names of data sets


@dataclass(frozen=True)
class ResolvedTask:
    """What a name of `evaluate.tasks` stands for.

    kind: task, group or tag. leaves: the tasks behind it. datasets: hub ids of what they read.
    runs_code: whether any of them runs code that the model wrote.
    """

    name: str
    kind: str
    leaves: tuple[str, ...]
    datasets: tuple[str, ...]
    runs_code: bool


def resolve_tasks(
    names: Sequence[str], *, data_dir: Path | None = None, folders: Sequence[Path] = (TASKS,)
) -> tuple[ResolvedTask, ...]:
    """Look `names` up, ours (YAML files below `folders`) first; LeadError names what is unknown.

    With `data_dir`, the data sets that are read from there are no names of the hub.
    """
    with quiet_lm_eval(), tempfile.TemporaryDirectory() as scratch:
        index = near_names(near_tasks(folders, data_dir=data_dir, scratch=Path(scratch)))
        if any(name not in index for name in names):
            index = {**stock_tasks().task_index, **index}
    check_known(names, list(index))
    return tuple(_resolve(name, index) for name in dict.fromkeys(names))


def _resolve(name: str, index: Mapping[str, Any]) -> ResolvedTask:
    kind = index[name].kind.name.lower().removeprefix("py_")
    leaves = dict(_leaves(name, index))
    paths = {
        str(config["dataset_path"])
        for config in leaves.values()
        if "dataset_path" in config and "custom_dataset" not in config
    }
    return ResolvedTask(
        name,
        kind,
        leaves=tuple(leaves),
        datasets=tuple(sorted(paths - FILE_FORMATS)),
        runs_code=any(config.get("unsafe_code") for config in leaves.values()),
    )


def _leaves(
    member: str | Mapping[str, Any], index: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield name and configuration of every task behind a name, or behind an entry of a group.

    Such an entry may be a mapping: another name with overrides, or a task or group written inline.
    """
    inline: Mapping[str, Any] = {"task": member} if isinstance(member, str) else member
    name = str(inline.get("group", inline.get("task")))
    entry = index.get(name)
    if entry is None:
        children = inline["task"] if "group" in inline else None
    elif entry.kind.name == "TAG":
        children = sorted(entry.tags)
    else:
        children = entry.cfg["task"] if entry.kind.name == "GROUP" else None
    if children is None:
        yield name, inline if entry is None else {**entry.cfg, **inline}
        return
    for child in children if isinstance(children, list) else [children]:
        yield from _leaves(child, index)


@functools.cache
def stock_tasks() -> TaskManager:
    """Return lm-eval's own tasks."""
    return TaskManager()


def near_tasks(
    folders: Sequence[Path],
    *,
    data_dir: Path | None,
    scratch: Path,
    metadata: dict[str, Any] | None = None,
) -> TaskManager:
    """Return the tasks below `folders` and in the folders of lm-eval's own benchmarks.

    With `data_dir`, those over a data set of `BENCHMARKS` read its files there (see `load_rows`) and
    are as they were otherwise: `scratch` receives a YAML for each that includes the original.
    `metadata` is handed to the tasks that are loaded.
    """
    paths = [*BENCHMARK_FOLDERS, *folders]
    if data_dir is not None:
        originals = TaskManager(include_path=paths, include_defaults=False)
        _write_local_variants(originals, data_dir, scratch)
        paths.append(scratch)
    return TaskManager(include_path=paths, include_defaults=False, metadata=metadata)


def near_names(manager: TaskManager) -> dict[str, Any]:
    """Return what `near_tasks` may be asked for, by name: all but tags of which it has only a part."""
    return {name: e for name, e in manager.task_index.items() if name not in PARTIAL_TAGS}


def _write_local_variants(manager: TaskManager, data_dir: Path, scratch: Path) -> None:
    for number, entry in enumerate(manager.task_index.values()):
        config = entry.cfg or {}
        benchmark = str(config.get("dataset_path"))
        if entry.kind.name != "TASK" or benchmark not in BENCHMARKS:
            continue
        settings = {
            "benchmark": benchmark,
            "folder": str(data_dir.resolve()),
            "splits": [split for split in BENCHMARKS[benchmark].splits if split in _splits(config)],
            "subset": config.get("dataset_name"),
        }
        # JSON is YAML. The original has registered the tags, with all their other tasks.
        (scratch / f"{number}.yaml").write_text(
            f"include: {json.dumps(str(entry.yaml_path))}\n"
            "custom_dataset: !function lead_core.benchmark_files.load_rows\n"
            f"dataset_kwargs: {json.dumps(settings)}\n"
            "tag: []\n",
            encoding="utf-8",
        )


def _splits(config: Mapping[str, Any]) -> set[Any]:
    """Return the splits that a task reads."""
    named = {value for key, value in config.items() if key.endswith("_split")}
    return named | {(config.get("fewshot_config") or {}).get("split")}


def check_known(names: Sequence[str], known: Sequence[str]) -> None:
    """Raise LeadError for the first of `names` that is not `known`, with those that are close."""
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
            hint = f"did you mean {', '.join(close)}?" if close else "see `lm-eval ls tasks`"
            raise LeadError(
                f"params.yaml: evaluate.tasks names {name!r}, which is no lm-eval task; {hint}"
            )


@contextlib.contextmanager
def quiet_lm_eval() -> Iterator[None]:
    """Silence lm-eval's notes to its own command line."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
