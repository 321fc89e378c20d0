"""An inverted index of word n-grams: which of some texts hold an n-gram, and where, by its hash."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

BREAK = 0  # the id that no n-gram holds: between messages, and for words that no text has
_BASE = np.uint64(0x9E3779B97F4A7C15)
_SPARSE_BITS = 3  # at least 8 prefixes for each n-gram
_BLOCK = 1 << 16  # n-grams whose words are compared at a time


@dataclass(frozen=True, slots=True, eq=False)
class NgramTable:
    """N-grams sorted by hash: text ``texts[i]`` has the one with ``hashes[i]`` at ``starts[i]``.

    `prefixes` says of the first bits of a hash whether any n-gram begins with them: most n-grams of a
    record are in no text, and this tells so without a search.
    """

    hashes: np.ndarray  # uint64
    texts: np.ndarray  # int32
    starts: np.ndarray  # int32, in words
    prefixes: np.ndarray  # bool [2^bits]

    @property
    def shift(self) -> np.uint64:
        """Return how far a hash is shifted to leave its prefix."""
        return np.uint64(64 - (len(self.prefixes).bit_length() - 1))


def index_ngrams(
    texts: Sequence[np.ndarray],
    numbers: Sequence[int],
    length: int,
    *,
    groups: np.ndarray,
    empty_words: np.ndarray,
    most_texts: int,
) -> NgramTable:
    """Return the telling n-grams of those of `texts` (the ids of their words) that `numbers` names.

    An n-gram tells nothing if fewer than half of it are distinct words, those with ``empty_words[id]``
    not counted, or if more than `most_texts` texts of one group have it. groups: int per text.
    """
    parts = [np.append(texts[number], BREAK) for number in numbers]
    ids = np.concatenate([*parts, np.full(length, BREAK)])
    owners = np.repeat(np.asarray(numbers, dtype=np.int32), [len(part) for part in parts])
    starts = np.concatenate([np.zeros(0), *(np.arange(len(part)) for part in parts)])
    telling = _are_telling(ids, empty_words, length)[: len(owners)]
    hashes = hash_ngrams(ids, [length])[length][: len(owners)][telling]
    owners, starts = owners[telling], starts[telling].astype(np.int32)
    rare = _count_texts(hashes, owners, groups[owners]) <= most_texts
    return _sorted(hashes[rare], owners[rare], starts[rare])


def merge_tables(tables: Sequence[NgramTable]) -> NgramTable:
    """Return one table of all n-grams, whatever their lengths: these do not share hashes."""
    return _sorted(
        np.concatenate([np.zeros(0, dtype=np.uint64), *(table.hashes for table in tables)]),
        np.concatenate([np.zeros(0, dtype=np.int32), *(table.texts for table in tables)]),
        np.concatenate([np.zeros(0, dtype=np.int32), *(table.starts for table in tables)]),
    )


def look_up(table: NgramTable, hashes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each text that holds an n-gram of these, and the rising starts of those it holds."""
    wanted = np.unique(hashes[table.prefixes[hashes >> table.shift]])
    first = np.searchsorted(table.hashes, wanted, side="left")
    counts = np.searchsorted(table.hashes, wanted, side="right") - first
    if not counts.any():
        return
    places = np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    texts, starts = table.texts[places], table.starts[places]
    order = np.lexsort((starts, texts))
    texts, starts = texts[order], starts[order]
    bounds = np.flatnonzero(np.diff(texts, prepend=-1, append=-1))
    for begin, end in itertools.pairwise(bounds):
        yield int(texts[begin]), starts[begin:end]


def _sorted(hashes: np.ndarray, texts: np.ndarray, starts: np.ndarray) -> NgramTable:
    order = np.lexsort((starts, texts, hashes))
    hashes = hashes[order]
    bits = max(1, len(hashes).bit_length() + _SPARSE_BITS)
    prefixes = np.zeros(1 << bits, dtype=bool)
    prefixes[hashes >> np.uint64(64 - bits)] = True
    return NgramTable(hashes, texts[order], starts[order], prefixes)


def covered_words(starts: np.ndarray, length: int) -> np.ndarray:
    """Return the positions of the words inside n-grams of `length` words at `starts`, rising."""
    return np.unique(starts[:, None] + np.arange(length))


def hash_ngrams(ids: np.ndarray, lengths: Iterable[int]) -> dict[int, np.ndarray]:
    """Return for each length the hash (uint64) of the n-gram at every position where one fits.

    A polynomial in the scattered ids, modulo 2^64; a longer one goes on from the sums of a shorter.
    That one looked up is taken for another of a million indexed ones has a probability of 5e-14.
    """
    scattered = _scatter(ids.astype(np.uint64))
    sums = np.zeros(len(ids), dtype=np.uint64)
    hashes: dict[int, np.ndarray] = {}
    done = 0
    for length in sorted(lengths):
        for offset in range(done, length):
            following = scattered[offset:]
            sums = sums[: len(following)] * _BASE + following
        hashes[length], done = sums, length
    return hashes


def _scatter(values: np.ndarray) -> np.ndarray:
    """Return 64 well mixed bits for each value (the last steps of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed


def _are_telling(ids: np.ndarray, empty_words: np.ndarray, length: int) -> np.ndarray:
    """Return for each n-gram whether it has no break and enough distinct words."""
    words = np.where(empty_words[ids], BREAK, ids)
    windows = np.lib.stride_tricks.sliding_window_view
    telling = []
    for start in range(0, len(ids) - length + 1, _BLOCK):
        end = start + _BLOCK + length - 1
        whole = windows(ids[start:end], length).min(axis=1) != BREAK
        ordered = np.sort(windows(words[start:end], length), axis=1)
        distinct = (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1) + (ordered[:, 0] != BREAK)
        telling.append(whole & (2 * distinct >= length))
    return np.concatenate(telling)


def _count_texts(hashes: np.ndarray, owners: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return for each n-gram how many texts of its group have it."""
    order = np.lexsort((owners, hashes, groups))
    hashes, owners, groups = hashes[order], owners[order], groups[order]
    new_ngram = np.ones(len(order), dtype=bool)
    new_ngram[1:] = (hashes[1:] != hashes[:-1]) | (groups[1:] != groups[:-1])
    new_text = new_ngram.copy()
    new_text[1:] |= owners[1:] != owners[:-1]
    ngram = np.cumsum(new_ngram) - 1
    counts = np.empty(len(order), dtype=np.int64)
    counts[order] = np.bincount(ngram, weights=new_text)[ngram]
    return counts
