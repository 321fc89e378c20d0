"""What LEAD decides in a round, whatever does the training: the samples, and what they taught.

LEAD.md B. Shared by the pipeline's loop (`rounds`) and by `LeadSampler`, for loops of other people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lead_core.gradients import RoundGradient, RoundGradientMeter
from lead_core.loop_state import LoopState
from lead_core.reward import raw_reward, rescale_reward, update_range
from lead_core.round_progress import RoundProgress, begin_progress
from lead_core.selectors import Picks, PoolView, Quota, SelectionSettings, Selector
from lead_core.selectors.contract import (
    IntArray,
    SelectionState,
    record_use,
    with_utilities,
    withdraw,
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


def rule_settings(
    values: Mapping[str, Any], *, effective_batch: int
) -> tuple[SelectionSettings, UtilitySettings]:
    """Return what `values` say, keys of the sections select, bandit and utility of params.yaml."""
    return (
        SelectionSettings(
            exploration=values["exploration"],
            step_size=values["step_size"],
            round_fraction=values["round_fraction"],
            min_round=values["min_round_samples"] or effective_batch,
            max_uses=values["max_uses"],
            cluster_size_power=values["cluster_size_power"],
        ),
        UtilitySettings(
            smoothing=values["smoothing"],
            loss_change=values["loss_change"],
            charge_whole_round=values["round_loss_change"] == "whole",
            drift=values["drift"] == "cluster",
            drift_prior_samples=values["drift_prior_samples"],
            sketch_size=values["sketch_size"],
            snapshots=values["displacement_snapshots"],
        ),
    )


def budget_limits(distinct: int, visits_per_budget: float | None, rounds: int | None) -> Limits:
    """Return the limits of a budget of `distinct` samples, visited so many times on average."""
    visits = None if visits_per_budget is None else max(1, round(visits_per_budget * distinct))
    return Limits(distinct, visits, rounds)


def one_epoch(loss: FloatArray) -> Limits:
    """Return the limits of one pass over all records whose offline `loss` [n] is a number."""
    trainable = int(np.isfinite(loss).sum())
    return Limits(trainable, trainable, None)


@dataclass(frozen=True)
class ReadOff:
    """What a finished round told of its m samples, in the order of training, and of its arm.

    before, loss_seen, loss_change, after: float64 [m] in nats/token; predicted: by the published
    formula; raw_reward, reward: as the arm paid it (None: no sample had a loss), and rescaled. uses
    int16 [m]: how often each was trained on so far.
    """

    before: FloatArray
    loss_seen: FloatArray
    loss_change: FloatArray
    after: FloatArray
    predicted: PredictedChange
    raw_reward: float | None
    reward: float
    uses: NDArray[np.int16]


@dataclass(frozen=True)
class RoundRule:
    """How rounds are chosen on one pool, what is learned from them, and when they end."""

    view: PoolView
    selector: Selector
    settings: SelectionSettings
    utility: UtilitySettings
    limits: Limits
    effective_batch: int

    def is_over(self, state: LoopState) -> bool:
        """Whether training ends here: at a limit, or as nothing was eligible for the next round."""
        if state.progress is None:
            return remaining_quota(state, self.limits).visits <= 0
        return not len(state.progress.picks.indices)

    def begin(self, state: LoopState, rng: np.random.Generator) -> LoopState:
        """Return `state` with the next round picked and put in order, before its first step."""
        quota = remaining_quota(state, self.limits)
        picks = self.selector.pick(self.view, state.selection, self.settings, quota, rng)
        return replace(state, progress=begin_progress(picks, rng))

    def next_batch(self, progress: RoundProgress) -> IntArray:
        """Return the positions of the next optimizer step; the last step of a round may have fewer."""
        start = progress.samples_done
        return progress.picks.indices[start : start + self.effective_batch]

    def meter(
        self, progress: RoundProgress, parameters: Sequence[torch.nn.Parameter]
    ) -> RoundGradientMeter:
        """Return the meter of the round under way, as far as it has come."""
        n_steps = -(-len(progress.picks.indices) // self.effective_batch)
        return RoundGradientMeter(parameters, n_steps, self.utility.snapshots, progress.trace)

    def step_of(self, picks: Picks) -> IntArray:
        """Return for each pick which of the round's steps it is in, int [m], from 0."""
        return np.arange(len(picks.indices)) // self.effective_batch

    def finish(
        self, state: LoopState, progress: RoundProgress, gradient: RoundGradient
    ) -> tuple[LoopState, ReadOff]:
        """Return the state after a round whose steps are all taken, and what was read off them.

        The arrays of `state.selection` go over into the new one, see `record_use`.
        """
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
            steps=self.step_of(picks),
        )
        before = state.selection.utility[picks.indices]
        known = np.isfinite(loss_seen)  # a sample without a loss keeps its utility
        after = update_utility(before, loss_seen, loss_change, self.utility.smoothing)
        after = np.where(known, after, before)
        raw = raw_reward(before[known], after[known]) if known.any() else None
        reward = 0.0 if raw is None else rescale_reward(state.selection.reward_range, raw)
        uses = state.selection.uses[picks.indices] + np.int16(1)
        read = ReadOff(before, loss_seen, loss_change, after, predicted, raw, reward, uses)
        after_round = LoopState(
            round=state.round + 1,
            visits=state.visits + len(picks.indices),
            skipped_steps=state.skipped_steps + progress.skipped_steps,
            work_done=state.work_done,
            selection=self._learned(state.selection, picks, read),
            memory=remember(state.memory, picks.arm, gradient.summary)
            if any(step.skipped is None for step in steps)
            else state.memory,
        )
        return after_round, read

    def _learned(self, selection: SelectionState, picks: Picks, read: ReadOff) -> SelectionState:
        """Return what selection carries on from a round: uses, utilities, the bandit paid."""
        if read.raw_reward is None:
            bandit, reward_range = selection.bandit, selection.reward_range
        else:
            bandit = self.selector.learn(selection, picks, read.reward, self.settings)
            reward_range = update_range(selection.reward_range, read.raw_reward)
        updated = record_use(self.view, selection, picks.indices, read.after)
        if self.utility.drift:
            drifted = drift_unvisited(
                updated.utility,
                updated.uses > 0,
                self.view.clusters,
                picks.indices,
                read.before - read.after,
                self.utility.drift_prior_samples,
            )
            updated = with_utilities(updated, drifted)
        # Without a loss once, without one again: it would only cost another step.
        lost = picks.indices[~np.isfinite(read.loss_seen)]
        updated = withdraw(self.view, updated, lost, self.settings.max_uses)
        return replace(updated, bandit=bandit, reward_range=reward_range)


def remaining_quota(state: LoopState, limits: Limits) -> Quota:
    """Return what may still be trained on; no visit is left when a limit is reached (LEAD.md B.6).

    Without a limit on visits training ends with the distinct budget. With one it goes on to it, and
    once the distinct budget is spent only samples that were used before may come again.
    """
    distinct = limits.distinct - state.selection.distinct
    if limits.rounds is not None and state.round >= limits.rounds:
        return Quota(0, distinct)
    return Quota(distinct if limits.visits is None else limits.visits - state.visits, distinct)
