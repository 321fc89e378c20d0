"""Seconds by what they were spent on: at any moment exactly one part is being charged."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """Charges time to `part`, or to the innermost block of `charged_to`."""

    def __init__(self, part: str, clock: Callable[[], float] = time.perf_counter):
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._clock = clock
        self._part = part
        self._since = clock()

    def switch(self, part: str) -> None:
        """Charge to `part` from now on."""
        now = self._clock()
        self.seconds[self._part] += now - self._since
        self._part, self._since = part, now

    @contextmanager
    def charged_to(self, part: str) -> Iterator[None]:
        """Charge the block to `part`, and what follows to the part before."""
        outer = self._part
        self.switch(part)
        try:
            yield
        finally:
            self.switch(outer)
