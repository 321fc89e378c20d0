"""The train stage: LEAD's loop on the prepared pool, resumable, recorded in MLflow."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from lead_core.artifacts import (
    Layout,
    adapter_hash,
    check_chain,
    read_clusters,
    read_manifest,
    read_scores,
    scored_by,
    write_training,
)
from lead_core.assets import ResolvedModel, resolve_model
from lead_core.carried_use import read_carried, write_utilities
from lead_core.chat import Encoded, load_tokenizer
from lead_core.checkpoint import CheckpointStore
from lead_core.earlier_run import Start, read_start
from lead_core.errors import LeadError
from lead_core.ledger import CostLedger, count_forwards
from lead_core.loop_state import Carried, LoopState
from lead_core.model import (
    ResolvedRuntime,
    ResponseLoss,
    add_adapter,
    continue_adapter,
    decoder_of,
    load_model,
    resolve_runtime,
)
from lead_core.params import Params, effective_params
from lead_core.pool import open_heldout, open_pool
from lead_core.pool_view import CLUSTER_COLUMNS, SCORE_COLUMNS, view_of
from lead_core.round_rule import Limits, budget_limits, one_epoch, rule_settings
from lead_core.rounds import Interrupted, Pool, RoundLoop, RoundReport
from lead_core.scoring import response_losses
from lead_core.scoring_model import resolve_scoring_model
from lead_core.selectors import get_selector
from lead_core.storage import append_jsonl, sha256_file, sha256_json
from lead_core.tracking import open_run, resolve_settings
from lead_core.tracking_run import TrackedRun
from lead_core.training import OptimizerSettings, Trainer
from lead_core.training_state import (
    claim_state,
    code_hash,
    drop_finished_states,
    mark_finished,
    state_folder,
)

LIBRARIES = ("accelerate", "numpy", "peft", "torch", "transformers")  # whose update may move a bit


@dataclass(frozen=True)
class Trained:
    """A training whose outputs are written: what to say of it, its state's folder, where it ended."""

    summary: str
    state: Path
    pool: Pool
    last: LoopState


@dataclass(frozen=True)
class TrainInputs:
    """What the train stage reads, checked to belong together.

    adapter, carried: of the earlier run that training starts from, if any.
    """

    model: ResolvedModel
    pool: Pool
    heldout: Any
    manifest: dict[str, str]
    offline: dict[str, int]
    adapter: Path | None = None
    carried: Carried | None = None


def read_inputs(params: Params, layout: Layout, workspace: Path) -> TrainInputs:
    """Read pool, scores and clusters, and what `grow.start_from` names.

    LeadError when one was made from another of the others.
    """
    model = resolve_model(params.model.name, params.model.revision)
    pool_manifest = read_manifest(layout.pool, "prepare")
    scores, scores_manifest = read_scores(layout.scores, SCORE_COLUMNS)
    clusters, clusters_manifest = read_clusters(layout.clusters, CLUSTER_COLUMNS)
    pool_hash, scores_hash = pool_manifest["pool_sha256"], scores_manifest["scores_sha256"]
    check_chain("the pool", pool_manifest["model_sha256"], model.sha256, "prepare")
    check_chain("the scores", scores_manifest["model_sha256"], model.sha256, "score")
    scorer = model if params.score.model is None else resolve_scoring_model(params)
    check_chain("the scores", scored_by(scores_manifest), scorer.sha256, "score")
    check_chain("the scores", scores_manifest["pool_sha256"], pool_hash, "score")
    check_chain("the clusters", clusters_manifest["scores_sha256"], scores_hash, "cluster")
    records = open_pool(layout.pool, verify=True)
    pool = Pool(
        ids=records.texts("id"),
        sources=records.texts("source"),
        view=view_of(scores, clusters, scores_manifest),
        encoded=records.encoded,
    )
    hashes = {
        "heldout_sha256": pool_manifest["heldout_sha256"],
        "model_sha256": model.sha256,
        "pool_sha256": pool_hash,
        "scores_sha256": scores_hash,
        "clusters_sha256": clusters_manifest["clusters_sha256"],
    }
    offline = scores_manifest["ledger"]["offline"]
    heldout = open_heldout(layout.pool, verify=True)
    inputs = TrainInputs(model, pool, heldout, hashes, offline)
    start = read_start(params, workspace)
    return inputs if start is None else _starting_from(start, inputs, params.select.selector)


