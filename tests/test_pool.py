"""The pool: where every record goes, that nothing is lost, and that it reads back as written."""

import json
import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lead_core.chat import encode
from lead_core.decontamination import BenchmarkText, Thresholds, build_index
from lead_core.dirt import Kind
from lead_core.errors import LeadError
from lead_core.params import SourceParams
from lead_core.pool import open_heldout, open_pool
from lead_core.preparation import PoolCounts, prepare_pool, record_id, summarise
from lead_core.storage import json_text, read_json, sha256_file


def pair(prompt, response):
    return {"prompt": prompt, "response": response}


def pairs(n, start=0):
    return [pair(f"What is {i}?", f"It is {i}.") for i in range(start, start + n)]


def write(path, rows):
    path.write_text(
        "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    )


def prepared(folder, tokenizer, files, **changes):
    """Write {name: rows} and prepare them; `limits` are per file, the rest is `prepare`'s."""
    limits = changes.pop("limits", {})
    folder.mkdir(exist_ok=True)
    for name, rows in files.items():
        write(folder / f"{name}.jsonl", rows)
    sources = [
        SourceParams(uri=f"{name}.jsonl", name=None, limit=limits.get(name), local=None)
        for name in files
    ]
    lock = {
        "schema": 1,
        "model": {"sha256": "m" * 64},
        "sources": [{"uri": s.uri} for s in sources],
    }
    arguments = {
        "limit": None,
        "max_tokens": 200,
        "heldout_per_source": 0,
        "benchmarks": None,
        "remove_contaminated": True,
        "dirt": None,
        "seed": 0,
        "tokenizer": tokenizer,
        "lock": lock,
        "workspace": folder,
        "out": folder / "pool",
    }
    return prepare_pool(sources=sources, **{**arguments, **changes})


def rejected(folder):
    return [json.loads(line) for line in (folder / "pool/rejected.jsonl").read_text().splitlines()]


def ids_of(folder):
    return set(open_pool(folder / "pool").ids)


def test_every_record_is_kept_held_out_rejected_or_not_sampled(tmp_path, tiny_tokenizer):
    a = [
        *pairs(20),
        "{broken\n",
        pair("x", ""),
        pair("What is 3?", "It is 3."),
        pair("long", "x" * 500),
    ]
    b = [*pairs(5, start=100), {"text": "no form"}]
    counts = prepared(
        tmp_path, tiny_tokenizer, {"a": a, "b": b}, limits={"a": 10}, heldout_per_source=2
    )
    assert counts.read == 30
    assert counts.kept + counts.heldout + counts.rejected + counts.not_sampled == 30
    assert counts.by_source["b"] == {
        "read": 6, "kept": 3, "heldout": 2, "rejected": 1, "not_sampled": 0
    }  # fmt: skip
    assert (counts.by_source["a"]["kept"], counts.by_source["a"]["heldout"]) == (8, 2)
    assert counts.by_source["a"]["read"] == 24
    assert len(rejected(tmp_path)) == counts.rejected
    assert len(open_pool(tmp_path / "pool")) == counts.kept
    assert len(open_heldout(tmp_path / "pool")) == counts.heldout
    reasons = Counter(row["reason"] for row in rejected(tmp_path))
    assert reasons == counts.rejected_by_reason


def test_a_duplicate_is_rejected_with_the_line_of_the_first(tmp_path, tiny_tokenizer):
    twin = {"messages": [{"role": "user", "content": "What is 1?"},
                         {"role": "assistant", "content": "It is 1."}]}  # fmt: skip
    prepared(tmp_path, tiny_tokenizer, {"a": pairs(3), "b": [*pairs(2, start=7), "\n", twin]})
    assert rejected(tmp_path) == [
        {
            "file": "b.jsonl",
            "line": 4,
            "index": 2,
            "source": "b",
            "reason": "duplicate",
            "detail": "the same as a.jsonl:2",
            "record": twin,
        }
    ]


QUIZ = [
    "Which river, of all those that reach the northern sea, is crossed by the oldest iron bridge?",
    "How many lamps does the keeper of the long pier light on the shortest day of the year?",
]


def quiz_index():
    limits = Thresholds(
        ngram_words=13, min_words=8, edited_ngram_words=5, edited_share=0.6, boilerplate_rows=10
    )
    return build_index([BenchmarkText("quiz", i, text) for i, text in enumerate(QUIZ)], limits)


def with_quiz(records):
    """Plant a copy of the one question and an edited copy of the other into `records`."""
    edited = QUIZ[1].replace("keeper", "guard").replace("shortest", "darkest")
    return [records[0], pair(QUIZ[0], "The Elbe."), *records[1:], pair("Say.", f"Well: {edited}")]


def test_records_that_overlap_with_a_benchmark_are_rejected_and_listed_with_both_texts(
    tmp_path, tiny_tokenizer
):
    counts = prepared(
        tmp_path,
        tiny_tokenizer,
        {"a": with_quiz(pairs(6))},
        benchmarks=quiz_index(),
        max_tokens=400,
    )
    assert (counts.read, counts.kept, counts.rejected) == (8, 6, 2)
    assert [(row["line"], row["reason"], row["detail"]) for row in rejected(tmp_path)] == [
        (2, "contaminated", "verbatim: 100% of quiz row 0"),
        (8, "contaminated", "edited: 67% of quiz row 1"),
    ]
    listed = [json.loads(x) for x in (tmp_path / "pool/contamination.jsonl").open()]
    assert listed[0] == {
        "id": record_id(pair_messages(QUIZ[0], "The Elbe.")),
        "file": "a.jsonl",
        "line": 2,
        "index": 1,
        "source": "a",
        "removed": True,
        "benchmark": "quiz",
        "row": 0,
        "rows": 1,
        "criterion": "verbatim",
        "share": 1.0,
        "benchmark_text": QUIZ[0],
        "text": f"{QUIZ[0]}\n\nThe Elbe.",
    }
    assert [(row["row"], row["criterion"]) for row in listed] == [(0, "verbatim"), (1, "edited")]
    manifest = read_json(tmp_path / "pool/manifest.json", made_by="the test")
    assert manifest["counts"]["rejected_by_reason"] == {"contaminated": 2}
    assert "contaminated" not in manifest["counts"]


def test_a_limit_is_filled_with_clean_records_and_held_out_ones_are_clean(tmp_path, tiny_tokenizer):
    for number, options in enumerate(({}, {"limit": 6}, {"limits": {"a": 6}})):
        folder = tmp_path / str(number)
        counts = prepared(
            folder,
            tiny_tokenizer,
            {"a": with_quiz(pairs(6))},
            benchmarks=quiz_index(),
            max_tokens=400,
            heldout_per_source=2,
            **options,
        )
        assert (counts.kept, counts.heldout, counts.rejected, counts.not_sampled) == (4, 2, 2, 0)
        assert ids_of(folder) == ids_of(tmp_path / "0")


def test_overlaps_can_be_listed_and_kept(tmp_path, tiny_tokenizer):
    files = {"a": with_quiz(pairs(6))}
    counts = prepared(
        tmp_path,
        tiny_tokenizer,
        files,
        benchmarks=quiz_index(),
        remove_contaminated=False,
        max_tokens=400,
    )
    assert (counts.kept, counts.rejected, len(counts.contaminated)) == (8, 0, 2)
    listed = [json.loads(x) for x in (tmp_path / "pool/contamination.jsonl").open()]
    assert [row["removed"] for row in listed] == [False, False]


def test_a_copy_of_an_overlapping_record_is_a_duplicate_of_it(tmp_path, tiny_tokenizer):
    twice = [pair(QUIZ[0], "The Elbe.")] * 2
    prepared(tmp_path, tiny_tokenizer, {"a": [*twice, *pairs(2)]}, benchmarks=quiz_index())
    assert [row["reason"] for row in rejected(tmp_path)] == ["contaminated", "duplicate"]


def test_a_check_without_hits_leaves_the_pool_folder_as_it_is_without_one(tmp_path, tiny_tokenizer):
    """So one more benchmark to evaluate does not make scores and training stale."""
    lock = {"model": {"sha256": "m"}, "sources": [{"uri": "a.jsonl"}]}
    prepared(
        tmp_path / "0",
        tiny_tokenizer,
        {"a": pairs(9)},
        lock={**lock, "benchmarks": [], "evaluation": []},
    )
    prepared(
        tmp_path / "1",
        tiny_tokenizer,
        {"a": pairs(9)},
        lock={
            **lock,
            "benchmarks": [{"uri": "quiz.jsonl"}],
            "evaluation": [{"path": "quiz.jsonl"}],
        },
        benchmarks=quiz_index(),
    )
    one, other = (
        {path.name: sha256_file(path) for path in (tmp_path / name / "pool").iterdir()}
        for name in ("0", "1")
    )
    assert one == other
    assert "contamination.jsonl" not in one


def test_faults_planted_on_purpose_come_after_the_check(tmp_path, tiny_tokenizer):
    records = [pair(f"What is {i}?", f"Because of {QUIZ[0] if i < 8 else i}") for i in range(40)]
    counts = prepared(
        tmp_path,
        tiny_tokenizer,
        {"a": records},
        benchmarks=quiz_index(),
        max_tokens=400,
        dirt={Kind.EXCHANGED: 0.2, Kind.NEAR_DUPLICATE: 0.1},
    )
    assert counts.rejected_by_reason == {"contaminated": 8}
    pool = open_pool(tmp_path / "pool")
    assert not any(QUIZ[0] in m["content"] for i in range(len(pool)) for m in pool.messages(i))


def test_a_pool_of_nothing_but_benchmark_rows_says_so(tmp_path, tiny_tokenizer):
    with pytest.raises(LeadError, match=r"^no record is left for the pool \(contaminated 2\); "):
        prepared(
            tmp_path,
            tiny_tokenizer,
            {"a": [pair(question, "7") for question in QUIZ]},
            benchmarks=quiz_index(),
        )


def test_a_record_that_is_too_long_is_rejected_with_its_length(tmp_path, tiny_tokenizer):
    prepared(tmp_path, tiny_tokenizer, {"a": [*pairs(2), pair("a", "b" * 300)]}, max_tokens=100)
    [row] = rejected(tmp_path)
    length = len(encode(tiny_tokenizer, pair_messages("a", "b" * 300)).input_ids)
    assert row["reason"] == "too_long"
    assert row["detail"] == f"{length} tokens, data.max_tokens is 100"
    assert row["record"] == pair("a", "b" * 300)


def pair_messages(prompt, response):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def test_a_record_of_just_the_longest_length_is_kept(tmp_path, tiny_tokenizer):
    length = len(encode(tiny_tokenizer, pair_messages("a", "b" * 50)).input_ids)
    files = {"a": [*pairs(1), pair("a", "b" * 50)]}
    assert prepared(tmp_path, tiny_tokenizer, files, max_tokens=length).kept == 2
    assert prepared(tmp_path, tiny_tokenizer, files, max_tokens=length - 1).kept == 1


def test_a_template_that_refuses_a_record_is_a_reason(tmp_path, tiny_tokenizer):
    import copy

    strict = copy.deepcopy(tiny_tokenizer)
    strict.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + tiny_tokenizer.chat_template
    )
    files = {"a": [*pairs(2), {"system": "Be brief.", **pair("a", "b")}]}
    prepared(tmp_path, strict, files)
    [row] = rejected(tmp_path)
    assert row["reason"] == "template"
    assert row["detail"].startswith("the chat template refuses it: no system")


