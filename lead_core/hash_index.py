"""Where an equal thing stood before, in bounded memory: exact at first, then on a sample of hashes."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import dataclass

_BITS = 64
_BYTES_PER_SLOT = 16  # a hash and a place
_FIRST_SLOTS = 1 << 10
_LARGEST_LOAD = 0.75


@dataclass(frozen=True)
class Repeats:
    """How many things repeated an earlier one.

    `observed` were seen for certain. While everything was indexed (`exact`) that is all of them;
    afterwards `estimate` scales what a sample of hashes shows, with its standard error.
    """

    observed: int
    estimate: int
    standard_error: int
    exact: bool


class HashIndex:
    """The first place of every 64-bit hash, in at most `max_bytes`.

    When that is full, half of all possible hashes are given up, and again and again: equal things
    have equal hashes, so what is still followed is followed with all its copies (Gibbons, VLDB
    2001). Nothing is ever called a repeat that is none, but for collisions of 64 bits (3e-6 in all
    for ten million records).
    """

    def __init__(self, max_bytes: int):
        fitting = max(max_bytes // _BYTES_PER_SLOT, _FIRST_SLOTS)
        self._max_slots = 1 << (fitting.bit_length() - 1)
        self._level = 0  # followed are the hashes that start with so many zero bits
        self._repeats_by_level: Counter[int] = Counter()
        self._allocate(_FIRST_SLOTS)

    @property
    def capacity(self) -> int:
        """Return how many different hashes are indexed exactly."""
        return int(self._max_slots * _LARGEST_LOAD)

    def first_place(self, key: int, place: int) -> int | None:
        """Return the place where `key` was first seen; None, and remember `place`, if it is new.

        key, place: 0 <= . < 2**64.
        """
        key = key or 1  # 0 marks a free slot
        if not self.follows(key):
            return None
        slot = self._slot(key)
        if self._keys[slot]:
            self._repeats_by_level[_level(key)] += 1
            return self._places[slot]
        self._keys[slot], self._places[slot] = key, place
        self._used += 1
        if self._used > len(self._keys) * _LARGEST_LOAD:
            self._make_room()
        return None

    def follows(self, key: int) -> bool:
        """Say whether `key` is among the hashes that are still followed."""
        return _level(key) >= self._level

    def repeats(self) -> Repeats:
        """Return how many repeats there were."""
        observed = self._repeats_by_level.total()
        followed = sum(n for level, n in self._repeats_by_level.items() if level >= self._level)
        scale = 1 << self._level
        return Repeats(
            observed=observed,
            estimate=max(observed, followed * scale),
            standard_error=round(math.sqrt(followed * (scale - 1) * scale)),
            exact=self._level == 0,
        )

    def _slot(self, key: int) -> int:
        """Return the slot that holds `key`, or the free one where it belongs (linear probing)."""
        keys, mask = self._keys, len(self._keys) - 1
        slot = key & mask
        while keys[slot] and keys[slot] != key:
            slot = (slot + 1) & mask
        return slot

    def _make_room(self) -> None:
        keys, places = self._keys, self._places
        if len(keys) < self._max_slots:
            self._allocate(2 * len(keys))
        else:
            self._level += 1
            self._allocate(len(keys))
        for key, place in zip(keys, places, strict=True):
            if key and self.follows(key):
                slot = self._slot(key)
                self._keys[slot], self._places[slot] = key, place
                self._used += 1

    def _allocate(self, slots: int) -> None:
        self._keys = array("Q", bytes(8 * slots))
        self._places = array("Q", bytes(8 * slots))
        self._used = 0


def _level(key: int) -> int:
    """Return with how many zero bits a hash starts: half of all hashes reach 1, a quarter 2, ..."""
    return _BITS - key.bit_length()
