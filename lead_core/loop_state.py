"""What one round hands to the next, and how a checkpoint keeps it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lead_core.bandit import BanditState
from lead_core.checkpoint import Checkpoint
from lead_core.ledger import CostLedger
from lead_core.reward import RewardRange
from lead_core.selectors.contract import PoolView, SelectionState, init_selection
from lead_core.training import Trainer
from lead_core.utility import GradientMemory, GradientSummary, init_memory


@dataclass(frozen=True)
class LoopState:
    """Everything that one round hands to the next, apart from the model's own tensors."""

    round: int
    visits: int
    selection: SelectionState
    memory: GradientMemory


def init_loop(pool: PoolView) -> LoopState:
    """Return the state before the first round."""
    return LoopState(0, 0, init_selection(pool), init_memory(pool.n_arms))


def to_checkpoint(
    state: LoopState, trainer: Trainer, rng: np.random.Generator, ledger: CostLedger
) -> Checkpoint:
    """Return `state` with the trainer's tensors, the random streams and the ledger."""
    memory, selection = state.memory, state.selection
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
        "visits": state.visits,
        "steps": trainer.steps_done,
        "reward_low": selection.reward_range.low,
        "reward_high": selection.reward_range.high,
        "sq_norms": {name: summary.sq_norm for name, summary in kept.items()},
        "rng": rng.bit_generator.state,
        "ledger": ledger.as_dict(),
    }
    return Checkpoint(state.round, values, arrays, trainer.tensors())


def from_checkpoint(
    checkpoint: Checkpoint, trainer: Trainer, rng: np.random.Generator, ledger: CostLedger
) -> LoopState:
    """Put `trainer`, `rng` and `ledger` back to `checkpoint` and return its state."""
    values, arrays = checkpoint.values, checkpoint.arrays
    trainer.restore(checkpoint.tensors, values["steps"])
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
    return LoopState(checkpoint.number, values["visits"], selection, memory)