def _starting_from(start: Start, inputs: TrainInputs, selector: str) -> TrainInputs:
    """Add to `inputs` the adapter and the use of the earlier run `start`.

    LeadError where that run was trained on what is held out now: its losses would be no measure; and
    where its utilities come from another model's losses, for a rule that goes by them.
    """
    adapter = start.layout.train / "adapter"
    expected = read_manifest(start.layout.train, "train")["adapter_sha256"]
    if adapter_hash(adapter) != expected:
        raise LeadError(
            f"params.yaml: grow.start_from: {adapter} is not what its training wrote (hash "
            f"{expected[:12]}... recorded); copy that run's artifacts anew"
        )
    scores = read_manifest(start.layout.scores, "score")
    if "scoring_model_sha256" in scores and get_selector(selector).starts_from_losses:
        raise LeadError(
            f"params.yaml: grow.start_from: that run was scored by another model (score.model), and "
            f"`{selector}` goes by the trained model's own losses; start from null, or use informative"
        )
    heldout = inputs.heldout.ids
    seen = heldout[read_carried(start.layout.train, heldout, np.zeros(len(heldout))).uses > 0]
    if len(seen):
        raise LeadError(
            f"{len(seen)} held-out records were trained on by the run to start from (the first: "
            f"{seen[0]}); set seed as it was, lower data.heldout_per_source, or start from null"
        )
    return replace(
        inputs,
        manifest={**inputs.manifest, "started_from": start.sha256},
        adapter=adapter,
        carried=read_carried(start.layout.train, inputs.pool.ids, inputs.pool.view.loss),
    )


def train(params: Params, layout: Layout, workspace: Path) -> str:
    """Train and write the outputs; return a summary. States of other finished trainings go."""
    trained = run_training(params, layout, workspace)
    pool = trained.pool
    write_utilities(layout.train, pool.ids, pool.view, trained.last.selection)
    drop_finished_states(workspace)
    mark_finished(trained.state)
    return trained.summary


def run_training(
    params: Params,
    layout: Layout,
    workspace: Path,
    *,
    parent_key: Mapping[str, str] | None = None,
) -> Trained:
    """Train and write adapter, rounds.jsonl, selection.parquet and manifest.

    Other trainings may be at work beside it. Its state is the caller's to mark as finished, once all
    is written that is made of this training. parent_key: tags of the MLflow run that this training's
    run belongs to, as in a comparison.
    """
    started = time.monotonic()
    params, changes = effective_params(params)
    for change in changes:
        print(change, flush=True)
    selector = get_selector(params.select.selector)
    inputs = read_inputs(params, layout, workspace)
    runtime = resolve_runtime(
        params.runtime.device, params.runtime.threads, params.runtime.precision
    )
    key = training_key(params, inputs, runtime)
    state = state_folder(workspace, key)
    claim_state(state)
    with open_run(
        resolve_settings(workspace, params.tracking.uri, params.tracking.experiment),
        name=f"{selector.name}-seed{params.seed}",
        key={"lead.train_key": key},
        tags={
            "lead.stage": "train",
            "lead.selector": selector.name,
            "lead.seed": params.seed,
            "lead.pool_hash": inputs.manifest["pool_sha256"],
            "lead.model_hash": inputs.manifest["model_sha256"],
        },
        params=params.model_dump(
            mode="json", exclude={"evaluate", "compare", "report", "tracking"}
        ),
        parent_key=parent_key,
    ) as run:
        limits = training_limits(
            params, inputs.pool.view.loss, whole_pool=selector.whole_pool, carried=inputs.carried
        )
        loop, model, tokenizer = build_loop(params, inputs, runtime, state, limits)
        recorder = Recorder(run, layout.train / "timings.jsonl", loop.trainer.learning_rate_at)
        loop = replace(loop, on_start=recorder.start, on_round=recorder.take)
        last = run_unless_stopped(loop)
        _check_trained(last, loop)
        _write(params, layout, loop, last, model, recorder, inputs)
        train_hash = sha256_file(layout.train / "manifest.json")
        _record(run, layout, inputs, loop, recorder, train_hash)
        run.log_adapter(model, tokenizer, inputs.model.path)
    _note_times(layout, loop, recorder, time.monotonic() - started)
    return Trained(_summary(loop, last, recorder), state, inputs.pool, last)


