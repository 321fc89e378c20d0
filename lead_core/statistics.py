"""Intervals and tests for differences between two measurements of the same things."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, stdtr, stdtrit


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


def paired_t_p(pair: PairedDifference) -> float | None:
    """Return the two-sided p of the paired t test that the difference is 0, from its 95 % interval.

    None for a single item.
    """
    if pair.low is None or pair.high is None:
        return None
    reach = (pair.high - pair.low) / 2
    if reach == 0:
        return float(pair.difference == 0)
    t = pair.difference / reach * float(stdtrit(pair.n - 1, 0.975))
    return 2 * float(stdtr(pair.n - 1, -abs(t)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for being one family, in the order given (Holm 1979).

    The smallest of m is multiplied by m, the next by m - 1, and so on; none falls below one before it,
    and none exceeds 1.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def exact_mcnemar(base: Sequence[float] | np.ndarray, tuned: Sequence[float] | np.ndarray) -> float:
    """Return the two-sided exact p of McNemar's test that 0/1 outcomes [n] of the same items differ.

    Only items whose outcome changed tell something: under the hypothesis each goes either way with
    probability 1/2, so their split is binomial. Without any, p is 1.
    """
    changes = np.asarray(tuned, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    up, down = int((changes > 0).sum()), int((changes < 0).sum())
    return min(1.0, 2 * float(bdtr(min(up, down), up + down, 0.5))) if up + down else 1.0
