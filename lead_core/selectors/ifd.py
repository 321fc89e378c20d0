"""`ifd`: the highest instruction-following difficulty below 1 first, a ranking fixed before training.

Li et al. 2024, "From Quantity to Quality" (arXiv 2308.12032), with scores from the offline pass.
"""

from __future__ import annotations

from lead_core.selectors.contract import FloatArray, PoolView, SelectionState
from lead_core.selectors.ranking import Ranking


def _difficulty(pool: PoolView, state: SelectionState) -> FloatArray:
    return pool.ifd


SELECTOR = Ranking("ifd", _difficulty)
