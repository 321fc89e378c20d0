"""MMLU with examples, on base and tuned model: our evaluation against lm-eval's own command line."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import lead_core
from lead_core.assets import ResolvedModel
from lead_core.bench.result import Figure, NotMeasured, Target
from lead_core.evaluation import evaluate, load_tasks
from lead_core.evaluation_index import TASKS, near_tasks, quiet_lm_eval, resolve_tasks
from lead_core.evaluation_requests import context_length
from lead_core.model import ResolvedRuntime, add_adapter, load_model
from lead_core.params import TaskParams
from lead_core.storage import read_json

BENCHMARK = "mmlu"
SHOTS = 5  # as MMLU is asked everywhere
QUESTIONS = 4  # of each subject: lm-eval's limit is per task
ACCURACY = "acc"


@dataclass(frozen=True)
class EvaluationResult:
    """The same questions to both models: seconds from the first task definition to the last answer.

    Both include indexing tasks and loading the model, not the imports. accuracy: of base and tuned.
    """

    questions: int
    seconds: dict[str, float]
    accuracy: dict[str, tuple[float, float]]

    def figures(self) -> Sequence[Figure]:
        """Return both times, their ratio, and how far accuracies differ."""
        pairs = zip(*self.accuracy.values(), strict=True)
        ours, theirs = self.seconds["ours"], self.seconds["lm-eval"]
        return [
            Figure(f"ours, {self.questions} questions to base and tuned", ours, "s"),
            Figure("lm-eval's command line, twice", theirs, "s"),
            Figure("ours over lm-eval's", theirs / ours, "x", Target(1.0)),
            Figure(
                "largest difference of accuracies",
                max(abs(a - b) for a, b in pairs),
                "",
                Target(0.0, at_most=True),
            ),
        ]


@dataclass(frozen=True)
class EvaluationSettings:
    """What both are asked, and how: `data_dir` holds MMLU as docs/evaluation.md has it.

    subjects: the first so many of MMLU's 57 are asked.
    """

    data_dir: Path
    subjects: int
    batch_size: int
    runtime: ResolvedRuntime
    attention: str
    seed: int


def measure_evaluation(
    model: ResolvedModel, tokenizer: Any, settings: EvaluationSettings
) -> EvaluationResult:
    """Ask base model and one with a fresh adapter the first questions of each subject, both ways.

    A fresh adapter costs what a trained one does and changes no answer. NotMeasured when lm-eval's
    command line fails.
    """
    (group,) = resolve_tasks([BENCHMARK], data_dir=settings.data_dir)
    tasks = sorted(group.leaves)[: settings.subjects]
    with tempfile.TemporaryDirectory(prefix="lead-bench-") as folder:
        scratch = Path(folder)
        started = time.perf_counter()
        adapted, results = _ask_ours(model, tokenizer, tasks, settings, scratch)
        seconds = time.perf_counter() - started
        adapter = scratch / "adapter"
        adapted.save_pretrained(str(adapter))
        variants = scratch / "variants"
        variants.mkdir()
        with quiet_lm_eval():
            near_tasks((TASKS,), data_dir=settings.data_dir, scratch=variants)  # writes them
        base_model = _model_arguments(model, adapted, settings.runtime)
        theirs = [
            _ask_lm_eval(model_arguments, tasks, settings, variants, scratch / name)
            for name, model_arguments in (
                ("base", base_model),
                ("tuned", [*base_model, f"peft={adapter}"]),
            )
        ]
    ours = [results["tasks"][task] for task in tasks]
    return EvaluationResult(
        questions=sum(found["n"] for found in ours),
        seconds={"ours": seconds, "lm-eval": sum(_seconds(answer) for answer in theirs)},
        accuracy={
            "ours": (
                fmean(found["base"][ACCURACY] for found in ours),
                fmean(found["tuned"][ACCURACY] for found in ours),
            ),
            "lm-eval": (_accuracy(theirs[0], tasks), _accuracy(theirs[1], tasks)),
        },
    )


def _ask_ours(
    model: ResolvedModel,
    tokenizer: Any,
    names: Sequence[str],
    settings: EvaluationSettings,
    scratch: Path,
) -> tuple[Any, dict[str, Any]]:
    """Return the model with its adapter, and what the evaluate stage makes of both."""
    runtime = settings.runtime
    tasks = load_tasks(
        [TaskParams(task=name, num_fewshot=SHOTS, limit=QUESTIONS) for name in names],
        pool=settings.data_dir,  # not read: no held-out task is asked for
        tokenizer=tokenizer,
        max_length=context_length(model.path, tokenizer, trust_remote_code=False),
        data_dir=settings.data_dir,
        seed=settings.seed,
    )
    base = load_model(
        model, device=runtime.device, attention=settings.attention, trust_remote_code=False
    )
    adapted = add_adapter(
        base, rank=8, alpha=16, dropout=0.0, target_modules="all-linear", seed=settings.seed
    )
    results = evaluate(
        model=adapted,
        tokenizer=tokenizer,
        runtime=runtime,
        tasks=tasks,
        batch_size=settings.batch_size,
        bootstrap_samples=0,
        inputs={"model_sha256": model.sha256, "adapter_sha256": "fresh"},
        cache=scratch / "cache",
        out=scratch / "ours",
    )
    return adapted, results


def _model_arguments(model: ResolvedModel, adapted: Any, runtime: ResolvedRuntime) -> list[str]:
    """Return what makes lm-eval load the base model as we do."""
    return [
        f"pretrained={model.path}",
        f"attn_implementation={adapted.config._attn_implementation}",
        "dtype=float32",
        "softmax_dtype=float32",
        *(["mixed_precision_dtype=bfloat16"] if runtime.precision == "bf16" else []),
    ]


def _ask_lm_eval(
    model_arguments: Sequence[str],
    names: Sequence[str],
    settings: EvaluationSettings,
    variants: Path,
    out: Path,
) -> dict[str, Any]:
    """Run lm-eval's command line and return the results that it writes.

    variants: the folder with the tasks' definitions that read local files.
    """
    arguments = {
        "--tasks": ",".join(names),
        "--include_path": variants,
        "--num_fewshot": SHOTS,
        "--limit": QUESTIONS,
        "--batch_size": settings.batch_size,
        "--device": settings.runtime.device,
        "--seed": settings.seed,
        "--model_args": ",".join(model_arguments),
        "--output_path": out,
    }
    # The variants call a function of ours, wherever this package comes from.
    packages = [str(Path(lead_core.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "lm_eval", "run"),
            *(str(word) for pair in arguments.items() for word in pair),
        ],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, packages)),
            "OMP_NUM_THREADS": str(settings.runtime.threads),
        },
        capture_output=True,
        text=True,
    )
    found = sorted(out.rglob("results_*.json"))
    if done.returncode or not found:
        reason = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise NotMeasured(f"lm-eval's command line exits with {done.returncode} ({reason})")
    answer: dict[str, Any] = read_json(found[-1], made_by="lead bench evaluation")
    return answer


def _seconds(answer: dict[str, Any]) -> float:
    return float(answer["total_evaluation_time_seconds"])


def _accuracy(answer: dict[str, Any], tasks: Sequence[str]) -> float:
    """Return the mean over tasks, which all have as many questions; lm-eval names the filter."""
    return fmean(answer["results"][task][f"{ACCURACY},none"] for task in tasks)
