"""Overlap of a record with the texts of benchmarks, by word n-grams: copies and edited copies.

Two criteria, on words without case, punctuation and Unicode variants:

- verbatim: 13 words in a row are the same (Brown et al. 2020, appendix C). A text of fewer words must
  be there as a whole, and one of very few words must be a message of its own.
- edited: most words of the text lie in 5-grams that the record has too, every number read as the same
  word. Other numbers, other names, sentences added or moved and words swapped leave that standing. As
  Lambert et al. (2024, Tulu 3) do with 8-grams, words are counted and not n-grams: else one changed
  word would count five times.

Only the benchmarks' n-grams are kept, so memory does not depend on the pool.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from lead_core.ngrams import (
    BREAK,
    NgramTable,
    covered_words,
    hash_ngrams,
    index_ngrams,
    look_up,
    merge_tables,
)

_NUMBER = "#"  # no word can be this: symbols are removed
_WITHOUT_SPACES = frozenset({"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"})


class Criterion(StrEnum):
    """How a record overlaps with a benchmark."""

    VERBATIM = "verbatim"
    EDITED = "edited"


@dataclass(frozen=True, slots=True)
class BenchmarkText:
    """What a record must not hold: the question in one row of a benchmark, or one form of it."""

    benchmark: str
    row: int
    text: str


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When an overlap counts.

    ngram_words: words in a row that make a verbatim overlap. min_words: the fewest words of a text that
    is looked for inside longer ones, and the fewest distinct words (not numbers) of an edited overlap.
    edited_ngram_words, edited_share: length of the n-grams of an edited overlap, and the share of the
    text's words that they must cover. boilerplate_rows: an n-gram in more rows of a benchmark than
    these tells nothing.
    """

    ngram_words: int
    min_words: int
    edited_ngram_words: int
    edited_share: float
    boilerplate_rows: int


@dataclass(frozen=True, slots=True)
class Overlap:
    """The row of a benchmark that a record overlaps with most.

    `share` of its words are in n-grams that the record has too; `rows` of the benchmark overlap in all.
    """

    found: BenchmarkText
    criterion: Criterion
    share: float
    rows: int

    def __str__(self) -> str:
        found = self.found
        return f"{self.criterion}: {self.share:.0%} of {found.benchmark} row {found.row}"


@dataclass(frozen=True, slots=True, eq=False)
class BenchmarkIndex:
    """The texts of all benchmarks, ready to be looked for in records.

    masked: the words of each text by id, numbers read as one word. verbatim: n-grams of the lengths in
    `verbatim_lengths`. alone: texts too short to be looked for inside others, by their words. rows:
    how many each benchmark has; unchecked: those without a telling n-gram, which nothing can overlap.
    """

    thresholds: Thresholds
    texts: tuple[BenchmarkText, ...]
    lengths: tuple[int, ...]  # in words
    masked: tuple[np.ndarray, ...]  # int32
    vocabulary: Mapping[str, int]
    verbatim: NgramTable
    verbatim_lengths: tuple[int, ...]
    edited: NgramTable
    alone: Mapping[str, Sequence[int]]
    rows: Counter[str]
    unchecked: Counter[str]


def split_words(text: str) -> list[str]:
    """Return the words of `text` for comparison: NFKC, no case, punctuation and symbols as spaces.

    Marks stay with their letters. In scripts written without spaces every character is a word.
    """
    return unicodedata.normalize("NFKC", text).casefold().translate(_CHARACTERS).split()


class _Characters(dict[int, str]):
    """What becomes of each character in `split_words`, worked out when it is first met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.category(character)[0] not in "LMN":
            kept = " "
        elif unicodedata.name(character, "").partition(" ")[0] in _WITHOUT_SPACES:
            kept = f" {character} "
        else:
            kept = character
        self[code] = kept
        return kept


_CHARACTERS = _Characters()


def mask_numbers(words: Iterable[str]) -> list[str]:
    """Return the words with each run of numbers as one ``#``: "2 1/2 cups" and "3 cups" are equal."""
    masked: list[str] = []
    for word in words:
        if not word[0].isdigit():
            masked.append(word)
        elif not masked or masked[-1] != _NUMBER:
            masked.append(_NUMBER)
    return masked


