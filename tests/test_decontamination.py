"""Overlap with benchmarks: what is found, what is not, and how much of real rows edited by hand."""

import json
import random
import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lead_core.benchmarks import Benchmark, read_texts
from lead_core.decontamination import (
    BenchmarkText,
    Thresholds,
    build_index,
    find_overlaps,
    mask_numbers,
    split_words,
)

DATA = next(filter(Path.is_dir, (p / "shared/data" for p in Path(__file__).parents)), None)
SHIPPED = Thresholds(
    ngram_words=13, min_words=8, edited_ngram_words=5, edited_share=0.6, boilerplate_rows=10
)

BAKER = (
    "Odile bakes 24 rolls every morning and sells them at the harbour for $3 each. On Saturdays she "
    "bakes twice as many and gives 6 of them to the fishermen. How much does she earn in a week?"
)
TRAIN = (
    "A goods train leaves the quarry with 18 wagons of gravel, 4 of which are unloaded at the first "
    "station. At the second station 5 empty wagons are added. How many wagons does it have then?"
)
GARDEN = (
    "Ravi's garden is 12 metres long and 7 metres wide. He plants a hedge along three of its sides, "
    "leaving one short side open. How many metres of hedge does he need?"
)
CODE = '''def running_median(values: List[float], window: int) -> List[float]:
    """ Return the median of every window of neighbouring values, from left to right.
    A window that does not fit is left out.
    >>> running_median([3.0, 1.0, 2.0, 5.0], 3)
    [2.0, 2.0]
    """
'''
SHORT = "Which planet has the largest moon called Ganymede?"
TINY = "What is 2 + 2?"


def index_of(*texts, benchmark="quiz", **changes):
    limits = {name: getattr(SHIPPED, name) for name in Thresholds.__slots__}
    rows = [BenchmarkText(benchmark, row, text) for row, text in enumerate(texts)]
    return build_index(rows, Thresholds(**{**limits, **changes}))


INDEX = index_of(BAKER, TRAIN, GARDEN, CODE, SHORT, TINY)


def found(*messages, index=INDEX):
    return [
        (o.found.row, o.criterion.value, round(o.share, 2)) for o in find_overlaps(index, messages)
    ]


@pytest.mark.parametrize("row", range(6))
def test_each_text_is_found_verbatim(row):
    text = INDEX.texts[row].text
    assert found(text, "An answer.") == [(row, "verbatim", 1.0)]


def test_a_text_inside_others_is_found():
    assert found("Solve this.", f"Sure. The task says: {TRAIN} Let us see.") == [
        (1, "verbatim", 1.0)
    ]


def test_case_punctuation_and_unicode_variants_make_no_difference():
    twisted = (
        GARDEN.upper().replace(" ", "\u00a0 ").replace("'", "\u2019").replace("12", "\uff11\uff12")
    )
    assert found(f"**{twisted.replace(',', ' --')}**") == [(2, "verbatim", 1.0)]


def test_other_numbers_and_names_are_an_edited_overlap():
    edited = BAKER.replace("Odile", "Maarten").replace("24", "1,350").replace("$3", "$4.75")
    edited = edited.replace(" 6 ", " 19 ").replace("she", "he")
    [(row, criterion, _)] = found(edited)
    assert (row, criterion) == (0, "edited")


def test_sentences_added_and_moved_are_an_edited_overlap_at_least():
    first, second, third = re.split(r"(?<=[.?]) ", GARDEN)
    moved = f"{second} It is a sunny day. {first} {third}"
    assert [hit[0] for hit in found(moved)] == [2]


def test_words_swapped_here_and_there_are_an_edited_overlap():
    words = TRAIN.split()
    for i in (4, 15, 26):
        words[i], words[i + 1] = words[i + 1], words[i]
    [(row, criterion, _)] = found(" ".join(words))
    assert (row, criterion) == (1, "edited")


def test_code_is_found_with_other_names_and_examples():
    edited = CODE.replace("[3.0, 1.0, 2.0, 5.0], 3", "[9.5, 8.0, 7.25], 2").replace(
        "List[float]", "list"
    )
    [(row, _, share)] = found("Complete this function.", edited)
    assert row == 3
    assert share > 0.7


