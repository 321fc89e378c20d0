"""Where training stands between two steps, and how a checkpoint keeps it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lead_core.bandit import BanditState
from lead_core.checkpoint import Checkpoint
from lead_core.ledger import CostLedger
from lead_core.reward import RewardRange
from lead_core.round_progress import PackedProgress, RoundProgress, pack_progress, unpack_progress
from lead_core.selectors.contract import PoolView, SelectionState, init_selection
from lead_core.training import Trainer
from lead_core.utility import GradientMemory, GradientSummary, init_memory


@dataclass(frozen=True)
class LoopState:
    """Where training stands, apart from the model's own tensors.

    round, visits, skipped_steps: rounds finished, and in them the training samples and the steps that
    made no update. work_done: optimizer steps and
    full-pool passes so far. selection, memory: as the last finished round left them (for exact
    utilities: as measured before the round under way). progress: the round under way, if any.
    """

    round: int
    visits: int
    skipped_steps: int
    work_done: int
    selection: SelectionState
    memory: GradientMemory
    progress: RoundProgress | None = None


def init_loop(pool: PoolView) -> LoopState:
    """Return the state before the first round."""
    return LoopState(0, 0, 0, 0, init_selection(pool), init_memory(pool.n_arms))


def to_checkpoint(
    state: LoopState, trainer: Trainer, rng: np.random.Generator, ledger: CostLedger
) -> Checkpoint:
    """Return `state` with the trainer's tensors, the random streams and the ledger."""
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
        "skipped_steps": state.skipped_steps,
        "steps": trainer.steps_done,
        "reward_low": selection.reward_range.low,
        "reward_high": selection.reward_range.high,
        "sq_norms": {name: summary.sq_norm for name, summary in kept.items()},
        "rng": rng.bit_generator.state,
        "ledger": ledger.as_dict(),
        "progress": None if under_way is None else under_way.values,
    }
    tensors = trainer.tensors()
    if under_way is not None:
        arrays |= under_way.arrays
        tensors |= under_way.tensors
    return Checkpoint(state.work_done, values, arrays, tensors)


def from_checkpoint(
    checkpoint: Checkpoint, trainer: Trainer, rng: np.random.Generator, ledger: CostLedger
) -> LoopState:
    """Put `trainer`, `rng` and `ledger` back to `checkpoint` and return its state."""
    values, arrays, tensors = checkpoint.values, checkpoint.arrays, checkpoint.tensors
    trainer.restore(tensors, values["steps"])
    rng.bit_generator.state = values["rng"]
    ledger.restore(values["ledger"])

    def summary(name: str) -> GradientSummary | None:
        if name not in values["sq_norms"]:
            return None
        return GradientSummary(values["sq_norms"][name], arrays[f"sketch/{name}"])

    selection = SelectionState(
        utility=arrays["utility"],
        uses=arrays["uses"],
        bandit=BanditState(arrays["log_weights"]),
        reward_range=RewardRange(values["reward_low"], values["reward_high"]),
    )
    of_arm = tuple(summary(str(k)) for k in range(len(arrays["log_weights"])))
    memory = GradientMemory(summary("previous"), of_arm)
    progress = None
    if values["progress"] is not None:
        packed = PackedProgress(values["progress"], arrays, tensors)
        progress = unpack_progress(packed, trainer.accelerator.device)
    return LoopState(
        values["round"],
        values["visits"],
        values["skipped_steps"],
        checkpoint.number,
        selection,
        memory,
        progress,
    )
