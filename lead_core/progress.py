"""Progress of long work: a bar on a terminal, a line now and then in a log, nothing when short."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tqdm import tqdm

QUIET_SECONDS = 2.0
LOG_EVERY_SECONDS = 10.0


class Progress(Protocol):
    """Something that counts units of work done."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more units."""


class _Bar:
    def __init__(self, bar: tqdm[None]):
        self._bar = bar

    def advance(self, n: int = 1) -> None:
        self._bar.update(n)


class _Lines:
    def __init__(self, total: int | None, label: str, unit: str, start: int):
        self._total, self._label, self._unit = total, label, unit
        self._done = self._done_before = start
        self._start = self._last = time.monotonic()
        self._spoke = False

    def advance(self, n: int = 1) -> None:
        self._done += n
        now = time.monotonic()
        if self._total is not None and self._done >= self._total:
            if self._spoke or now - self._start >= LOG_EVERY_SECONDS:
                self._say(now)
        elif now - self._last >= LOG_EVERY_SECONDS:
            self._say(now)

    def _say(self, now: float) -> None:
        elapsed = now - self._start
        if self._total is None:
            figures = f"{self._done} {self._unit}, {elapsed:.0f} s gone"
        else:
            here = self._done - self._done_before
            left = elapsed / max(here, 1) * (self._total - self._done)
            share = 100 * self._done / max(self._total, 1)
            figures = (
                f"{self._done}/{self._total} {self._unit} ({share:.0f} %), "
                f"{elapsed:.0f} s gone, about {left:.0f} s left"
            )
        print(f"{self._label}: {figures}", file=sys.stderr, flush=True)
        self._last, self._spoke = now, True


@contextmanager
def progress(total: int | None, label: str, unit: str, *, start: int = 0) -> Iterator[Progress]:
    """Yield a counter for `total` units of work (None: not known), shown on stderr under `label`.

    start: units that were done before; they tell nothing about the speed.
    """
    if sys.stderr.isatty():
        in_bytes = unit == "bytes"  # shown as k, M, G
        with tqdm(
            total=total,
            initial=start,
            desc=label,
            unit="B" if in_bytes else unit,
            unit_scale=in_bytes,
            unit_divisor=1024,
            delay=QUIET_SECONDS,
            leave=False,
        ) as bar:
            yield _Bar(bar)
    else:
        yield _Lines(total, label, unit, start)
