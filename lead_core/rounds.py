"""LEAD's loop: pick, train, read utilities off the training, pay the bandit, record (LEAD.md B).

After the offline pass nothing is forwarded here but what is trained on. The exceptions are asked for
by name and charged to their own ledger column: `iterative` (the expensive reference) and held-out
monitoring.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lead_core.chat import Encoded
from lead_core.checkpoint import Checkpoint, CheckpointStore
from lead_core.gradients import RoundGradient, RoundGradientMeter, SketchPlan, plan_sketch
from lead_core.ledger import CostLedger
from lead_core.loop_state import LoopState, from_checkpoint, init_loop, to_checkpoint
from lead_core.reward import raw_reward, rescale_reward, update_range
from lead_core.selectors import Picks, PoolView, Quota, SelectionSettings, Selector
from lead_core.selectors.contract import record_use
from lead_core.training import StepResult, Trainer, check_finite, check_update
from lead_core.utility import (
    FloatArray,
    LossChange,
    PredictedChange,
    drift_unvisited,
    predict_change,
    remember,
    sample_loss_changes,
    update_utility,
)

Measure = Callable[[Sequence[Encoded]], FloatArray]


@dataclass(frozen=True)
class UtilitySettings:
    """How IDU is computed: see `params.UtilityParams`."""

    smoothing: float
    loss_change: LossChange
    charge_whole_round: bool
    drift: bool
    drift_prior_samples: float
    sketch_size: int
    snapshots: int


@dataclass(frozen=True)
class Limits:
    """When training stops: distinct samples, training samples in all, rounds (None: no limit)."""

    distinct: int
    visits: int | None
    rounds: int | None


@dataclass(frozen=True)
class Pool:
    """The pool as training needs it: ids and sources [n], what selectors see, tokens on demand."""

    ids: np.ndarray
    sources: np.ndarray
    view: PoolView
    encoded: Callable[[np.ndarray], Sequence[Encoded]]


@dataclass(frozen=True)
class RoundReport:
    """One round's rows for rounds.jsonl and selection.parquet."""

    round: dict[str, Any]
    samples: list[dict[str, Any]]


class Interrupted(Exception):
    """Training was asked to stop; the last checkpoint holds all finished rounds."""