def test_rejected_records_survive_whatever_they_hold(tmp_path, tiny_tokenizer):
    odd = ['{"text": "\\ud800", "score": NaN, "more": [Infinity]}\n', '{"a": "\udcff"}\n']
    (tmp_path / "odd.jsonl").write_bytes("".join(odd).encode("utf-8", "surrogateescape"))
    write(tmp_path / "good.jsonl", pairs(2))
    uris = ["odd.jsonl", "good.jsonl"]
    sources = [SourceParams(uri="*.jsonl", name=None, limit=None, local=None)]
    counts = prepare_pool(
        sources=sources,
        limit=None,
        max_tokens=200,
        heldout_per_source=0,
        benchmarks=None,
        remove_contaminated=True,
        dirt=None,
        seed=0,
        tokenizer=tiny_tokenizer,
        lock={"model": {"sha256": "m"}, "sources": [{}]},
        workspace=tmp_path,
        out=tmp_path / "pool",
    )
    assert sorted(counts.by_source) == sorted(uri.removesuffix(".jsonl") for uri in uris)
    assert [row["record"] for row in rejected(tmp_path)] == [
        {"text": "\ud800", "score": "nan", "more": ["inf"]},
        {"a": "\udcff"},
    ]


def test_a_bigger_limit_keeps_what_a_smaller_one_kept(tmp_path, tiny_tokenizer):
    rng = random.Random(0)
    rows = [pair(f"Q{i}", "x" * rng.randrange(1, 300)) for i in range(60)]
    kept = []
    for limit in (1, 7, 30, None):
        counts = prepared(tmp_path, tiny_tokenizer, {"a": rows}, limit=limit)
        assert counts.kept == min(limit or 60, 60 - counts.rejected)
        kept.append(ids_of(tmp_path))
    assert kept[0] < kept[1] < kept[2] < kept[3]
    counts = prepared(tmp_path, tiny_tokenizer, {"a": rows}, limit=7, seed=1)
    assert ids_of(tmp_path) != kept[1]