def training_key(params: Params, inputs: TrainInputs, runtime: ResolvedRuntime) -> str:
    """Return the hash of all that decides a training's bits: what may go on from its state."""
    settings = {
        name: getattr(params, name).model_dump(mode="json")
        for name in ("runtime", "model", "select", "bandit", "utility", "train")
    }
    return sha256_json(
        {
            "code": [code_hash(), sha256_file(Path(__file__))],
            "libraries": {name: version(name) for name in LIBRARIES},
            "runtime": asdict(runtime),
            "seed": params.seed,
            "settings": settings,
            **inputs.manifest,
        }
    )


class Recorder:
    """Keeps every round's report, tells MLflow, and times the rounds that this process trained."""

    def __init__(self, run: TrackedRun, timings: Path, learning_rate_at: Callable[[int], float]):
        self.rounds: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.seconds = 0.0
        self._run = run
        self._timings = timings
        self._learning_rate_at = learning_rate_at
        self._last: float | None = None

    def start(self) -> None:
        """Begin to time: rounds reported before are those of an earlier process."""
        self._last = time.monotonic()

    def take(self, report: RoundReport) -> None:
        """Record one round."""
        self.rounds.append(report.round)
        self.samples.extend(report.samples)
        number = report.round["round"]
        if self._last is not None:
            now = time.monotonic()
            seconds, self._last = now - self._last, now
            self.seconds += seconds
            append_jsonl(self._timings, {"round": number, "seconds": round(seconds, 3)})
            loss, count = report.round["mean_loss"], report.round["n_selected"]
            shown = "not finite" if loss is None else f"{loss:.3f}"
            print(f"round {number}: {count} samples, loss {shown}, {seconds:.1f} s", flush=True)
        self._log(report)

    def _log(self, report: RoundReport) -> None:
        row, number = report.round, report.round["round"]
        arms = {f"round/arm_probability/{k}": p for k, p in enumerate(row["probabilities"] or [])}
        names = ("arm", "n_selected", "loss_change", "reward_raw", "reward", "beta", "cos")
        figures = {f"round/{name}": row[name] for name in (*names, "grad_sq_norm", "distinct")}
        before = float(np.mean([s["utility_before"] for s in report.samples]))
        after = float(np.mean([s["utility_after"] for s in report.samples]))
        utilities = {"round/utility_before": before, "round/utility_after": after}
        heldout = {"round/heldout_loss": row["heldout_loss"]}
        self._run.log_metrics({**figures, **utilities, **heldout, **arms}, step=number)
        by_step: dict[int, list[dict[str, Any]]] = {}
        for sample in report.samples:
            by_step.setdefault(sample["step"], []).append(sample)
        for step, samples in by_step.items():
            values = {
                "train/loss": float(np.mean([s["loss_seen"] for s in samples])),
                "train/tokens": sum(s["tokens"] for s in samples),
                "train/learning_rate": self._learning_rate_at(step - 1),
            }
            self._run.log_metrics(values, step=step)


def build_loop(
    params: Params, inputs: TrainInputs, runtime: ResolvedRuntime, state: Path, limits: Limits
) -> tuple[RoundLoop, Any, Any]:
    """Load the model and put the loop together, telling nobody yet; return it, model and tokenizer.

    state: the folder for its checkpoints.
    """
    selector = get_selector(params.select.selector)
    trust = params.model.trust_remote_code
    tokenizer = load_tokenizer(inputs.model, trust_remote_code=trust)
    lora = params.train.lora
    model = add_adapter(
        load_model(
            inputs.model,
            device=runtime.device,
            attention=params.runtime.attention,
            trust_remote_code=trust,
        ),
        rank=lora.rank,
        alpha=lora.alpha,
        dropout=lora.dropout,
        target_modules=lora.target_modules,
        seed=params.seed,
    )
    if inputs.adapter is not None:
        continue_adapter(model, inputs.adapter)
    ledger = CostLedger()
    loss = ResponseLoss(model, runtime)
    count_forwards(decoder_of(model), ledger)
    ledger.add("offline", inputs.offline["sequences"], inputs.offline["tokens"])
    pad_id = (
        tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    )
    trainer = Trainer(
        loss,
        OptimizerSettings(
            learning_rate=params.train.learning_rate,
            decay_factor=params.train.decay_factor,
            decay_steps=params.train.decay_steps,
            weight_decay=params.train.weight_decay,
            max_grad_norm=params.train.max_grad_norm,
        ),
        loss_mean=params.train.loss_mean,
        micro_batch_tokens=params.train.micro_batch_tokens,
        pad_id=pad_id,
    )

    def measure(samples: Sequence[Encoded]) -> np.ndarray:
        tokens = params.train.micro_batch_tokens
        return response_losses(loss, samples, pad_id=pad_id, batch_tokens=tokens)

    sections = (params.select, params.bandit, params.utility)
    values = {key: value for section in sections for key, value in section.model_dump().items()}
    selection, utility = rule_settings(values, effective_batch=params.train.effective_batch)
    loop = RoundLoop(
        trainer=trainer,
        pool=inputs.pool,
        selector=selector,
        settings=selection,
        utility=utility,
        limits=limits,
        effective_batch=params.train.effective_batch,
        max_skipped_steps=params.train.max_skipped_steps,
        seed=params.seed,
        ledger=ledger,
        store=CheckpointStore(state),
        checkpoint_every_rounds=params.train.checkpoint_every_rounds,
        checkpoint_every_steps=params.train.checkpoint_every_steps,
        measure=measure,
        monitor=_monitor(params, inputs.heldout, measure, ledger),
        on_start=lambda: None,
        on_round=lambda report: None,
        stop_requested=lambda: False,
        carried=inputs.carried,
    )
    return loop, model, tokenizer


