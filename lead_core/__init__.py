"""LEAD: iterative data selection for LLM instruction tuning, without extra inference.

The names below are the library, for training loops of one's own (docs/library.md).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lead_core.pool import open_pool
    from lead_core.pool_view import read_view
    from lead_core.sampler import LeadSampler, LeadSettings
    from lead_core.selectors import PoolView

__version__ = "0.1.0"
__all__ = ["LeadSampler", "LeadSettings", "PoolView", "open_pool", "read_view"]

_HOME = {
    "LeadSampler": "lead_core.sampler",
    "LeadSettings": "lead_core.sampler",
    "PoolView": "lead_core.selectors",
    "open_pool": "lead_core.pool",
    "read_view": "lead_core.pool_view",
}


def __getattr__(name: str) -> Any:
    """Import a name of the library when it is first used: it may bring torch with it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