def test_the_limit_is_filled_although_some_records_are_too_long(tmp_path, tiny_tokenizer):
    rows = [pair(f"Q{i}", "x" * (500 if i % 2 else 1)) for i in range(40)]
    counts = prepared(tmp_path, tiny_tokenizer, {"a": rows}, limit=10)
    assert counts.kept == 10
    assert 0 < counts.rejected < 20
    assert counts.not_sampled == 30 - counts.rejected


def test_a_limit_of_a_source_is_its_own(tmp_path, tiny_tokenizer):
    files = {"a": pairs(10), "b": pairs(10, start=50)}
    counts = prepared(tmp_path, tiny_tokenizer, files, limits={"b": 3}, limit=8)
    assert counts.kept == 8
    assert counts.by_source["b"]["kept"] <= 3
    assert counts.not_sampled == 12


def test_held_out_records_are_not_in_the_pool_and_stay_when_the_order_changes(
    tmp_path, tiny_tokenizer
):
    files = {"a": pairs(20), "b": pairs(20, start=50)}
    prepared(tmp_path, tiny_tokenizer, files, heldout_per_source=5)
    heldout = open_heldout(tmp_path / "pool")
    assert Counter(heldout.sources) == {"a": 5, "b": 5}
    assert not set(heldout.ids) & ids_of(tmp_path)
    again = {"b": files["b"][::-1], "a": files["a"][::-1]}
    prepared(tmp_path, tiny_tokenizer, again, heldout_per_source=5)
    assert list(open_heldout(tmp_path / "pool").ids) == list(heldout.ids)


