"""`idu`: the highest current utilities of the whole pool first, without clusters and bandit.

The utility of Lin et al. 2025 (arXiv 2505.07437) on its own: what LEAD's two levels add is its distance
to this. A sample may lead twice.
"""

from __future__ import annotations

from lead_core.selectors.contract import FloatArray, PoolView, SelectionState
from lead_core.selectors.ranking import Ranking


def _utility(pool: PoolView, state: SelectionState) -> FloatArray:
    return state.utility


SELECTOR = Ranking("idu", _utility, once=False, reads_utilities=True, starts_from_losses=True)
