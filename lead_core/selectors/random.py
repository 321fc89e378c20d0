"""`random`: every kept record is equally likely, those with IFD >= 1 included.

The baseline that published selection methods often lose to, and the one that all are compared with.
"""

from __future__ import annotations

from lead_core.selectors.uniform_draw import UniformDraw

SELECTOR = UniformDraw("random")
