"""`random-ifd`: every record with IFD < 1 is equally likely.

LEAD trains on such records alone (the filter of Li et al. 2024, arXiv 2308.12032): what this gains on
`random` is the filter's share of any gain.
"""

from __future__ import annotations

from lead_core.selectors.uniform_draw import UniformDraw

SELECTOR = UniformDraw("random-ifd", below_one=True, reads_scores=True)
