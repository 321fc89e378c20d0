"""lm-eval over base and tuned model, side by side: weights loaded once, adapter off for the base row.

Besides lm-eval's own tasks there are `lead_heldout` and `lead_heldout_choice` (folder `tasks/heldout`):
loss and choice of the response for the pool's held-out records, on the very tokens of the training.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import torch
import transformers
from lm_eval import evaluator
from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager

from lead_core.errors import LeadError, TransientError, first_reason
from lead_core.evaluation_cache import AnswerCache, CachedLM, file_name, seed_all
from lead_core.evaluation_heldout import heldout_documents, heldout_losses
from lead_core.evaluation_index import (
    TASKS,
    check_known,
    near_names,
    near_tasks,
    quiet_lm_eval,
    stock_tasks,
)
from lead_core.evaluation_model import CHOICE, HELDOUT, PipelineLM
from lead_core.evaluation_requests import build_requests
from lead_core.evaluation_results import Row, pair_rows, side_by_side
from lead_core.evaluation_samples import write_samples
from lead_core.model import ResolvedRuntime
from lead_core.params import TaskParams
from lead_core.sandbox import check_isolation
from lead_core.storage import replaced_directory, write_json, write_jsonl

SCHEMA = 1


@dataclass(frozen=True)
class LoadedTasks:
    """lm-eval tasks with documents and prompts, ready to run: leaf tasks and the groups over them.

    limits: task -> documents to take, None: all. seed: drew the examples, and will draw samples.
    """

    seed: int
    tasks: dict[str, Task] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    limits: dict[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskTimes:
    """Seconds that one task took on each model, and on which of them answers were kept."""

    task: str
    base_seconds: float
    tuned_seconds: float
    cached: tuple[str, ...]


def load_tasks(
    entries: Sequence[str | TaskParams],
    *,
    pool: Path,
    tokenizer: Any,
    max_length: int,
    data_dir: Path | None = None,
    limit: int | None = None,
    seed: int = 1234,
    run_generated_code: bool = False,
    folders: Sequence[Path] = (TASKS,),
) -> LoadedTasks:
    """Find tasks, groups and tags by name, load their documents and build their prompts; no model.

    A plain name stands for a task as it is defined. Ours (YAML files below `folders`) and the
    best-known benchmarks come first: if all are among them, lm-eval's index of its own 14,000, which
    takes 16 s, is not built. `pool` is the folder with the held-out records, `data_dir` one with
    benchmarks as files, `limit` the documents of tasks that set none of their own.
    run_generated_code: let in what runs code that the model wrote, in the sandbox. Raises LeadError for
    an unknown name, with those that are close; for data that cannot be had or have another form; for
    code that may not or cannot be run in isolation; for fewer examples than asked for; and for prompts
    longer than `max_length` tokens.
    """
    wanted = [TaskParams.named(entry) if isinstance(entry, str) else entry for entry in entries]
    names = list(dict.fromkeys(entry.task for entry in wanted))
    loaded = LoadedTasks(seed)
    seed_all(seed)
    with quiet_lm_eval(), tempfile.TemporaryDirectory() as scratch:
        documents = Path(scratch) / "heldout.jsonl"
        variants = Path(scratch) / "variants"
        variants.mkdir()
        near = near_tasks(
            folders, data_dir=data_dir, scratch=variants, metadata={"documents": str(documents)}
        )
        known = near_names(near)
        others = [name for name in names if name not in known]
        if others:
            check_known(others, [*stock_tasks().all_tasks, *known])
        if {HELDOUT, CHOICE} & set(names):
            write_jsonl(documents, heldout_documents(pool, tokenizer))
        for entry in wanted:
            manager = stock_tasks() if entry.task in others else near
            found = _load_task(manager, entry.task, run_generated_code)
            for name, task in found["tasks"].items():
                _add_task(loaded, entry, name, task, limit)
            loaded.groups.update(found["groups"])
        if any(getattr(task, "UNSAFE_CODE", False) for task in loaded.tasks.values()):
            check_isolation()
        for name, task in loaded.tasks.items():
            build_requests(
                name,
                task,
                limit=loaded.limits[name],
                seed=seed,
                tokenizer=tokenizer,
                max_length=max_length,
            )
    return loaded


def _load_task(manager: TaskManager, name: str, run_generated_code: bool) -> Any:
    config = manager.task_index[name].cfg or {}
    if config.get("unsafe_code"):
        _check_code(name, config.get("metadata"), run_generated_code)
    try:
        found = manager.load([name])
    except (OSError, ValueError, ImportError) as error:
        reason = first_reason(error)
        text = f"params.yaml: evaluate.tasks: {name} does not load ({reason})"
        if isinstance(error, ConnectionError) and not datasets.config.HF_HUB_OFFLINE:
            raise TransientError(f"{text}; check the network, or remove it") from error
        raise LeadError(f"{text}; put what it needs on this machine, or remove it") from error
    for task_name, task in found["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False):
            _check_code(task_name, task.get_config("metadata"), run_generated_code)
    return found


def _check_code(name: str, metadata: object, run_generated_code: bool) -> None:
    """Raise LeadError for a task that runs what the model wrote, unless sandboxed and asked for."""
    problem = f"params.yaml: evaluate.tasks: {name} runs code that the model wrote"
    if not isinstance(metadata, Mapping) or not metadata.get("sandboxed"):
        raise LeadError(f"{problem}, and not in our sandbox (humaneval does); remove it")
    if not run_generated_code:
        raise LeadError(
            f"{problem}; set evaluate.run_generated_code to true to run it, each program on its own "
            "without network, files, settings or rights (docs/security.md), or remove it"
        )


def _add_task(
    loaded: LoadedTasks, entry: TaskParams, name: str, task: Task, limit: int | None
) -> None:
    """Add a task behind `entry`, with that entry's examples and limit; LeadError if they do not fit."""
    own = task.get_config("num_fewshot")
    if own == 0 and entry.num_fewshot:
        raise LeadError(
            f"params.yaml: evaluate.tasks: {name} is defined without examples, num_fewshot asks for "
            f"{entry.num_fewshot}; take that out"
        )
    asked = own if entry.num_fewshot is None else entry.num_fewshot
    task.set_config("num_fewshot", asked or 0)  # where a task says nothing, lm-eval gives none
    settings = (asked or 0, entry.limit or limit)
    if name in loaded.tasks:
        first = (loaded.tasks[name].get_config("num_fewshot"), loaded.limits[name])
        if first != settings:
            raise LeadError(
                f"params.yaml: evaluate.tasks: {name} is named twice, with different num_fewshot or "
                "limit; keep one of them"
            )
    loaded.tasks[name] = task
    loaded.limits[name] = settings[1]