def test_no_more_than_half_of_a_source_is_held_out_and_the_summary_says_so(
    tmp_path, tiny_tokenizer
):
    counts = prepared(tmp_path, tiny_tokenizer, {"a": pairs(7)}, heldout_per_source=16)
    assert (counts.kept, counts.heldout) == (4, 3)
    assert counts.notes == (
        "a: 3 records held out, not 16: at most half of its 7, equal prompts on one side",
    )


def test_records_with_the_same_prompt_stay_on_one_side(tmp_path, tiny_tokenizer):
    files = {name: [pair(f"Q{i % 9}", f"{name} {i}") for i in range(36)] for name in ("a", "b")}
    counts = prepared(tmp_path, tiny_tokenizer, files, heldout_per_source=10)
    sides = [
        {part.messages(i)[0]["content"] for i in range(len(part))}
        for part in (open_pool(tmp_path / "pool"), open_heldout(tmp_path / "pool"))
    ]
    assert not sides[0] & sides[1]
    assert 0 < counts.heldout <= 20


def test_equal_work_gives_equal_bytes(tmp_path, tiny_tokenizer):
    hashes = []
    for _ in range(2):
        prepared(tmp_path, tiny_tokenizer, {"a": [*pairs(2500), "bad\n"]}, heldout_per_source=9)
        hashes.append([sha256_file(path) for path in sorted((tmp_path / "pool").iterdir())])
    assert hashes[0] == hashes[1]


def test_the_manifest_names_what_the_pool_was_made_from(tmp_path, tiny_tokenizer):
    counts = prepared(tmp_path, tiny_tokenizer, {"a": pairs(10)}, heldout_per_source=2)
    manifest = read_json(tmp_path / "pool/manifest.json", made_by="prepare")
    assert manifest["model_sha256"] == "m" * 64
    assert manifest["pool_sha256"] == sha256_file(tmp_path / "pool/pool.arrow")
    assert manifest["heldout_sha256"] == sha256_file(tmp_path / "pool/heldout.arrow")
    assert manifest["counts"]["by_source"] == counts.by_source
    assert {manifest["counts"][k] for k in ("read", "kept", "heldout")} == {10, 8, 2}
    pool = open_pool(tmp_path / "pool")
    assert manifest["tokens"]["pool"] == pool.lengths.sum()
    assert manifest["tokens"]["pool_response"] == pool.response_lengths.sum()
    lock = {"schema": 1, "model": {"sha256": "m" * 64}, "sources": [{"uri": "a.jsonl"}]}
    (tmp_path / "lock.json").write_text(json_text(lock))
    assert manifest["sources_lock_sha256"] == sha256_file(tmp_path / "lock.json")


