"""The pool of instruction examples as the stages read it: memory-mapped, tokens on demand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lead_core.artifacts import read_manifest
from lead_core.chat import Encoded, Message
from lead_core.errors import LeadError, first_reason
from lead_core.storage import sha256_file

if TYPE_CHECKING:
    import datasets

POOL_FILE = "pool.arrow"
HELDOUT_FILE = "heldout.arrow"

_MADE_BY = "dvc repro prepare"


@dataclass(frozen=True, eq=False)
class Pool:
    """Records in a memory-mapped Arrow file, sorted by id; arrays have one value per record."""

    dataset: datasets.Dataset
    ids: np.ndarray  # str
    sources: np.ndarray  # str
    lengths: np.ndarray  # int32, tokens
    prompt_starts: np.ndarray  # int32
    response_starts: np.ndarray  # int32
    _tokens: tuple[tuple[np.ndarray, np.ndarray], ...]  # offsets and values of each Arrow chunk
    _first_rows: np.ndarray  # of each Arrow chunk

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def response_lengths(self) -> np.ndarray:
        """Return the number of response tokens of each record (int32)."""
        return self.lengths - self.response_starts

    def encoded(self, indices: Iterable[int]) -> list[Encoded]:
        """Return the tokens of the records at `indices`, in that order, without copying them."""
        return [self._encoded(int(index)) for index in indices]

    def messages(self, index: int) -> list[Message]:
        """Return the conversation of the record at `index`."""
        return [dict(message) for message in self.dataset[int(index)]["messages"]]

    def _encoded(self, index: int) -> Encoded:
        if not 0 <= index < len(self):
            raise IndexError(f"no record {index} in a pool of {len(self)}")
        chunk = int(np.searchsorted(self._first_rows, index, side="right")) - 1
        offsets, values = self._tokens[chunk]
        row = index - self._first_rows[chunk]
        return Encoded(
            values[offsets[row] : offsets[row + 1]],
            int(self.prompt_starts[index]),
            int(self.response_starts[index]),
        )


def open_pool(folder: Path, *, verify: bool = False) -> Pool:
    """Open the pool that `prepare` wrote into `folder`, memory-mapped.

    With `verify`, its hash is compared with the manifest. Raises LeadError if it is not there,
    damaged or changed.
    """
    return _open(folder, POOL_FILE, "pool_sha256", verify)


def open_heldout(folder: Path, *, verify: bool = False) -> Pool:
    """Open the held-out records beside the pool; same form, may be empty. See `open_pool`."""
    return _open(folder, HELDOUT_FILE, "heldout_sha256", verify)


def _open(folder: Path, name: str, hash_key: str, verify: bool) -> Pool:
    import datasets
    import pyarrow as pa
    import pyarrow.compute as pc

    path = folder / name
    if not path.is_file():
        raise LeadError(f"{path} is not there; run `{_MADE_BY}` first")
    if verify and sha256_file(path) != read_manifest(folder, "prepare")[hash_key]:
        raise LeadError(f"{path} changed since it was prepared; run `{_MADE_BY} --force`")
    try:
        dataset = datasets.Dataset.from_file(str(path))
    except (pa.ArrowInvalid, OSError) as error:
        reason = first_reason(error)
        raise LeadError(f"{path} is damaged ({reason}); run `{_MADE_BY} --force`") from error
    table = dataset.data
    token_chunks = table.column("input_ids").chunks
    return Pool(
        dataset=dataset,
        ids=np.asarray(table.column("id").to_pylist(), dtype=np.str_),
        sources=np.asarray(table.column("source").to_pylist(), dtype=np.str_),
        lengths=pc.list_value_length(table.column("input_ids")).to_numpy(),
        prompt_starts=table.column("prompt_start").to_numpy(),
        response_starts=table.column("response_start").to_numpy(),
        _tokens=tuple(
            (chunk.offsets.to_numpy(), chunk.values.to_numpy()) for chunk in token_chunks
        ),
        _first_rows=np.cumsum([0, *(len(chunk) for chunk in token_chunks)])[:-1],
    )
