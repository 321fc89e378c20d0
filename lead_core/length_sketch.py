"""Quantiles of lengths in constant memory: counts in buckets whose edges grow by 2 %."""

from __future__ import annotations

import math
from collections import Counter

# Buckets as in DDSketch (Masson et al., VLDB 2019): the middle of a bucket is within 1 % of all in it.
RELATIVE_ERROR = 0.01
_GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GROWTH = math.log(_GROWTH)
_ZERO = -1  # the bucket of length 0


class LengthSketch:
    """Lengths (whole numbers from 0): count, sum and extremes exact, quantiles within 1 %.

    Deterministic, and independent of the order of the lengths. At most some 1,000 buckets.
    """

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.total = 0
        self.smallest = 0
        self.largest = 0

    def add(self, length: int) -> None:
        """Count one more `length`."""
        self._buckets[bucket(length)] += 1
        self.smallest = min(self.smallest, length) if self.count else length
        self.largest = max(self.largest, length)
        self.count += 1
        self.total += length

    def quantile(self, share: float) -> int:
        """Return the length that `share` (0 to 1) of all lengths do not exceed; 0 if there are none."""
        if not self.count:
            return 0
        wanted, seen = max(1, math.ceil(share * self.count)), 0
        for index in sorted(self._buckets):
            seen += self._buckets[index]
            if seen >= wanted:
                return min(max(_middle(index), self.smallest), self.largest)
        return self.largest

    def count_beyond(self, low: int, high: int) -> tuple[int, int]:
        """Return how many lengths lie in buckets below that of `low` and above that of `high`."""
        lowest, highest = bucket(low), bucket(high)
        below = sum(n for index, n in self._buckets.items() if index < lowest)
        above = sum(n for index, n in self._buckets.items() if index > highest)
        return below, above


def bucket(length: int) -> int:
    """Return the number of the bucket that holds `length`."""
    return math.ceil(math.log(length) / _LOG_GROWTH) if length else _ZERO


def _middle(index: int) -> int:
    if index == _ZERO:
        return 0
    return round(2 * _GROWTH**index / (_GROWTH + 1))