class _BuiltTask:
    """A task that keeps the prompts it has: both models are asked the same, built once."""

    def __init__(self, task: Task):
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def build_all_requests(self, **_settings: Any) -> None:
        """Drop the answers of the model that was asked before."""
        for instance in self._task.instances:
            instance.resps = []
            instance.filtered_resps = {}


def evaluate(
    *,
    model: Any,
    tokenizer: Any,
    runtime: ResolvedRuntime,
    tasks: LoadedTasks,
    batch_size: int,
    bootstrap_samples: int,
    inputs: Mapping[str, str],
    cache: Path,
    out: Path,
    on_task: Callable[[TaskTimes], None] = lambda _times: None,
) -> dict[str, Any]:
    """Run `tasks` on the base and on the tuned model; write and return ``results.json``.

    model: a peft model with the trained adapter; without it, it is the base model. inputs: hashes of
    what is evaluated (``model_sha256``, ``adapter_sha256``), recorded as they are. cache: folder of
    answers given before; what is written does not depend on it. on_task is called after each task.
    Beside results.json go samples/TASK.jsonl.gz, and heldout.parquet (id, source, base_loss,
    tuned_loss, response_tokens) if `lead_heldout` was run. Raises LeadError for a loss that is no
    finite number.
    """
    with quiet_lm_eval():
        lm = PipelineLM(model, tokenizer, runtime, batch_size)
    identity = _identity(model, runtime, batch_size, inputs["model_sha256"])
    asked = {
        row: CachedLM(lm, AnswerCache(cache), {**identity, "adapter": adapter}, tasks.seed)
        for row, adapter in (("base", "base"), ("tuned", inputs["adapter_sha256"]))
    }
    rows = {row: Row() for row in asked}
    heldout = None
    with replaced_directory(out) as folder:
        for name in tasks.tasks:
            reported, times = _run_both(model, asked, tasks, name, bootstrap_samples)
            for row, report in reported.items():
                rows[row].add(name, report)
            samples = [report["samples"][name] for report in reported.values()]
            write_samples(folder / "samples" / f"{file_name(name)}.jsonl.gz", *samples)
            if name == HELDOUT:
                heldout = heldout_losses(*samples)
                heldout.to_parquet(folder / "heldout.parquet", index=False)
            on_task(times)
        for reached in rows.values():
            reached.add_groups(tasks.groups)
        leaves = _leaves(tasks)
        results = {
            "schema": SCHEMA,
            "inputs": dict(inputs),
            "lm_eval": lm_eval.__version__,
            "precision": runtime.precision,
            "seed": tasks.seed,
            "tasks": {
                name: {**side_by_side(name, **rows), **_settings(tasks, leaves[name])}
                for name in sorted(leaves)
            },
            "paired": pair_rows(**rows, leaves=leaves, heldout=heldout),
            "forwards": {
                "sequences": sum(lm.sequences for lm in asked.values()),
                "tokens": sum(lm.tokens for lm in asked.values()),
            },
        }
        write_json(folder / "results.json", results)
    return results


