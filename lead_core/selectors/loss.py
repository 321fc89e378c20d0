"""`loss`: the highest offline losses ``u_0`` first, a ranking fixed before training.

Static top uncertainty: what LEAD's utility is before the first round, never updated.
"""

from __future__ import annotations

from lead_core.selectors.contract import FloatArray, PoolView, SelectionState
from lead_core.selectors.ranking import Ranking


def _offline_loss(pool: PoolView, state: SelectionState) -> FloatArray:
    return pool.loss


SELECTOR = Ranking("loss", _offline_loss, starts_from_losses=True)