def training_limits(
    params: Params, loss: np.ndarray, *, whole_pool: bool, carried: Carried | None = None
) -> Limits:
    """Return when training stops; `full` is one epoch over the pool, outside the budget.

    loss [n]: offline losses; records where it is no number cannot be trained on. A budget is of this
    training: samples that earlier ones trained on, the `carried`, do not count in it.
    """
    limits = _own_limits(params, loss, whole_pool=whole_pool)
    used = 0 if carried is None else carried.count_used(loss)
    return replace(limits, distinct=limits.distinct + used)


def _own_limits(params: Params, loss: np.ndarray, *, whole_pool: bool) -> Limits:
    select, pool_size = params.select, len(loss)
    if whole_pool:
        return one_epoch(loss)
    if select.budget_samples is not None:
        distinct = select.budget_samples
    else:
        distinct = round((select.budget_fraction or 0.0) * pool_size)
    if not 1 <= distinct <= pool_size:
        raise LeadError(
            f"params.yaml: select.budget_* asks for {distinct} distinct samples, the prepared pool "
            f"has {pool_size}; set a budget between 1 and {pool_size}"
        )
    return budget_limits(distinct, select.visits_per_budget, select.max_rounds)


def _check_trained(last: LoopState, loop: RoundLoop) -> None:
    """Raise LeadError when nothing could be trained on; say so when training ended early."""
    aside = int((loop.pool.view.difficulty < 0).sum())
    if not last.round:
        raise LeadError(
            f"{loop.selector.name} finds no record to train on: {aside} of {len(loop.pool.ids)} are "
            "set aside (IFD not below 1, or no number); see artifacts/clusters/clusters.json"
        )
    wanted = loop.limits.visits
    if wanted is not None and last.visits < wanted and loop.limits.rounds is None:
        print(
            f"note: training ended after {last.visits} of {wanted} samples: nothing else may be used "
            f"({aside} records set aside, select.max_uses {loop.settings.max_uses})"
        )


