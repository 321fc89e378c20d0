"""Known faults planted into a pool, so that a comparison can count what a selector does with them.

Real pools are dirty, and nobody knows where. An experiment that exchanges some responses itself knows
which records are wrong; held-out records stay clean. Nothing here is on in a real run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lead_core.chat import Message

Fits = Callable[[Sequence[Message]], bool]


class Kind(StrEnum):
    """What is wrong with a planted record."""

    EXCHANGED = "exchanged"  # carries the response of another record of its source
    NEAR_DUPLICATE = "near_duplicate"  # another record of its source in slightly other words


@dataclass(frozen=True)
class Clean:
    """A record before anything is planted: its id, source and conversation."""

    id: str
    source: str
    messages: Sequence[Message]


@dataclass(frozen=True)
class Fault:
    """A faulty record that takes the place of the clean one `replaces`; `taken_from` gave it text."""

    kind: Kind
    replaces: str
    taken_from: str
    messages: list[Message]


def plan_faults(
    records: Sequence[Clean], fractions: Mapping[Kind, float], *, seed: int, fits: Fits
) -> list[Fault]:
    """Return the faults to plant: per source, of each kind that share of its records.

    `fits` says whether a new conversation is short enough. Which records are hit follows from the
    seed and their ids alone. A source in which too few exchanges fit gets fewer.
    """
    faults: list[Fault] = []
    for source in sorted({record.source for record in records}):
        inside = [record for record in records if record.source == source]
        faults += _exchange(inside, round(fractions[Kind.EXCHANGED] * len(inside)), seed, fits)
        hit = {fault.replaces for fault in faults}
        clean = [record for record in inside if record.id not in hit]
        faults += _repeat(clean, round(fractions[Kind.NEAR_DUPLICATE] * len(inside)), seed, fits)
    return faults


def _exchange(records: Sequence[Clean], n: int, seed: int, fits: Fits) -> list[Fault]:
    """Swap responses in pairs until `n` records (an even number) carry another one's."""
    faults: list[Fault] = []
    waiting: list[Clean] = []
    for record in _shuffled(records, seed, Kind.EXCHANGED):
        if len(faults) + 2 > n:
            break
        for partner in waiting:
            pair = [
                Fault(Kind.EXCHANGED, one.id, other.id, [*one.messages[:-1], other.messages[-1]])
                for one, other in ((record, partner), (partner, record))
            ]
            if record.messages[-1] != partner.messages[-1] and all(fits(f.messages) for f in pair):
                faults += pair
                waiting.remove(partner)
                break
        else:
            waiting.append(record)
    return faults


def _repeat(records: Sequence[Clean], n: int, seed: int, fits: Fits) -> list[Fault]:
    """Replace `n` records by others, reworded so lightly that equal-text deduplication misses it."""
    shuffled = _shuffled(records, seed, Kind.NEAR_DUPLICATE)
    replaced, originals = shuffled[:n], shuffled[n:]
    faults: list[Fault] = []
    for original in originals:
        if len(faults) == len(replaced):
            break
        reworded = _REWORDINGS[len(faults) % len(_REWORDINGS)](original.messages[-2]["content"])
        prompt = {**original.messages[-2], "content": reworded}
        messages = [*original.messages[:-2], prompt, original.messages[-1]]
        if fits(messages):
            victim = replaced[len(faults)]
            faults.append(Fault(Kind.NEAR_DUPLICATE, victim.id, original.id, messages))
    return faults


_REWORDINGS: tuple[Callable[[str], str], ...] = (
    lambda text: f"Please {text[:1].lower()}{text[1:]}",
    lambda text: f"{text.rstrip(' .?!')}. Thank you.",
    lambda text: f"Task: {text}",
)


def _shuffled(records: Sequence[Clean], seed: int, kind: Kind) -> list[Clean]:
    """Return `records` in an order of hashes: adding records does not reorder the others."""

    def rank(record: Clean) -> bytes:
        return hashlib.sha256(f"{seed}:{kind}:{record.id}".encode()).digest()

    return sorted(records, key=rank)
