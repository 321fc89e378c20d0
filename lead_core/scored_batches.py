"""Batches that the offline pass has finished: kept on disk, so that a kill costs seconds and not hours.

A folder holds what one model gave with one arithmetic: shards of arrays (npz), each named by its own
hash, and an index that only grows, one line per shard. A batch is found by the hash of its samples and
of how they were forwarded, so nothing is taken over that has changed.
"""

from __future__ import annotations

import hashlib
import io
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lead_core.chat import Encoded
from lead_core.storage import append_jsonl, read_jsonl_log, sha256_json, write_bytes

SHARD_SECONDS = 30.0  # of work that a kill can cost; decides nothing else
INDEX = "index.jsonl"


@dataclass(frozen=True)
class ScoredBatch:
    """What one forward gave for the n samples of a batch, in their order.

    losses: float64 [n], nats/token. embeddings: float32 [n, hidden]; hidden is 0 if none were made.
    """

    losses: np.ndarray
    embeddings: np.ndarray


def batch_key(samples: Sequence[Encoded], how: Mapping[str, Any]) -> str:
    """Return the hash of the tokens and places of `samples`, in order, and of `how` (JSON values)."""
    digest = hashlib.sha256(sha256_json(how).encode())
    for sample in samples:
        tokens = np.asarray(sample.input_ids, dtype=np.int64)
        places = (len(tokens), sample.prompt_start, sample.response_start)
        digest.update(np.array(places, dtype=np.int64).tobytes())
        digest.update(tokens.tobytes())
    return digest.hexdigest()


class ScoredBatches:
    """The finished batches below `folder`; any shard may be deleted, its batches are scored again.

    sequences, tokens: what all batches hold that were taken over, see `note_taken_over`.
    """

    def __init__(self, folder: Path, shard_seconds: float = SHARD_SECONDS):
        self.folder = folder
        self.sequences = self.tokens = 0
        self._shard_seconds = shard_seconds
        self._pending: dict[str, ScoredBatch] = {}
        self._written = time.monotonic()

    def read(self, keys: Sequence[str]) -> Iterator[tuple[int, ScoredBatch]]:
        """Yield each batch of `keys` that is kept, with its place in `keys`; the order is the shards'.

        A shard is read once, if it holds any of them; a damaged one is named on stderr and counts
        as not there.
        """
        places: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        for row in read_jsonl_log(self.folder / INDEX):
            known = row.get("batches", [])
            found = places.keys() & known
            if not found:
                continue
            path = self.folder / f"{row.get('shard')}.npz"
            try:
                batches = dict(zip(known, _read_shard(path), strict=True))
            except (OSError, ValueError) as error:
                print(
                    f"scored batches {path} are damaged ({error}): scoring them again",
                    file=sys.stderr,
                )
                continue
            for key in found:
                for place in places.pop(key):
                    yield place, batches[key]

    def note_taken_over(self, sequences: int, tokens: int) -> None:
        """Count a batch that need not be forwarded, for the cost ledger."""
        self.sequences += sequences
        self.tokens += tokens

    def keep(self, key: str, batch: ScoredBatch) -> None:
        """Keep a finished batch: on disk after `shard_seconds` of work, or with the next `flush`."""
        self._pending[key] = batch
        if time.monotonic() - self._written >= self._shard_seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet as one more shard: whole, or not at all."""
        if self._pending:
            batches = self._pending.values()
            buffer = io.BytesIO()
            np.savez(
                buffer,
                allow_pickle=False,
                sizes=[len(batch.losses) for batch in batches],
                losses=np.concatenate([batch.losses for batch in batches]),
                embeddings=np.concatenate([batch.embeddings for batch in batches]),
            )
            data = buffer.getvalue()
            shard = hashlib.sha256(data).hexdigest()
            write_bytes(self.folder / f"{shard}.npz", data)
            append_jsonl(self.folder / INDEX, {"shard": shard, "batches": list(self._pending)})
            self._pending = {}
        self._written = time.monotonic()


def _read_shard(path: Path) -> list[ScoredBatch]:
    """Return the batches of a shard, in order; OSError or ValueError if it is not as it was written."""
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != path.stem:
        raise ValueError("its hash differs")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        ends = np.cumsum(arrays["sizes"])[:-1]
        losses, embeddings = (np.split(arrays[name], ends) for name in ("losses", "embeddings"))
    return [ScoredBatch(*pair) for pair in zip(losses, embeddings, strict=True)]
