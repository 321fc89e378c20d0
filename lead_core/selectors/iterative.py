"""`iterative`: `lead` with exact utilities, measured by a pass over the pool before every round.

The expensive reference, as iterative selectors before LEAD work: its distance to `lead` is what
estimating utilities costs. The only selector that forwards samples in order to select.
"""

from __future__ import annotations

from lead_core.selectors.coarse_to_fine import CoarseToFine

# Before its first round, too, the utilities are measured: whose losses the scores hold is all the same.
SELECTOR = CoarseToFine("iterative", exact_utilities=True, starts_from_losses=False)