def build_index(texts: Iterable[BenchmarkText], thresholds: Thresholds) -> BenchmarkIndex:
    """Return the index of `texts`; a row may have several, and equal ones are indexed once."""
    given = [(text, " ".join(split_words(text.text))) for text in texts]
    distinct: dict[tuple[str, str], BenchmarkText] = {}
    for text, normal in given:
        if normal:
            distinct.setdefault((text.benchmark, normal), text)
    words = [normal.split(" ") for _, normal in distinct]
    vocabulary = _number_words(words)
    alone: defaultdict[str, list[int]] = defaultdict(list)
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for number, text_words in enumerate(words):
        if len(text_words) >= thresholds.min_words:
            by_length[min(len(text_words), thresholds.ngram_words)].append(number)
        else:
            alone[" ".join(text_words)].append(number)
    names = {name: i for i, name in enumerate(sorted({name for name, _ in distinct}))}
    indexed = functools.partial(
        index_ngrams,
        groups=np.array([names[name] for name, _ in distinct], dtype=np.int32),
        empty_words=_are_numbers(vocabulary),
        most_texts=thresholds.boilerplate_rows,
    )
    plain = [_ids(text_words, vocabulary) for text_words in words]
    masked = tuple(_ids(mask_numbers(text_words), vocabulary) for text_words in words)
    verbatim = merge_tables(
        [indexed(plain, numbers, length) for length, numbers in by_length.items()]
    )
    long = [number for numbers in by_length.values() for number in numbers]
    edited = indexed(masked, long, thresholds.edited_ngram_words)
    found = {*verbatim.texts.tolist(), *edited.texts.tolist(), *itertools.chain(*alone.values())}
    findable = {key for number, key in enumerate(distinct) if number in found}
    rows = {(text.benchmark, text.row) for text, _ in given}
    checked = {
        (text.benchmark, text.row) for text, normal in given if (text.benchmark, normal) in findable
    }
    return BenchmarkIndex(
        thresholds=thresholds,
        texts=tuple(distinct.values()),
        lengths=tuple(len(text_words) for text_words in words),
        masked=masked,
        vocabulary=vocabulary,
        verbatim=verbatim,
        verbatim_lengths=tuple(sorted(by_length)),
        edited=edited,
        alone=dict(alone),
        rows=Counter(name for name, _ in rows),
        unchecked=Counter(name for name, _ in rows - checked),
    )


def _number_words(texts: Iterable[Sequence[str]]) -> dict[str, int]:
    """Return an id from 1 for every word, that of a masked number first."""
    vocabulary = {_NUMBER: BREAK + 1}
    for word in itertools.chain.from_iterable(texts):
        vocabulary.setdefault(word, len(vocabulary) + 1)
    return vocabulary


def _are_numbers(vocabulary: Mapping[str, int]) -> np.ndarray:
    """Return by id whether a word is a number."""
    words = [word == _NUMBER or word[0].isdigit() for word in vocabulary]
    return np.array([False, *words])


def find_overlaps(index: BenchmarkIndex, messages: Iterable[str]) -> list[Overlap]:
    """Return how a record of these messages overlaps with each benchmark, those with none left out.

    N-grams do not run on from one message into the next.
    """
    words = [split_words(message) for message in messages]
    verbatim, edited = _verbatim_shares(index, words), _edited_shares(index, words)
    found: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    for number in sorted(verbatim.keys() | edited.keys(), reverse=True):
        share = max(verbatim.get(number, 0.0), edited.get(number, 0.0))
        found[index.texts[number].benchmark].append((share, number))
    overlaps = []
    for benchmark in sorted(found):
        share, number = max(found[benchmark], key=lambda pair: (pair[0], -pair[1]))
        criterion = Criterion.VERBATIM if number in verbatim else Criterion.EDITED
        rows = {index.texts[number].row for _, number in found[benchmark]}
        overlaps.append(Overlap(index.texts[number], criterion, share, len(rows)))
    return overlaps


def _verbatim_shares(index: BenchmarkIndex, words: Sequence[list[str]]) -> dict[int, float]:
    """Return the texts that are there verbatim, with the share of their words that is."""
    shares = {number: 1.0 for text in words for number in index.alone.get(" ".join(text), ())}
    hashes = hash_ngrams(_joined(words, index.vocabulary), index.verbatim_lengths).values()
    joined = np.concatenate([np.zeros(0, dtype=np.uint64), *hashes])
    for number, starts in look_up(index.verbatim, joined):
        length = min(index.lengths[number], index.thresholds.ngram_words)
        shares[number] = len(covered_words(starts, length)) / index.lengths[number]
    return shares


def _edited_shares(index: BenchmarkIndex, words: Sequence[list[str]]) -> dict[int, float]:
    """Return the texts that are there in an edited form, with the share of their words that is."""
    limits, length = index.thresholds, index.thresholds.edited_ngram_words
    ids = _joined([mask_numbers(text) for text in words], index.vocabulary)
    shares: dict[int, float] = {}
    for number, starts in look_up(index.edited, hash_ngrams(ids, [length])[length]):
        text = index.masked[number]
        if len(starts) * length < limits.edited_share * len(text):
            continue  # too few, even side by side
        covered = covered_words(starts, length)
        share = len(covered) / len(text)
        telling = set(text[covered].tolist()) - {index.vocabulary[_NUMBER]}
        if share >= limits.edited_share and len(telling) >= limits.min_words:
            shares[number] = share
    return shares


def _ids(words: Iterable[str], vocabulary: Mapping[str, int]) -> np.ndarray:
    return np.array([vocabulary.get(word, BREAK) for word in words], dtype=np.int32)


def _joined(texts: Iterable[list[str]], vocabulary: Mapping[str, int]) -> np.ndarray:
    """Return the words of all texts by id, with a break behind each text."""
    ids: list[int] = []
    for words in texts:
        ids += [vocabulary.get(word, BREAK) for word in words]
        ids.append(BREAK)
    return np.array(ids, dtype=np.int32)