@dataclass(frozen=True)
class RoundLoop:
    """The fixed parts of one training run; what changes is in `LoopState` and the trainer.

    measure: current loss of given samples (only `iterative` calls it). monitor: held-out loss after a
    round, or None. on_round: told of each finished round, and before a resume again of the earlier
    ones. on_start: told between the two, when training begins.
    """

    trainer: Trainer
    pool: Pool
    selector: Selector
    settings: SelectionSettings
    utility: UtilitySettings
    limits: Limits
    effective_batch: int
    seed: int
    ledger: CostLedger
    store: CheckpointStore
    checkpoint_every: int
    measure: Measure
    monitor: Callable[[int], float | None]
    on_start: Callable[[], None]
    on_round: Callable[[RoundReport], None]
    stop_requested: Callable[[], bool]

    def run(self) -> LoopState:
        """Train until a limit is reached, from the newest checkpoint if there is one.

        Raises Interrupted at a step boundary once `stop_requested` says so.
        """
        rng = np.random.default_rng([self.seed, 1])
        self.trainer.seed(self.seed)
        n_trainable = sum(p.numel() for p in self.trainer.parameters)
        device = self.trainer.accelerator.device
        plan = plan_sketch(n_trainable, self.utility.sketch_size, seed=self.seed, device=device)
        state = self._resume(rng)
        self.on_start()
        unsaved: Checkpoint | None = None
        try:
            while (quota := remaining_quota(state, self.limits)) is not None:
                finished = self._play_round(state, quota, plan, rng)
                if finished is None:
                    break
                state = finished
                unsaved = to_checkpoint(state, self.trainer, rng, self.ledger)
                if state.round % self.checkpoint_every == 0:
                    self.store.save(unsaved)
                    unsaved = None
        finally:  # asked to stop, or done: no finished round is lost
            if unsaved is not None:
                self.store.save(unsaved)
        return state

    def _play_round(
        self, state: LoopState, quota: Quota, plan: SketchPlan, rng: np.random.Generator
    ) -> LoopState | None:
        """Pick, train and record one round; None when nothing is eligible."""
        if self.selector.exact_utilities:
            state = self._with_exact_utilities(state)
        picks = self.selector.pick(self.pool.view, state.selection, self.settings, quota, rng)
        if not len(picks.indices):
            return None
        state, report = self._train_round(state, picks, plan, rng)
        self.store.append("rounds.jsonl", [report.round])
        self.store.append("selection.jsonl", report.samples)
        self.on_round(report)
        return state

    def _resume(self, rng: np.random.Generator) -> LoopState:
        checkpoint = self.store.load_latest()
        if checkpoint is None:
            state = init_loop(self.pool.view)
        else:
            state = from_checkpoint(checkpoint, self.trainer, rng, self.ledger)
        self.ledger.add("replayed", *self.store.begin_attempt(state.round))
        samples: dict[int, list[dict[str, Any]]] = {}
        for row in self.store.read_log("selection.jsonl"):
            samples.setdefault(row["round"], []).append(row)
        for row in self.store.read_log("rounds.jsonl"):
            self.on_round(RoundReport(row, samples[row["round"]]))
        return state

    def _train_round(
        self, state: LoopState, picks: Picks, plan: SketchPlan, rng: np.random.Generator
    ) -> tuple[LoopState, RoundReport]:
        """Train one pass over `picks` in shuffled order; return the next state and the records."""
        number = state.round + 1
        indices = rng.permutation(picks.indices)
        first_step = self.trainer.steps_done
        steps, gradient = self._train_on(indices, plan, number)
        step_of = np.arange(len(indices)) // self.effective_batch
        rates = np.array([step.learning_rate for step in steps])
        loss_seen = np.concatenate([step.losses for step in steps])
        predicted = predict_change(state.memory, picks.arm, float(rates.sum()))
        loss_change = sample_loss_changes(
            self.utility.loss_change,
            whole_round=self.utility.charge_whole_round,
            predicted=predicted.loss_change,
            displacement=gradient.displacement,
            learning_rates=rates,
            steps=step_of,
        )
        before = state.selection.utility[indices]
        after = update_utility(before, loss_seen, loss_change, self.utility.smoothing)
        raw = raw_reward(before, after)
        reward = rescale_reward(state.selection.reward_range, raw)
        selection = record_use(state.selection, indices, after)
        if self.utility.drift:
            drifted = drift_unvisited(
                selection.utility,
                selection.uses > 0,
                self.pool.view.clusters,
                indices,
                before - after,
                self.utility.drift_prior_samples,
            )
            selection = replace(selection, utility=drifted)
        selection = replace(
            selection,
            bandit=self.selector.learn(state.selection, picks, reward, self.settings),
            reward_range=update_range(state.selection.reward_range, raw),
        )
        memory = remember(state.memory, picks.arm, gradient.summary)
        record = {
            "round": number,
            **_draw_record(picks),
            "n_selected": len(indices),
            "steps": len(steps),
            "eta": float(rates.sum()),
            "grad_sq_norm": gradient.summary.sq_norm,
            "grad_sq_norm_arm": predicted.sq_norm_arm,
            "grad_sq_norm_prev": predicted.sq_norm_previous,
            "cos": predicted.cos,
            "beta": predicted.beta,
            "loss_change": whole_round_change(self.utility, predicted, gradient),
            "reward_raw": raw,
            "reward": reward,
            "tokens": sum(int(step.lengths.sum()) for step in steps),
            "mean_loss": float(loss_seen.mean()),
            "distinct": int(np.count_nonzero(selection.uses)),
            "heldout_loss": self.monitor(number),
        }
        columns = {
            "round": np.full(len(indices), number),
            "step": first_step + step_of + 1,
            "id": self.pool.ids[indices],
            "source": self.pool.sources[indices],
            "difficulty": self.pool.view.difficulty[indices],
            "task": self.pool.view.task[indices],
            "utility_before": before,
            "loss_seen": loss_seen,
            "loss_change": loss_change,
            "utility_after": after,
            "uses": selection.uses[indices],
            "tokens": np.concatenate([step.lengths for step in steps]),
        }
        names, rows = list(columns), zip(*(c.tolist() for c in columns.values()), strict=True)
        samples = [dict(zip(names, row, strict=True)) for row in rows]
        after_round = LoopState(number, state.visits + len(indices), selection, memory)
        return after_round, RoundReport(record, samples)

    def _train_on(
        self, indices: np.ndarray, plan: SketchPlan, number: int
    ) -> tuple[list[StepResult], RoundGradient]:
        """Take the round's optimizer steps; a final partial batch is averaged over its own samples."""
        starts = range(0, len(indices), self.effective_batch)
        meter = RoundGradientMeter(self.trainer.parameters, len(starts), self.utility.snapshots)
        steps: list[StepResult] = []
        for start in starts:
            if self.stop_requested():
                raise Interrupted
            chosen = indices[start : start + self.effective_batch]
            samples = self.pool.encoded(chosen)
            tokens = sum(len(sample.input_ids) for sample in samples)
            self.store.note_work(number, "training", len(samples), tokens)
            with self.ledger.charged_to("training"):
                steps.append(self.trainer.step(samples, meter))
            check_finite(steps[-1].losses, self.pool.ids[chosen], number)
        gradient = meter.close(plan)
        check_update(gradient, number)
        return steps, gradient

    def _with_exact_utilities(self, state: LoopState) -> LoopState:
        """Replace the utilities of all samples that may be picked by their true current loss."""
        selection = state.selection
        open_uses = selection.uses < self.settings.max_uses
        indices = np.flatnonzero((self.pool.view.difficulty >= 0) & open_uses)
        utility = selection.utility.copy()
        samples = self.pool.encoded(indices)
        tokens = sum(len(sample.input_ids) for sample in samples)
        self.store.note_work(state.round + 1, "selection", len(samples), tokens)
        with self.ledger.charged_to("selection"):
            utility[indices] = self.measure(samples)
        return replace(state, selection=replace(selection, utility=utility))