def _identity(
    model: Any, runtime: ResolvedRuntime, batch_size: int, model_sha256: str
) -> dict[str, Any]:
    """Return what decides the answers of both models, down to the last bit of a sum."""
    return {
        "model": model_sha256,
        "device": runtime.device,
        "threads": runtime.threads,
        "precision": runtime.precision,
        "attention": str(model.config._attn_implementation),
        "batch_size": batch_size,
        "versions": [lm_eval.__version__, torch.__version__, transformers.__version__],
    }


def _run_both(
    model: Any,
    asked: Mapping[str, CachedLM],
    tasks: LoadedTasks,
    name: str,
    bootstrap_samples: int,
) -> tuple[dict[str, Any], TaskTimes]:
    """Let lm-eval ask both models the prompts of one task, and score their answers."""
    reported, seconds, cached = {}, {}, []
    for row, lm in asked.items():
        started, misses = time.monotonic(), lm.misses
        seed_all(tasks.seed)
        without_adapter = model.disable_adapter() if row == "base" else contextlib.nullcontext()
        with quiet_lm_eval(), without_adapter:
            reported[row] = evaluator.evaluate(
                lm,
                {"tasks": {name: _BuiltTask(tasks.tasks[name])}, "groups": {}},
                limit=tasks.limits[name],
                bootstrap_iters=bootstrap_samples,
                confirm_run_unsafe_code=True,  # load_tasks lets in only what runs in the sandbox
            )
        seconds[row] = round(time.monotonic() - started, 3)
        if lm.misses == misses:
            cached.append(row)
    return reported, TaskTimes(name, seconds["base"], seconds["tuned"], tuple(cached))


def _leaves(tasks: LoadedTasks) -> dict[str, list[str]]:
    """Return the tasks behind each name: those of a group, down to the last; for a task, just that."""
    groups = {
        name: [task.task_name for task in group.get_all_tasks()]
        for name, group in tasks.groups.items()
    }
    return {**{name: [name] for name in tasks.tasks}, **groups}


def _settings(tasks: LoadedTasks, leaves: Sequence[str]) -> dict[str, Any]:
    """Return how a task or group was run: documents, examples per prompt, the definition's version.

    What the tasks of a group do not agree on is None.
    """
    documents = [len({i.doc_id for i in tasks.tasks[leaf].instances}) for leaf in leaves]
    shots = {tasks.tasks[leaf].get_config("num_fewshot") for leaf in leaves}
    versions = {str(tasks.tasks[leaf].VERSION) for leaf in leaves}
    return {
        "n": sum(documents),
        "num_fewshot": shots.pop() if len(shots) == 1 else None,
        "version": versions.pop() if len(versions) == 1 else None,
    }


def summarise(results: Mapping[str, Any]) -> str:
    """Return the paired differences of `results` as a few lines for people."""
    lines = []
    for name, pair in results["paired"].items():
        text = f"{name}: base {pair['base']:.4f}, tuned {pair['tuned']:.4f}"
        if pair["low"] is not None:
            text += (
                f", difference {pair['difference']:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}]"
            )
        if pair["mcnemar_p"] is not None:
            text += f", McNemar p {pair['mcnemar_p']:.3g}"
        lines.append(f"{text} over {pair['n']} records")
    spent = results["forwards"]
    return "\n".join([*lines, f"{spent['sequences']} forwards, {spent['tokens']} tokens"])
