"""The measurements of `lead bench` by name: each calls a function of `lead_core.bench`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from flows.bench_subject import Subject
from flows.environment import stage_environment
from flows.graph import plan_run
from flows.source_lock import source_lock_problem
from flows.stages.train import Recorder, TrainInputs, build_loop
from lead_core.bench.attention import measure_attention
from lead_core.bench.bookkeeping import measure_bookkeeping
from lead_core.bench.clustering import ClusterSettings, measure_clustering
from lead_core.bench.evaluation import EvaluationSettings, measure_evaluation
from lead_core.bench.pipeline import measure_pipeline
from lead_core.bench.result import NotMeasured, Result
from lead_core.bench.scoring import measure_scoring
from lead_core.bench.selection import measure_selection
from lead_core.bench.training import measure_training
from lead_core.export_configs import micro_batch_size
from lead_core.params import Params
from lead_core.round_rule import Limits
from lead_core.rounds import Pool, RoundLoop
from lead_core.selectors import PoolView
from lead_core.tracking import open_run, resolve_settings

ARMS = 3
SELECTION_ROUNDS = 12
AUTHORS_ATTENTION = "sdpa"  # what transformers 4.46 takes where no attention is named
NO_OP_SECONDS = {"dvc repro": 3.0, "lead run": 15.0}


def matmul(subject: Subject) -> Result:
    """The machine's matmul throughput."""
    return subject.matmul


def scoring(subject: Subject) -> Result:
    """The offline pass."""
    return measure_scoring(
        subject.load(),
        subject.tokenizer,
        subject.records.first(subject.effort.scoring_records),
        runtime=subject.runtime,
        batch_tokens=subject.params.score.batch_tokens,
        depth_fraction=subject.params.score.embedding_depth_fraction,
        roof=subject.matmul.throughput(subject.runtime.precision).median,
        repetitions=subject.effort.repetitions,
        as_released=subject.load(AUTHORS_ATTENTION) if subject.effort.as_released else None,
    )


def training(subject: Subject) -> Result:
    """The training loop, against `Trainer` in micro-batches for the same memory, and without any."""
    in_memory = micro_batch_size(
        subject.effective_batch,
        subject.params.data.max_tokens,
        subject.params.train.micro_batch_tokens,
    )
    return measure_training(
        subject.load_adapted,
        subject.tokenizer,
        subject.training_records,
        subject.training_settings,
        micro_batches=tuple(dict.fromkeys([in_memory, subject.effective_batch])),
        runtime=subject.runtime,
        repetitions=subject.effort.repetitions,
    )


def selection(subject: Subject) -> Result:
    """A round's choice and update, on pools as large as anybody has."""
    return measure_selection(subject.effort.pools, rounds=SELECTION_ROUNDS)


def clustering(subject: Subject) -> Result:
    """The cluster stage's function, on pools as large as anybody has."""
    params, effort = subject.params, subject.effort
    settings = ClusterSettings(
        **params.cluster.model_dump(), seed=params.seed, threads=subject.runtime.threads
    )
    return measure_clustering(
        effort.clustered_pools,
        agreement_records=effort.agreement_records,
        width=subject.shape.hidden,
        settings=settings,
    )


def bookkeeping(subject: Subject) -> Result:
    """What LEAD adds to training, recorded in an MLflow store of its own."""
    with tempfile.TemporaryDirectory(prefix="lead-bench-") as folder:
        loop = make_loop(subject, Path(folder))
        with _recorder(loop, Path(folder)) as recorder:
            return measure_bookkeeping(
                loop, on_round=recorder.take, repetitions=subject.effort.repetitions
            )


def attention(subject: Subject) -> Result:
    """Eager against sdpa in training."""
    return measure_attention(
        subject.load_adapted,
        subject.training_records,
        subject.training_settings,
        runtime=subject.runtime,
        repetitions=subject.effort.repetitions,
    )


