"""lm-eval's index of tasks: which names there are and what stands behind them, without loading any.

Importing this is cheap; building lm-eval's own index of 14,000 tasks takes 16 s, once per process.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager

from lead_core.errors import LeadError

TASKS = Path(__file__).parent / "tasks"
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
    names: Sequence[str], *, folders: Sequence[Path] = (TASKS,)
) -> tuple[ResolvedTask, ...]:
    """Look `names` up, ours (YAML files below `folders`) first; LeadError names what is unknown."""
    with quiet_lm_eval():
        index: dict[str, Any] = dict(own_tasks(folders).task_index)
        if any(name not in index for name in names):
            index = {**stock_tasks().task_index, **index}
    check_known(names, list(index))
    return tuple(_resolve(name, index) for name in dict.fromkeys(names))


def _resolve(name: str, index: Mapping[str, Any]) -> ResolvedTask:
    kind = index[name].kind.name.lower().removeprefix("py_")
    leaves = dict(_leaves(name, index))
    paths = {str(config["dataset_path"]) for config in leaves.values() if "dataset_path" in config}
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


def own_tasks(folders: Sequence[Path], metadata: dict[str, Any] | None = None) -> TaskManager:
    """Return the tasks below `folders` alone; `metadata` is handed to those that are loaded."""
    return TaskManager(include_path=list(folders), include_defaults=False, metadata=metadata)


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
