"""Known faults planted into a pool, so that a comparison can count what a selector does with them.

Real pools are dirty, and nobody knows where. An experiment that spoils some records itself knows
which are wrong; held-out records stay clean. Nothing here is on in a real run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lead_core.chat import Message
from lead_core.planted_responses import Draw, write_foreign, write_politeness

Fits = Callable[[Sequence[Message]], bool]
Respond = Callable[[str, Draw], str]  # from the right response to a wrong one


class Kind(StrEnum):
    """What is wrong with a planted record."""

    EXCHANGED = "exchanged"  # carries the response of another record of its source
    NEAR_DUPLICATE = "near_duplicate"  # another record of its source in slightly other words
    TRUNCATED = "truncated"  # its response is cut off after 20 to 60 % of its characters
    # Evades the question in another language than English: wrong in language and in substance, since
    # there is no translation of the right response at hand.
    WRONG_LANGUAGE = "wrong_language"
    POLITENESS = "politeness"  # offers help instead of helping


@dataclass(frozen=True)
class Clean:
    """A record before anything is planted: its id, source and conversation."""

    id: str
    source: str
    messages: Sequence[Message]


@dataclass(frozen=True)
class Fault:
    """A faulty record that takes the place of the clean one `replaces`.

    taken_from: the record that gave it its response, itself if that was only cut; None: none did.
    """

    kind: Kind
    replaces: str
    taken_from: str | None
    messages: list[Message]


def plan_faults(
    records: Sequence[Clean], fractions: Mapping[Kind, float], *, seed: int, fits: Fits
) -> list[Fault]:
    """Return the faults to plant: per source, of each kind that share of its records (0 if not named).

    `fits` says whether a new conversation is short enough. Which records are hit follows from the
    seed and their ids alone, and a kind more moves none of those before it in `Kind`. A source in
    which too few fit gets fewer.
    """
    faults: list[Fault] = []
    for source in sorted({record.source for record in records}):
        inside = [record for record in records if record.source == source]
        wanted = {kind: round(fractions.get(kind, 0.0) * len(inside)) for kind in Kind}
        faults += _exchange(inside, wanted[Kind.EXCHANGED], seed, fits)
        hit = {fault.replaces for fault in faults}
        clean = [record for record in inside if record.id not in hit]
        faults += _repeat(clean, wanted[Kind.NEAR_DUPLICATE], seed, fits)
        for kind, respond in _RESPONSES.items():
            # An original whose near-duplicate is in the pool stays as it is, or there is no duplicate.
            hit = {name for fault in faults for name in (fault.replaces, fault.taken_from) if name}
            clean = [record for record in inside if record.id not in hit]
            faults += _spoil(clean, kind, respond, wanted[kind], seed, fits)
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


def _spoil(
    records: Sequence[Clean], kind: Kind, respond: Respond, n: int, seed: int, fits: Fits
) -> list[Fault]:
    """Give `n` records the response that `respond` makes, drawn for each by the seed and its id."""
    faults: list[Fault] = []
    for record in _shuffled(records, seed, kind):
        if len(faults) == n:
            break
        last = record.messages[-1]
        response = respond(last["content"], _draws(f"{seed}:{kind}:{record.id}"))
        messages = [*record.messages[:-1], {**last, "content": response}]
        if response and fits(messages):
            origin = record.id if kind is Kind.TRUNCATED else None
            faults.append(Fault(kind, record.id, origin, messages))
    return faults


def _draws(key: str) -> Draw:
    """Return draws made of hashes, which no version of a library changes."""

    def draw(name: str) -> float:
        return int.from_bytes(hashlib.sha256(f"{key}:{name}".encode()).digest()[:6]) / 2**48

    return draw


def _cut_off(response: str, draw: Draw) -> str:
    """Return the first 20 to 60 % of `response`; nothing of one too short to cut."""
    return response[: int(len(response) * (0.2 + 0.4 * draw("share")))].rstrip()


_RESPONSES: dict[Kind, Respond] = {
    Kind.TRUNCATED: _cut_off,
    Kind.WRONG_LANGUAGE: lambda _, draw: write_foreign(draw),
    Kind.POLITENESS: lambda _, draw: write_politeness(draw),
}

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
