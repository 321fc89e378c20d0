"""Measuring several ways to do one thing by turns: A B A B."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

Side = Callable[[], float]
Seconds = dict[str, tuple[float, ...]]


def timed(work: Callable[[], object]) -> Side:
    """Return a function that does `work` and returns the seconds that it took."""

    def side() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return side


def interleave(sides: Mapping[str, Side], repetitions: int) -> Seconds:
    """Return the seconds of every side in each of `repetitions` rounds through all of them.

    Sides that are slow the first time (caches, allocations, lazy imports) are to be called once before.
    """
    rounds = [{name: side() for name, side in sides.items()} for _ in range(repetitions)]
    return {name: tuple(seconds[name] for seconds in rounds) for name in sides}