def test_code_of_the_same_kind_is_not_found():
    other = '''def running_mean(numbers: List[float], size: int) -> List[float]:
    """ Return the mean of each group of size numbers.
    >>> running_mean([3.0, 1.0, 2.0], 2)
    """
'''
    assert found("Complete this function.", other) == []


def test_the_same_subject_in_other_words_is_not_found():
    assert (
        found("Ravi has a garden of 12 by 7 metres. He wants a hedge on three sides.", "31") == []
    )
    assert found("How many wagons does a goods train have?", "18") == []


def test_a_short_question_is_found_as_a_whole_only():
    assert found(f"Answer briefly. {SHORT}", "Jupiter.") == [(4, "verbatim", 1.0)]
    assert found("Which planet has the largest moon called Titan?", "Saturn.") == []


def test_a_tiny_question_is_found_only_where_it_is_the_whole_message():
    assert found("what is 2+2", "4") == [(5, "verbatim", 1.0)]
    assert found("What is 2 + 2 + 5?", "9") == []
    assert found("Explain what is 2 + 2 in modular arithmetic.", "It is 1 modulo 3.") == []


def test_ngrams_do_not_run_from_one_message_into_the_next():
    half = len(SHORT) // 2
    cut = SHORT.rindex(" ", 0, half)
    assert found(SHORT[:cut], SHORT[cut:]) == []
    assert found(SHORT[:cut] + "\n" + SHORT[cut:]) == [(4, "verbatim", 1.0)]


def test_thirteen_words_in_a_row_are_a_verbatim_overlap_and_twelve_are_not():
    words = TRAIN.split()
    assert found(" ".join(words[3:16])) == [(1, "verbatim", round(13 / len(split_words(TRAIN)), 2))]
    assert found(" ".join(words[3:15])) == []


def test_the_row_that_overlaps_most_stands_for_its_benchmark():
    index = index_of(GARDEN, GARDEN.replace("hedge", "fence"), BAKER)
    [overlap] = find_overlaps(index, [GARDEN.replace("hedge", "fence")])
    assert (overlap.found.row, overlap.rows, overlap.share) == (1, 2, 1.0)
    assert str(overlap) == "verbatim: 100% of quiz row 1"


def test_each_benchmark_is_reported_on_its_own():
    rows = [BenchmarkText("b", 7, BAKER), BenchmarkText("a", 3, TRAIN)]
    hits = find_overlaps(build_index(rows, SHIPPED), [f"{BAKER} {TRAIN}"])
    assert [(hit.found.benchmark, hit.found.row) for hit in hits] == [("a", 3), ("b", 7)]


def test_boilerplate_of_a_benchmark_is_no_overlap():
    stem = "The following question is about the passage that was printed on the page before it."
    subjects = ["tides", "moons", "wool", "copper", "ferns", "opera", "chess", "rivers"]
    subjects += ["glass", "bees", "clocks", "yeast"]
    index = index_of(*(f"{stem} What does it say of {subject}?" for subject in subjects))
    assert found(f"{stem} Write about kites.", index=index) == []
    assert found(f"{stem} What does it say of opera?", index=index)[0][:2] == (5, "verbatim")
    few = index_of(*(f"{stem} What does it say of {subject}?" for subject in subjects[:10]))
    assert len(found(f"{stem} Write about kites.", index=few)) == 1


def test_equal_rows_are_no_boilerplate():
    assert found(GARDEN, index=index_of(*[GARDEN] * 30)) == [(0, "verbatim", 1.0)]


def test_lists_of_numbers_are_no_overlap():
    index = index_of("Continue the list 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17")
    assert found("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18", index=index) == []


