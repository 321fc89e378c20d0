"""LEAD's loop: pick, train, read utilities off the training, pay the bandit, record (LEAD.md B).

After the offline pass nothing is forwarded here but what is trained on. The exceptions are asked for
by name and charged to their own ledger column: `iterative` (the expensive reference) and held-out
monitoring.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lead_core.chat import Encoded
from lead_core.checkpoint import CheckpointStore
from lead_core.errors import LeadError
from lead_core.gradients import RoundGradient, RoundGradientMeter, SketchPlan, plan_sketch
from lead_core.ledger import CostLedger
from lead_core.loop_state import LoopState, from_checkpoint, init_loop, to_checkpoint
from lead_core.reward import raw_reward, rescale_reward, update_range
from lead_core.round_progress import RoundProgress, begin_progress
from lead_core.selectors import Picks, PoolView, Quota, SelectionSettings, Selector
from lead_core.selectors.contract import IntArray, SelectionState, record_use, withdraw
from lead_core.training import (
    StepResult,
    Trainer,
    blamed_samples,
    check_update,
    explain_skip,
)
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
    """Training was asked to stop; the last checkpoint holds every step that was taken."""


@dataclass(frozen=True)
class RoundLoop:
    """The fixed parts of one training run; what changes is in `LoopState` and the trainer.

    max_skipped_steps: steps without an update (see `Trainer.step`) beyond which training fails.
    checkpoint_every_steps: also save inside a round, so many pieces of work after the last checkpoint;
    None: never. measure: current loss of given samples (only `iterative` calls it). monitor: held-out
    loss after a round, or None. on_round: told of each finished round, and before a resume again of
    the earlier ones. on_start: told between the two, when training begins.
    """

    trainer: Trainer
    pool: Pool
    selector: Selector
    settings: SelectionSettings
    utility: UtilitySettings
    limits: Limits
    effective_batch: int
    max_skipped_steps: int
    seed: int
    ledger: CostLedger
    store: CheckpointStore
    checkpoint_every_rounds: int
    checkpoint_every_steps: int | None
    measure: Measure
    monitor: Callable[[int], float | None]
    on_start: Callable[[], None]
    on_round: Callable[[RoundReport], None]
    stop_requested: Callable[[], bool]

    def run(self) -> LoopState:
        """Train until a limit is reached, from the newest checkpoint if there is one.

        Raises Interrupted between two steps once `stop_requested` says so, with the state saved.
        """
        rng = np.random.default_rng([self.seed, 1])
        self.trainer.seed(self.seed)
        n_trainable = sum(p.numel() for p in self.trainer.parameters)
        device = self.trainer.accelerator.device
        plan = plan_sketch(n_trainable, self.utility.sketch_size, seed=self.seed, device=device)
        state = self._resume(rng)
        self.on_start()
        work_saved = state.work_done
        while not is_over(state, self.limits) and not self.stop_requested():
            state = self._advance(state, plan, rng)
            if self._is_due(state, work_saved):
                self.store.save(to_checkpoint(state, self.trainer, rng, self.ledger))
                work_saved = state.work_done
        if state.work_done != work_saved:  # asked to stop, or done: no work is lost
            self.store.save(to_checkpoint(state, self.trainer, rng, self.ledger))
        if not is_over(state, self.limits):
            raise Interrupted
        return state

    def _advance(self, state: LoopState, plan: SketchPlan, rng: np.random.Generator) -> LoopState:
        """Begin the next round, or take one step of the round under way and, after its last, end it."""
        if state.progress is None:
            return self._begin_round(state, rng)
        progress = self._take_step(state, state.progress)
        state = replace(state, work_done=state.work_done + 1, progress=progress)
        return self._finish_round(state, progress, plan) if progress.complete else state

    def _is_due(self, state: LoopState, work_saved: int) -> bool:
        """Whether `state` is to be saved, the newest checkpoint being of `work_saved` pieces."""
        every = self.checkpoint_every_steps
        if every is not None and state.work_done - work_saved >= every:
            return True
        return state.progress is None and state.round % self.checkpoint_every_rounds == 0

    def _resume(self, rng: np.random.Generator) -> LoopState:
        checkpoint = self.store.load_latest()
        if checkpoint is None:
            state = init_loop(self.pool.view)
        else:
            state = from_checkpoint(checkpoint, self.trainer, rng, self.ledger)
        self.ledger.add("replayed", *self.store.begin_attempt(state.work_done))
        samples: dict[int, list[dict[str, Any]]] = {}
        for row in self.store.read_log("selection.jsonl"):
            samples.setdefault(row["round"], []).append(row)
        for row in self.store.read_log("rounds.jsonl"):
            self.on_round(RoundReport(row, samples[row["round"]]))
        return state

    def _begin_round(self, state: LoopState, rng: np.random.Generator) -> LoopState:
        """Pick the next round's samples and their order."""
        if self.selector.exact_utilities:
            state = self._with_exact_utilities(state)
        quota = remaining_quota(state, self.limits)
        picks = self.selector.pick(self.pool.view, state.selection, self.settings, quota, rng)
        return replace(state, progress=begin_progress(picks, rng))

    def _take_step(self, state: LoopState, progress: RoundProgress) -> RoundProgress:
        """Take the round's next optimizer step; a partial last batch is averaged over its samples."""
        start = progress.samples_done
        chosen = progress.picks.indices[start : start + self.effective_batch]
        samples = self.pool.encoded(chosen)
        tokens = sum(len(sample.input_ids) for sample in samples)
        meter = self._meter(progress)
        self.store.note_work(state.work_done + 1, "training", len(samples), tokens)
        with self.ledger.charged_to("training"):
            step = self.trainer.step(samples, meter)
        progress = replace(progress, steps=(*progress.steps, step), trace=meter.trace)
        if step.skipped:
            skipped = state.skipped_steps + progress.skipped_steps
            self._tell_skip(explain_skip(step, self.pool.ids[chosen], state.round + 1), skipped)
        return progress

    def _tell_skip(self, reason: str, skipped: int) -> None:
        """Say that a step made no update, the `skipped`-th; LeadError when these are too many."""
        if skipped > self.max_skipped_steps:
            raise LeadError(
                f"{reason}, and no more than {self.max_skipped_steps} steps may be skipped for that "
                "(train.max_skipped_steps); lower train.learning_rate, or look at these records in "
                "the pool"
            )
        print(
            f"{reason}; step skipped ({skipped} of at most {self.max_skipped_steps})",
            file=sys.stderr,
            flush=True,
        )

    def _finish_round(
        self, state: LoopState, progress: RoundProgress, plan: SketchPlan
    ) -> LoopState:
        """Record the round whose last step was taken, tell of it, and return the state after it."""
        gradient = self._meter(progress).close(plan)
        check_update(gradient, state.round + 1)
        state, report = self._read_off(state, progress, gradient)
        self.store.append("rounds.jsonl", [report.round])
        self.store.append("selection.jsonl", report.samples)
        self.on_round(report)
        return state

    def _meter(self, progress: RoundProgress) -> RoundGradientMeter:
        """Return the meter of the round under way, as far as it has come."""
        n_steps = -(-len(progress.picks.indices) // self.effective_batch)
        return RoundGradientMeter(
            self.trainer.parameters, n_steps, self.utility.snapshots, progress.trace
        )

    def _read_off(
        self, state: LoopState, progress: RoundProgress, gradient: RoundGradient
    ) -> tuple[LoopState, RoundReport]:
        """Return the state after a round whose steps are all taken, and the records of it."""
        number = state.round + 1
        picks, steps = progress.picks, progress.steps
        rates = np.array([step.learning_rate for step in steps])
        loss_seen = np.concatenate([step.losses for step in steps])
        predicted = predict_change(state.memory, picks.arm, float(rates.sum()))
        loss_change = sample_loss_changes(
            self.utility.loss_change,
            whole_round=self.utility.charge_whole_round,
            predicted=predicted.loss_change,
            displacement=gradient.displacement,
            learning_rates=rates,
            steps=self._step_of(picks),
        )
        before = state.selection.utility[picks.indices]
        known = np.isfinite(loss_seen)  # a sample without a loss keeps its utility
        after = update_utility(before, loss_seen, loss_change, self.utility.smoothing)
        after = np.where(known, after, before)
        raw = raw_reward(before, after)
        reward = rescale_reward(state.selection.reward_range, raw)
        selection = self._updated_selection(state.selection, picks, after, raw, reward)
        # Without a loss once, without one again: it would only cost another step.
        selection = withdraw(selection, picks.indices[~known], self.settings.max_uses)
        record = {
            "round": number,
            **_draw_record(picks),
            "n_selected": len(picks.indices),
            "steps": len(steps),
            "skipped": self._skip_records(picks, steps),
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
            "mean_loss": float(loss_seen[known].mean()) if known.any() else None,
            "distinct": int(np.count_nonzero(selection.uses)),
            "heldout_loss": self.monitor(number),
        }
        figures = {
            "utility_before": before,
            "loss_seen": loss_seen,
            "loss_change": loss_change,
            "utility_after": after,
            "uses": selection.uses[picks.indices],
            "tokens": np.concatenate([step.lengths for step in steps]),
        }
        memory = remember(state.memory, picks.arm, gradient.summary)
        visits = state.visits + len(picks.indices)
        skipped = state.skipped_steps + progress.skipped_steps
        after_round = LoopState(number, visits, skipped, state.work_done, selection, memory)
        return after_round, RoundReport(record, self._sample_rows(number, picks, figures))

    def _updated_selection(
        self,
        selection: SelectionState,
        picks: Picks,
        utility: FloatArray,
        raw: float,
        reward: float,
    ) -> SelectionState:
        """Return what selection carries on from a round: uses, utilities, the bandit paid.

        utility [m]: the picks' new utilities. raw, reward: the arm's reward, and that rescaled.
        """
        updated = record_use(selection, picks.indices, utility)
        if self.utility.drift:
            drifted = drift_unvisited(
                updated.utility,
                updated.uses > 0,
                self.pool.view.clusters,
                picks.indices,
                selection.utility[picks.indices] - utility,
                self.utility.drift_prior_samples,
            )
            updated = replace(updated, utility=drifted)
        return replace(
            updated,
            bandit=self.selector.learn(selection, picks, reward, self.settings),
            reward_range=update_range(selection.reward_range, raw),
        )

    def _sample_rows(
        self, number: int, picks: Picks, figures: Mapping[str, np.ndarray]
    ) -> list[dict[str, Any]]:
        """Return the selection's rows of round `number`, whose last step was just taken.

        figures: columns [m] to set beside those that say what was picked, and when.
        """
        step_of = self._step_of(picks)
        columns = {
            "round": np.full(len(picks.indices), number),
            "step": self.trainer.steps_done - step_of.max() + step_of,
            "id": self.pool.ids[picks.indices],
            "source": self.pool.sources[picks.indices],
            "difficulty": self.pool.view.difficulty[picks.indices],
            "task": self.pool.view.task[picks.indices],
            **figures,
        }
        names, rows = list(columns), zip(*(c.tolist() for c in columns.values()), strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _skip_records(self, picks: Picks, steps: Sequence[StepResult]) -> list[dict[str, Any]]:
        """Return the round's steps (from 1) that made no update: what was not finite, and whose."""
        step_of = self._step_of(picks)
        return [
            {
                "step": number + 1,
                "not_finite": step.skipped,
                "ids": blamed_samples(step, self.pool.ids[picks.indices[step_of == number]]),
            }
            for number, step in enumerate(steps)
            if step.skipped
        ]

    def _step_of(self, picks: Picks) -> IntArray:
        """Return for each pick which of the round's steps it is in, int [m], from 0."""
        return np.arange(len(picks.indices)) // self.effective_batch

    def _with_exact_utilities(self, state: LoopState) -> LoopState:
        """Replace the utilities of all samples that may be picked by their true current loss."""
        selection = state.selection
        open_uses = selection.uses < self.settings.max_uses
        indices = np.flatnonzero((self.pool.view.difficulty >= 0) & open_uses)
        utility = selection.utility.copy()
        samples = self.pool.encoded(indices)
        tokens = sum(len(sample.input_ids) for sample in samples)
        number = state.work_done + 1
        self.store.note_work(number, "selection", len(samples), tokens)
        with self.ledger.charged_to("selection"):
            utility[indices] = self.measure(samples)
        selection = replace(selection, utility=utility)
        return replace(state, work_done=number, selection=selection)


def is_over(state: LoopState, limits: Limits) -> bool:
    """Whether training ends here: a limit is reached, or nothing was eligible for the next round."""
    if state.progress is None:
        return remaining_quota(state, limits).visits <= 0
    return not len(state.progress.picks.indices)


def remaining_quota(state: LoopState, limits: Limits) -> Quota:
    """Return what may still be trained on; no visit is left when a limit is reached (LEAD.md B.6).

    Without a limit on visits training ends with the distinct budget. With one it goes on to it, and
    once the distinct budget is spent only samples that were used before may come again.
    """
    distinct = limits.distinct - int(np.count_nonzero(state.selection.uses))
    if limits.rounds is not None and state.round >= limits.rounds:
        return Quota(0, distinct)
    return Quota(distinct if limits.visits is None else limits.visits - state.visits, distinct)


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