def remaining_quota(state: LoopState, limits: Limits) -> Quota | None:
    """Return what may still be trained on, or None when a limit is reached (LEAD.md B.6).

    Without a limit on visits training ends with the distinct budget. With one it goes on to it, and
    once the distinct budget is spent only samples that were used before may come again.
    """
    distinct = limits.distinct - int(np.count_nonzero(state.selection.uses))
    if limits.rounds is not None and state.round >= limits.rounds:
        return None
    if limits.visits is None:
        return Quota(distinct, distinct) if distinct > 0 else None
    visits = limits.visits - state.visits
    return Quota(visits, distinct) if visits > 0 else None


def whole_round_change(
    utility: UtilitySettings, predicted: PredictedChange, gradient: RoundGradient
) -> float:
    """Return the loss change of the whole round, before it is shared out, in nats/token."""
    if utility.loss_change == "none":
        return 0.0
    return float(
        gradient.displacement[0] if utility.loss_change == "displacement" else predicted.loss_change
    )


def _draw_record(picks: Picks) -> dict[str, Any]:
    """Return how the arm was drawn; null for a selector without arms."""
    arrays = {
        "probabilities": picks.probabilities,
        "log_weights": picks.log_weights,
        "eligible": picks.eligible,
    }
    return {
        "arm": picks.arm,
        **{name: None if array is None else array.tolist() for name, array in arrays.items()},
    }
