"""The n-gram index against a plain dictionary of tuples, and what counts as telling."""

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lead_core.ngrams import BREAK, covered_words, hash_ngrams, index_ngrams, look_up, merge_tables


def indexed(texts, length, *, groups=None, empty=(), most_texts=100):
    empty_words = np.zeros(100, dtype=bool)
    empty_words[list(empty)] = True
    return index_ngrams(
        [np.array(text, dtype=np.int32) for text in texts],
        range(len(texts)),
        length,
        groups=np.array(groups or [0] * len(texts)),
        empty_words=empty_words,
        most_texts=most_texts,
    )


def found(table, record, lengths):
    hashes = np.concatenate([*hash_ngrams(np.array(record, dtype=np.int32), lengths).values()])
    return {text: starts.tolist() for text, starts in look_up(table, hashes)}


words = st.lists(st.integers(1, 6), max_size=12)


@settings(max_examples=200)
@given(st.lists(words, min_size=1, max_size=5), words, st.integers(1, 4))
def test_a_look_up_finds_what_a_dictionary_of_tuples_finds(texts, record, length):
    expected = defaultdict(set)
    grams = [tuple(record[i : i + length]) for i in range(len(record) - length + 1)]
    for number, text in enumerate(texts):
        for start in range(len(text) - length + 1):
            gram = tuple(text[start : start + length])
            if gram in grams and 2 * len(set(gram)) >= length:
                expected[number].add(start)
    assert found(indexed(texts, length), record, [length]) == {
        number: sorted(starts) for number, starts in expected.items()
    }


def test_ngrams_of_several_lengths_share_a_table_without_being_confused():
    table = merge_tables([indexed([[1, 2, 3]], 3), indexed([[4, 5, 6, 7]], 4)])
    assert found(table, [1, 2, 3, 9], [3, 4]) == {0: [0]}
    assert found(table, [4, 5, 6], [3, 4]) == {}
    assert found(table, [9, 4, 5, 6, 7], [3, 4]) == {0: [0]}


def test_no_ngram_reaches_over_the_end_of_a_text_or_over_a_break():
    table = indexed([[1, 2], [3, 4]], 3)
    assert len(table.hashes) == 0
    assert found(indexed([[1, 2, 3]], 3), [1, 2, BREAK, 3], [3]) == {}
    assert found(indexed([[1, 2, 3]], 3), [], [3]) == {}


def test_an_ngram_of_few_distinct_words_tells_nothing():
    text = [1, 2, 1, 2, 1, 2, 3, 4]
    assert found(indexed([text], 5), text, [5]) == {0: [2, 3]}  # 1 2 1 2 3 and 2 1 2 3 4
    assert found(indexed([text], 5, empty=[3]), text, [5]) == {0: [3]}


def test_an_ngram_in_more_texts_of_one_group_than_allowed_tells_nothing():
    texts = [[1, 2, 3], [1, 2, 4], [1, 2, 5], [1, 2, 6]]
    assert found(indexed(texts, 2, most_texts=3), [1, 2], [2]) == {}
    two_groups = indexed(texts, 2, groups=[0, 0, 1, 1], most_texts=3)
    assert found(two_groups, [1, 2], [2]) == {0: [0], 1: [0], 2: [0], 3: [0]}
    repeated = indexed([[1, 2, 1, 2, 1, 2]], 2, most_texts=1)
    assert found(repeated, [1, 2], [2]) == {0: [0, 2, 4]}


def test_an_index_of_nothing_finds_nothing():
    table = indexed([], 3)
    assert found(table, [1, 2, 3, 4], [3]) == {}
    assert found(merge_tables([]), [1, 2, 3, 4], [3]) == {}


def test_overlapping_ngrams_cover_each_word_once():
    assert covered_words(np.array([2, 3, 8]), 3).tolist() == [2, 3, 4, 5, 8, 9, 10]
