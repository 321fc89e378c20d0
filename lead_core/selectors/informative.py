"""`informative`: a share of every task cluster; inside it the responses that prompts say most about.

Three changes to LEAD's rule, each for a loss that was measured (docs/informative.md): every round draws
from all task clusters instead of one difficulty cluster, smaller ones by more than their share; samples
rank by pointwise mutual information of prompt and response (pointwise V-information without
fine-tuning: Ethayarajh et al. 2022, arXiv 2110.08420) instead of the loss per token, whose top is
short, odd or wrong; none comes again before all have come.
"""

from __future__ import annotations

from lead_core.selectors.spread import Spread

SELECTOR = Spread("informative", order=lambda pool: pool.by_information)
