"""`longest`: the longest responses first, over every kept record.

Zhao et al. 2024, "Long Is More for Alignment" (arXiv 2402.04833): a baseline that needs no model. It
trains on more tokens than others at the same number of samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lead_core.selectors.contract import PoolView, SelectionState
from lead_core.selectors.ranking import Ranking


def _length(pool: PoolView, state: SelectionState) -> NDArray[np.int32]:
    return pool.response_tokens


SELECTOR = Ranking("longest", _length, below_one=False, reads_scores=False)
