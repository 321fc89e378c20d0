"""`informative` with another order inside clusters: what mutual information is worth there.

`informative-longest` takes the longest responses, `informative-random` any.
"""

from __future__ import annotations

from lead_core.selectors.spread import Spread

SELECTORS = (
    Spread("informative-longest", order=lambda pool: pool.by_length),
    Spread("informative-random", order=None),
)
