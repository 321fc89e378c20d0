"""LEAD without one part: what `lead` gains on each of these is that part's share.

`lead-no-bandit` draws every difficulty cluster with the same probability; `lead-no-task` takes the
highest utilities of the whole difficulty cluster; `lead-no-smoothing` forgets the utility before;
`lead-no-loss-change` takes the loss seen in training as it is. The parts are those of Lin et al. 2025
(arXiv 2505.07437).
"""

from __future__ import annotations

from lead_core.selectors.coarse_to_fine import CoarseToFine

SELECTORS = (
    CoarseToFine("lead-no-bandit", learns=False),
    CoarseToFine("lead-no-task", by_task=False),
    CoarseToFine("lead-no-smoothing", fixes={"utility.smoothing": 0.0}),
    CoarseToFine("lead-no-loss-change", fixes={"utility.loss_change": "none"}),
)