def test_an_opened_pool_holds_what_was_encoded(tmp_path, tiny_tokenizer):
    prepared(tmp_path, tiny_tokenizer, {"a": pairs(2300)}, max_tokens=500)
    pool = open_pool(tmp_path / "pool", verify=True)
    assert list(pool.ids) == sorted(pool.ids)
    assert len(pool.ids[0]) == 16
    assert pool.lengths.dtype == pool.response_starts.dtype == np.int32
    chosen = [2299, 0, 1000, 999, 1000, 1777]
    for index, got in zip(chosen, pool.encoded(np.array(chosen)), strict=True):
        expected = encode(tiny_tokenizer, pool.messages(index))
        assert got.input_ids.tolist() == expected.input_ids
        assert got.input_ids.dtype == np.int32
        assert (got.response_start, got.prompt_start) == (
            expected.response_start,
            expected.prompt_start,
        )
        assert pool.lengths[index] == len(expected.input_ids)
        assert pool.response_lengths[index] == len(expected.input_ids) - expected.response_start
    with pytest.raises(IndexError):
        pool.encoded([-1])
    ids = pool.texts("id")
    assert len(ids) == len(pool) == 2300
    assert ids[np.array(chosen)].tolist() == [pool.ids[index] for index in chosen]
    assert ids[np.array([], dtype=np.int64)].tolist() == []
    assert list(ids) == pool.ids.tolist()


def test_tokens_are_views_into_the_mapped_file(tmp_path, tiny_tokenizer):
    prepared(tmp_path, tiny_tokenizer, {"a": pairs(10)})
    pool = open_pool(tmp_path / "pool")
    before = pa.total_allocated_bytes()
    records = pool.encoded(range(10))
    assert pa.total_allocated_bytes() == before
    assert all(not record.input_ids.flags.owndata for record in records)


def test_a_changed_damaged_or_missing_pool_says_to_prepare_again(tmp_path, tiny_tokenizer):
    with pytest.raises(LeadError, match=r"pool\.arrow is not there; run `dvc repro prepare` first"):
        open_pool(tmp_path / "pool")
    prepared(tmp_path, tiny_tokenizer, {"a": pairs(10)}, heldout_per_source=2)
    path = tmp_path / "pool/pool.arrow"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"It is", b"It if"))
    open_pool(tmp_path / "pool")
    with pytest.raises(
        LeadError, match="changed since it was prepared; run `dvc repro prepare --force`"
    ):
        open_pool(tmp_path / "pool", verify=True)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(LeadError, match=r"is damaged \(.*\); run `dvc repro prepare --force`"):
        open_pool(tmp_path / "pool")


def test_an_empty_held_out_set_opens(tmp_path, tiny_tokenizer):
    prepared(tmp_path, tiny_tokenizer, {"a": pairs(3)})
    heldout = open_heldout(tmp_path / "pool", verify=True)
    assert len(heldout) == 0
    assert heldout.encoded([]) == []
    assert heldout.lengths.shape == (0,)


def test_a_source_without_one_usable_record_is_an_error_that_shows_the_first(
    tmp_path, tiny_tokenizer
):
    with pytest.raises(LeadError) as error:
        prepared(tmp_path, tiny_tokenizer, {"a": pairs(3), "b": ["{\n", {"text": "x"}]})
    assert str(error.value).startswith(
        "b.jsonl: none of its 2 records can be used; the first, b.jsonl:1: bad_json: not JSON: "
    )
    assert not (tmp_path / "pool").exists()


def test_a_source_of_duplicates_is_no_error(tmp_path, tiny_tokenizer):
    counts = prepared(tmp_path, tiny_tokenizer, {"a": pairs(3), "b": pairs(3)})
    assert counts.by_source["b"]["rejected"] == 3


