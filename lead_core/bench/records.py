"""The records that are forwarded and trained on: the same on every machine with the same Python."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from lead_core.chat import Encoded, EncodingError, Message, encode
from lead_core.errors import LeadError
from lead_core.mining import STDLIB, mine

PACKAGE = STDLIB


@dataclass(frozen=True)
class BenchRecords:
    """Conversations, and the same as tokens."""

    conversations: tuple[list[Message], ...]
    samples: tuple[Encoded, ...]

    @property
    def tokens(self) -> int:
        """Return the tokens of all samples together."""
        return sum(len(sample.input_ids) for sample in self.samples)

    def first(self, n: int) -> BenchRecords:
        """Return the first `n` records."""
        return BenchRecords(self.conversations[:n], self.samples[:n])


def read_records(tokenizer: Any, n: int, *, max_tokens: int) -> BenchRecords:
    """Return `n` records of at most `max_tokens` tokens, mined from the standard library.

    Drawn by hash, so that their lengths are those of the whole. LeadError if there are not so many.
    """
    mined = sorted(mine([PACKAGE]), key=lambda r: hashlib.sha256(r.prompt.encode()).digest())
    conversations: list[list[Message]] = []
    samples: list[Encoded] = []
    for record in mined:
        if len(samples) == n:
            break
        messages = [
            {"role": "user", "content": record.prompt},
            {"role": "assistant", "content": record.response},
        ]
        try:
            sample = encode(tokenizer, messages)
        except EncodingError:
            continue
        if len(sample.input_ids) <= max_tokens:
            conversations.append(messages)
            samples.append(sample)
    if len(samples) < n:
        raise LeadError(
            f"params.yaml: data.max_tokens is {max_tokens}, and only {len(samples)} records of the "
            f"standard library fit, {n} are needed; raise it with --set data.max_tokens=..."
        )
    return BenchRecords(tuple(conversations), tuple(samples))