def _monitor(
    params: Params,
    heldout: Any,
    measure: Callable[[Sequence[Encoded]], np.ndarray],
    ledger: CostLedger,
) -> Callable[[int], float | None]:
    """Return the held-out loss after a round: the mean over sources; None in between."""
    every = params.train.monitor_every_rounds
    if every is None or not len(heldout.ids):
        return lambda number: None
    sources = np.asarray(heldout.sources)
    share = max(1, params.train.monitor_samples // len(np.unique(sources)))
    chosen = np.concatenate([np.flatnonzero(sources == s)[:share] for s in np.unique(sources)])

    def monitor(number: int) -> float | None:
        if number % every:
            return None
        with ledger.charged_to("evaluation"):
            losses = measure(heldout.encoded(chosen))
        by_source = [losses[sources[chosen] == s].mean() for s in np.unique(sources)]
        return float(np.mean(by_source))

    return monitor


def run_unless_stopped(loop: RoundLoop) -> LoopState:
    """Run the loop; SIGTERM and Ctrl-C end this process at the next step, with its state saved."""
    with _stop_flag() as stop_requested:
        try:
            last = replace(loop, stop_requested=stop_requested).run()
        except Interrupted:
            raise SystemExit(128 + signal.SIGTERM) from None
    if stop_requested():  # in the last step: what is left to do has to wait as well
        raise SystemExit(128 + signal.SIGTERM)
    return last


@contextlib.contextmanager
def _stop_flag() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM or Ctrl-C has come; both act as before afterwards."""
    asked: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write(
    params: Params,
    layout: Layout,
    loop: RoundLoop,
    last: LoopState,
    model: Any,
    recorder: Recorder,
    inputs: TrainInputs,
) -> None:
    # What a kill made us repeat depends on the kill, so it is no part of a versioned output.
    ledger = {k: v for k, v in loop.ledger.as_dict().items() if k != "replayed"}
    carried = inputs.carried
    used_before = 0 if carried is None else carried.count_used(inputs.pool.view.loss)
    manifest = {
        "selector": loop.selector.name,
        "fixed": dict(loop.selector.fixes),
        "seed": params.seed,
        "precision": loop.trainer.accelerator.unwrap_model(loop.trainer.loss).runtime.precision,
        "threads": params.runtime.threads,
        "budget": loop.limits.distinct - used_before,
        "pool_size": len(inputs.pool.ids),
        "visits": last.visits,
        "distinct": _distinct(recorder),
        "rounds": last.round,
        "steps": loop.trainer.steps_done,
        "skipped_steps": last.skipped_steps,
        "tokens": loop.ledger.tokens["training"],
        "ledger": ledger,
        **inputs.manifest,
    }
    write_training(
        layout.train,
        model=model,
        rounds=recorder.rounds,
        samples=recorder.samples,
        manifest=manifest,
    )


def _record(
    run: TrackedRun,
    layout: Layout,
    inputs: TrainInputs,
    loop: RoundLoop,
    recorder: Recorder,
    train_hash: str,
) -> None:
    """Give MLflow what belongs to the whole run: figures, data sets, the selected subset."""
    import pandas as pd

    for column, sequences in loop.ledger.sequences.items():
        run.log_metrics({f"forwards/{column}": sequences})
    run.log_metrics(
        {
            "train/visits": len(recorder.samples),
            "train/distinct": _distinct(recorder),
            "train/rounds": len(recorder.rounds),
            "train/skipped_steps": sum(len(row["skipped"]) for row in recorder.rounds),
        }
    )
    pool_hash = inputs.manifest["pool_sha256"]
    run.log_dataset(
        "pool", pool_hash[:16], "artifacts/pool", len(inputs.pool.ids), "selection pool"
    )
    chosen = {sample["id"] for sample in recorder.samples}
    digest = sha256_json(sorted(chosen))[:16]
    run.log_dataset("selected", digest, "artifacts/train", len(chosen), "training")
    run.log_table(pd.DataFrame(recorder.samples), "selection.json")
    for name in ("rounds.jsonl", "selection.parquet", "manifest.json"):
        run.log_artifact(layout.train / name, "train")
    run.set_tags({"lead.train_hash": train_hash})


def _distinct(recorder: Recorder) -> int:
    """Return how many samples this training used."""
    return len({sample["id"] for sample in recorder.samples})


def _summary(loop: RoundLoop, last: LoopState, recorder: Recorder) -> str:
    """Say in one line what was trained and what it forwarded."""
    spent = loop.ledger.sequences
    skipped = f" ({last.skipped_steps} skipped)" if last.skipped_steps else ""
    return (
        f"trained {loop.selector.name}: {last.round} rounds, {loop.trainer.steps_done} steps{skipped}, "
        f"{last.visits} samples ({_distinct(recorder)} distinct of "
        f"{len(loop.pool.ids)}); forwards: {spent['offline']} offline, {spent['selection']} to "
        f"select, {spent['training']} in training"
    )


def _note_times(layout: Layout, loop: RoundLoop, recorder: Recorder, seconds: float) -> None:
    """Write what differs between equal runs where no stage depends on it."""
    append_jsonl(
        layout.train / "timings.jsonl",
        {
            "stage": "train",
            "attempt": loop.store.attempt,  # above 1, the seconds are those of its last part
            "seconds": round(seconds, 3),
            "rounds_seconds": round(recorder.seconds, 3),
            "ledger_seconds": {k: round(v, 3) for k, v in loop.ledger.seconds.items()},
            "replayed": loop.ledger.as_dict()["replayed"],
        },
    )