def test_nothing_short_enough_is_an_error_with_the_counts(tmp_path, tiny_tokenizer):
    with pytest.raises(
        LeadError, match=r"no record is left .*\(too_long 3\); raise data\.max_tokens \(now 8\)"
    ):
        prepared(tmp_path, tiny_tokenizer, {"a": pairs(3)}, max_tokens=8)


def test_a_failure_leaves_the_earlier_pool_as_it_was(tmp_path, tiny_tokenizer):
    prepared(tmp_path, tiny_tokenizer, {"a": pairs(3)})
    before = sha256_file(tmp_path / "pool/pool.arrow")
    with pytest.raises(LeadError):
        prepared(tmp_path, tiny_tokenizer, {"a": pairs(5)}, max_tokens=8)
    assert sha256_file(tmp_path / "pool/pool.arrow") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "pool"]


def test_a_file_cut_off_is_noted_in_the_summary(tmp_path, tiny_tokenizer):
    (tmp_path / "a.jsonl").write_text(json.dumps(pairs(6))[:-30])
    source = SourceParams(uri="a.jsonl", name=None, limit=None, local=None)
    counts = prepare_pool(
        sources=[source],
        limit=None,
        max_tokens=200,
        heldout_per_source=0,
        benchmarks=None,
        remove_contaminated=True,
        dirt=None,
        seed=0,
        tokenizer=tiny_tokenizer,
        lock={"model": {"sha256": "m"}, "sources": [{}]},
        workspace=tmp_path,
        out=tmp_path / "pool",
    )
    assert (counts.kept, counts.rejected) == (5, 1)
    assert "note: a.jsonl:1: the file ends inside this element; nothing after" in summarise(counts)


def test_the_summary_is_a_short_table():
    counts = PoolCounts(
        read=1234,
        kept=1000,
        heldout=32,
        rejected=12,
        not_sampled=190,
        by_source={
            "code": {"read": 34, "kept": 10, "heldout": 16, "rejected": 8, "not_sampled": 0},
            "maths": {"read": 1200, "kept": 990, "heldout": 16, "rejected": 4, "not_sampled": 190},
        },
        rejected_by_reason={"duplicate": 2, "too_long": 10},
        tokens={"pool": 99000, "pool_response": 50000, "heldout": 900, "heldout_response": 400},
        notes=("a note",),
    )
    assert summarise(counts).splitlines() == [
        "1,234 records read: 1,000 in the pool (99,000 tokens), 32 held out, 12 rejected, "
        "190 beyond the limit",
        "rejected: too_long 10, duplicate 2",
        "source      read     pool held out rejected",
        "code          34       10       16        8",
        "maths      1,200      990       16        4",
        "note: a note",
    ]


rows = st.lists(
    st.one_of(
        st.builds(pair, st.sampled_from("abc"), st.sampled_from(["", "x", "y", "z" * 300])),
        st.sampled_from(["{broken\n", "[1]\n", {"text": "a"}, {"prompt": 1, "response": "b"}]),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(
    a=rows,
    b=rows,
    limit=st.none() | st.integers(1, 12),
    own=st.none() | st.integers(1, 6),
    heldout=st.integers(0, 4),
    seed=st.integers(0, 3),
)
def test_nothing_is_ever_lost(tmp_path_factory, tiny_tokenizer, a, b, limit, own, heldout, seed):
    folder = tmp_path_factory.mktemp("pool")
    good = [pair("good", "one")]
    files = {"a": [*a, *good], "b": [*b, pair("good", "two")]}
    counts = prepared(
        folder,
        tiny_tokenizer,
        files,
        limit=limit,
        limits={"a": own},
        heldout_per_source=heldout,
        seed=seed,
    )
    assert counts.read == len(a) + len(b) + 2
    for part in (vars(counts), *counts.by_source.values()):
        assert part["read"] == sum(part[k] for k in ("kept", "heldout", "rejected", "not_sampled"))
        assert part["heldout"] <= part["kept"]
    assert len(rejected(folder)) == counts.rejected == sum(counts.rejected_by_reason.values())
    assert counts.kept + counts.heldout <= (limit or 99)
    assert counts.by_source["a"]["kept"] + counts.by_source["a"]["heldout"] <= (own or 99)
    assert all(part["heldout"] <= heldout for part in counts.by_source.values())
    assert len(ids_of(folder) & set(open_heldout(folder / "pool").ids)) == 0
