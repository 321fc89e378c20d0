"""`full`: one epoch over every kept record in random order, outside the budget.

What the pool as a whole is worth: the gain of every other rule is read as a fraction of this one's.
"""

from __future__ import annotations

from lead_core.selectors.uniform_draw import UniformDraw

SELECTOR = UniformDraw("full", whole_pool=True)
