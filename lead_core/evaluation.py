"""lm-eval over base and tuned model, side by side: weights loaded once, adapter off for the base row.

Besides lm-eval's own tasks there is `lead_heldout` (folder `tasks/heldout`): the response loss of the
pool's held-out records, on the very tokens that scoring and training see.
"""

from __future__ import annotations

import functools
import math
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import numpy as np
import pandas as pd
import torch
from lm_eval import evaluator
from lm_eval.api.group import Group
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from lead_core.chat import Encoded, encode, render
from lead_core.errors import LeadError, TransientError, first_reason
from lead_core.evaluation_index import TASKS, check_known, own_tasks, quiet_lm_eval, stock_tasks
from lead_core.ledger import CostLedger
from lead_core.model import ResolvedRuntime, ResponseLoss
from lead_core.pool import open_heldout
from lead_core.sandbox import check_isolation
from lead_core.scoring import response_losses
from lead_core.statistics import paired_difference
from lead_core.storage import replaced_directory, write_json, write_jsonl

SCHEMA = 1
HELDOUT = "lead_heldout"

Outcomes = dict[str, dict[str, dict[int, float]]]  # task -> metric -> document -> value


@dataclass(frozen=True)
class LoadedTasks:
    """lm-eval tasks with their documents, ready to run: leaf tasks and the groups over them."""

    tasks: dict[str, Task]
    groups: dict[str, Group]


def load_tasks(
    names: Sequence[str],
    *,
    pool: Path,
    tokenizer: Any,
    run_generated_code: bool = False,
    folders: Sequence[Path] = (TASKS,),
) -> LoadedTasks:
    """Find tasks, groups and tags by name and load their documents; needs no model.

    Tasks of ours (YAML files below `folders`) come first: if all are, lm-eval's index of its own
    14,000, which takes 16 s, is not built. `pool` is the folder with the held-out records.
    run_generated_code: let in what runs code that the model wrote, in the sandbox. Raises LeadError for
    an unknown name, with those that are close, for data that cannot be had, and for code that may not
    or cannot be run in isolation.
    """
    names = list(dict.fromkeys(names))
    with quiet_lm_eval(), tempfile.TemporaryDirectory() as scratch:
        documents = Path(scratch) / "heldout.jsonl"
        ours = own_tasks(folders, {"documents": str(documents)})
        others = [name for name in names if name not in ours.all_tasks]
        if others:
            check_known(others, [*stock_tasks().all_tasks, *ours.all_tasks])
        if HELDOUT in names:
            write_jsonl(documents, _heldout_documents(pool, tokenizer))
        loaded = LoadedTasks({}, {})
        for name in names:
            manager = stock_tasks() if name in others else ours
            found = _load_task(manager, name, run_generated_code)
            loaded.tasks.update(found["tasks"])
            loaded.groups.update(found["groups"])
    if any(getattr(task, "UNSAFE_CODE", False) for task in loaded.tasks.values()):
        check_isolation()
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


