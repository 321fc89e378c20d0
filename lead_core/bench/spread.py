"""Repeated measurements in three numbers: the median, the least and the greatest."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The median of repeated measurements, with the least and the greatest of them."""

    median: float
    low: float
    high: float

    def times(self, factor: float) -> Spread:
        """Return the spread of all values times `factor`, which is positive."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)


def spread_of(values: Sequence[float]) -> Spread:
    """Return the spread of `values`, at least one."""
    return Spread(float(statistics.median(values)), float(min(values)), float(max(values)))


def spread_of_rates(amount: float, seconds: Sequence[float]) -> Spread:
    """Return the spread of ``amount / seconds``: what was done per second in each repetition."""
    return spread_of([amount / value for value in seconds])


def spread_of_ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Return the spread of ``above / below``, repetition by repetition.

    Both of a pair were measured one right after the other, so that a machine that slows down for a
    while slows both: their ratio is steadier than either.
    """
    return spread_of([a / b for a, b in zip(above, below, strict=True)])
