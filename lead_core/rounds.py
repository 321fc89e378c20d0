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
from lead_core.gradients import RoundGradient, SketchPlan, plan_sketch
from lead_core.ledger import CostLedger
from lead_core.loop_checkpoint import from_checkpoint, to_checkpoint
from lead_core.loop_state import Carried, LoopState, init_loop
from lead_core.pool import TextColumn
from lead_core.round_progress import RoundProgress
from lead_core.round_rule import Limits, ReadOff, RoundRule, UtilitySettings
from lead_core.selectors import Picks, PoolView, SelectionSettings, Selector
from lead_core.selectors.contract import with_utilities
from lead_core.step_result import StepResult
from lead_core.training import Trainer, blamed_samples, check_update, explain_skip
from lead_core.utility import FloatArray, PredictedChange

Measure = Callable[[Sequence[Encoded]], FloatArray]


@dataclass(frozen=True)
class Pool:
    """The pool as training needs it: ids and sources [n], what selectors see, tokens on demand."""

    ids: np.ndarray | TextColumn
    sources: np.ndarray | TextColumn
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
    the earlier ones. on_start: told between the two, when training begins. carried: utilities and uses
    to begin with; None: offline losses, and none.
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
    carried: Carried | None = None

    @property
    def rule(self) -> RoundRule:
        """Return what decides the rounds."""
        return RoundRule(
            self.pool.view,
            self.selector,
            self.settings,
            self.utility,
            self.limits,
            self.effective_batch,
        )

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
        while not self.rule.is_over(state) and not self.stop_requested():
            state = self._advance(state, plan, rng)
            if self._is_due(state, work_saved):
                self.store.save(to_checkpoint(state, self.trainer, rng, self.ledger))
                work_saved = state.work_done
        if state.work_done != work_saved:  # asked to stop, or done: no work is lost
            self.store.save(to_checkpoint(state, self.trainer, rng, self.ledger))
        if not self.rule.is_over(state):
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
            state = init_loop(self.pool.view, self.carried)
        else:
            state = from_checkpoint(checkpoint, self.pool.view, self.trainer, rng, self.ledger)
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
        return self.rule.begin(state, rng)

    def _take_step(self, state: LoopState, progress: RoundProgress) -> RoundProgress:
        """Take the round's next optimizer step; a partial last batch is averaged over its samples."""
        chosen = self.rule.next_batch(progress)
        samples = self.pool.encoded(chosen)
        tokens = sum(len(sample.input_ids) for sample in samples)
        meter = self.rule.meter(progress, self.trainer.parameters)
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
        gradient = self.rule.meter(progress, self.trainer.parameters).close(plan)
        check_update(gradient, state.round + 1)
        state, read = self.rule.finish(state, progress, gradient)
        report = self._report(state, progress, gradient, read)
        self.store.append("rounds.jsonl", [report.round])
        self.store.append("selection.jsonl", report.samples)
        self.on_round(report)
        return state

    def _report(
        self, state: LoopState, progress: RoundProgress, gradient: RoundGradient, read: ReadOff
    ) -> RoundReport:
        """Return the records of the round that led to `state`."""
        picks, steps, predicted = progress.picks, progress.steps, read.predicted
        known = np.isfinite(read.loss_seen)
        record = {
            "round": state.round,
            **_draw_record(picks),
            "n_selected": len(picks.indices),
            "steps": len(steps),
            "skipped": self._skip_records(picks, steps),
            "eta": float(np.array([step.learning_rate for step in steps]).sum()),
            "grad_sq_norm": gradient.summary.sq_norm,
            "grad_sq_norm_arm": predicted.sq_norm_arm,
            "grad_sq_norm_prev": predicted.sq_norm_previous,
            "cos": predicted.cos,
            "beta": predicted.beta,
            "loss_change": whole_round_change(self.utility, predicted, gradient),
            "reward_raw": read.raw_reward,
            "reward": read.reward,
            "tokens": sum(int(step.lengths.sum()) for step in steps),
            "mean_loss": float(read.loss_seen[known].mean()) if known.any() else None,
            "distinct": state.selection.distinct,
            "heldout_loss": self.monitor(state.round),
        }
        figures: dict[str, np.ndarray] = {
            "utility_before": read.before,
            "loss_seen": read.loss_seen,
            "loss_change": read.loss_change,
            "utility_after": read.after,
            "uses": read.uses,
            "tokens": np.concatenate([step.lengths for step in steps]),
        }
        return RoundReport(record, self._sample_rows(state.round, picks, figures))

    def _sample_rows(
        self, number: int, picks: Picks, figures: Mapping[str, np.ndarray]
    ) -> list[dict[str, Any]]:
        """Return the selection's rows of round `number`, whose last step was just taken.

        figures: columns [m] to set beside those that say what was picked, and when.
        """
        step_of = self.rule.step_of(picks)
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
        step_of = self.rule.step_of(picks)
        return [
            {
                "step": number + 1,
                "not_finite": step.skipped,
                "ids": blamed_samples(step, self.pool.ids[picks.indices[step_of == number]]),
            }
            for number, step in enumerate(steps)
            if step.skipped
        ]

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
        return replace(state, work_done=number, selection=with_utilities(selection, utility))


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
