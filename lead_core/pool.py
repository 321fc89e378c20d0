"""The pool of instruction examples as the stages read it: memory-mapped, tokens on demand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lead_core.artifacts import read_manifest
from lead_core.chat import Encoded, Message
from lead_core.errors import LeadError, first_reason
from lead_core.storage import sha256_file

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

POOL_FILE = "pool.arrow"
HELDOUT_FILE = "heldout.arrow"

_MADE_BY = "dvc repro prepare"


@dataclass(frozen=True, eq=False)
class TextColumn:
    """A column of strings that stays in its file; only what is asked for becomes Python's."""

    _chunks: tuple[pa.StringArray, ...]
    _first_rows: np.ndarray  # of each chunk

    def __len__(self) -> int:
        return sum(map(len, self._chunks))

    def __iter__(self) -> Iterator[str]:
        for chunk in self._chunks:
            yield from chunk.to_pylist()

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return the strings of `rows` [m], in that order."""
        places = zip(np.searchsorted(self._first_rows, rows, side="right") - 1, rows, strict=True)
        texts = [self._chunks[c][int(row - self._first_rows[c])].as_py() for c, row in places]
        return np.array(texts, dtype=np.str_)


@dataclass(frozen=True, eq=False)
class _Chunk:
    """The tokens of some records as they lie in the file: offsets into values, starts of parts."""

    offsets: np.ndarray
    values: np.ndarray
    prompt_starts: np.ndarray
    response_starts: np.ndarray


@dataclass(frozen=True, eq=False)
class Pool:
    """Records in a memory-mapped Arrow file, sorted by id; arrays have one value per record.

    To open it reads no record; an array is made when it is first asked for, and kept.
    """

    dataset: datasets.Dataset
    _chunks: tuple[_Chunk, ...]
    _first_rows: np.ndarray  # of each chunk

    def __len__(self) -> int:
        return len(self.dataset)

    @cached_property
    def ids(self) -> np.ndarray:
        """Return the id of each record (str)."""
        return np.asarray(list(self.texts("id")), dtype=np.str_)

    @cached_property
    def sources(self) -> np.ndarray:
        """Return the source of each record (str)."""
        return np.asarray(list(self.texts("source")), dtype=np.str_)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each record (int32)."""
        return self._gathered([np.diff(chunk.offsets) for chunk in self._chunks])

    @cached_property
    def prompt_starts(self) -> np.ndarray:
        """Return where the first user text of each record starts (int32)."""
        return self._gathered([chunk.prompt_starts for chunk in self._chunks])

    @cached_property
    def response_starts(self) -> np.ndarray:
        """Return where the response of each record starts (int32)."""
        return self._gathered([chunk.response_starts for chunk in self._chunks])

    @property
    def response_lengths(self) -> np.ndarray:
        """Return the number of response tokens of each record (int32)."""
        return self.lengths - self.response_starts

    def texts(self, column: str) -> TextColumn:
        """Return a column of strings, `id` or `source`, left where it is."""
        return TextColumn(tuple(self.dataset.data.column(column).chunks), self._first_rows)

    def encoded(self, indices: Iterable[int]) -> list[Encoded]:
        """Return the tokens of the records at `indices`, in that order, without copying them."""
        return [self._encoded(int(index)) for index in indices]

    def messages(self, index: int) -> list[Message]:
        """Return the conversation of the record at `index`."""
        return [dict(message) for message in self.dataset[int(index)]["messages"]]

    def _encoded(self, index: int) -> Encoded:
        if not 0 <= index < len(self):
            raise IndexError(f"no record {index} in a pool of {len(self)}")
        number = int(np.searchsorted(self._first_rows, index, side="right")) - 1
        chunk, row = self._chunks[number], index - self._first_rows[number]
        return Encoded(
            chunk.values[chunk.offsets[row] : chunk.offsets[row + 1]],
            int(chunk.prompt_starts[row]),
            int(chunk.response_starts[row]),
        )

    def _gathered(self, parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.empty(0, dtype=np.int32), *parts])


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
    names = ("input_ids", "prompt_start", "response_start")
    columns = zip(*(dataset.data.column(name).chunks for name in names), strict=True)
    chunks = tuple(
        _Chunk(
            tokens.offsets.to_numpy(),
            tokens.values.to_numpy(),
            prompts.to_numpy(),
            starts.to_numpy(),
        )
        for tokens, prompts, starts in columns
    )
    first_rows = np.cumsum([0, *(len(chunk.prompt_starts) for chunk in chunks)])[:-1]
    return Pool(dataset, chunks, first_rows)
