"""How a checkpoint keeps the whole of a training: the loop's state, the trainer and the ledger."""

from __future__ import annotations

import numpy as np

from lead_core.checkpoint import Checkpoint
from lead_core.ledger import CostLedger
from lead_core.loop_state import LoopState, pack_loop, unpack_loop
from lead_core.round_progress import PackedState
from lead_core.selectors import PoolView
from lead_core.training import Trainer


def to_checkpoint(
    state: LoopState, trainer: Trainer, rng: np.random.Generator, ledger: CostLedger
) -> Checkpoint:
    """Return `state` with the trainer's tensors, the random streams and the ledger."""
    packed = pack_loop(state, rng)
    values = {**packed.values, "steps": trainer.steps_done, "ledger": ledger.as_dict()}
    tensors = trainer.tensors() | packed.tensors
    return Checkpoint(state.work_done, values, packed.arrays, tensors)


def from_checkpoint(
    checkpoint: Checkpoint,
    pool: PoolView,
    trainer: Trainer,
    rng: np.random.Generator,
    ledger: CostLedger,
) -> LoopState:
    """Put `trainer`, `rng` and `ledger` back to `checkpoint` and return its state."""
    trainer.restore(checkpoint.tensors, checkpoint.values["steps"])
    ledger.restore(checkpoint.values["ledger"])
    packed = PackedState(checkpoint.values, checkpoint.arrays, checkpoint.tensors)
    return unpack_loop(packed, pool, rng, trainer.accelerator.device)
