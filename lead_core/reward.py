"""The bandit's reward: how far utilities fell, rescaled by what earlier rounds paid (LEAD.md B.5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class RewardRange:
    """Smallest and largest raw reward of the rounds so far; None before the first."""

    low: float | None = None
    high: float | None = None


def raw_reward(utility_before: FloatArray, utility_after: FloatArray) -> float:
    """Return ``R_t``, the mean drop of utility over the trained samples, in nats/token."""
    return float(np.mean(utility_before - utility_after))


def rescale_reward(earlier: RewardRange, raw: float) -> float:
    """Return ``R' = clip(2 (R - min) / (max - min) - 1, -1, 1)``, the range from earlier rounds.

    0 until two distinct earlier values exist: there is no range to compare with.
    """
    if earlier.low is None or earlier.high is None or earlier.low == earlier.high:
        return 0.0
    share = (raw - earlier.low) / (earlier.high - earlier.low)
    return float(np.clip(2 * share - 1, -1.0, 1.0))


def update_range(earlier: RewardRange, raw: float) -> RewardRange:
    """Return the range with `raw` taken in."""
    return RewardRange(
        raw if earlier.low is None else min(earlier.low, raw),
        raw if earlier.high is None else max(earlier.high, raw),
    )
