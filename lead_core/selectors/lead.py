"""`lead`: EXP3 draws a difficulty cluster; inside it the highest utilities of each task cluster.

Lin et al. 2025 (arXiv 2505.07437), coarse-to-fine selection by IDU. Its numbers are those of
params.yaml, which depart from the paper where measurement said so; `lead-paper` keeps the paper's.
"""

from __future__ import annotations

from lead_core.selectors.coarse_to_fine import CoarseToFine

SELECTOR = CoarseToFine("lead")