def test_rows_that_say_too_little_are_counted():
    index = index_of("???", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", BAKER, TINY, BAKER)
    assert dict(index.rows) == {"quiz": 5}
    assert dict(index.unchecked) == {"quiz": 2}


def test_a_row_in_several_forms_counts_once():
    rows = [BenchmarkText("quiz", 0, form) for form in ("???", BAKER, f"{BAKER} Say why.")]
    index = build_index(rows, SHIPPED)
    assert (dict(index.rows), dict(index.unchecked)) == ({"quiz": 1}, {})
    [overlap] = find_overlaps(index, [f"{BAKER} Say why."])
    assert overlap.rows == 1


def test_words_of_other_scripts_keep_their_marks_and_languages_without_spaces_are_compared():
    assert split_words("తెలుగు భాష, हिन्दी!") == ["తెలుగు", "భాష", "हिन्दी"]
    assert split_words("東京は2つ") == ["東", "京", "は", "2", "つ"]
    question = "日本で一番高い山の名前は何ですか"
    assert found(f"次の質問に答えてください。{question}", index=index_of(question)) == [
        (0, "verbatim", 1.0)
    ]
    question = "ఆంధ్రప్రదేశ్ రాష్ట్రంలో పొడవైన నది పేరు ఏమిటి"
    assert found(question, index=index_of(question)) == [(0, "verbatim", 1.0)]


def test_runs_of_numbers_are_read_as_one_word():
    assert mask_numbers(split_words("2 1/2 cups or 3,000 g, 7th try")) == [
        "#", "cups", "or", "#", "g", "#", "try",
    ]  # fmt: skip


def test_lm_evals_janitor_agrees_on_thirteen_words_in_a_row():
    """Its decontamination is the published procedure; words and rows here are made at random."""
    from lm_eval.decontamination.janitor import Janitor, word_ngrams

    rng = np.random.default_rng(0)
    vocabulary = np.array([f"w{chr(97 + i)}{chr(97 + j)}" for i in range(8) for j in range(8)])
    rows = [" ".join(rng.choice(vocabulary, 20)) for _ in range(30)]
    index = index_of(*rows, edited_share=1.0)
    janitor = Janitor()
    for row in rows:
        janitor.register_contaminant_python(row)
    agreed = Counter()
    for _ in range(200):
        words = rows[rng.integers(30)].split()
        start, length = rng.integers(0, 8), rng.integers(9, 18)
        record = [
            *rng.choice(vocabulary, 5),
            *words[start : start + length],
            *rng.choice(vocabulary, 5),
        ]
        text = " ".join(record)
        theirs = not janitor.dirt_ngrams.isdisjoint(word_ngrams(janitor.normalize_string(text), 13))
        assert bool(found(text, index=index)) == theirs
        agreed[theirs] += 1
    assert min(agreed.values()) > 50


def test_the_order_of_rows_and_benchmarks_changes_no_result():
    rows = [
        BenchmarkText(f"b{i % 2}", i, text) for i, text in enumerate((BAKER, TRAIN, GARDEN, CODE))
    ]
    records = [[BAKER, "x"], [f"{GARDEN} {TRAIN}"], [CODE], ["nothing"]]
    forward, backward = build_index(rows, SHIPPED), build_index(rows[::-1], SHIPPED)
    for messages in records:
        assert find_overlaps(forward, messages) == find_overlaps(backward, messages)


def test_a_record_without_words_and_an_index_without_texts_overlap_with_nothing():
    assert found("", "\n") == []
    assert found(BAKER, index=index_of()) == []


# Real rows: GSM8K's test set, edited by rule.

NAMES = ["Oksana", "Bartholomew", "Ingrid", "Tadeusz", "Nkechi", "Wolfgang", "Priyanka", "Esteban"]
ADDED = "Assume that nothing else happens in the meantime and that all prices include taxes."


def lines(name: str) -> list[dict]:
    with (DATA / name).open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def with_other_numbers_and_names(text: str, rng: random.Random, common: Counter) -> str:
    """Replace every number, and every capitalised word that never stands in lower case."""
    names: dict[str, str] = {}

    def rename(match: re.Match) -> str:
        word = match.group()
        return word if common[word.lower()] else names.setdefault(word, rng.choice(NAMES))

    renamed = re.sub(r"\b[A-Z][a-z]+\b", rename, text)
    return re.sub(r"\d+(?:[.,]\d+)*", lambda _: str(rng.randint(2, 999)), renamed)


def with_a_sentence_added(text: str, rng: random.Random) -> str:
    sentences = re.split(r"(?<=[.?!])\s+", text)
    sentences.insert(rng.randrange(len(sentences)), ADDED)
    return " ".join(sentences)


def with_words_swapped(text: str, rng: random.Random) -> str:
    """Exchange neighbours, once per ten words."""
    words = text.split()
    for _ in range(max(1, round(len(words) / 10))):
        i = rng.randrange(len(words) - 1)
        words[i], words[i + 1] = words[i + 1], words[i]
    return " ".join(words)


real = pytest.mark.skipif(DATA is None, reason="needs the real data beside the checkout")


@pytest.mark.slow
@real
def test_real_gsm8k_rows_planted_into_a_real_pool_are_found():
    questions = [row["question"] for row in lines("gsm8k_test.jsonl")]
    index = index_of(*questions, benchmark="gsm8k")
    common = Counter(word for text in questions for word in re.findall(r"\b[a-z]+\b", text))
    rng = random.Random(0)
    edits = {
        "verbatim": lambda text: text,
        "other numbers and names": lambda text: with_other_numbers_and_names(text, rng, common),
        "a sentence added": lambda text: with_a_sentence_added(text, rng),
        "words swapped": lambda text: with_words_swapped(text, rng),
    }
    recall = {}
    for kind, edit in edits.items():
        hits = [find_overlaps(index, [edit(question), "#### 7"]) for question in questions]
        right = [bool(hit) and hit[0].found.row == row for row, hit in enumerate(hits)]
        recall[kind] = sum(right) / len(questions)
        print(f"{kind}: {sum(right)} of {len(right)} found ({recall[kind]:.1%})")
    unrelated = [*messages_in("alpaca_en_demo.json"), *messages_in("code_alpaca_2k.json")]
    unrelated = random.Random(0).sample(unrelated, 1000)
    false = [messages for messages in unrelated if find_overlaps(index, messages)]
    print(f"of {len(unrelated):,} unrelated records {len(false)} overlap")
    assert recall["verbatim"] == 1.0
    assert recall["other numbers and names"] > 0.95
    assert recall["a sentence added"] > 0.99
    assert recall["words swapped"] > 0.9
    assert false == []


def messages_in(name: str) -> list[list[str]]:
    text = (DATA / name).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()] if name[-1] == "l" else json.loads(text)
    keys = ("question", "instruction", "input", "answer", "output", "response")
    return [[row[key] for key in keys if row.get(key)] for row in rows]