def _heldout_documents(pool: Path, tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Yield the held-out records as documents of `lead_heldout`, in the order of their ids.

    The text is only for lm-eval's logs; what is scored are the tokens, checked against the tokenizer.
    """
    records = open_heldout(pool)
    if not len(records):
        raise LeadError(
            f"{HELDOUT} has nothing to evaluate: no records are held out; set "
            "data.heldout_per_source in params.yaml to at least 1, or take it out of evaluate.tasks"
        )
    for index, (name, sample) in enumerate(
        zip(records.ids, records.encoded(range(len(records))), strict=True)
    ):
        messages = records.messages(index)
        prompt, response = render(tokenizer, messages)
        expected = encode(tokenizer, messages)
        ids = [int(token) for token in sample.input_ids]
        if (ids, sample.response_start) != (expected.input_ids, expected.response_start):
            raise LeadError(
                f"{pool}: record {name} was tokenised by another model's tokenizer; "
                "run `dvc repro prepare`"
            )
        yield {
            "id": str(name),
            "source": str(records.sources[index]),
            "prompt": prompt,
            "response": response,
            "input_ids": ids,
            "response_start": sample.response_start,
            "response_bytes": len(messages[-1]["content"].encode()),
        }


class PipelineLM(HFLM):
    """lm-eval's model class, with all that it forwards counted, and our records on stored tokens.

    The base class would move the newline that ends an assistant header into the response, score it
    there and let it merge with the response's first token. It also computes logits over the whole
    vocabulary for prompts and padding: twice the time of `ResponseLoss` with a small model.
    """

    def __init__(self, model: Any, tokenizer: Any, runtime: ResolvedRuntime, batch_size: int):
        # lm-eval's forwards switch an outer autocast off, and its softmax would run in bf16.
        super().__init__(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size,
            mixed_precision_dtype="bfloat16" if runtime.precision == "bf16" else None,
            softmax_dtype="float32",
        )
        self.ledger = CostLedger()
        self._response_loss = ResponseLoss(model, runtime).eval()  # as it is left behind after use

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Return (log-likelihood in nats, whether it is the greedy continuation) per request.

        Greedy is always False for records of ours: nobody asks, and it would cost an argmax.
        """
        answers: dict[int, tuple[float, bool]] = {}
        ours = [i for i, request in enumerate(requests) if request.task_name == HELDOUT]
        others = [i for i, request in enumerate(requests) if request.task_name != HELDOUT]
        if ours:
            answers.update(zip(ours, self._score([requests[i].doc for i in ours]), strict=True))
        if others:
            scored = super().loglikelihood([requests[i] for i in others], disable_tqdm)
            answers.update(zip(others, scored, strict=True))
        return [answers[i] for i in range(len(requests))]

    def _score(self, documents: Sequence[Mapping[str, Any]]) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each record's response given its prompt: one forward each."""
        samples = [Encoded(d["input_ids"], 0, d["response_start"]) for d in documents]
        longest = max(len(sample.input_ids) for sample in samples)
        losses = response_losses(
            self._response_loss,
            samples,
            pad_id=self.tokenizer.pad_token_id,
            batch_tokens=int(self.batch_size) * longest,
        )
        tokens = sum(len(sample.input_ids) for sample in samples)
        self.ledger.add("evaluation", len(samples), tokens)
        lengths = [len(sample.input_ids) - sample.response_start for sample in samples]
        return [(-float(x) * n, False) for x, n in zip(losses, lengths, strict=True)]

    def _model_call(self, inps: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.ledger.add("evaluation", inps.shape[0], inps.numel())
        return super()._model_call(inps, *args, **kwargs)

    def _model_generate(self, context: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        written = super()._model_generate(context, *args, **kwargs)
        self.ledger.add("evaluation", context.shape[0], written.numel())
        return written


def evaluate(
    *,
    model: Any,
    tokenizer: Any,
    runtime: ResolvedRuntime,
    tasks: LoadedTasks,
    limit: int | None,
    batch_size: int,
    bootstrap_samples: int,
    seed: int,
    inputs: Mapping[str, str],
    out: Path,
) -> dict[str, Any]:
    """Run `tasks` on the base and on the tuned model; write and return ``results.json``.

    model: a peft model with the trained adapter; without it, it is the base model. limit: documents
    per task. inputs: hashes of what is evaluated, recorded as they are. Beside results.json goes
    heldout.parquet (id, source, base_loss, tuned_loss, response_tokens) if `lead_heldout` was run.
    Raises LeadError for a record longer than the model's context, or a loss that is no number.
    """
    with quiet_lm_eval():
        lm = PipelineLM(model, tokenizer, runtime, batch_size)
        _check_lengths(tasks, lm.max_length)
        run = functools.partial(_run, lm, tasks, limit, bootstrap_samples, seed)
        with model.disable_adapter():
            base = run()
        tuned = run()
    heldout = _heldout_frame(base["samples"], tuned["samples"])
    results = {
        "schema": SCHEMA,
        "inputs": dict(inputs),
        "lm_eval": lm_eval.__version__,
        "limit": limit,
        "precision": runtime.precision,
        "tasks": {name: _side_by_side(name, base, tuned) for name in sorted(base["results"])},
        "paired": _pair(base, tuned, heldout),
        "forwards": lm.ledger.as_dict()["evaluation"],
    }
    with replaced_directory(out) as folder:
        if heldout is not None:
            heldout.to_parquet(folder / "heldout.parquet", index=False)
        write_json(folder / "results.json", results)
    return results


def summarise(results: Mapping[str, Any]) -> str:
    """Return the paired differences of `results` as a few lines for people."""
    lines = []
    for name, pair in results["paired"].items():
        text = f"{name}: base {pair['base']:.4f}, tuned {pair['tuned']:.4f}"
        if pair["low"] is not None:
            text += (
                f", difference {pair['difference']:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}]"
            )
        lines.append(f"{text} over {pair['n']} records")
    spent = results["forwards"]
    return "\n".join([*lines, f"{spent['sequences']} forwards, {spent['tokens']} tokens"])


def _check_lengths(tasks: LoadedTasks, max_length: int) -> None:
    if HELDOUT not in tasks.tasks:
        return
    for document in tasks.tasks[HELDOUT].eval_docs:
        if len(document["input_ids"]) > max_length:
            raise LeadError(
                f"held-out record {document['id']} has {len(document['input_ids'])} tokens, the "
                f"model takes at most {max_length}; lower data.max_tokens in params.yaml"
            )


def _run(
    lm: PipelineLM, tasks: LoadedTasks, limit: int | None, bootstrap_samples: int, seed: int
) -> Any:
    """Run lm-eval once, with the random state that its own entry point would set."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    for task in tasks.tasks.values():
        task.set_fewshot_seed(seed)
        if task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
    return evaluator.evaluate(
        lm,
        {"tasks": tasks.tasks, "groups": tasks.groups},
        limit=limit,
        bootstrap_iters=bootstrap_samples,
        confirm_run_unsafe_code=True,  # load_tasks lets in only what runs in the sandbox, if asked
    )


def _side_by_side(name: str, base: Any, tuned: Any) -> dict[str, Any]:
    """Return what lm-eval reports of one task or group, base beside tuned."""
    counts = base["n-samples"]
    return {
        "base": _metrics(base["results"][name], errors=False),
        "base_stderr": _metrics(base["results"][name], errors=True),
        "tuned": _metrics(tuned["results"][name], errors=False),
        "tuned_stderr": _metrics(tuned["results"][name], errors=True),
        "n": sum(counts[leaf]["effective"] for leaf in _leaves(name, base)),
    }


def _metrics(reported: Mapping[str, Any], *, errors: bool) -> dict[str, float | None]:
    """Return lm-eval's metrics, or their standard errors, by name.

    A key ``metric,filter`` keeps its filter unless that is ``none``. Standard errors that lm-eval does
    not know are left out; a metric that is no finite number is None.
    """
    metrics: dict[str, float | None] = {}
    for key, value in reported.items():
        metric, comma, filter_name = key.partition(",")
        if not comma or metric.endswith("_stderr") is not errors or not _is_number(value):
            continue
        name = _metric_name(metric.removesuffix("_stderr"), filter_name)
        metrics[name] = float(value) if math.isfinite(value) else None
    return metrics


def _metric_name(metric: str, filter_name: str) -> str:
    return metric if filter_name == "none" else f"{metric},{filter_name}"


def _leaves(name: str, results: Any) -> list[str]:
    """Return the tasks of a group, down to the last; for a task itself, just that."""
    children = results["group_subtasks"].get(name)
    if children is None:
        return [name]
    return [leaf for child in children for leaf in _leaves(child, results)]


def _pair(base: Any, tuned: Any, heldout: pd.DataFrame | None) -> dict[str, Any]:
    """Return paired differences, ``task/metric`` -> figures; per source for held-out records.

    A metric has them where its value is the mean of its records' own: not a corpus' F1, say.
    """
    before, after = _outcomes(base), _outcomes(tuned)
    pairs = {}
    for name in sorted(base["results"]):
        leaves = _leaves(name, base)
        for metric, reported in _metrics(base["results"][name], errors=False).items():
            values = [
                (value, after[leaf][metric][document])
                for leaf in leaves
                for document, value in before[leaf].get(metric, {}).items()
            ]
            if values and reported is not None:
                pair = paired_difference(*zip(*values, strict=True))
                if math.isclose(pair.base, reported, rel_tol=1e-9, abs_tol=1e-12):
                    pairs[f"{name}/{metric}"] = asdict(pair)
    if heldout is not None:
        for source, rows in heldout.groupby("source"):
            pair = paired_difference(rows["base_loss"], rows["tuned_loss"])
            pairs[f"{HELDOUT}/loss/{source}"] = asdict(pair)
    return pairs


def _outcomes(results: Any) -> Outcomes:
    """Return the numbers among the records' own outcomes."""
    outcomes: Outcomes = {}
    for name, samples in results["samples"].items():
        metrics = outcomes.setdefault(name, {})
        for sample in samples:
            for metric in sample["metrics"]:
                if _is_number(sample[metric]):
                    key = _metric_name(metric, sample["filter"])
                    metrics.setdefault(key, {})[sample["doc_id"]] = float(sample[metric])
    return outcomes


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number)


def _heldout_frame(base: Any, tuned: Any) -> pd.DataFrame | None:
    """Return both losses of every held-out record, in the order of ids; None if not evaluated."""
    if HELDOUT not in base:
        return None
    documents = [sample["doc"] for sample in base[HELDOUT]]
    frame = pd.DataFrame(
        {
            "id": [document["id"] for document in documents],
            "source": [document["source"] for document in documents],
            "base_loss": [sample["loss"] for sample in base[HELDOUT]],
            "tuned_loss": [sample["loss"] for sample in tuned[HELDOUT]],
            "response_tokens": np.array(
                [len(d["input_ids"]) - d["response_start"] for d in documents], dtype=np.int32
            ),
        }
    )
    for column, advice in (
        ("base_loss", "check model.name"),
        ("tuned_loss", "lower train.learning_rate"),
    ):
        bad = frame.loc[~np.isfinite(frame[column]), "id"]
        if len(bad):
            raise LeadError(
                f"the {column.replace('_', ' ')} of {len(bad)} held-out records is not a finite "
                f"number (the first: {bad.iloc[0]}); {advice} in params.yaml"
            )
    return frame
