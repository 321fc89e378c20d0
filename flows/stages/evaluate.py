"""The evaluate stage: lm-eval on base and tuned model, added to the training's MLflow run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from lead_core.artifacts import Layout, adapter_hash, check_chain, read_manifest
from lead_core.assets import resolve_model
from lead_core.benchmark_files import hash_files
from lead_core.champion_runs import keep_run
from lead_core.chat import load_tokenizer
from lead_core.evaluation import TaskTimes, load_tasks, summarise
from lead_core.evaluation import evaluate as run_evaluation
from lead_core.evaluation_model import HELDOUT
from lead_core.evaluation_requests import context_length
from lead_core.lock_file import LOCK_FILE, check_files, read_lock
from lead_core.model import load_adapter, load_model, resolve_runtime
from lead_core.params import Params
from lead_core.storage import append_jsonl, sha256_file
from lead_core.tracking import open_run, resolve_settings
from lead_core.tracking_champion import judge
from lead_core.tracking_names import metric_name
from lead_core.tracking_run import TrackedRun


def evaluate(params: Params, layout: Layout, workspace: Path) -> str:
    """Run the tasks on both models, write results.json and what is beside it; return a summary.

    The figures go to the MLflow run of the training whose output this is, found by its hash.
    """
    model = resolve_model(params.model.name, params.model.revision)
    pool_manifest = read_manifest(layout.pool, "prepare")
    manifest = read_manifest(layout.train, "train")
    adapter = layout.train / "adapter"
    check_chain("the adapter", manifest["model_sha256"], model.sha256, "train")
    check_chain("the adapter", manifest["pool_sha256"], pool_manifest["pool_sha256"], "train")
    check_chain(str(adapter), manifest["adapter_sha256"], adapter_hash(adapter), "train")
    trust = params.model.trust_remote_code
    tokenizer = load_tokenizer(model, trust_remote_code=trust)
    data_dir = params.evaluate.data_dir
    if data_dir is not None:
        locked = read_lock(workspace / LOCK_FILE)["evaluation"]
        check_files(locked, hash_files(workspace / data_dir, called=data_dir))
    tasks = load_tasks(
        params.evaluate.tasks,
        pool=layout.pool,
        tokenizer=tokenizer,
        max_length=context_length(model.path, tokenizer, trust_remote_code=trust),
        data_dir=None if data_dir is None else workspace / data_dir,
        limit=params.evaluate.limit,
        seed=params.evaluate.seed,
        run_generated_code=params.evaluate.run_generated_code,
    )
    runtime = resolve_runtime(
        params.runtime.device, params.runtime.threads, params.runtime.precision
    )
    base = load_model(
        model,
        device=runtime.device,
        attention=params.runtime.attention,
        trust_remote_code=trust,
    )
    train_hash = sha256_file(layout.train / "manifest.json")
    tracking = resolve_settings(workspace, params.tracking.uri, params.tracking.experiment)
    with open_run(
        tracking,
        name=f"{manifest['selector']}-seed{manifest['seed']}",
        key={"lead.train_hash": train_hash},
        tags={"lead.evaluated": "true"},
        params={"evaluate": params.evaluate.model_dump(mode="json")},
    ) as run:
        results = run_evaluation(
            model=load_adapter(base, adapter),
            tokenizer=tokenizer,
            runtime=runtime,
            tasks=tasks,
            batch_size=params.evaluate.batch_size,
            bootstrap_samples=params.evaluate.bootstrap_samples,
            inputs={
                "adapter_sha256": manifest["adapter_sha256"],
                "heldout_sha256": pool_manifest["heldout_sha256"],
                "model_sha256": model.sha256,
            },
            cache=workspace / ".lead_state" / "eval-cache",
            out=layout.evaluation,
            on_task=lambda times: _record_times(times, layout.evaluation.parent / "timings.jsonl"),
        )
        _record(run, results, layout)
        if params.tracking.champion:
            keep = partial(keep_run, workspace, layout)
            offer_champion(run, params.tracking.champion, results, layout.evaluation, keep)
    summary = summarise(results)
    return f"{summary}\npromotion: {run.verdict}" if params.tracking.champion else summary


def offer_champion(
    run: TrackedRun,
    champion: str,
    results: Mapping[str, Any],
    evaluation: Path,
    keep: Callable[[], None] | None = None,
) -> None:
    """Offer the adapter as champion, where it is better than the base model.

    champion: name of the registered model. evaluation: the folder of the results. keep: called
    before MLflow can make it the champion.
    """
    verdict = judge(results["paired"].get(f"{HELDOUT}/loss"), "the base model")
    if verdict.passed:
        if keep is not None:
            keep()
        heldout = evaluation / "heldout.parquet"
        run.offer_champion(champion, heldout, results["inputs"]["model_sha256"])
    else:
        run.log_metrics({f"promotion/{name}": value for name, value in verdict.figures.items()})
        run.refuse_champion(verdict.reason)


def _record_times(times: TaskTimes, path: Path) -> None:
    """Append what one task took to the timings, and say it."""
    append_jsonl(path, {"stage": "evaluate", **asdict(times)})
    kept = f", answers of {' and '.join(times.cached)} kept from before" if times.cached else ""
    print(
        f"{times.task}: base {times.base_seconds:.1f} s, tuned {times.tuned_seconds:.1f} s{kept}",
        flush=True,
    )


def _record(run: TrackedRun, results: dict[str, Any], layout: Layout) -> None:
    """Log every metric of both models, the paired differences and the files themselves."""
    figures: dict[str, Any] = {"forwards/evaluation": results["forwards"]["sequences"]}
    for task, sides in results["tasks"].items():
        for metric, value in sides["tuned"].items():
            figures[metric_name(task, metric)] = value
        for metric, value in sides["base"].items():
            figures[f"{metric_name(task, metric)}.base"] = value
    for name, pair in results["paired"].items():
        task, _, metric = name.partition("/")
        for part in ("difference", "low", "high", "mcnemar_p"):
            figures[f"{metric_name(task, metric)}.{part}"] = pair[part]
    run.log_metrics(figures)
    for path in sorted(layout.evaluation.iterdir()):
        run.log_artifact(path, "eval")