@pytest.mark.slow
@real
def test_real_pools_overlap_with_real_benchmarks_only_where_they_are_near_duplicates():
    """Read by eye: in GSM8K's two splits 7 records are the same problem with other numbers, and 2 only
    alike; one prompt of Alpaca is a question of MMLU ("How does the greenhouse effect work?").
    """
    texts = [
        replace(text, benchmark=re.split(r"[_/]", name)[0])
        for name in ("gsm8k_test.jsonl", "humaneval_test.jsonl", "mmlu/test.jsonl")
        for text in read_texts(Benchmark(name, name, None), min_words=8, workspace=DATA)
    ]
    index = build_index(texts, SHIPPED)
    print(f"{len(index.texts):,} texts, of which say too little: {dict(index.unchecked)}")
    counts = {}
    pools = ("gsm8k_train.jsonl", "code_alpaca_2k.json", "new_codealpaca.json",
             "alpaca_en_demo.json", "cherry_alpaca_5_percent.json")  # fmt: skip
    for name in pools:
        records = messages_in(name)
        start = time.perf_counter()
        hits = [hit for messages in records for hit in find_overlaps(index, messages)]
        seconds = time.perf_counter() - start
        counts[name] = Counter(f"{hit.found.benchmark} {hit.criterion}" for hit in hits)
        print(
            f"{name}: {len(records):,} records, {len(records) / seconds:,.0f} per second: ", end=""
        )
        print(dict(counts[name]), *(f"\n  {hit}" for hit in hits))
    assert counts.pop("gsm8k_train.jsonl") == {"gsm8k verbatim": 4, "gsm8k edited": 5}
    assert counts.pop("cherry_alpaca_5_percent.json") == {"mmlu verbatim": 1}
    assert not any(counts.values())
