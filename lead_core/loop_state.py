"""Where training stands between two steps, apart from the trainer, and how a checkpoint keeps it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lead_core.bandit import BanditState
from lead_core.reward import RewardRange
from lead_core.round_progress import PackedState, RoundProgress, pack_progress, unpack_progress
from lead_core.selectors.contract import (
    PoolView,
    SelectionState,
    init_selection,
    restore_selection,
)
from lead_core.utility import GradientMemory, GradientSummary, init_memory


@dataclass(frozen=True)
class LoopState:
    """Where training stands, apart from the model's own tensors.

    round, visits, skipped_steps: rounds finished, and in them the training samples and the steps that
    made no update. work_done: optimizer steps and full-pool passes so far. selection, memory: as the
    last finished round left them (for exact utilities: as measured before the round under way).
    progress: the round under way, if any.
    """

    round: int
    visits: int
    skipped_steps: int
    work_done: int
    selection: SelectionState
    memory: GradientMemory
    progress: RoundProgress | None = None


@dataclass(frozen=True)
class Carried:
    """What earlier trainings left of a pool's n samples: utility float64 [n], uses int16 [n]."""

    utility: np.ndarray
    uses: np.ndarray

    def count_used(self, loss: np.ndarray) -> int:
        """Return how many samples with an offline `loss` [n] earlier trainings used."""
        return int(np.count_nonzero(np.isfinite(loss) & (self.uses > 0)))


def init_loop(pool: PoolView, carried: Carried | None = None) -> LoopState:
    """Return the state before the first round; bandit and gradients begin afresh in any case."""
    selection = init_selection(pool)
    if carried is not None:
        selection = restore_selection(
            pool,
            carried.utility.copy(),  # rounds write into it
            carried.uses.copy(),
            selection.bandit,
            selection.reward_range,
        )
    return LoopState(0, 0, 0, 0, selection, init_memory(pool.n_arms))


def pack_loop(state: LoopState, rng: np.random.Generator) -> PackedState:
    """Return `state` and the random stream of selection as what a checkpoint can hold."""
    memory, selection, progress = state.memory, state.selection, state.progress
    under_way = None if progress is None else pack_progress(progress)
    summaries = {"previous": memory.previous}
    summaries |= {str(arm): summary for arm, summary in enumerate(memory.of_arm)}
    kept = {name: summary for name, summary in summaries.items() if summary is not None}
    arrays: dict[str, np.ndarray] = {
        "utility": selection.utility,
        "uses": selection.uses,
        "log_weights": selection.bandit.log_weights,
        **{f"sketch/{name}": summary.sketch for name, summary in kept.items()},
    }
    values = {
        "round": state.round,
        "visits": state.visits,
        "work_done": state.work_done,
        "skipped_steps": state.skipped_steps,
        "reward_low": selection.reward_range.low,
        "reward_high": selection.reward_range.high,
        "sq_norms": {name: summary.sq_norm for name, summary in kept.items()},
        "rng": rng.bit_generator.state,
        "progress": None if under_way is None else under_way.values,
    }
    if under_way is None:
        return PackedState(values, arrays, {})
    return PackedState(values, arrays | under_way.arrays, under_way.tensors)


def unpack_loop(
    packed: PackedState, pool: PoolView, rng: np.random.Generator, device: torch.device | str
) -> LoopState:
    """Put `rng` back and return the state that `pack_loop` was given, its tensors on `device`."""
    values, arrays = packed.values, packed.arrays
    rng.bit_generator.state = values["rng"]

    def summary(name: str) -> GradientSummary | None:
        if name not in values["sq_norms"]:
            return None
        return GradientSummary(values["sq_norms"][name], arrays[f"sketch/{name}"])

    selection = restore_selection(
        pool,
        utility=arrays["utility"],
        uses=arrays["uses"],
        bandit=BanditState(arrays["log_weights"]),
        reward_range=RewardRange(values["reward_low"], values["reward_high"]),
    )
    of_arm = tuple(summary(str(k)) for k in range(len(arrays["log_weights"])))
    progress = None
    if values["progress"] is not None:
        under_way = PackedState(values["progress"], arrays, packed.tensors)
        progress = unpack_progress(under_way, device)
    return LoopState(
        values["round"],
        values["visits"],
        values["skipped_steps"],
        values["work_done"],
        selection,
        GradientMemory(summary("previous"), of_arm),
        progress,
    )
