"""`informative-strata`: what is most informative among responses of its own length, of all lengths.

`informative` takes the longest responses above all, and what a model then learns less is to answer in
few words (docs/informative.md). Here a cluster's responses are cut into strata of neighbours in length,
and each gives its most informative one before any gives a second.
"""

from __future__ import annotations

from lead_core.selectors.spread import Spread

SELECTOR = Spread(
    "informative-strata",
    order=lambda pool, settings: pool.by_length_strata(settings.length_stratum),
)
