"""Intervals for differences between two measurements of the same things."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True)
class PairedDifference:
    """Two means over the same `n` items, and their difference ``tuned - base`` with an interval.

    `low` and `high` are None for a single item, where the spread is unknown.
    """

    base: float
    tuned: float
    difference: float
    low: float | None
    high: float | None
    n: int


def paired_difference(
    base: Sequence[float] | np.ndarray,
    tuned: Sequence[float] | np.ndarray,
    *,
    confidence: float = 0.95,
) -> PairedDifference:
    """Return the mean of ``tuned - base``, item by item, with its paired t interval.

    base, tuned [n]: the same items in the same order. The spread between items cancels, so the
    interval is that of the change alone. Raises ValueError without items, or for unequal lengths.
    """
    first = np.asarray(base, dtype=np.float64)
    second = np.asarray(tuned, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(f"expected two equally long vectors, got {first.shape} and {second.shape}")
    changes = second - first
    n, mean = first.size, float(changes.mean())
    low = high = None
    if n > 1:
        standard_error = float(changes.std(ddof=1)) / math.sqrt(n)
        reach = float(stdtrit(n - 1, 0.5 + confidence / 2)) * standard_error
        low, high = mean - reach, mean + reach
    return PairedDifference(float(first.mean()), float(second.mean()), mean, low, high, n)