def evaluation(subject: Subject) -> Result:
    """MMLU, against lm-eval's command line."""
    if subject.data_dir is None:
        raise NotMeasured(
            "it needs MMLU as files: lead bench evaluation --data-dir FOLDER (docs/evaluation.md)"
        )
    settings = EvaluationSettings(
        data_dir=subject.data_dir,
        subjects=subject.effort.subjects,
        batch_size=subject.params.evaluate.batch_size,
        runtime=subject.runtime,
        attention=subject.params.runtime.attention,
        seed=subject.params.evaluate.seed,
    )
    return measure_evaluation(subject.model, subject.tokenizer, settings)


def pipeline(subject: Subject) -> Result:
    """No-op runs of a workspace that is up to date."""
    problem = source_lock_problem(subject.workspace)
    if problem is None:
        stale = [plan.stage for plan in plan_run(subject.workspace) if plan.reasons]
        problem = f"{', '.join(stale)} would run" if stale else None
    if problem is not None:
        problem = problem.replace(f"{subject.workspace}/", "")  # results name no path of a machine
        raise NotMeasured(f"the workspace is not up to date ({problem}): run `lead run` first")
    python = sys.executable
    return measure_pipeline(
        subject.workspace,
        {
            "dvc repro": [python, "-m", "dvc", "repro"],
            "lead run": [python, "-c", "from flows.cli import main; main()", "run"],
        },
        limits=NO_OP_SECONDS,
        environment=stage_environment(),
        repetitions=subject.effort.repetitions,
    )


MEASUREMENTS: Mapping[str, Callable[[Subject], Result]] = {
    measure.__name__: measure
    for measure in (
        matmul,
        scoring,
        training,
        bookkeeping,
        attention,
        selection,
        clustering,
        evaluation,
        pipeline,
    )
}
ONLY_IN_FULL = frozenset({"pipeline"})


def make_loop(subject: Subject, folder: Path) -> RoundLoop:
    """Return the train stage's own loop, on records whose scores are made up.

    Their values decide which samples are taken, not what a step costs.
    """
    params, effort = subject.params, subject.effort
    visits = subject.effective_batch * effort.loop_rounds
    records = subject.records.first(2 * visits)
    n = len(records.samples)
    rng = np.random.default_rng(params.seed)
    view = PoolView(
        difficulty=(np.arange(n) % ARMS).astype(np.int32),
        task=(np.arange(n) // ARMS % ARMS).astype(np.int32),
        loss=rng.gamma(4, 0.4, n),
        ifd=rng.uniform(0.2, 0.9, n),
        response_tokens=np.full(n, 100, dtype=np.int32),
    )
    pool = Pool(
        ids=np.array([f"{i:016x}" for i in range(n)]),
        sources=np.full(n, "stdlib"),
        view=view,
        encoded=lambda indices: [records.samples[i] for i in indices],
    )
    inputs = TrainInputs(
        subject.model, pool, heldout=None, manifest={}, offline={"sequences": 0, "tokens": 0}
    )
    loop, _, _ = build_loop(
        _as_bookkept(params, subject.effective_batch),
        inputs,
        subject.runtime,
        folder,
        Limits(n, visits, effort.loop_rounds),
    )
    return loop


def _as_bookkept(params: Params, effective_batch: int) -> Params:
    """Return the parameters of LEAD's loop with rounds of one step and no held-out monitoring."""
    train = {"effective_batch": effective_batch, "monitor_every_rounds": None}
    select = {"selector": "lead", "min_round_samples": effective_batch}
    return params.model_copy(
        update={
            "train": params.train.model_copy(update=train),
            "select": params.select.model_copy(update=select),
        }
    )


@contextmanager
def _recorder(loop: RoundLoop, folder: Path) -> Iterator[Recorder]:
    """Yield what the train stage records rounds with, on a new SQLite store in `folder`."""
    settings = resolve_settings(folder, "sqlite:///mlflow.db", "bench")
    with open_run(settings, name="bench", key={"lead.bench": "1"}, tags={}, params={}) as run:
        yield Recorder(run, folder / "timings.jsonl", loop.trainer.learning_rate_at)
